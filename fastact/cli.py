"""The ``fastact`` command: train, sample, info, bench.

Exit codes: 0 done; 1 the work failed, with one message on stderr that says why; 2 wrong usage; 130 interrupted, with a
checkpoint left behind where there was something to keep. FASTACT_TRACEBACK=1 shows where in the code a failure arose.
"""

from __future__ import annotations

import copy
import difflib
import json
import math
import os
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import fastact
from fastact import _analysis, io, optim
from fastact._files import write_atomically
from fastact.errors import FastactError, NonFiniteError
from fastact.training.interrupts import InterruptGuard
from fastact.training.language_model import LanguageModel, Settings, TextTraining, read_checkpoint
from fastact.training.text import Corpus, find_files, read_text, standard_library
from fastact.training.trainer import Trainer

INTERRUPTED = 130
DEFAULT_OUT = Path("fastact-model")
MODEL, CHECKPOINT, HISTORY, CURVE = "model.safetensors", "checkpoint.safetensors", "history.json", "loss.png"
CHECKPOINT_SECONDS = 30.0


class Program(click.Group):
    """The command group; turns the library's errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:  # the reader of our output has gone: click ends quietly
            raise
        except (FastactError, OSError, ValueError, ArithmeticError, MemoryError) as error:
            if os.environ.get("FASTACT_TRACEBACK"):
                raise
            raise click.ClickException(_in_words(error)) from error


def _in_words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    if isinstance(error, MemoryError):
        return "out of memory; a smaller --hidden, --batch-size or --window needs less"
    return str(error)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(fastact.__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Fast activations, LSTMs and small networks on the CPU."""


# -- train ------------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--steps", type=int, default=Settings.steps, show_default=True, help="Updates to make.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_OUT, show_default=True,
    help="Folder for the results.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with the interrupted run in the folder of results.")
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run.")
@click.option("--hidden", type=int, default=Settings.hidden, show_default=True, help="Units of an LSTM layer.")
@click.option("--layers", type=int, default=Settings.layers, show_default=True, help="LSTM layers.")
@click.option("--embedding", type=int, default=Settings.embedding, show_default=True, help="Width of the embedding.")
@click.option("--vocabulary", type=int, default=Settings.vocabulary, show_default=True,
              help="Most frequent characters that are told apart.")  # fmt: skip
@click.option("--batch-size", type=int, default=Settings.batch_size, show_default=True, help="Rows of a batch.")
@click.option("--window", type=int, default=Settings.window, show_default=True, help="Characters between two updates.")
@click.option("--learning-rate", type=float, default=Settings.learning_rate, show_default=True,
              help="At the start; it falls linearly to zero.")  # fmt: skip
@click.option("--clip-norm", type=float, default=Settings.clip_norm, show_default=True,
              help="Largest norm of the gradient.")  # fmt: skip
@click.option("--seed", type=int, default=Settings.seed, show_default=True, help="The same seed gives the same model.")
@click.option("--threads", type=int, default=None, help="Most threads to use.  [default: all cores]")
@click.option("--encoding", default="utf-8", show_default=True, help="Of the text files.")
@click.option("--errors", type=click.Choice(["strict", "replace", "ignore"]), default="strict", show_default=True,
              help="What to do with bytes that are no text.")  # fmt: skip
@click.option("--sample-length", type=click.IntRange(0), default=240, show_default=True,
              help="Characters of the samples on the way; 0 for none.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Print the final figures only.")
@click.pass_context
def train(
    ctx: click.Context,
    paths: tuple[Path, ...],
    steps: int,
    out: Path,
    resume: bool,
    overwrite: bool,
    threads: int | None,
    encoding: str,
    errors: str,
    sample_length: int,
    quiet: bool,
    **_settings: Any,
) -> None:
    """Train an LSTM language model on text, character by character.

    PATHS are text files and folders of them. Without any, the sources of Python's own standard library are the text
    (its tests left out). Every 20th file is held out and tells how well the model does on text that it has not seen;
    with fewer files it is the last twentieth of each.

    The folder of results gets the model, the history of the run and a picture of its losses. Ctrl-C leaves a
    checkpoint there, from which --resume goes on to the same model, bit for bit, as an unbroken run. Results of an
    earlier run are never replaced without --overwrite.
    """
    given = {
        option.name: ctx.params[option.name]
        for option in ctx.command.params
        if option.name and ctx.get_parameter_source(option.name) is click.core.ParameterSource.COMMANDLINE
    }
    with nullcontext() if threads is None else fastact.num_threads(threads):
        if resume:
            training = _resumed(out, paths, given)
        else:
            _keep_earlier_results(out, overwrite)
            names = [field.name for field in fields(Settings)]
            settings = Settings(**{name: ctx.params[name] for name in names})
            sources = {"paths": [str(path.absolute()) for path in paths], "encoding": encoding, "errors": errors}
            training = TextTraining(_corpus(sources, settings, quiet), settings, sources)
        out.mkdir(parents=True, exist_ok=True)
        report = Report(training, out, sample_length, quiet)
        report.opening()
        if not _run(training, out, report):
            ctx.exit(INTERRUPTED)
        _finish(training, out, report)


def _keep_earlier_results(out: Path, overwrite: bool) -> None:
    """Refuse a folder that holds results, unless they may go."""
    if overwrite:
        return
    if (out / CHECKPOINT).exists():
        raise click.UsageError(
            f"{out} holds an interrupted run: go on with it by --resume, give another folder by --out, or replace it "
            "by --overwrite"
        )
    if (out / MODEL).exists():
        raise click.UsageError(
            f"{out} holds a trained model: give another folder by --out, or replace it by --overwrite"
        )


def _corpus(sources: dict[str, Any], settings: Settings, quiet: bool) -> Corpus:
    """Read the text that ``sources`` name: paths, encoding, errors; no paths mean the standard library."""
    if sources["paths"]:
        files, errors = find_files(sources["paths"]), sources["errors"]
        what = sources["paths"][0] if len(sources["paths"]) == 1 else f"{len(sources['paths'])} paths"
    else:
        files, errors, what = standard_library(), "replace", "Python's standard library"
    corpus = Corpus.of([read_text(file, sources["encoding"], errors) for file in files], settings.vocabulary)
    if not quiet:
        _say(
            "text",
            f"{what}: {len(files):,} file{'s' * (len(files) != 1)}, {len(corpus.train):,} characters to learn from, "
            f"{len(corpus.held_out):,} held out",
        )
    return corpus


RESUMABLE = {"steps", "learning_rate", "clip_norm", "paths", "out", "resume", "threads", "sample_length", "quiet"}


def _resumed(out: Path, paths: tuple[Path, ...], given: dict[str, Any]) -> TextTraining:
    """The interrupted run in ``out``; ``given`` are the options on the command line."""
    checkpoint = out / CHECKPOINT
    if not checkpoint.exists():
        there = "it holds a finished one" if (out / MODEL).exists() else "begin one without --resume"
        raise FileNotFoundError(f"{out}: expected an interrupted run to resume ({CHECKPOINT}), found none; {there}")
    facts = read_checkpoint(checkpoint)
    kept = Settings(**facts["settings"])
    fixed = {name: value for name, value in given.items() if name not in RESUMABLE}
    known = {**asdict(kept), **facts["sources"]}
    for name, value in fixed.items():
        if known.get(name) != value:
            raise click.UsageError(
                f"--{name.replace('_', '-')} cannot change in a resumed run: it has {known.get(name, 'no such option')}"
            )
    settings = replace(kept, **{name: given[name] for name in ("steps", "learning_rate", "clip_norm") if name in given})
    sources = dict(facts["sources"])
    if paths:
        sources["paths"] = [str(path.absolute()) for path in paths]
    training = TextTraining(_corpus(sources, settings, "quiet" in given), settings, sources)
    training.restore(checkpoint)
    if settings != kept:
        changes = [f"{k} {getattr(kept, k)} -> {v}" for k, v in asdict(settings).items() if v != getattr(kept, k)]
        click.echo(f"note: {', '.join(changes)}: the result will not be that of an unbroken run", err=True)
    return training


def evaluation_interval(steps: int) -> int:
    """Steps between two looks at held-out text: 40 in a run, but none of fewer than 10 steps."""
    return max(10, -(-steps // 40))


def _run(training: TextTraining, out: Path, report: Report) -> bool:
    """Make the steps that are left; False if Ctrl-C (or SIGTERM) cut it short, with a checkpoint written."""
    every = evaluation_interval(training.settings.steps)
    saved = time.monotonic()
    with InterruptGuard() as guard, _sigterm_too(guard), report.bar():
        busy, since = 0.0, training.step
        while not training.done:
            begin = time.perf_counter()
            try:
                training.advance()
            except NonFiniteError as error:
                raise NonFiniteError(_advice(error, training, out)) from error
            busy += time.perf_counter() - begin
            report.advanced(busy, training.step - since)
            if training.step % every == 0 or training.done:
                training.evaluate((training.step - since) * training.characters_per_step / busy)
                report.evaluated()
                busy, since = 0.0, training.step
            if guard.pending:
                break
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                try:
                    training.save(out / CHECKPOINT)
                except OSError as error:  # a full disk now is no reason to throw the run away
                    report.warn(f"no checkpoint at step {training.step}: {_in_words(error)}")
                saved = time.monotonic()
        if training.done:
            return True
        training.save(out / CHECKPOINT)
    report.interrupted()
    return False


@contextmanager
def _sigterm_too(guard: InterruptGuard) -> Iterator[None]:
    """Let a polite kill leave a checkpoint as Ctrl-C does."""
    try:
        before = signal.signal(signal.SIGTERM, guard.handle)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _advice(error: NonFiniteError, training: TextTraining, out: Path) -> str:
    rate, norm = training.settings.learning_rate, training.settings.clip_norm
    kept = (
        f"{out / CHECKPOINT} is from before: --resume with a lower rate goes on from it"
        if (out / CHECKPOINT).exists()
        else "no results were replaced"
    )
    cause = str(error).partition(" (epoch")[0]
    return (
        f"{cause}. Try --learning-rate {rate / 3:.2g} (now {rate:g}) or --clip-norm {norm / 4:g} (now {norm:g}); {kept}"
    )


def _finish(training: TextTraining, out: Path, report: Report) -> None:
    """Write the results, measure them, and take the checkpoint away."""
    training.model.save(out / MODEL)
    held_out = training.model.bits_per_character(training.corpus.held_out)
    ours, numpys = step_seconds_beside_numpy(training)
    speeds = [speed for speed in training.history["speed"] if speed]
    result = {
        "held_out_bits_per_character": held_out,
        "characters_per_second": len(speeds) / sum(1 / speed for speed in speeds),
        "step_seconds": ours,
        "numpy_step_seconds": numpys,
    }
    document = {
        "settings": asdict(training.settings),
        "sources": training.sources,
        "history": training.history.to_dict(),
        "result": result,
    }
    write_atomically(out / HISTORY, (json.dumps(document, indent=1) + "\n").encode())
    drawn = draw_losses(training.history, held_out, out / CURVE)
    (out / CHECKPOINT).unlink(missing_ok=True)
    report.closing(result, drawn)


def step_seconds_beside_numpy(training: TextTraining, repeats: int = 7) -> tuple[float, float]:
    """Seconds of one training step, here and in pure NumPy: same weights and data, taken in turns, the fastest of each.

    Raises
    ------
    ArithmeticError
        If the two do not find the same loss.
    """
    from fastact.bench.numpy_lstm import adam_state, language_model_step

    rate, clip = training.settings.learning_rate, training.settings.clip_norm
    network = copy.deepcopy(training.model.network)
    trainer = Trainer(network, optimizer=optim.Adam(rate), clip_norm=clip)
    parameters = network.state_dict()
    adam = adam_state(parameters)
    state = numpy_state = None
    ours, numpys = math.inf, math.inf
    for number in range(repeats):
        x, y, _ = training.lanes.batch(number)
        begin = time.perf_counter()
        loss = trainer.step(x, y, state=state)
        ours = min(ours, time.perf_counter() - begin)
        state = trainer.state
        time.sleep(0.05)  # an idle OpenMP thread spins for a while and would slow the other
        begin = time.perf_counter()
        with np.errstate(all="ignore"):  # a diverged model overflows there: the comparison of the losses tells
            numpy_loss, numpy_state = language_model_step(parameters, x, y, numpy_state, adam, rate, clip)
        numpys = min(numpys, time.perf_counter() - begin)
        time.sleep(0.05)
        if number == 0 and not math.isclose(loss, numpy_loss, rel_tol=1e-4, abs_tol=1e-4):
            raise ArithmeticError(f"loss: expected the same in NumPy on the same data, got {loss} and {numpy_loss}")
    return ours, numpys


def draw_losses(history: Any, held_out: float, path: Path) -> bool:
    """Draw training and held-out loss over the steps into a PNG file; False without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # type: ignore[import-not-found,unused-ignore]
        from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return False
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(history["step"], history["loss"], label="training text")
    axes.plot(history["step"], history["held_out"], label="held-out sample")
    label = f"all held-out text at the end: {held_out:.3f}"
    axes.axhline(held_out, color="gray", linewidth=0.8, linestyle="--", label=label)
    axes.set(xlabel="step", ylabel="bits per character", ylim=(0.9 * min(history["loss"] + history["held_out"]), None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    picture = BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    write_atomically(path, picture.getvalue())
    return True


def _say(what: str, text: str) -> None:
    click.echo(f"{what:<12}{text}")


class Report:
    """What ``train`` shows: plain lines on stdout, and on a terminal a bar on stderr below them."""

    def __init__(self, training: TextTraining, out: Path, sample_length: int, quiet: bool) -> None:
        self.training = training
        self.out = out
        self.sample_length = sample_length
        self.quiet = quiet
        self.begin = time.monotonic()
        steps = training.settings.steps
        self._sample_at = {evaluation_interval(steps) * k for k in (4, 16)} - {steps}  # the last one comes at the end
        self._bar: Any = None

    def opening(self) -> None:
        """What will be trained, on what, with what."""
        if self.quiet:
            return
        training, settings, lanes = self.training, self.training.settings, self.training.lanes
        layers = "LSTM" if settings.layers == 1 else f"{settings.layers} LSTM layers of"
        _say(
            "model",
            f"{len(training.model.vocabulary)} symbols, embedding {settings.embedding}, {layers} {settings.hidden}: "
            f"{training.model.network.num_parameters:,} parameters",
        )
        read = settings.steps / lanes.steps_per_epoch
        _say(
            "training",
            f"{settings.steps:,} steps of {lanes.batch_size} x {lanes.window} characters, {read:.3g} times the text, "
            f"on {fastact.get_num_threads()} thread{'s' * (fastact.get_num_threads() > 1)}",
        )
        if (lanes.batch_size, lanes.window) != (settings.batch_size, settings.window):
            _say("", f"(the text is too short for {settings.batch_size} x {settings.window})")
        _say("results", f"{self.out}{os.sep}")
        if training.step:
            _say("resumed", f"at step {training.step:,}")
        click.echo(f"\n{'step':>9}{'training bits':>16}{'held-out bits':>16}{'characters/s':>16}")

    @contextmanager
    def bar(self) -> Iterator[None]:
        """The bar, while it is up; nothing unless stderr is a terminal."""
        if self.quiet or not sys.stderr.isatty():
            yield
            return
        training = self.training
        with tqdm(
            total=training.settings.steps, initial=training.step, unit=" steps", leave=False, dynamic_ncols=True,
            mininterval=0.2,
        ) as self._bar:  # fmt: skip
            yield
        self._bar = None

    def advanced(self, seconds: float, steps: int) -> None:
        """A step was made; ``steps`` since the last evaluation took ``seconds``."""
        if self._bar is not None:
            speed = steps * self.training.characters_per_step / seconds
            postfix = f"{self.training.loss:.3f} bits, {speed / 1000:,.0f} thousand characters/s"
            self._bar.set_postfix_str(postfix, refresh=False)
            self._bar.update()

    def evaluated(self) -> None:
        """The latest entry of the history as a line, now and then with a sample below."""
        if self.quiet:
            return
        row = self.training.history.last()
        self._print(f"{row['step']:>9,}{row['loss']:>16.3f}{row['held_out']:>16.3f}{row['speed']:>16,.0f}")
        if row["step"] in self._sample_at:
            self._sample()

    def _sample(self) -> None:
        if not self.sample_length:
            return
        training = self.training
        seed = [training.settings.seed, training.step]
        text = "".join(training.model.sample(self.sample_length, temperature=0.8, seed=seed))
        self._print("\n" + "\n".join(f"    | {line}" for line in _printable(text).splitlines()) + "\n")

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        click.echo(text)
        if self._bar is not None:
            self._bar.refresh()

    def warn(self, message: str) -> None:
        """Something on stderr that does not end the run."""
        if self._bar is not None:
            self._bar.clear()
        click.echo(f"warning: {message}", err=True)

    def interrupted(self) -> None:
        """Where the run stands and how to go on."""
        where = "" if self.out == DEFAULT_OUT else f" --out {self.out}"
        click.echo(
            f"interrupted at step {self.training.step:,} of {self.training.settings.steps:,}; "
            f"`fastact train --resume{where}` goes on from {self.out / CHECKPOINT}",
            err=True,
        )

    def closing(self, result: dict[str, float], drawn: bool) -> None:
        """The figures at the end."""
        if not self.quiet:
            self._sample()
        training = self.training
        _say(
            "held-out",
            f"{result['held_out_bits_per_character']:.3f} bits per character on all "
            f"{len(training.corpus.held_out):,} held-out characters",
        )
        _say(
            "speed",
            f"{result['characters_per_second']:,.0f} characters a second in training steps; "
            f"{time.monotonic() - self.begin:.0f} s in all",
        )
        ours, numpys = result["step_seconds"], result["numpy_step_seconds"]
        _say(
            "NumPy",
            f"the same step in pure NumPy takes {1e3 * numpys:.3g} ms, here {1e3 * ours:.3g} ms: "
            f"{numpys / ours:.1f} times as fast",
        )
        names = [MODEL, HISTORY, *([CURVE] if drawn else [])]
        _say("written", ", ".join(str(self.out / name) for name in names))
        if not drawn:
            _say("", "(no picture of the losses: matplotlib is not installed)")
        if not self.quiet:
            _say("next", f"fastact sample {self.out}")


def _printable(text: str) -> str:
    """``text`` with what stdout's encoding cannot express, and control characters, replaced."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = text.encode(encoding, "replace").decode(encoding)
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{MIDDLE DOT}" for c in text)


# -- sample and info --------------------------------------------------------------------------------------------------


def _model_file(path: Path) -> Path:
    """The model file that ``path`` means: itself, or in a folder of results the model, else the checkpoint."""
    if path.is_dir():
        for name in (MODEL, CHECKPOINT):
            if (path / name).exists():
                return path / name
        raise FileNotFoundError(f"{path}: expected a folder with {MODEL} or {CHECKPOINT}, found neither")
    if not path.exists():
        hint = "; `fastact train` makes one" if path == DEFAULT_OUT else ""
        raise FileNotFoundError(f"{path}: expected a model file or a folder of results, found nothing there{hint}")
    return path


@main.command()
@click.argument("model", type=click.Path(path_type=Path), default=DEFAULT_OUT)
@click.option("-p", "--prompt", default="", help="Text to go on from.  [default: the start of a line]")
@click.option("-n", "--length", type=click.IntRange(0), default=500, show_default=True, help="Characters to write.")
@click.option("-t", "--temperature", type=click.FloatRange(0), default=0.8, show_default=True,
              help="1: as the model predicts; less: more careful; 0: always the likeliest.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=None, help="The same seed writes the same text.")
def sample(model: Path, prompt: str, length: int, temperature: float, seed: int | None) -> None:
    """Let a trained MODEL write text.

    MODEL is a model file, a checkpoint, or a folder of results of `fastact train`.
    """
    language_model = LanguageModel.load(_model_file(model))
    unknown = "".join(sorted(set(prompt) - set(language_model.vocabulary.characters)))
    if unknown:
        click.echo(f"note: the model does not tell these characters of the prompt apart: {unknown!r}", err=True)
    click.echo(_printable(prompt), nl=False)
    for character in language_model.sample(length, prompt, temperature, seed):
        click.echo(_printable(character), nl=False)
    click.echo()


@main.command()
@click.argument("what", required=False)
def info(what: str | None) -> None:
    """Show this build (without WHAT), a model file, or an activation.

    WHAT is a path (a model file, a checkpoint, or a folder of results) or the name of an activation.
    """
    if what is None:
        fastact.show_config()
    elif what in fastact.activations and not Path(what).exists():
        _show_activation(what)
    elif Path(what).exists():
        _show_model(_model_file(Path(what)))
    else:
        near = difflib.get_close_matches(what, fastact.activations, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"activations: {', '.join(fastact.activations)}"
        raise ValueError(f"{what}: expected a model file or the name of an activation, found neither; {hint}")


def _show_activation(name: str) -> None:
    """What the table says of an activation, and what is computed from the function itself."""
    activation = fastact.activations[name]
    needs = {"x": "the input x", "y": "the output y", "either": "the input x or the output y"}
    low, high = activation.range
    bounded = {2: "bounded", 1: "bounded on one side", 0: "not bounded"}[math.isfinite(low) + math.isfinite(high)]
    _say("name", activation.name)
    if activation.aliases:
        _say("also", ", ".join(activation.aliases))
    _say("formula", activation.formula)
    if activation.surrogate:
        _say("gradient", f"of {activation.surrogate}")
    for number, line in enumerate(textwrap.wrap(activation.note, 100)):
        _say("" if number else "note", line)
    _say("defaults", ", ".join(f"{key} = {value:g}" for key, value in activation.parameters.items()) or "no parameters")
    _say("range", f"{low:g} to {high:g}, {bounded}")
    _say("backward", f"from {needs[activation.backward_from]}")
    if activation.rowwise or not activation.keeps_shape:
        _say("derivatives", "of a row: backward gives dy times them")
        return
    _say("derivatives", "order 1 and 2")
    _say("monotonic", "yes" if activation.monotonic else "no")
    _say("odd", "yes" if activation.odd else "no")
    _say(
        "Lipschitz",
        f"{_analysis.lipschitz(activation):.4g}".replace("inf", "none: it jumps, or its slope has no bound"),
    )
    flat = [_interval(*ends) for ends in _analysis.saturation(activation)]
    _say("saturated", f"|f'| < {_analysis.SLOPE:g} where {' or '.join(flat)}" if flat else "nowhere")
    for label, tier in {"accuracy": activation, "precise": activation.precise}.items():
        for dtype, (forward, first, second) in tier.ulp.items():
            _say(label, f"{dtype}: {forward:g} ULP, first derivative {first:g}, second {second:g}")


def _interval(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return "x is any number"
    if math.isinf(low):
        return f"x < {high:.4g}"
    return f"x > {low:.4g}" if math.isinf(high) else f"{low:.4g} < x < {high:.4g}"


def _show_model(path: Path) -> None:
    """Architecture, parameters, and what training noted."""
    network, metadata = io.read_model(path)
    _say("file", f"{path}, {path.stat().st_size:,} bytes")
    if "trainer" in metadata:
        facts = read_checkpoint(path)
        _say("state", f"an interrupted run of {facts['settings']['steps']:,} steps")
    if "vocabulary" in metadata:
        characters = json.loads(metadata["vocabulary"])
        _say("vocabulary", f"{len(characters)} characters and one for the rest")
    layers = list(network) if hasattr(network, "layers") else [network]
    for number, layer in enumerate(layers):
        _say("layers" if number == 0 else "", repr(layer))
    _say("parameters", f"{network.num_parameters:,}")
    for name, parameter in network.parameters().items():
        shape = " x ".join(map(str, parameter.shape))
        _say("", f"{name:<24}{shape:>14}  {parameter.dtype}")


# -- bench ------------------------------------------------------------------------------------------------------------


@main.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Measure speed against pure NumPy, and other libraries where installed."""
    from fastact.bench.cli import bench as command  # late: it imports what it measures against

    ctx.exit(command.main(arguments, prog_name=ctx.command_path, standalone_mode=False) or 0)
