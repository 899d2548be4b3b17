"""The ``fastact`` command: what it writes, what it says, how it ends; interrupted and resumed, on bad input too."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from fastact.bench import numpy_lstm

import fastact as fa
from fastact import cli
from fastact.cli import main
from fastact.training.language_model import LanguageModel, TextTraining

TINY = ["--hidden", "16", "--embedding", "8", "--batch-size", "4", "--window", "20"]
SENTENCE = "the quick brown fox jumps over the lazy dog\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(SENTENCE * 100)
    return tmp_path


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def start(*arguments, **options):
    command = [sys.executable, "-c", "from fastact.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def weights(folder):
    return np.array(fa.load(folder / "model.safetensors").flat_parameters)


class TestTrain:
    def test_results(self, here):
        result = invoke("train", "text.txt", "--steps", 30, *TINY)
        out = here / "fastact-model"
        names = {"model.safetensors", "history.json"}
        assert names <= {path.name for path in out.iterdir()} <= names | {"loss.png"}
        document = json.loads((out / "history.json").read_text())
        assert document["history"]["step"] == [10, 20, 30]
        assert document["settings"]["hidden"] == 16
        assert document["sources"]["paths"] == [str(here / "text.txt")]
        held_out = document["result"]["held_out_bits_per_character"]
        assert held_out == pytest.approx(
            LanguageModel.load(out / "model.safetensors").bits_per_character(
                TextTraining(cli._corpus(document["sources"], cli.Settings(), True), cli.Settings()).corpus.held_out
            )
        )
        assert f"{held_out:.3f} bits per character" in result.output
        assert document["result"]["characters_per_second"] > 0
        ratio = document["result"]["numpy_step_seconds"] / document["result"]["step_seconds"]
        assert f"{ratio:.1f} times as fast" in result.output

    def test_output_of_a_log_has_plain_lines(self, here):
        result = invoke("train", "text.txt", "--steps", 50, *TINY)
        assert "\r" not in result.output
        assert "\x1b" not in result.output
        assert re.search(r"^ +40 +\d\.\d{3} +\d\.\d{3} +[\d,]+$", result.stdout, re.M)
        assert result.stdout.count("    | ") > 2  # samples
        assert result.stderr == ""

    @pytest.mark.parametrize(("steps", "samples"), [(40, 1), (50, 2), (160, 2)])
    def test_no_sample_is_shown_twice(self, here, steps, samples):
        """Each follows from seed and step; the one at the end must not repeat that of the last evaluation."""
        result = invoke("train", "text.txt", "--steps", steps, "--sample-length", 40, *TINY)
        shown = re.findall(r"\n\n((?:    \|.*\n)+)", result.stdout)
        assert len(shown) == len(set(shown)) == samples

    def test_quiet(self, here):
        result = invoke("train", "text.txt", "--steps", 10, "--quiet", *TINY)
        assert [line.split()[0] for line in result.stdout.splitlines()][:4] == ["held-out", "speed", "NumPy", "written"]

    def test_same_seed_same_file(self, here):
        for out, seed, threads in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
            invoke("train", "text.txt", "--steps", 10, "-q", "--out", out, "--seed", seed, "--threads", threads, *TINY)
        a, b, c = (weights(here / name) for name in "abc")
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()

    def test_a_folder_and_several_layers(self, here):
        for number in range(25):
            (here / "texts" / f"{number:02d}").mkdir(parents=True)
            (here / "texts" / f"{number:02d}" / "t.txt").write_text(SENTENCE * 10)
        result = invoke("train", "texts", "--steps", 10, "--layers", 2, *TINY)
        assert f"25 files, {24 * 440:,} characters to learn from, {440:,} held out" in result.stdout
        assert "embedding 8, 2 LSTM layers of 16: " in result.stdout

    def test_standard_library_without_paths(self, here):
        result = invoke("train", "--steps", 3, "--sample-length", 0, *TINY)
        assert "Python's standard library" in result.stdout
        assert "128 symbols, embedding 8, LSTM 16: " in result.stdout

    def test_short_text_gets_smaller_batches(self, here):
        (here / "short.txt").write_text("ab" * 30)
        assert "too short for 32 x 50" in invoke("train", "short.txt", "--steps", 2, "--hidden", 8).stdout

    def test_earlier_results_are_not_replaced(self, here):
        invoke("train", "text.txt", "--steps", 5, *TINY)
        model = here / "fastact-model" / "model.safetensors"
        before = model.read_bytes()
        result = invoke("train", "text.txt", "--steps", 6, *TINY, code=2)
        assert "holds a trained model" in result.stderr
        assert model.read_bytes() == before
        invoke("train", "text.txt", "--steps", 6, "--overwrite", *TINY)
        assert model.read_bytes() != before

    def test_without_matplotlib(self, here, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
        assert "matplotlib is not installed" in invoke("train", "text.txt", "--steps", 2, *TINY).stdout
        assert not (here / "fastact-model" / "loss.png").exists()

    def test_picture(self, here):
        pytest.importorskip("matplotlib")
        invoke("train", "text.txt", "--steps", 20, *TINY)
        picture = (here / "fastact-model" / "loss.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 5000


class TestBadInput:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "at least 40 characters, got none"),
            (b"too short", "at least 40 characters, got 9"),
            (b"a" * 500, "two distinct characters, got only 'a'"),
            (b"fine\n" * 20 + b"caf\xe9\n", r"byte 0xe9 at position 103 \(line 21\)"),
        ],
    )
    def test_text(self, here, data, message):
        (here / "bad.txt").write_bytes(data)
        result = invoke("train", "bad.txt", code=1)
        assert re.search(message, result.stderr)
        assert not (here / "fastact-model").exists()

    def test_other_encodings_are_a_choice(self, here):
        (here / "latin.txt").write_bytes("naïve café\n".encode("latin-1") * 30)
        invoke("train", "latin.txt", "--steps", 2, "--encoding", "latin-1", "--out", "a", *TINY)
        invoke("train", "latin.txt", "--steps", 2, "--errors", "replace", "--out", "b", *TINY)
        assert "no-such" in invoke("train", "latin.txt", "--encoding", "no-such", "--out", "c", code=1).stderr

    def test_missing_file(self, here):
        assert "nowhere.txt does not exist" in invoke("train", "nowhere.txt", code=1).stderr

    @pytest.mark.parametrize(
        ("option", "value"), [("--steps", 0), ("--hidden", 0), ("--learning-rate", "nan"), ("--threads", 0)]
    )
    def test_impossible_settings(self, here, option, value):
        assert f"{option[2:].replace('-', '_')}"[:5] in invoke("train", "text.txt", option, value, code=1).stderr

    @pytest.mark.parametrize("arguments", [["--no-such"], ["--steps", "many"], ["--errors", "maybe"]])
    def test_wrong_usage(self, here, arguments):
        assert "Usage:" in invoke("train", *arguments, code=2).stderr

    def test_out_is_a_file(self, here):
        invoke("train", "text.txt", "--out", "text.txt", code=2)
        assert (here / "text.txt").read_text() == SENTENCE * 100

    def test_loss_that_is_no_number(self, here, monkeypatch):
        advance = TextTraining.advance

        def poisoned(self):
            if self.step == 4:
                self.model.network[-1].bias[0] = np.nan
            advance(self)

        monkeypatch.setattr(TextTraining, "advance", poisoned)
        result = invoke("train", "text.txt", "--steps", 10, *TINY, code=1)
        assert "step 5" in result.stderr
        assert "--learning-rate" in result.stderr
        assert not (here / "fastact-model" / "model.safetensors").exists()

    def test_a_diverged_model_that_numpy_cannot_follow(self, here, monkeypatch):
        """NumPy's step overflows, which must warn nobody: the comparison at the end fails, in one line."""

        def overflowing(*_):
            return float(np.float32(3e38) * np.float32(10)), None

        monkeypatch.setattr(numpy_lstm, "language_model_step", overflowing)
        result = invoke("train", "text.txt", "--steps", 20, *TINY, code=1)
        assert "expected the same in NumPy" in result.stderr
        assert "inf" in result.stderr

    def test_out_of_memory(self, here, monkeypatch):
        monkeypatch.setattr(TextTraining, "advance", lambda self: (_ for _ in ()).throw(MemoryError()))
        assert "smaller --hidden" in invoke("train", "text.txt", *TINY, code=1).stderr

    def test_a_full_disk_keeps_the_earlier_files(self, here):
        invoke("train", "text.txt", "--steps", 5, *TINY)
        out = here / "fastact-model"
        before = {path.name: path.read_bytes() for path in out.iterdir()}

        def small_disk():
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        process = start("train", "text.txt", "--steps", 6, "--overwrite", *TINY, preexec_fn=small_disk)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "Traceback" not in stderr
        assert "too large" in stderr  # what the limit is called; a full disk says "No space left on device"
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    def test_a_failed_checkpoint_on_the_way_is_a_warning(self, here, monkeypatch):
        monkeypatch.setattr(cli, "CHECKPOINT_SECONDS", 0.0)

        def full(self, path):
            raise OSError(28, "No space left on device", str(path))

        monkeypatch.setattr(TextTraining, "save", full)
        result = invoke("train", "text.txt", "--steps", 3, *TINY)
        assert "no checkpoint at step 1: " in result.stderr
        assert (here / "fastact-model" / "model.safetensors").exists()


class TestInterruptAndResume:
    def interrupted(self, monkeypatch, step, *arguments):
        """A run in this process that Ctrl-C meets after ``step`` steps."""
        with monkeypatch.context() as patch:
            advance = TextTraining.advance

            def interrupting(self):
                advance(self)
                if self.step == step:
                    signal.raise_signal(signal.SIGINT)

            patch.setattr(TextTraining, "advance", interrupting)
            return invoke("train", *arguments, code=130)

    def test_resumed_equals_unbroken(self, here, monkeypatch):
        invoke("train", "text.txt", "--steps", 40, "--out", "unbroken", *TINY)
        result = self.interrupted(monkeypatch, 23, "text.txt", "--steps", 40, "--out", "broken", *TINY)
        assert "interrupted at step 23 of 40; `fastact train --resume --out broken`" in result.stderr
        assert [path.name for path in (here / "broken").iterdir()] == ["checkpoint.safetensors"]
        result = invoke("train", "--resume", "--out", "broken")
        assert "resumed     at step 23" in result.stdout
        np.testing.assert_array_equal(weights(here / "unbroken"), weights(here / "broken"))
        histories = [
            json.loads((here / name / "history.json").read_text())["history"] for name in ("unbroken", "broken")
        ]
        assert all(histories[0][key] == histories[1][key] for key in ("step", "loss", "held_out"))
        assert not (here / "broken" / "checkpoint.safetensors").exists()

    def test_interrupted_twice(self, here, monkeypatch):
        invoke("train", "text.txt", "--steps", 30, "--out", "unbroken", *TINY)
        self.interrupted(monkeypatch, 7, "text.txt", "--steps", 30, *TINY)
        self.interrupted(monkeypatch, 19, "--resume")
        invoke("train", "--resume")
        np.testing.assert_array_equal(weights(here / "unbroken"), weights(here / "fastact-model"))

    def test_interrupted_run_is_not_replaced(self, here, monkeypatch):
        self.interrupted(monkeypatch, 3, "text.txt", "--steps", 10, *TINY)
        assert "go on with it by --resume" in invoke("train", "text.txt", *TINY, code=2).stderr

    def test_what_may_change_and_what_not(self, here, monkeypatch):
        self.interrupted(monkeypatch, 3, "text.txt", "--steps", 10, *TINY)
        result = invoke("train", "--resume", "--hidden", 32, code=2)
        assert "--hidden cannot change in a resumed run: it has 16" in result.stderr
        result = invoke("train", "--resume", "--hidden", 16, "--steps", 12)
        assert "steps 10 -> 12: the result will not be that of an unbroken run" in result.stderr
        assert json.loads((here / "fastact-model" / "history.json").read_text())["settings"]["steps"] == 12

    def test_changed_or_missing_text(self, here, monkeypatch):
        self.interrupted(monkeypatch, 3, "text.txt", "--steps", 10, *TINY)
        text = (here / "text.txt").read_text()
        (here / "text.txt").write_text(text.replace("fox", "cat"))
        assert "another; begin a new run" in invoke("train", "--resume", code=1).stderr
        (here / "text.txt").rename(here / "moved.txt")
        assert "does not exist" in invoke("train", "--resume", code=1).stderr
        (here / "moved.txt").write_text(text)
        invoke("train", "moved.txt", "--resume")

    def test_nothing_to_resume(self, here):
        assert "found none; begin one without --resume" in invoke("train", "--resume", code=1).stderr
        invoke("train", "text.txt", "--steps", 2, *TINY)
        assert "it holds a finished one" in invoke("train", "--resume", code=1).stderr

    def test_damaged_checkpoint(self, here, monkeypatch):
        self.interrupted(monkeypatch, 3, "text.txt", "--steps", 10, *TINY)
        path = here / "fastact-model" / "checkpoint.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        result = invoke("train", "--resume", code=1)
        assert "checkpoint.safetensors" in result.stderr

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_real_signal(self, here, number):
        def background():  # as a script's `fastact train &`: the shell has it ignore SIGINT
            if number == signal.SIGTERM:
                signal.signal(signal.SIGINT, signal.SIG_IGN)

        process = start("train", "text.txt", "--steps", 1_000_000, *TINY, preexec_fn=background)
        assert process.stdout is not None
        for line in process.stdout:  # until training is under way
            if "held-out bits" in line:
                break
        time.sleep(0.3)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130, stderr
        assert "interrupted at step" in stderr
        assert "Traceback" not in stderr
        step = int(re.search(r"at step ([\d,]+)", stderr)[1].replace(",", ""))
        result = invoke("train", "--resume", "--steps", step + 2)
        assert f"resumed     at step {step:,}" in result.stdout


class TestSample:
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("sample")
        (folder / "text.txt").write_text(SENTENCE * 100)
        invoke("train", folder / "text.txt", "--steps", 10, "--out", folder / "model", *TINY)
        return folder / "model"

    def test_length_prompt_and_seed(self, folder):
        texts = [
            invoke("sample", folder, "--prompt", "the ", "--length", 60, "--seed", seed).stdout for seed in (1, 1, 2)
        ]
        assert texts[0] == texts[1] != texts[2]
        assert texts[0].startswith("the ")
        assert len(texts[0]) == 4 + 60 + 1

    def test_file_or_folder(self, folder):
        by_folder, by_file = (
            invoke("sample", path, "--seed", 1).stdout for path in (folder, folder / "model.safetensors")
        )
        assert by_folder == by_file

    def test_unknown_characters_in_the_prompt(self, folder):
        assert "'é🎈'" in invoke("sample", folder, "--prompt", "thé 🎈", "--length", 5).stderr

    @pytest.mark.parametrize("option", [["--temperature", "-1"], ["--length", "-1"], ["--temperature", "warm"]])
    def test_wrong_usage(self, folder, option):
        invoke("sample", folder, *option, code=2)

    def test_missing_model(self, here):
        assert "`fastact train` makes one" in invoke("sample", code=1).stderr
        assert "found nothing there" in invoke("sample", "nowhere", code=1).stderr
        (here / "empty").mkdir()
        assert "found neither" in invoke("sample", "empty", code=1).stderr

    @pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "text"])
    def test_damaged_model(self, folder, tmp_path, damage):
        data = (folder / "model.safetensors").read_bytes()
        middle = len(data) // 2
        broken = {
            "empty": b"",
            "truncated": data[:-7],
            "flipped": data[:middle] + bytes([data[middle] ^ 64]) + data[middle + 1 :],
            "text": b"Dear Sir or Madam,\n" * 50,
        }[damage]
        path = tmp_path / "broken.safetensors"
        path.write_bytes(broken)
        for command in ("sample", "info"):
            assert "broken.safetensors" in invoke(command, path, code=1).stderr

    def test_reader_that_goes_away(self, folder):
        process = start("sample", folder, "--length", "200000")
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(60) in (0, 1)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        process.stderr.close()

    def test_terminal_that_knows_ascii_only(self, here):
        (here / "accents.txt").write_text("ça va très bien, où est-ce déjà?\n" * 50)
        environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
        process = start("train", "accents.txt", "--steps", "10", *TINY, env=environment)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr


class TestInfo:
    def test_build(self):
        assert "instruction set" in invoke("info").stdout

    @pytest.mark.parametrize("name", list(fa.activations))
    def test_activation(self, name):
        result = invoke("info", name)
        assert fa.activations[name].formula in result.stdout
        for parameter in fa.activations[name].parameters:
            assert parameter in result.stdout

    def test_unknown(self, here):
        assert "did you mean sigmoid" in invoke("info", "sigmiod", code=1).stderr

    def test_model_and_checkpoint(self, here):
        invoke("train", "text.txt", "--steps", 2, *TINY)
        result = invoke("info", "fastact-model")
        assert "LSTM(" in result.stdout
        assert re.search(r"1\.weight_hh_l0 +64 x 16  float32", result.stdout)

    def test_any_model_file(self, here):
        fa.save(fa.nn.Sequential(fa.nn.Dense(3, 5, "relu")), here / "dense.safetensors")
        result = invoke("info", "dense.safetensors")
        assert re.search(r"parameters +20", result.stdout)


class TestProgram:
    def test_help_names_every_command(self):
        output = invoke("--help").stdout
        assert all(name in output for name in ("train", "sample", "info", "bench"))

    def test_version(self):
        assert invoke("--version").stdout.strip().endswith(fa.__version__)

    def test_every_option_is_explained(self):
        for name in ("train", "sample", "info"):
            command = main.get_command(None, name)  # type: ignore[arg-type]
            assert command.help
            for parameter in command.params:
                assert isinstance(parameter, click.Argument) or parameter.help, (name, parameter.name)

    def test_console_script_is_this(self):
        assert (Path(cli.__file__).name, main.name) == ("cli.py", "main")

    def test_traceback_on_request(self, here, monkeypatch):
        monkeypatch.setenv("FASTACT_TRACEBACK", "1")
        with pytest.raises(FileNotFoundError):
            CliRunner().invoke(main, ["train", "nowhere"], catch_exceptions=False)

    def test_bench_is_the_benchmarks_own_command(self):
        assert "--peers" in invoke("bench", "--help").stdout
        assert "Usage: main bench" in invoke("bench", "--no-such-option", code=2).stderr
