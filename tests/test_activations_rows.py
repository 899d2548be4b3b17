"""softmax and its kin: any axis, masks, extremes, temperatures, gradients, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracle import errors

import fastact as fa
from fastact import reference

pytestmark = pytest.mark.sanitise

ROWWISE = ["softmax", "log_softmax", "softmin", "hardmax", "sparsemax"]
SMOOTH = ["softmax", "log_softmax", "softmin"]
SIZES = [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97]


def samples(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype) * 3


@pytest.mark.parametrize("name", ROWWISE)
@pytest.mark.parametrize("n", SIZES)
def test_rows_against_reference(name, n, isa, dtype):
    """Each e^x_i and the sum err by a few ulp; log_softmax adds those of a logarithm of size log n + max - x."""
    f, twin = fa.activations[name], reference.activations[name]
    x = samples((5, n), dtype)
    y, dy = f(x), samples((5, n), dtype, 1)
    eps = np.finfo(dtype).eps
    scale = 1 if name != "log_softmax" else 1 + np.abs(x).max(initial=0)
    np.testing.assert_allclose(y, twin.forward(x), rtol=8 * eps if name != "log_softmax" else 0, atol=8 * eps * scale)
    dx = f.backward(dy, y=y)
    np.testing.assert_allclose(
        dx, twin.backward(dy, y), rtol=0, atol=(4 + np.sqrt(n)) * eps * np.abs(dy).sum(-1).max(initial=1)
    )
    if n:
        np.testing.assert_allclose((y if name != "log_softmax" else np.exp(y)).sum(-1), 1, rtol=16 * eps)


@pytest.mark.parametrize("name", ROWWISE)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_rows_along_any_axis(name, axis, dtype):
    f = fa.activations[name]
    x, dy = samples((4, 5, 6), dtype), samples((4, 5, 6), dtype, 1)
    moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    y = f(x, axis=axis)
    np.testing.assert_array_equal(np.moveaxis(y, axis, -1), f(moved))
    dx = f.backward(dy, y=y, axis=axis)
    np.testing.assert_array_equal(np.moveaxis(dx, axis, -1), f.backward(np.moveaxis(dy, axis, -1), y=f(moved)))
    out = np.empty_like(x)
    assert f(x, axis=axis, out=out) is out
    np.testing.assert_array_equal(out, y)
    x2 = x.copy()
    np.testing.assert_array_equal(f(x2, axis=axis, out=x2), y)
    np.testing.assert_array_equal(f(x[::-1, ::2, ::-1], axis=axis), f(x[::-1, ::2, ::-1].copy(), axis=axis))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_rows_at_the_extremes(name, isa, dtype):
    f = fa.activations[name]
    big = np.finfo(dtype).max
    x = np.array([[0, 0, 0, 0], [big, big, -big, 0], [-np.inf, 1, 1, -np.inf], [1000, 0, -1000, 999]], dtype)
    with np.errstate(all="raise"):
        y = f(x)
        f(x, axis=0)
    want = np.array([[0.25] * 4, [0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0]])
    np.testing.assert_allclose(y[:3] if name == "softmax" else np.exp(y[:3]), want, rtol=4 * np.finfo(dtype).eps)
    with np.errstate(under="ignore"):
        np.testing.assert_allclose(y[3], reference.activations[name].forward(x[3]), rtol=4 * np.finfo(dtype).eps)
    assert np.isnan(f(np.array([1, np.nan, 2], dtype))).all()
    np.testing.assert_array_equal(f(np.full(2, -np.inf, dtype)), 0 if name == "softmax" else -np.inf)  # all masked


def test_rows_mask():
    x = samples((3, 6), np.float32)
    mask = np.arange(6) != 2
    p = fa.softmax(x, where=mask)
    assert p.dtype == np.float32
    assert not p[:, 2].any()
    np.testing.assert_allclose(p[:, mask], fa.softmax(x[:, mask]), rtol=1e-6)
    assert np.isneginf(fa.log_softmax(x, where=mask)[:, 2]).all()
    assert fa.softmax([1, 2, 3], where=[True, False, True]).dtype == np.float64


@pytest.mark.parametrize("kind", ["e", "f", "d", "b", "B", "?", "h", "i", "l", ">f4"])
def test_rows_promote_as_sin(kind):
    x = np.array([[0, 1, 3], [1, 1, 0]]).astype(kind)
    for axis in (0, 1):
        y = fa.softmax(x, axis=axis)
        assert y.dtype == np.sin(x).dtype
        np.testing.assert_allclose(y.sum(axis=axis, dtype=float), 1, rtol=2 * np.finfo(y.dtype).eps)
        assert fa.softmax.backward(y, y=y, axis=axis).dtype == y.dtype
    assert fa.softmax(np.ones((2, 3), np.float32), dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("name", [*SMOOTH, "sparsemax"])
def test_rows_gradient_by_differences(name):
    f = fa.activations[name]
    x, dy = samples((2, 5), np.float64), samples((2, 5), np.float64, 1)
    dx = f.backward(dy, y=f(x))
    h = 1e-5
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        slope = (dy * (f(x + step) - f(x - step))).sum() / (2 * h)
        assert abs(slope - dx[index]) < 1e-9


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=20),
        elements=st.floats(-100, 100, width=32),
    )
)
def test_softmax_is_a_distribution_that_ignores_shifts(x):
    p = fa.softmax(x)
    eps = np.finfo(x.dtype).eps
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(-1), 1, rtol=16 * eps)
    np.testing.assert_allclose(fa.softmax(x + 8), p, rtol=300 * eps, atol=np.finfo(x.dtype).tiny)
    np.testing.assert_array_equal(errors(np.exp(fa.log_softmax(x)), np.float64(p)) <= 400, True)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: fa.softmax.derivative(x), TypeError, r"softmax.derivative: .* use softmax.backward\(dy, y=y\)"),
        (lambda x: fa.softmax.backward(x), TypeError, "softmax.backward: expected y= "),
        (lambda x: fa.softmax.backward(x, x=x), TypeError, "softmax.backward: expected y= "),
        (lambda x: fa.softmax(x, axis=1), ValueError, r"axis: expected -1 to 0 for x of shape \(7,\), got 1"),
        (lambda x: fa.softmax(x, axis="a"), TypeError, "axis: expected an integer, got 'a'"),
        (lambda x: fa.softmax(x, alpha=1), TypeError, "softmax: expected parameters among: temperature; got 'alpha'"),
        (lambda x: fa.softmax(x, where=np.ones((2, 7), bool)), ValueError, "where: expected a shape that broadcasts"),
        (lambda x: fa.softmax(x + 1j), TypeError, "softmax: x: expected real numbers"),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call(np.arange(7.0))


@pytest.mark.parametrize("name", ROWWISE)
def test_scalars_and_sequences(name):
    f = fa.activations[name]
    np.testing.assert_array_equal(f([1, 2.5]), f(np.array([1, 2.5])))
    with pytest.raises(ValueError, match="x: expected at least one dimension"):
        f(1.0)


@pytest.mark.filterwarnings("ignore")
def test_masked_entries_are_left_out():
    x = np.ma.array(samples((3, 5), np.float64), mask=np.arange(15).reshape(3, 5) % 4 == 1)
    p = fa.softmax(x)
    np.testing.assert_array_equal(p.mask, x.mask)
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-15)
    np.testing.assert_array_equal(p.data, fa.softmax(x.data, where=~x.mask))


class Foreign:
    """A duck array with its own idea of ufuncs."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return ufunc.__name__, method, len(inputs), sorted(kwargs)


def test_other_libraries_see_the_ufunc():
    assert fa.softmax(Foreign(), axis=1) == ("softmax", "__call__", 1, ["axis"])
    assert fa.softmax.ufunc.signature == "(n)->(n)"


@pytest.mark.parametrize("name", ROWWISE)
def test_rows_same_bits_for_any_threads_and_layout(name, n_threads, isa, dtype):
    f = fa.activations[name]
    x, dy = samples((3001, 97), dtype), samples((3001, 97), dtype, 1)
    with fa.num_threads(1):
        want = f(x)
        slopes = f.backward(dy, y=want)
    np.testing.assert_array_equal(f(x), want)
    np.testing.assert_array_equal(f.backward(dy, y=want), slopes)
    np.testing.assert_array_equal(f(x[::-1]), want[::-1])
    np.testing.assert_array_equal(f(np.asfortranarray(x)), want)
    np.testing.assert_array_equal(f(x[5:6]), want[5:6])
    x, dy, y = (np.ascontiguousarray(a.T) for a in (x, dy, want))
    np.testing.assert_array_equal(f(x, axis=0), y)
    np.testing.assert_array_equal(f.backward(dy, y=y, axis=0), slopes.T)


@pytest.mark.parametrize("n", [2, 8, 16, 31, 32, 64, 130, 700])
@pytest.mark.parametrize("name", ["softmax", "softmin", "log_softmax"])
def test_rows_same_bits_with_values_far_below(name, n, isa, dtype):
    """Exponentials are made in groups, by a shorter way where all of a group are moderate: no row shows it."""
    f = fa.activations[name]
    rows = 1200 if n < 100 else 600
    x = samples((rows, n), dtype) * np.array([1, 1, 30, 1, 400, 1, 1], dtype)[np.arange(rows) % 7, None]
    x[3::7, -1] = np.inf if name == "softmin" else -np.inf
    x[5::7, n // 2] = 1000 if name == "softmin" else -1000
    y = f(x)
    np.testing.assert_array_equal(f(np.ascontiguousarray(x.T), axis=0).T, y)
    apart = np.zeros((n, 2), dtype)
    for row in range(14):  # alone, and not side by side in memory
        apart[:, 0] = x[row]
        np.testing.assert_array_equal(f(apart[:, :1], axis=0)[:, 0], y[row])
        np.testing.assert_array_equal(f(x[row]), y[row])
