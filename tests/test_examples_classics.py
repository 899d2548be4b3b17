"""The classics in examples/: each shows what it says, in a short form and for more than one seed."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import numpy as np
import pytest

import fastact as fa

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def example(monkeypatch):
    """``example("xor")``: that example as a module. They import each other by name, as scripts of one folder do."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


def test_every_example_says_how_to_run_it_and_is_listed():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        says = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert f"python examples/{path.name}" in says
        assert f"({path.name})" in listed


@pytest.mark.parametrize("seed", [0, 1])
def test_xor_in_batches_of_one_of_two_and_of_all(example, seed):
    xor = example("xor")
    outputs = xor.main(seed=seed)
    assert len(outputs) == 3
    for y in outputs.values():
        assert np.abs(y - xor.Y[:, 0]).max() < 0.1
    untrained, trainer = xor.train(1, epochs=3, seed=seed)
    assert trainer.steps == 12
    assert np.abs(untrained(xor.X) - xor.Y).max() > 0.3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_window_unit_learns_xor_exactly_and_a_sigmoid_unit_never(example, seed):
    losses = example("xor_one_unit").main(seed=seed)
    assert losses["window"][0] >= 0.25
    assert losses["window"][-1] == 0
    assert min(losses["sigmoid"]) > 0.249  # of answering 0.5 to all


@pytest.mark.parametrize("seed", [0, 1])
def test_each_fault_keeps_half_of_the_answers_wrong_and_its_cure_does_not(example, seed):
    stuck = example("stuck_at_half")
    found = stuck.main(seed=seed)
    wanted = stuck.Y[:, 0]
    for ill, cured in found.values():
        assert np.mean((ill.outputs > 0.5) == wanted) == 0.5
        assert np.abs(cured.outputs - wanted).max() < 0.1
        assert ill.gradient < 1e-6 < 1e-4 < cured.gradient
        assert cured.units == 4
    alike, far, fast = (ill for ill, _ in found.values())
    assert alike.units == 1
    assert far.hidden_slope < 1e-5
    assert fast.output_slope < 1e-12
    for ill in (alike, far):
        np.testing.assert_allclose(ill.outputs, 0.5, atol=1e-3)


def test_digits(example):
    pytest.importorskip("sklearn")
    assert example("digits").main(epochs=10)["accuracy"] > 0.93


def test_softmax_starves_hidden_layers_and_batch_normalisation_feeds_them(example):
    pytest.importorskip("sklearn")
    found = example("softmax_hidden").main(epochs=6)
    starved, fed, usual = found["softmax"], found["softmax, BatchNorm"], found["BatchNorm, relu"]
    for other in (fed, usual):
        assert other.signal > 1e4 * starved.signal
        assert other.gradient > 1e4 * starved.gradient
        assert other.accuracy > 0.9
    assert starved.accuracy < 0.5


def test_pairs_alone_teach_a_siamese_net_what_a_digit_is(example):
    pytest.importorskip("sklearn")
    found = example("siamese").main(epochs=5)
    assert found["area"] > 0.95
    assert found["places"] > found["pixels"] + 0.1


def test_the_picture_of_a_siamese_net(example, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib").use("Agg")
    example("siamese").main(epochs=1, picture=str(tmp_path / "plane.png"))
    assert (tmp_path / "plane.png").stat().st_size > 10_000


def test_layer_and_loss_of_the_siamese_net_have_right_gradients(example):
    siamese, rng = example("siamese"), np.random.default_rng(0)
    net = fa.nn.Dense(4, 3, "tanh", dtype=np.float64, rng=rng)
    fa.testing.check_gradients(siamese.Siamese(net), rng.normal(size=(5, 2, 4)))

    distance, different = rng.uniform(0, 2, 6), np.array([0.0, 1, 0, 1, 0, 1])
    loss, gradient = siamese.Contrastive(), np.empty(6)
    loss.measure(distance, different, gradient)
    for i, step in enumerate(np.eye(6) * 1e-6):
        rise = loss.measure(distance + step, different).mean - loss.measure(distance - step, different).mean
        assert gradient[i] == pytest.approx(rise / 2e-6, abs=1e-8)
