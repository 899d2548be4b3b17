"""Wall time to the same validation loss: the same net, initial weights, batches and optimiser for each contender.

Two runs: digits of scikit-learn with a perceptron, and the beginning of what ``fastact train`` does by default, a
language model on the sources of Python's standard library. The clock stands still while the loss is measured; it is
measured for everybody by the same code, from the weights. What counts is when a contender is first at or below the loss
that PyTorch has at the end of its run (where there is no PyTorch, fastact). Each run is made several times, by turns;
the time of each stretch between two looks is the shortest of them. A contender may go on for a quarter longer than the
run, if it is not there yet.
"""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastact as fa
from fastact.training.language_model import QUICK_LOOK, LanguageModel, Settings
from fastact.training.text import Corpus, Lanes, read_text, standard_library

from . import timing
from .peers import Learner, Peer
from .shapes import DigitsRun, LanguageModelShape, TextRun
from .timing import Row
from .training import RATE, fastact_language_model, fastact_mlp, mlp_weights

Array = NDArray[Any]
Weights = dict[str, Array]

REFEREE = "PyTorch"  # whose last loss is the mark
SEED = 0
AGREEMENT = 0.01  # of the losses at the first look; later the paths of rounding errors part
BETAS = (0.9, 0.99)  # of `fastact train`


@dataclass
class Run:
    """A training run that anybody can make.

    Attributes
    ----------
    batches : list of tuple
        What each step is called with; those beyond ``steps`` are for who is not there yet.
    steps, every : int
        Updates of the run, and those between two looks at the validation loss.
    learners : dict of str to callable
        What makes each contender's net, as it is before the first step.
    loss : callable
        The validation loss of weights.
    flops : int
        Of the products of a step.
    """

    name: str
    shape: str
    batches: list[tuple[Any, ...]]
    steps: int
    every: int
    learners: dict[str, Callable[[], Learner]]
    loss: Callable[[Weights], float]
    flops: int


def rows(runs: Sequence[DigitsRun | TextRun], rounds: int, threads: int, peers: Sequence[Peer]) -> Iterator[Row]:
    """Each run as a row of milliseconds to the mark; its ``curves`` are (seconds, loss) at each look."""
    for given in runs:
        if isinstance(given, TextRun):
            yield measured(text_run(given, peers), rounds, threads)
        elif importlib.util.find_spec("sklearn") is not None:
            yield measured(digits_run(given, peers), rounds, threads)


def measured(run: Run, rounds: int, threads: int) -> Row:
    """Make the run with all contenders by turns."""
    durations: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    for turn in range(rounds):
        for name, make in run.learners.items():
            if threads > 1:
                time.sleep(timing.PAUSE)
            stretches, weights = trained(make(), run)
            durations[name] = [min(pair) for pair in zip(stretches, durations.get(name, stretches), strict=True)]
            if turn == 0:
                losses[name] = [run.loss(w) for w in weights]
    curves = {
        name: [*zip(np.concatenate([[0.0], np.cumsum(durations[name])]).tolist(), losses[name], strict=True)]
        for name in run.learners
    }
    mark = losses[REFEREE if REFEREE in losses else "fastact"][run.steps // run.every]
    row = Row(
        section="convergence",
        name=run.name,
        shape=f"{run.shape}, loss {mark:.4f}",
        dtype="float32",
        threads=threads,
        unit="ms",
        work=1,
        limit_ns=run.steps * run.flops / timing.peak("float32", threads),
        limit="FMA",
        barrier_ns=timing.barrier_ns() if threads > 1 else None,
        curves=curves,
    )
    for name, curve in curves.items():
        seconds = next((seconds for seconds, loss in curve if loss <= mark), None)
        if not np.isclose(curve[1][1], curves["fastact"][1][1], rtol=AGREEMENT):
            row.failed[name] = f"after {run.every} steps its loss is {curve[1][1]:.4f}, that of fastact differs"
        elif seconds is None:
            row.failed[name] = f"never below {mark:.4f}: {min(loss for _, loss in curve):.4f} at best"
        else:
            row.times_ns[name] = seconds * 1e9
    return row


def trained(learner: Learner, run: Run) -> tuple[list[float], list[Weights]]:
    """The seconds of each stretch of steps, and the weights before the first and after each."""
    batches = [learner.prepare(*batch) for batch in run.batches]
    stretches, weights = [], [learner.weights()]
    for begin in range(0, len(batches), run.every):
        start = time.perf_counter()
        for batch in batches[begin : begin + run.every]:
            learner.step(*batch)
        stretches.append(time.perf_counter() - start)
        weights.append(learner.weights())
    return stretches, weights


def digits_run(given: DigitsRun, peers: Sequence[Peer]) -> Run:
    """Three quarters of the digits to learn from, in a new order each epoch; cross-entropy of the others."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(SEED)
    x, y = load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    count = len(x) * 3 // 4
    weights = mlp_weights(given.net, "float32", rng)
    per_epoch = -(-count // given.net.B)
    batches = []
    for _ in range(given.epochs + -(-given.epochs // 4)):
        order = rng.permutation(count)
        for begin in range(0, count, given.net.B):
            chosen = order[begin : begin + given.net.B]
            batches.append((x[chosen], y[chosen]))

    def fastact() -> Learner:
        trainer = fa.Trainer(fastact_mlp(given.net, weights, None), "cross_entropy", fa.optim.Adam(RATE))
        return Learner(lambda *batch: batch, trainer.step, trainer.model.state_dict)

    def loss(weights: Weights) -> float:
        return fa.losses.CrossEntropy().measure(fastact_mlp(given.net, weights, None)(x[count:]), y[count:]).mean

    learners = {"fastact": fastact} | _learners(peers, "mlp", given.net, weights, RATE)
    label = f"{given.net.label}, {given.epochs} epochs"
    return Run("digits", label, batches, given.epochs * per_epoch, per_epoch, learners, loss, given.net.flops())


def text_run(given: TextRun, peers: Sequence[Peer]) -> Run:
    """The first steps of ``fastact train`` by its defaults, the state carried on; bits a character of held-out text."""
    settings = Settings(**dict(given.settings))
    corpus = _corpus(given.files, settings.vocabulary)
    lanes = Lanes(corpus.train, settings.batch_size, settings.window, settings.seed)
    model = LanguageModel.create(corpus.vocabulary, settings.embedding, settings.hidden, seed=settings.seed)
    weights = model.network.state_dict()
    shape = LanguageModelShape(
        len(corpus.vocabulary), settings.embedding, settings.hidden, lanes.batch_size, lanes.window
    )
    batches = [(*lanes.batch(step), settings.learning_rate_at(step)) for step in range(given.steps * 5 // 4)]
    rate, clip = settings.learning_rate, settings.clip_norm

    def fastact() -> Learner:
        network = fastact_language_model(shape, weights)
        trainer = fa.Trainer(network, "cross_entropy", fa.optim.Adam(rate, betas=BETAS), clip_norm=clip)

        def step(x: Array, y: Array, first: bool, rate: float) -> float:
            trainer.optimizer.lr = rate
            return trainer.step(x, y, state=None if first else trainer.state)

        return Learner(lambda *batch: batch, step, network.state_dict)

    def loss(weights: Weights) -> float:
        model.network.load_state_dict(weights)
        return model.bits_per_character(corpus.held_out, QUICK_LOOK)

    learners = {"fastact": fastact} | _learners(peers, "language_model", shape, weights, rate, clip, BETAS)
    label = f"{shape.label}, {given.steps} steps"
    return Run("language model", label, batches, given.steps, given.every, learners, loss, shape.flops())


def _learners(peers: Sequence[Peer], method: str, *arguments: Any) -> dict[str, Callable[[], Learner]]:
    """What makes the nets of those peers that have one."""
    return {peer.name: functools.partial(getattr(peer, method), *arguments) for peer in peers if peer.has(method)}


@functools.cache
def _corpus(files: int | None, vocabulary: int) -> Corpus:
    """Of so many files of the standard library (None: all)."""
    return Corpus.of([read_text(file, "utf-8", "replace") for file in standard_library()[:files]], vocabulary)
