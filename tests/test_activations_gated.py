"""Gated linear units: the reference and PyTorch, any axis and layout, dtypes, gradients, errors."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastact as fa
from fastact import reference

GATED = ["glu", "swiglu", "geglu", "geglu_tanh", "reglu"]
gated = pytest.mark.parametrize("name", GATED)


def samples(shape, dtype, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 2).astype(dtype)


@gated
@pytest.mark.parametrize("shape", [(2,), (3, 8), (0, 4), (5, 0), (2, 3, 66), (1100, 64), (2, 70_000)])
def test_against_reference(name, shape, isa, dtype):
    f, twin = fa.activations[name], reference.activations[name]
    x = samples(shape, dtype)
    y = f(x)
    eps = np.finfo(dtype).eps
    assert y.shape == (*shape[:-1], shape[-1] // 2)
    own = 0 if dtype == np.float32 else 200 * eps  # the twin's own error in the tails of gelu
    np.testing.assert_allclose(y, twin.forward(x), rtol=5 * eps + own, atol=np.finfo(dtype).tiny)
    dy = samples(y.shape, dtype, 1)
    dx = f.backward(dy, x=x)
    assert dx.shape == shape
    np.testing.assert_allclose(dx, twin.backward(dy, x), rtol=6 * eps + own, atol=40 * eps)


@gated
def test_any_axis_layout_and_threads(name, n_threads, dtype):
    f = fa.activations[name]
    x = samples((6, 8, 10), dtype)
    for axis in (0, 1, 2, -1, -2, -3):
        turned = np.ascontiguousarray(np.moveaxis(x, axis, -1))
        y, dy = f(x, axis=axis), f(x, axis=axis) + 1
        np.testing.assert_array_equal(np.moveaxis(y, axis, -1), f(turned))
        dx = f.backward(dy, x=x, axis=axis)
        np.testing.assert_array_equal(np.moveaxis(dx, axis, -1), f.backward(np.moveaxis(dy, axis, -1), x=turned))
        out = np.empty_like(dx)[:, ::-1]
        assert f.backward(dy, x=x, axis=axis, out=out) is out
        np.testing.assert_array_equal(out, dx)
    np.testing.assert_array_equal(f(x[::-1, :, ::-1]), f(x[::-1, :, ::-1].copy()))
    out = np.empty_like(y := f(x))
    assert f(x, out=out) is out
    np.testing.assert_array_equal(out, y)
    a = x.copy()
    f(a, out=a[..., :5])  # the output may lie in the input
    np.testing.assert_array_equal(a[..., :5], f(x))
    a = x.copy()
    np.testing.assert_array_equal(f.backward(f(x), x=a, out=a), f.backward(f(x), x=x))


@gated
def test_gradient_by_differences(name):
    f = fa.activations[name]
    x, dy = samples((2, 6), np.float64), samples((2, 3), np.float64, 1)
    for options in ({}, {"gate_first": True}, {"gate_first": False}):
        dx = f.backward(dy, x=x, **options)
        for index in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[index] = 1e-6
            slope = (dy * (f(x + step, **options) - f(x - step, **options))).sum() / 2e-6
            assert abs(slope - dx[index]) < 1e-8


def test_the_halves():
    """Which half gates is told by the definitions of the libraries that have them."""
    a, b = samples((2, 3), np.float64), samples((2, 3), np.float64, 1)
    x = np.concatenate([a, b], axis=1)
    np.testing.assert_allclose(fa.glu(x), a * fa.sigmoid(b), rtol=1e-15)
    np.testing.assert_allclose(fa.swiglu(x), fa.silu(a) * b, rtol=1e-15)
    np.testing.assert_allclose(fa.swiglu(x, gate_first=False), a * fa.silu(b), rtol=1e-15)
    np.testing.assert_allclose(fa.geglu(x), a * fa.gelu(b), rtol=1e-15)
    np.testing.assert_allclose(fa.reglu(x, gate_first=True), fa.relu(a) * b, rtol=1e-15)


def test_glu_is_torchs():
    torch = pytest.importorskip("torch")
    x = samples((4, 6, 5), np.float64)
    t = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.glu(t, dim=1)
    y.sum().backward()
    np.testing.assert_allclose(fa.glu(x, axis=1), y.detach(), rtol=1e-14)
    np.testing.assert_allclose(fa.glu.backward(np.ones((4, 3, 5)), x=x, axis=1), t.grad, rtol=1e-13)


@gated
@pytest.mark.parametrize("kind", ["?", "b", "h", "i", "e", "f", "d", ">f4"])
def test_dtypes_as_sin(name, kind):
    f = fa.activations[name]
    x = np.array([[0, 1, 3, 2], [1, 1, 0, 1]]).astype(kind)
    y = f(x)
    assert y.dtype == np.sin(x).dtype
    np.testing.assert_allclose(y, f(x.astype("d")), rtol=2 * np.finfo(y.dtype).eps)
    assert f.backward(y, x=x).dtype == y.dtype
    assert f(x, dtype=np.float64).dtype == np.float64


@gated
def test_other_arrays(name):
    f = fa.activations[name]
    x = samples((4, 6), np.float32)
    mask = np.zeros(x.shape, bool)
    mask[1, 2] = mask[2, 5] = True
    y = f(np.ma.array(x, mask=mask))
    assert np.argwhere(y.mask).tolist() == [[1, 2], [2, 2]]
    np.testing.assert_array_equal(y.compressed(), f(x)[~y.mask])
    dask, xarray = pytest.importorskip("dask.array"), pytest.importorskip("xarray")
    chunked = dask.from_array(x, chunks=(2, 6))
    assert type(f(chunked)) is dask.Array
    np.testing.assert_array_equal(f(chunked).compute(), f(x))
    np.testing.assert_allclose(f.backward(f(chunked), x=chunked).compute(), f.backward(f(x), x=x), rtol=1e-6)
    labelled = xarray.DataArray(x, {"unit": list("abcdef")}, ("time", "unit"))
    y = f(labelled, axis="time")
    assert y.dims == ("time", "unit")
    np.testing.assert_array_equal(y, f(x, axis=0))
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert f(x.astype(ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16


@gated
def test_as_a_layer_and_as_an_object(name):
    f = fa.activations[name]
    layer = fa.nn.Activation(name)
    x = samples((3, 8), np.float32)
    y, backward = layer.forward(x)
    np.testing.assert_array_equal(y, f(x))
    np.testing.assert_array_equal(backward(y), f.backward(y, x=x))
    assert pickle.loads(pickle.dumps(f)) is f is copy.deepcopy(f)
    with pytest.raises(ValueError, match="activation: expected one that keeps the shape of x"):
        fa.nn.Dense(3, 4, activation=name)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: fa.glu(x[:3]), ValueError, r"glu: x: expected an even length along axis 0, got shape \(3,\)"),
        (lambda x: fa.glu(x, axis=1), ValueError, "axis: expected -1 to 0"),
        (lambda x: fa.glu(1.0), ValueError, "at least one dimension"),
        (lambda x: fa.glu(x, alpha=1), TypeError, "glu: expected parameters among: none; got 'alpha'"),
        (lambda x: fa.glu(x, where=x > 0), TypeError, "glu: takes no where="),
        (lambda x: fa.glu(x * 1j), TypeError, "glu: x: expected real numbers .* got dtype complex128"),
        (lambda x: fa.glu(x.astype(object)), TypeError, "glu: x: expected real numbers"),
        (lambda x: fa.glu(x, out=np.empty(8)), ValueError, r"glu: out: expected shape \(4,\), got \(8,\)"),
        (lambda x: fa.glu.backward(x), TypeError, "glu.backward: x: expected the input of the forward call"),
        (lambda x: fa.glu.backward(x, y=x), TypeError, "its output is not enough"),
        (
            lambda x: fa.glu.backward(x, x=x),
            ValueError,
            r"glu.backward: dy: expected the shape of y \(4,\), got \(8,\)",
        ),
        (lambda x: fa.glu.derivative(x), TypeError, r"use glu.backward\(dy, x=x\)"),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call(np.arange(8.0))
