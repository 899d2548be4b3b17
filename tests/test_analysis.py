"""Lipschitz constants and saturated intervals against what is known of the functions; the command that shows them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from click.testing import CliRunner

import fastact as fa
from fastact._analysis import lipschitz, saturation
from fastact.cli import main

ELEMENTWISE = [name for name, f in fa.activations.items() if not f.rowwise]


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("sigmoid", 0.25),
        ("tanh", 1),
        ("relu", 1),
        ("linear", 1),
        ("softplus", 1),
        ("hard_tanh", 1),
        ("scaled_tanh", 1.7159 * 2 / 3),
        ("gelu", 1.128904),  # at sqrt 2
        ("silu", 1.099839),  # at 2.3994
        ("leaky_relu", 1),
        ("step", math.inf),
    ],
)
def test_lipschitz(name, want):
    assert lipschitz(fa.activations[name]) == pytest.approx(want, rel=2e-5)


def test_lipschitz_of_composed_functions():
    assert lipschitz(fa.tanh.scaled(input_scale=3, output_scale=-2)) == pytest.approx(6, rel=1e-4)
    square = fa.Activation.from_functions(np.square, lambda x: 2 * x, name="parabola")
    assert lipschitz(square) == math.inf
    assert lipschitz(fa.leaky_relu.with_params(alpha=-3)) == pytest.approx(3)


def test_saturation():
    edge = math.acosh(math.sqrt(1000))  # sech^2 = 1e-3
    inf = math.inf
    np.testing.assert_allclose(saturation(fa.tanh), [(-inf, -edge), (edge, inf)], rtol=1e-12)
    np.testing.assert_allclose(saturation(fa.hard_tanh), [(-inf, -1), (1, inf)], rtol=1e-12)
    np.testing.assert_allclose(saturation(fa.relu), [(-inf, 0)], atol=1e-12)
    assert saturation(fa.linear) == []
    assert saturation(fa.step) == [(-inf, inf)]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_they_hold(name):
    """No slope between random points is steeper; the derivative is small in the intervals, and not outside."""
    f = fa.activations[name]
    bound = lipschitz(f)
    x = np.random.default_rng(0).uniform(-30, 30, 4000)
    y = f(x)
    quotients = np.abs(np.diff(y)) / np.abs(np.diff(x))
    assert quotients.max() <= bound * 1.0001
    flat = np.zeros(x.shape, bool)
    for low, high in saturation(f):
        flat |= (low <= x) & (x <= high)
    np.testing.assert_array_equal(flat, np.abs(f.derivative(x)) < 1e-3)


def test_info():
    def info(name):
        result = CliRunner().invoke(main, ["info", name])
        assert result.exit_code == 0
        return " ".join(result.stdout.split())

    text = info("sigmoid")
    assert "range 0 to 1, bounded" in text
    assert "Lipschitz 0.25" in text
    assert "|f'| < 0.001 where x < -6.906 or x > 6.906" in text
    assert "monotonic yes" in text
    assert "odd no" in text
    assert "f' y * (1 - y)" in text
    assert "Lipschitz none: it jumps" in info("step")
    assert "saturated nowhere" in info("linear")
    assert "not bounded" in info("linear")
    assert "bounded on one side" in info("relu")
    assert "temperature = 1" in info("softmax")
    assert "rows along axis=" in info("glu")
