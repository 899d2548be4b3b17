"""The examples on sequences, in a short form: each shows what its first lines say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import fastact as fa

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """The same bits as with any other number, and no waiting for a core that something else is using."""
    with fa.num_threads(1):
        yield


class TestLongMemory:
    def test_gated_cells_remember_and_a_plain_network_does_not(self):
        curves = example("long_memory").main(length=30, steps=600)
        assert list(curves) == ["RNN", "LSTM", "GRU", "1997"]
        assert all(len(errors) == 6 for errors in curves.values())
        for name in ("LSTM", "GRU", "1997"):
            assert curves[name][-1] < 0.01, name
        assert min(curves["RNN"]) > 0.1

    def test_baseline_is_the_variance_of_the_target(self):
        module = example("long_memory")
        x, y = module.adding_problem(np.random.default_rng(0), 20_000, 11)
        assert (x[..., 1].sum(1) == 2).all()
        assert (x[:, :5, 1].sum(1) == 1).all()
        assert abs(y.var() - module.BASELINE) < 0.005

    def test_picture(self, tmp_path):
        pytest.importorskip("matplotlib")
        example("long_memory").main(length=6, steps=100, picture=str(tmp_path / "errors.svg"))
        assert "</svg>" in (tmp_path / "errors.svg").read_text()


class TestPianoNote:
    def test_finds_the_note_and_a_chosen_threshold_raises_precision(self):
        result = example("piano_note").main(count=800, epochs=15)
        assert result["chosen"]["f1"] > 0.8
        assert result["half"]["recall"] > 0.9
        assert result["always"]["f1"] < 0.2
        assert result["chosen"]["threshold"] > 0.5
        assert result["chosen"]["precision"] > result["half"]["precision"] + 0.05


class TestBrackets:
    def test_learns_to_close_what_it_opened(self):
        shares = example("brackets").main(steps=500, units=64)
        assert shares["before"] < 0.4
        assert shares["all"] > 0.85
        assert shares["depth 1"] > 0.6
        assert shares["depth 4"] > 0.9
        assert shares["written"] > 0.4

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("(a [b] {c})\n", (3, 3)),
            ("(a]\n", (0, 1)),  # closed by another
            ("a)\n", (0, 1)),  # none was open
            ("[(a\n(b)\n", (1, 3)),  # two are left open
            ("“a «b» c”\n(cut", (2, 2)),
        ],
    )
    def test_count(self, text, expected):
        assert example("brackets").rightly_closed(text) == expected
