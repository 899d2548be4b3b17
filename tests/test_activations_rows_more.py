"""Temperatures, logsumexp, maxout, gumbel_softmax, and hard cases of sparsemax and hardmax."""

from __future__ import annotations

import copy
import pickle

import mpmath
import numpy as np
import pytest
from gradients import row_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

import fastact as fa
from fastact import reference

pytestmark = pytest.mark.sanitise

SOFT = ["softmax", "log_softmax", "softmin"]
EVERY = ["softmax", "log_softmax", "softmin", "hardmax", "sparsemax"]
SIZES = [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 1025]


def samples(shape, dtype, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 3).astype(dtype)


# -- temperature -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("temperature", [0.01, 0.3, 2.0, 100.0])
@pytest.mark.parametrize("n", [1, 5, 31, 33, 1025])
def test_temperature(name, temperature, n, isa, dtype):
    """No error of x / temperature comes in: the bound is that of temperature 1."""
    f, twin = fa.activations[name], reference.activations[name]
    x, dy = samples((3, n), dtype), samples((3, n), dtype, 1)
    exact_temperature = float(dtype.type(temperature))
    eps = np.finfo(dtype).eps
    for axis, a in ((-1, x), (0, np.ascontiguousarray(x.T)), (-1, x[:, ::-1])):
        want = twin.forward(np.moveaxis(a, axis, -1), exact_temperature)
        y = np.moveaxis(f(a, temperature=temperature, axis=axis), axis, -1)
        if dtype == np.float64:  # the twin itself divides first: its error grows with |x| / temperature
            np.testing.assert_allclose(
                y, want, rtol=200 * eps / min(temperature, 1), atol=0 if name != "log_softmax" else 1e-13
            )
        elif name == "log_softmax":
            np.testing.assert_allclose(y, want, rtol=2 * eps, atol=4 * eps)
        else:
            np.testing.assert_allclose(y, want, rtol=6 * eps, atol=2 * np.finfo(dtype).smallest_subnormal)
    y = f(x, temperature=temperature)
    dx = f.backward(dy, y=y, temperature=temperature)
    scale = np.abs(dy).sum(-1).max() / temperature
    np.testing.assert_allclose(dx, twin.backward(dy, y, exact_temperature), rtol=0, atol=(4 + np.sqrt(n)) * eps * scale)
    bound = f.with_params(temperature=temperature)
    np.testing.assert_array_equal(bound(x), y)
    np.testing.assert_array_equal(bound.backward(dy, y=y), dx)


@pytest.mark.parametrize("name", SOFT)
def test_temperature_in_float64_against_mpmath(name):
    x, temperature = samples(9, np.float64), 0.37
    sign = -1 if name == "softmin" else 1
    with mpmath.workdps(40):
        z = [sign * mpmath.mpf(float(v)) / mpmath.mpf(temperature) for v in x]
        total = sum(map(mpmath.exp, z))
        want = [v - mpmath.log(total) if name == "log_softmax" else mpmath.exp(v) / total for v in z]
        error = [
            abs(float(mpmath.mpf(float(a)) / b - 1))
            for a, b in zip(fa.activations[name](x, temperature=temperature), want, strict=True)
        ]
    assert max(error) < 3 * np.finfo(np.float64).eps


@pytest.mark.parametrize("name", SOFT)
def test_temperature_for_each_row(name, dtype):
    f = fa.activations[name]
    x = samples((4, 6), dtype)
    each = np.array([0.5, 1, 2, 7], dtype)
    y = f(x, temperature=each)
    for row in range(4):
        np.testing.assert_array_equal(y[row], f(x[row], temperature=float(each[row])))
    dx = f.backward(x, y=y, temperature=each)
    np.testing.assert_array_equal(dx[1:2], f.backward(x[1:2], y=y[1:2]))
    np.testing.assert_array_equal(f(x.T, axis=0, temperature=each), y.T)


@pytest.mark.parametrize("name", SOFT)
def test_temperature_gradient(name):
    f = fa.activations[name].with_params(temperature=0.7)
    x, dy = samples((2, 5), np.float64), samples((2, 5), np.float64, 1)
    np.testing.assert_allclose(f.backward(dy, y=f(x)), row_gradient(f, x, dy), atol=1e-8)
    shown = np.array([True, False, True, True, False])
    where = {"where": shown}
    dx = f.backward(np.where(shown, dy, np.nan), y=f(x, **where))
    np.testing.assert_allclose(dx, row_gradient(lambda z: np.where(shown, f(z, **where), 0), x, dy), atol=1e-8)
    np.testing.assert_array_equal(dx, f.backward(dy, y=f(x, **where), **where))


@pytest.mark.parametrize("kind", ["e", "f", "d", "b", "i"])
def test_temperature_keeps_the_dtype(kind):
    x = np.array([[0, 1, 3], [1, 1, 0]]).astype(kind)
    y = fa.softmax(x, temperature=2.0)
    assert y.dtype == np.sin(x).dtype
    np.testing.assert_allclose(y, fa.softmax(np.float64(x) / 2), rtol=1e-3 if y.dtype == np.float16 else 1e-6)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: fa.softmax(x, temperature=0), ValueError, "temperature: expected a finite number above 0, got 0"),
        (lambda x: fa.softmax(x, temperature=-1.0), ValueError, "temperature: expected a finite number above 0"),
        (lambda x: fa.softmin(x, temperature=np.nan), ValueError, "temperature: expected a finite number above 0"),
        (lambda x: fa.softmax(x, temperature=[1, np.inf]), ValueError, "temperature: expected a finite number above 0"),
        (lambda x: fa.softmax(x, temperature="hot"), TypeError, "temperature: expected a real number"),
        (lambda x: fa.softmax(x, temprature=1), TypeError, "expected parameters among: temperature; got 'temprature'"),
        (lambda x: fa.hardmax(x, temperature=1), TypeError, "hardmax: expected parameters among: none"),
        (
            lambda x: fa.softmax(x, mask=x > 0),
            TypeError,
            r"expected the mask as where=, True where an entry takes part",
        ),
        (lambda x: fa.softmax.with_params(temperature=0), ValueError, "temperature: expected a finite number above 0"),
        (lambda x: fa.logsumexp.backward(1.0), TypeError, "logsumexp.backward: x: expected the input"),
        (lambda x: fa.logsumexp.backward(1.0, y=x), TypeError, "its output is not enough"),
        (lambda x: fa.logsumexp(x, axis=1), ValueError, "axis: expected -1 to 0"),
        (lambda x: fa.logsumexp(x * 1j), TypeError, "logsumexp: x: expected real numbers .* got dtype complex128"),
        (lambda x: fa.softmin(np.array([x, None], object)), TypeError, "softmin: x: expected real numbers"),
        (lambda x: fa.maxout(x, pieces=3), ValueError, r"x: expected a multiple of 3, the pieces, along axis 0"),
        (lambda x: fa.maxout(x, pieces=0), ValueError, "pieces: expected a whole number of at least 1, got 0"),
        (lambda x: fa.maxout(x, groups=2), TypeError, "groups"),
        (lambda x: fa.maxout.backward(x, y=x), TypeError, "maxout.backward: x: expected the input"),
        (lambda x: fa.sparsemax.backward(x), TypeError, "sparsemax.backward: expected y="),
        (
            lambda x: fa.sparsemax.backward(x, y=x[:3]),
            ValueError,
            "shapes that broadcast together, got dy .8,., y .3,.",
        ),
        (lambda x: fa.gumbel_softmax(x, rng="a"), TypeError, "rng"),
        (lambda x: fa.gumbel_softmax(x * 1j), TypeError, "gumbel_softmax: x: expected real numbers"),
        (lambda x: fa.gumbel_softmax(x, temperature=0), ValueError, "temperature"),
        (lambda x: fa.logsumexp.derivative(x), TypeError, r"use logsumexp.backward\(dy, x=x\)"),
        (
            lambda x: fa.nn.Dense(8, 8, activation="logsumexp"),
            ValueError,
            "activation: expected one that keeps the shape",
        ),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call(np.arange(8.0))


# -- logsumexp -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
def test_logsumexp(n, isa, dtype):
    x, dy = samples((5, n), dtype), samples(5, dtype, 1)
    eps = np.finfo(dtype).eps
    want = reference.logsumexp(x)
    np.testing.assert_allclose(fa.logsumexp(x), want, rtol=2 * eps, atol=4 * eps**2)
    np.testing.assert_array_equal(fa.logsumexp(np.asfortranarray(x)), fa.logsumexp(x))
    np.testing.assert_array_equal(fa.logsumexp(x.T, axis=0), fa.logsumexp(x))
    np.testing.assert_array_equal(fa.logsumexp(x[:, ::-1], keepdims=True).shape, (5, 1))
    dx = fa.logsumexp.backward(dy, x=x)
    exact = 6 if dtype == np.float32 else 40  # in float64 the twin's own x - max counts, too
    np.testing.assert_allclose(dx, reference.logsumexp_backward(dy, x), rtol=exact * eps, atol=np.finfo(dtype).tiny)
    np.testing.assert_array_equal(fa.logsumexp.backward(dy, x=x.T, axis=0), dx.T)
    np.testing.assert_array_equal(fa.logsumexp.backward(dy[:, None], x=x, keepdims=True), dx)


def test_logsumexp_against_scipy_and_at_the_extremes(isa, dtype):
    special = pytest.importorskip("scipy.special")
    x = samples((7, 40), dtype) * 100
    np.testing.assert_allclose(fa.logsumexp(x, axis=0), special.logsumexp(np.float64(x), axis=0), rtol=1e-6)
    inf = np.inf
    x = np.array([[inf, 0, -inf], [-inf, -inf, -inf], [-inf, 2, -inf], [np.nan, inf, 0]], dtype)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(fa.logsumexp(x), np.array([inf, -inf, 2, np.nan], dtype))
        np.testing.assert_array_equal(fa.logsumexp(x.T, axis=0), np.array([inf, -inf, 2, np.nan], dtype))
    assert not fa.logsumexp.backward(np.ones(4, dtype), x=x)[1].any()
    np.testing.assert_array_equal(fa.logsumexp(np.zeros((2, 0), dtype)), -inf)


def test_logsumexp_keeps_the_digits_of_a_dominant_term():
    """log(e^0 + e^-20) = 2.06e-9: nothing is lost to the 1 that the greatest gives."""
    x = np.array([0, -20], np.float32)
    np.testing.assert_allclose(fa.logsumexp(x), np.log1p(np.exp(-20.0)), rtol=1e-6)


@pytest.mark.parametrize("kind", ["e", "f", "d", "b", "h", "?"])
def test_logsumexp_options(kind):
    x = np.array([[0, 1, 3], [1, 1, 0]]).astype(kind)
    y = fa.logsumexp(x)
    assert y.dtype == np.sin(x).dtype
    assert fa.logsumexp.backward(y, x=x).dtype == y.dtype
    assert fa.logsumexp(x, dtype=np.float64).dtype == np.float64
    out = np.empty(2)
    assert fa.logsumexp(x, out=out) is out
    assert fa.logsumexp(x, axis=0, keepdims=True).shape == (1, 3)
    shown = np.array([True, False, True])
    np.testing.assert_array_equal(fa.logsumexp(x, where=shown), fa.logsumexp(x[:, shown]))
    dx = fa.logsumexp.backward(y, x=x, where=shown)
    assert not dx[:, 1].any()
    np.testing.assert_array_equal(dx[:, shown], fa.logsumexp.backward(y, x=x[:, shown]))
    masked = fa.logsumexp(np.ma.array(x, mask=[[0, 1, 0], [1, 1, 1]]))
    assert masked.mask.tolist() == [False, True]
    np.testing.assert_array_equal(masked[0], fa.logsumexp(x[0, [0, 2]]))


# -- hardmax, maxout -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
def test_hardmax_takes_the_first_of_equals(n, isa, dtype):
    x = np.random.default_rng(0).integers(0, 3, (40, n)).astype(dtype)
    for a, axis in ((x, -1), (x.T, 0), (np.asfortranarray(x), -1), (x[:, ::-1], 1), (x[:5], -1)):
        y = fa.hardmax(a, axis=axis)
        np.testing.assert_array_equal(np.moveaxis(y, axis, -1), reference.hardmax(np.moveaxis(a, axis, -1)))
        assert not fa.hardmax.backward(a, y=y, axis=axis).any()
    if n > 1:
        x[3, n // 2], x[4] = np.nan, -np.inf
        np.testing.assert_array_equal(fa.hardmax(x), reference.hardmax(x))
        np.testing.assert_array_equal(fa.hardmax(x.T, axis=0), reference.hardmax(x).T)


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 33])
def test_maxout(pieces, isa, dtype):
    x, twin = samples((4, 6 * pieces, 5), dtype), reference.activations["maxout"]
    turned = np.moveaxis(x, 1, -1)
    y = fa.maxout(x, pieces=pieces, axis=1)
    np.testing.assert_array_equal(np.moveaxis(y, 1, -1), twin.forward(turned, pieces))
    dy = samples(y.shape, dtype, 1)
    dx = fa.maxout.backward(dy, x=x, pieces=pieces, axis=-2)
    np.testing.assert_array_equal(np.moveaxis(dx, 1, -1), twin.backward(np.moveaxis(dy, 1, -1), turned, pieces))
    flat = np.ascontiguousarray(turned)
    np.testing.assert_array_equal(fa.maxout.with_params(pieces=pieces)(flat), twin.forward(flat, pieces))
    out = np.empty_like(x)
    assert np.shares_memory(fa.maxout.backward(dy, x=x, pieces=pieces, axis=1, out=out), out)
    np.testing.assert_array_equal(out, dx)


@pytest.mark.parametrize("n", [2, 9, 97])
def test_reductions_same_bits_for_any_threads_and_layout(n, n_threads, isa, dtype):
    x, dy = samples((1500, n), dtype), samples(1500, dtype, 1)
    across = np.ascontiguousarray(x.T)
    with fa.num_threads(1):
        sums, slopes = fa.logsumexp(x), fa.logsumexp.backward(dy, x=x)
        tops, marks = fa.maxout(x, pieces=n), fa.maxout.backward(dy[:, None], x=x, pieces=n)
    for a, axis in ((x, 1), (x[::-1, ::-1].copy()[::-1, ::-1], -1), (across.T, 1), (across, 0)):
        expected = [r if axis else r.T for r in (sums, slopes, tops, marks)]
        got = fa.logsumexp(a, axis=axis), fa.logsumexp.backward(dy, x=a, axis=axis)
        value = dy[:, None] if axis else dy[None]
        got += fa.maxout(a, pieces=n, axis=axis), fa.maxout.backward(value, x=a, pieces=n, axis=axis)
        for mine, wanted in zip(got, expected, strict=True):
            np.testing.assert_array_equal(mine, wanted)
    out, dx = np.empty(1500, dtype), np.empty_like(across)
    assert fa.logsumexp(across, out=out, axis=0) is out
    assert fa.logsumexp.backward(dy, x=across, out=dx, axis=0) is dx
    np.testing.assert_array_equal(out, sums)
    np.testing.assert_array_equal(dx, slopes.T)
    kept = fa.logsumexp(across, axis=0, keepdims=True)
    np.testing.assert_array_equal(kept, sums[None])
    np.testing.assert_array_equal(fa.logsumexp.backward(dy[None], x=across, axis=0, keepdims=True), dx)


def test_reductions_of_blocks_of_rows(isa, dtype):
    """An axis between others, by the short way, as rows along the last one."""
    x, dy = samples((3, 6, 5), dtype), samples((3, 5), dtype, 1)
    turned = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y = fa.logsumexp.reduce_rows(x, None, None, 1, 0, False)
    np.testing.assert_array_equal(y, fa.logsumexp(turned))
    dx = fa.logsumexp.reduce_rows(x, dy, None, 1, 0, False)
    np.testing.assert_array_equal(np.moveaxis(dx, 1, -1), fa.logsumexp.backward(dy, x=turned))
    tops = fa.maxout.reduce_rows(x, None, None, 1, 2, True)
    np.testing.assert_array_equal(tops, x.reshape(3, 3, 2, 5).max(axis=2))
    marks = fa.maxout.reduce_rows(x, tops, None, 1, 2, True)
    np.testing.assert_array_equal(marks, np.where(x == np.repeat(tops, 2, axis=1), x, 0))
    assert fa.maxout.reduce_rows(x, None, None, 1, 4, True) is None


def test_maxout_masks_and_nan():
    x = np.array([1.0, np.nan, 3.0, 4.0, 5.0, 6.0])
    assert np.isnan(fa.maxout(x)).tolist() == [True, False, False]
    np.testing.assert_array_equal(fa.maxout(x, where=[1, 0, 1, 0, 0, 0]), [1, 3, -np.inf])
    layer = fa.nn.Activation("maxout")
    y, backward = layer.forward(x[2:])
    np.testing.assert_array_equal(y, [4, 6])
    np.testing.assert_array_equal(backward(np.array([1.0, 2.0])), [0, 1, 0, 2])


# -- sparsemax -------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 80), st.floats(-3, 2), st.integers(0, 2**32 - 1))
def test_sparsemax_is_the_nearest_distribution(n, log_scale, seed):
    """Equal to the sorting algorithm, at scales from all in the support to one; and sums to 1."""
    x = np.random.default_rng(seed).normal(size=(3, n)) * 10**log_scale
    for dtype in (np.float32, np.float64):
        a = x.astype(dtype)
        y, want = fa.sparsemax(a), reference.sparsemax(a)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(y, want, atol=4e-15 + eps / 2 * (dtype == np.float32), rtol=eps)
        np.testing.assert_allclose(y.sum(-1, dtype=float), 1, rtol=n * eps)


def test_sparsemax_hard_rows(isa, dtype):
    """Ties, one dominant entry, steps that take many passes, infinities, NaN."""
    n = 200
    rows = [
        np.zeros(n),
        np.arange(n) * 5.0,
        -(2.0 ** np.linspace(-60, 0, n)),
        np.linspace(0, 1, n) ** 8,
        np.full(n, 1e30),
    ]
    x = np.array(rows).astype(dtype)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(
        fa.sparsemax(x), reference.sparsemax(x), rtol=2 * eps, atol=8e-15 + eps * (dtype == np.float32) / 2
    )
    np.testing.assert_array_equal(fa.sparsemax(x.T, axis=0).T, fa.sparsemax(x))
    with np.errstate(all="raise"):
        y = fa.sparsemax(np.array([[-np.inf, 1, 1], [-np.inf, -np.inf, -np.inf], [np.nan, 0, 1]], dtype))
    np.testing.assert_array_equal(y[:2], [[0, 0.5, 0.5], [0, 0, 0]])
    assert np.isnan(y[2]).all()


def test_sparsemax_where():
    x = samples((3, 9), np.float64)
    shown = np.arange(9) % 3 != 1
    y = fa.sparsemax(x, where=shown)
    np.testing.assert_array_equal(y[:, shown], fa.sparsemax(x[:, shown]))
    assert not y[:, ~shown].any()


# -- gumbel_softmax --------------------------------------------------------------------------------------------------


def test_gumbel_softmax_samples_the_distribution(dtype):
    p = np.array([0.5, 0.3, 0.15, 0.05])
    x = np.tile(np.log(p), (20_000, 1)).astype(dtype)
    hard = fa.gumbel_softmax(x, hard=True, rng=1)
    assert hard.dtype == dtype
    assert set(np.unique(hard)) == {0, 1}
    np.testing.assert_allclose(hard.mean(0), p, atol=0.012)
    soft = fa.gumbel_softmax(x, temperature=0.5, rng=1)
    np.testing.assert_allclose(soft.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(fa.hardmax(soft), hard)
    np.testing.assert_array_equal(soft, fa.gumbel_softmax.with_params(temperature=0.5)(x, rng=1))


def test_gumbel_softmax_backward():
    x, dy = samples((3, 5), np.float64), samples((3, 5), np.float64, 1)
    y, backward = fa.gumbel_softmax.forward(x, temperature=0.6, rng=2)
    want = row_gradient(lambda z: fa.gumbel_softmax(z, temperature=0.6, rng=2), x, dy)
    np.testing.assert_allclose(backward(dy), want, atol=1e-7)
    np.testing.assert_array_equal(fa.gumbel_softmax.backward(dy, y=y, temperature=0.6), backward(dy))
    hard, straight = fa.gumbel_softmax.forward(x, temperature=0.6, hard=True, rng=2)
    np.testing.assert_array_equal(hard, fa.hardmax(y))
    np.testing.assert_array_equal(straight(dy), backward(dy))
    shown = np.array([True, True, False, True, False])
    assert not fa.gumbel_softmax(x, where=shown, rng=0)[:, ~shown].any()
    y = fa.gumbel_softmax(np.ma.array(x, mask=~np.tile(shown, (3, 1))), rng=0, axis=0)
    assert not y.data[:, ~shown].any()
    fa.seed(3)
    first = fa.gumbel_softmax(x)
    fa.seed(3)
    np.testing.assert_array_equal(fa.gumbel_softmax(x), first)
    for dtype in ("e", "f", "i4"):
        assert fa.gumbel_softmax(np.zeros((2, 3), dtype)).dtype == np.sin(np.zeros(1, dtype)).dtype


def test_gumbel_softmax_copies():
    f = fa.gumbel_softmax.with_params(temperature=0.25)
    assert copy.deepcopy(f) == pickle.loads(pickle.dumps(f)) == f
    assert pickle.loads(pickle.dumps(fa.gumbel_softmax)) is fa.gumbel_softmax


# -- all of them -----------------------------------------------------------------------------------------------------


def test_same_bits_on_every_instruction_set(isa, n_threads, dtype):
    """As the scalar one, whatever the layout and thread count, at lengths on both sides of each change of layout."""
    from fastact._core import runtime

    for n in (2, 20, 40, 1000):
        x = samples((70, n), dtype)
        dy, dy_row = samples(x.shape, dtype, 1), samples(70, dtype, 2)
        results = []
        for name in (isa, "scalar"):
            runtime.isa_select(name)
            soft = [fa.activations[f](x, temperature=0.3) for f in SOFT]
            plain = [fa.activations[f](x) for f in EVERY]
            back = [fa.activations[f].backward(dy, y=y) for f, y in zip(EVERY, plain, strict=True)]
            reduced = [
                fa.logsumexp(x),
                fa.logsumexp.backward(dy_row, x=x),
                fa.maxout(x),
                fa.maxout.backward(dy[:, ::2], x=x),
            ]
            results.append([*soft, *plain, *back, *reduced])
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(fa.logsumexp(np.asfortranarray(x)), fa.logsumexp(x))
        np.testing.assert_array_equal(fa.softmax(x.T.copy(), axis=0, temperature=0.3).T, soft[0])


@pytest.mark.parametrize("name", ["logsumexp", "maxout", "softmin", "sparsemax", "hardmax"])
def test_other_libraries(name):
    """Dask and xarray through the gufunc; a masked array keeps its mask."""
    dask, xarray = pytest.importorskip("dask.array"), pytest.importorskip("xarray")
    f = fa.activations[name]
    x = samples((6, 8), np.float32)
    np.testing.assert_array_equal(f(dask.from_array(x, chunks=(2, 8))).compute(), f(x))
    if name != "maxout":
        y = f(xarray.DataArray(x, dims=("time", "unit")), axis="time")
        np.testing.assert_array_equal(y, f(x, axis=0))
        assert y.dims == (("unit",) if name == "logsumexp" else ("time", "unit"))


def test_softmax_with_temperature_on_other_libraries():
    dask, xarray, pandas = map(pytest.importorskip, ("dask.array", "xarray", "pandas"))
    x = samples((6, 8), np.float32)
    want = fa.softmax(x, temperature=0.4)
    back = fa.softmax.backward(x, y=want, temperature=0.4)
    for make in (lambda a: dask.from_array(a, chunks=(2, 8)), xarray.DataArray, pandas.DataFrame):
        y = fa.softmax(make(x), temperature=0.4)
        np.testing.assert_array_equal(np.asarray(y), want)
        assert np.asarray(y).dtype == np.float32
        np.testing.assert_array_equal(np.asarray(fa.softmax.backward(make(x), y=y, temperature=0.4)), back)
    rows = dask.from_array(np.arange(1, 7, dtype=np.float32), chunks=2)
    y = fa.softmax(dask.from_array(x, chunks=(2, 8)), temperature=rows)
    np.testing.assert_array_equal(y.compute(), fa.softmax(x, temperature=np.arange(1, 7, dtype=np.float32)))


@pytest.mark.parametrize("name", EVERY)
def test_results_have_the_layout_of_x(name):
    """Two layouts would meet on the way back, at five times the cost."""
    f = fa.activations[name]
    for x in (samples((5, 7, 3), np.float32), np.asfortranarray(samples((5, 7, 3), np.float16))):
        y = f(x, axis=0)
        assert y.strides == x.strides
        assert f.backward(x, y=y, axis=0).strides == x.strides
