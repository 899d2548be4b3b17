"""Initialisers: moments, bounds, orthogonality, gains; the same numbers for the same seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

import fastact as fa
from fastact import init

SHAPE = (300, 200)
BY_VARIANCE = {
    "glorot_uniform": 2 / 500,
    "glorot_normal": 2 / 500,
    "he_uniform": 2 / 200,
    "he_normal": 2 / 200,
    "lecun_uniform": 1 / 200,
    "lecun_normal": 1 / 200,
}


@pytest.mark.parametrize("name", BY_VARIANCE)
def test_moments_and_shape_of_the_distribution(name, dtype):
    w = getattr(init, name)(SHAPE, dtype=dtype, rng=1)
    std = math.sqrt(BY_VARIANCE[name])
    assert (w.shape, w.dtype) == (SHAPE, dtype)
    assert abs(w.mean()) < 5 * std / math.sqrt(w.size)
    assert w.std() == pytest.approx(std, rel=0.01)
    law = stats.norm(0, std) if name.endswith("normal") else stats.uniform(-std * 3**0.5, 2 * std * 3**0.5)
    assert stats.kstest(w.reshape(-1), law.cdf).pvalue > 1e-3
    np.testing.assert_array_equal(w, getattr(init, name)(SHAPE, dtype=dtype, rng=1))
    assert (w != getattr(init, name)(SHAPE, dtype=dtype, rng=2)).mean() > 0.99


def test_the_same_numbers_in_both_dtypes():
    for draw in (init.he_normal, init.glorot_uniform, init.truncated_normal, init.orthogonal):
        wide = draw(SHAPE, dtype=np.float64, rng=3)
        np.testing.assert_array_equal(draw(SHAPE, dtype=np.float32, rng=3), wide.astype(np.float32))


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("distribution", ["normal", "uniform", "truncated_normal"])
def test_variance_scaling(mode, distribution):
    fan = {"fan_in": 600, "fan_out": 1200, "fan_avg": 900}[mode]  # of a kernel of 3 x 2
    w = init.variance_scaling((200, 100, 3, 2), 3.0, mode, distribution, np.float64, rng=0)
    assert w.var() * fan == pytest.approx(3.0, rel=0.02)
    if distribution == "truncated_normal":
        assert abs(w).max() < 2 * math.sqrt(3 / fan) / init.TRUNCATED_STD


def test_truncated_normal():
    assert stats.truncnorm(-2, 2).std() == pytest.approx(init.TRUNCATED_STD, rel=1e-12)
    w = init.truncated_normal((200, 200), 0.5, -1, 3, np.float64, rng=0)
    assert stats.kstest(w.reshape(-1) / 0.5, stats.truncnorm(-1, 3).cdf).pvalue > 1e-3
    with pytest.raises(ValueError, match="low < high"):
        init.truncated_normal((2,), 1.0, 2, 2)
    with pytest.raises(ValueError, match="falls into"):
        init.truncated_normal((2,), 1.0, 40, 41)


@pytest.mark.parametrize("shape", [(40, 40), (30, 50), (50, 30), (1, 9), (20, 5, 4)])
def test_orthogonal(shape, dtype):
    w = init.orthogonal(shape, 1.5, dtype, rng=0).reshape(shape[0], -1)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 2.25 * np.eye(len(product)), atol=50 * np.finfo(dtype).eps)


def test_orthogonal_is_uniform():
    turns = np.array([init.orthogonal((2, 2), dtype=np.float64, rng=k) for k in range(2000)])
    angle = np.arctan2(turns[:, 0, 1], turns[:, 0, 0])
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    assert abs((np.linalg.det(turns) > 0).mean() - 0.5) < 0.06


def test_plain_ones(dtype):
    np.testing.assert_array_equal(init.identity((2, 3), 0.5, dtype), np.array([[0.5, 0, 0], [0, 0.5, 0]], dtype))
    np.testing.assert_array_equal(init.constant((3,), 0.1, dtype), np.full(3, 0.1, dtype))
    assert init.zeros((2, 2), dtype).sum() == 0
    assert init.ones((2, 2), dtype).sum() == 4


@pytest.mark.parametrize("name", ["relu", "selu", "tanh", "gelu", "sigmoid", "leaky_relu", "softplus"])
def test_gain_keeps_the_variance(name):
    f = fa.activations[name]
    moment, _ = integrate.quad(lambda z: float(f(z)) ** 2 * stats.norm.pdf(z), -12, 12, points=[0], limit=200)
    assert init.gain(name) == pytest.approx(moment**-0.5, rel=1e-6)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((400, 512))
    for _ in range(10):  # layers
        z = f(z) @ init.for_activation((512, 512), name, np.float64, rng).T
    assert z.var() == pytest.approx(1.0, rel=0.5)  # with a gain of 1, relu would be at 1/1024


def test_gains_that_others_state():
    assert init.gain("relu") == pytest.approx(math.sqrt(2), rel=1e-6)
    assert init.gain("tanh") == pytest.approx(5 / 3, rel=0.05)
    assert init.gain("linear") == pytest.approx(1.0, rel=1e-6)


def test_initial_weights_of_a_layer(dtype):
    layer = fa.nn.Dense(300, 200, "relu", dtype=dtype, rng=0, weight_init="auto", bias_init=0.01)
    assert layer.weight.value.std() == pytest.approx(math.sqrt(2 / 300), rel=0.02)
    np.testing.assert_array_equal(layer.bias.value, np.full(200, 0.01, dtype))
    layer = fa.nn.Dense(300, 200, dtype=dtype, rng=0, weight_init="orthogonal", bias_init="zeros")
    np.testing.assert_array_equal(layer.weight.value, init.orthogonal((200, 300), dtype=dtype, rng=0))
    assert not layer.bias.value.any()
    mine = fa.nn.Dense(3, 2, dtype=dtype, weight_init=lambda shape, dtype, rng: np.arange(6.0).reshape(shape))
    np.testing.assert_array_equal(mine.weight.value, np.arange(6).reshape(2, 3))
    plain, again = fa.nn.Dense(3, 2, rng=0), fa.nn.Dense(3, 2, rng=0, bias_init=1.0)
    np.testing.assert_array_equal(plain.weight.value, again.weight.value)


def test_a_loaded_layer_draws_nothing(tmp_path):
    model = fa.nn.Sequential(fa.nn.Dense(4, 3, weight_init="he_normal", bias_init=0.1))
    fa.save(model, tmp_path / "m.safetensors")
    for name, value in fa.load(tmp_path / "m.safetensors").state_dict().items():
        np.testing.assert_array_equal(value, model.state_dict()[name])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: init.he_normal((3,)), ValueError, ["shape", "(out, in, ...)"]),
        (lambda: init.orthogonal((3,)), ValueError, ["shape"]),
        (lambda: init.identity((3, 3, 3)), ValueError, ["two axes"]),
        (lambda: init.variance_scaling((3, 3), 1.0, "fan"), ValueError, ["mode", "fan_avg"]),
        (lambda: init.variance_scaling((3, 3), 1.0, "fan_in", "gauss"), ValueError, ["distribution", "uniform"]),
        (lambda: init.variance_scaling((3, 3), 0), ValueError, ["scale"]),
        (lambda: init.he_normal((3, 3), rng=-1), ValueError, ["rng"]),
        (lambda: init.gain("reluu"), ValueError, ["relu"]),
        (lambda: fa.nn.Dense(3, 2, weight_init="he_norm"), ValueError, ["weight_init", "'he_normal'?"]),
        (lambda: fa.nn.Dense(3, 2, weight_init=lambda *_, **__: np.ones(3)), ValueError, ["weight_init", "(2, 3)"]),
        (lambda: fa.nn.Dense(3, 2, bias_init=[1, 2]), TypeError, ["bias_init"]),
        (lambda: fa.nn.Dense(3, 2, bias_init="he_normal"), ValueError, ["two axes"]),
        (lambda: fa.nn.Dense(3, 2, bias_init=math.inf), ValueError, ["bias_init"]),
    ],
)
def test_refuses(make, error, words):
    with pytest.raises(error) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
