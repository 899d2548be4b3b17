"""Elementwise activations against PyTorch's, forward and backward, kinks included; skipped where PyTorch is missing."""

from __future__ import annotations

import numpy as np
import pytest

import fastact as fa

torch = pytest.importorskip("torch")
F = torch.nn.functional

# name: (PyTorch's function, our parameters where PyTorch's definition is not the default)
SAME = {
    "sigmoid": (torch.sigmoid, {}),
    "tanh": (torch.tanh, {}),
    "relu": (F.relu, {}),
    "leaky_relu": (F.leaky_relu, {}),
    "prelu": (lambda x: F.prelu(x, torch.tensor(0.25, dtype=x.dtype)), {}),
    "elu": (F.elu, {}),
    "softplus": (F.softplus, {"threshold": 20}),
    "silu": (F.silu, {}),
    "gelu": (F.gelu, {}),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), {}),
    "hard_tanh": (F.hardtanh, {}),
    "exponential": (torch.exp, {}),
    "square": (torch.square, {}),
    "absolute": (torch.abs, {}),
    "sign": (torch.sign, {}),
    "relu6": (F.relu6, {}),
    "threshold": (lambda x: F.threshold(x, 0.5, -2), {"threshold": 0.5, "value": -2}),
    "hard_shrink": (F.hardshrink, {}),
    "soft_shrink": (F.softshrink, {}),
    "hard_sigmoid": (F.hardsigmoid, {}),
    "hard_swish": (F.hardswish, {}),
    "selu": (F.selu, {}),
    "celu": (lambda x: F.celu(x, 0.5), {"alpha": 0.5}),
    "log_sigmoid": (F.logsigmoid, {}),
    "mish": (F.mish, {}),
    "softsign": (F.softsign, {}),
    "tanh_shrink": (F.tanhshrink, {}),
    "erf": (torch.erf, {"slope": 1}),
    "arctan": (torch.atan, {"amplitude": 1, "slope": 1}),
}
ROUGH = {"hard_sigmoid": 1e-7}  # its backward multiplies by 1/6 rounded to float32, in float64 too
KINKS = [-6, -3, -1, -0.5, 0, 0.5, 1, 3, 6]


@pytest.mark.parametrize("name", SAME)
def test_same_as_pytorch(name):
    function, params = SAME[name]
    f = fa.activations[name].with_params(**params)
    x = np.concatenate([np.linspace(-9, 9, 1001), KINKS])
    dy = np.random.default_rng(3).normal(size=x.size)
    tx = torch.from_numpy(x).requires_grad_()
    y = function(tx)
    (dx,) = torch.autograd.grad(y, tx, torch.from_numpy(dy), create_graph=True)
    np.testing.assert_allclose(f(x), y.detach().numpy(), rtol=1e-13, atol=1e-14)
    rough = ROUGH.get(name, 0)
    np.testing.assert_allclose(f.backward(dy, x=x), dx.detach().numpy(), rtol=rough or 1e-13, atol=1e-13)
    if f.backward_from == "either":
        np.testing.assert_allclose(f.backward(dy, y=f(x)), dx.detach().numpy(), rtol=rough or 1e-11, atol=1e-11)
    if name == "hard_sigmoid":  # PyTorch has no second derivative of it
        return
    if dx.requires_grad:
        (d2,) = torch.autograd.grad(dx.sum(), tx, allow_unused=True)
        d2 = np.zeros_like(x) if d2 is None else d2.numpy()
        np.testing.assert_allclose(dy * f.derivative(x, order=2), d2, rtol=1e-11, atol=1e-13)


def test_prelu_and_its_slopes():
    dy, x = np.random.default_rng(0).normal(size=(2, 4, 3, 5))
    x[0, 0, 0] = 0
    slopes = np.array([0.1, -0.2, 0.3])
    tx, tw = (torch.from_numpy(a).requires_grad_() for a in (x, slopes))
    want = torch.autograd.grad(F.prelu(tx, tw), (tx, tw), torch.from_numpy(dy))
    for got, expected in zip(fa.prelu.gradients(dy, x, alpha=slopes, axis=1), want, strict=True):
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-13)


def test_rrelu_without_training():
    x = np.random.default_rng(0).normal(size=50)
    np.testing.assert_array_equal(fa.rrelu(x), F.rrelu(torch.from_numpy(x)).numpy())
