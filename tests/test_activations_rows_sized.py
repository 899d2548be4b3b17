"""standardize and normalize: rows over their deviation or their p-norm, forward and backward."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
from gradients import row_gradient

import fastact as fa
from fastact import reference

pytestmark = pytest.mark.sanitise

SIZES = [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 513, 1025]
CASES = [
    ("standardize", {}),
    ("standardize", {"epsilon": 0.0}),
    ("standardize", {"epsilon": 0.5}),
    ("normalize", {}),
    ("normalize", {"p": 1.0}),
    ("normalize", {"p": np.inf}),
    ("normalize", {"epsilon": 5.0}),  # above the norm of some rows
]
NAMES = ["standardize", "normalize"]


def samples(shape, dtype, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 3).astype(dtype)


def twin(name, kind, *arrays, **params):
    values = {k: float(np.asarray(v, arrays[-1].dtype)) for k, v in (fa.activations[name].parameters | params).items()}
    return getattr(reference.activations[name], kind)(*arrays, *values.values())


# -- what they compute -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "params"), CASES)
def test_parameters_given_with_a_call(name, params, isa, dtype):
    f = fa.activations[name]
    x, dy = samples((6, 40), dtype), samples((6, 40), dtype, 1)
    y, dx = f.with_params(**params)(x), f.with_params(**params).backward(dy, x=x)
    arrays = {k: np.full(6, v, dtype) for k, v in params.items()}
    for given in (params, arrays):  # straight to the kernel, through the ufunc
        np.testing.assert_array_equal(f(x, **given), y)
        np.testing.assert_array_equal(f.backward(dy, x=x, **given), dx)
    for wrong in {"p": [3, np.nan], "epsilon": [-1, np.nan, 1e31]}.get(next(iter(params), ""), []):
        with pytest.raises(ValueError, match=rf"{next(iter(params))}: expected .* got {re.escape(str(wrong))}"):
            f(x, **{next(iter(params)): wrong})


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("name", "params"), CASES)
def test_against_the_twin(name, params, n, isa, dtype):
    f = fa.activations[name].with_params(**params)
    x, dy = samples((5, n), dtype), samples((5, n), dtype, 1)
    eps = np.finfo(dtype).eps
    slack = 1 if dtype == np.float32 else 40  # float64: the twin's own sums round as well
    y = f(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, twin(name, "forward", x, **params), rtol=2 * eps * slack, atol=eps * slack)
    dx = f.backward(dy, x=x)
    assert dx.dtype == dtype
    if n == 1 and params.get("epsilon") == 0:
        np.testing.assert_array_equal(y if name == "standardize" else np.abs(y) - 1, 0)
        return
    scale = np.abs(dx).max(initial=1) if name == "standardize" else np.abs(dy).sum(-1).max(initial=1)
    np.testing.assert_allclose(dx, twin(name, "backward", dy, x, **params), rtol=0, atol=(8 + np.sqrt(n)) * eps * scale)


def test_the_formulas_of_other_libraries():
    x = samples((4, 6), np.float64)
    # jax.nn.standardize: the variance is the mean square less the square of the mean, at least 0
    mean, square = x.mean(-1, keepdims=True), np.square(x).mean(-1, keepdims=True)
    jax = (x - mean) / np.sqrt(np.maximum(square - mean**2, 0) + 1e-5)
    np.testing.assert_allclose(fa.standardize(x), jax, rtol=1e-12)
    # torch.nn.functional.normalize, which has axis 1
    for p in (1, 2, np.inf):
        norm = np.linalg.norm(x, p, axis=1, keepdims=True)
        np.testing.assert_allclose(fa.normalize(x, p=p), x / np.maximum(norm, 1e-12), rtol=1e-14)
    # keras.ops.normalize(order=2): x * rsqrt(max(sum(x^2), epsilon^2))
    keras = x / np.sqrt(np.maximum(np.square(x).sum(0), 1e-14))
    np.testing.assert_allclose(fa.normalize(x, axis=0, epsilon=1e-7), keras, rtol=1e-14)
    np.testing.assert_array_equal(fa.normalize(np.array([3.0, 4.0])), [0.6, 0.8])
    np.testing.assert_array_equal(fa.normalize(np.array([3.0, -1.0]), p=1), [0.75, -0.25])
    np.testing.assert_array_equal(fa.standardize(np.array([1.0, 3.0]), epsilon=0), [-1, 1])


def test_standardize_is_layer_norm_without_gain_and_bias(dtype):
    x = samples((7, 50), dtype)
    layer = fa.nn.LayerNorm(50, dtype=dtype)
    np.testing.assert_allclose(fa.standardize(x), layer(x), rtol=0, atol=8 * np.finfo(dtype).eps)


def test_same_as_pytorch():
    torch = pytest.importorskip("torch")
    x, dy = samples((4, 6), np.float64), samples((4, 6), np.float64, 1)
    x[1, 2], x[2] = x[1, 4] = np.abs(x).max() + 1, 0  # the greatest twice, and a row of zeros
    for p in (1, 2, np.inf):
        tx = torch.from_numpy(x).requires_grad_()
        y = torch.nn.functional.normalize(tx, p=p, dim=-1)
        y.backward(torch.from_numpy(dy))
        np.testing.assert_allclose(fa.normalize(x, p=p), y.detach().numpy(), rtol=1e-14)
        np.testing.assert_allclose(fa.normalize.backward(dy, x=x, p=p), tx.grad.numpy(), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_gradient_by_differences(name, params):
    f = fa.activations[name].with_params(**params)
    x, dy = samples((3, 5), np.float64), samples((3, 5), np.float64, 1)
    np.testing.assert_allclose(f.backward(dy, x=x), row_gradient(f, x, dy), atol=1e-8)
    shown = np.array([[True, False, True, True, True]] * 2 + [[True] * 3 + [False] * 2])
    dx = f.backward(np.where(shown, dy, np.nan), x=np.where(shown, x, np.nan), where=shown)
    np.testing.assert_allclose(dx, row_gradient(lambda z: f(z, where=shown), x, dy), atol=1e-8)
    assert not dx[~shown].any()


def test_the_greatest_share_the_gradient():
    x, dy = np.array([[2.0, -2.0, 1.0, 2.0]]), np.array([[1.0, 2.0, 3.0, 4.0]])
    # y = (1, -1, 1/2, 1), sum(dy y) = 9/2: a third for each of the greatest
    want = (dy - np.array([[1, -1, 0, 1]]) * 1.5) / 2
    np.testing.assert_allclose(fa.normalize.backward(dy, x=x, p=np.inf), want, rtol=1e-15)


# -- hard rows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 40, 600])
def test_a_mean_far_from_zero(n, isa):
    """x - mean to the last digits of float32, where E[x^2] - E[x]^2 has none."""
    x = (samples((4, n), np.float64) + np.array([[1e6], [-1e4], [3e6], [1e3]])).astype(np.float32)
    want = reference.standardize(x, np.float32(1e-5))
    np.testing.assert_allclose(fa.standardize(x), want, rtol=4e-7, atol=1e-7)
    np.testing.assert_array_equal(fa.standardize(x.T.copy(), axis=0).T, fa.standardize(x))
    dy = samples((4, n), np.float32, 1)
    dx = fa.standardize.backward(dy, x=x)
    np.testing.assert_allclose(dx, reference.standardize_backward(dy, x, np.float32(1e-5)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [1, 5, 33, 600])
def test_rows_of_equal_numbers(n, isa, dtype):
    big = np.finfo(dtype).max
    x = np.array([0.0, -0.0, 0.1, -7.3, 1e30, big, np.finfo(dtype).tiny])[:, None].repeat(n, 1).astype(dtype)
    dy = samples(x.shape, dtype)
    for epsilon in (1e-5, 0.0):
        with np.errstate(all="raise"):
            np.testing.assert_array_equal(fa.standardize(x, epsilon=epsilon), 0)
            dx = fa.standardize.backward(dy, x=x, epsilon=epsilon)
        scale = np.sqrt(float(dtype.type(epsilon))) or np.inf
        want = (dy.astype(float) - dy.mean(-1, keepdims=True, dtype=float)) / scale
        atol = np.abs(want).max() * np.sqrt(n) * 2 * np.finfo(dtype).eps
        np.testing.assert_allclose(dx[:4], want[:4], rtol=0, atol=atol)


@pytest.mark.parametrize("p", [1.0, 2.0, np.inf])
def test_zeros_huge_and_tiny_rows(p, isa, dtype):
    info, eps = np.finfo(dtype), np.finfo(dtype).eps
    base = np.linspace(-1, 1, 21)
    exact = fa.normalize(base, p=p, epsilon=0)
    scales = [float(info.max), float(info.max) / 4, 1e30, 1e-30, float(info.tiny), float(info.tiny) / 2**10]
    for scale in scales:
        x = (base * scale).astype(dtype)[None]
        want = (x / np.longdouble(scale)).astype(float)  # the rounded base, at an easy scale
        with np.errstate(all="raise"):
            y = fa.normalize(x, p=p, epsilon=0)
        np.testing.assert_allclose(y, twin("normalize", "forward", want, p=p, epsilon=0), rtol=3 * eps, atol=0)
        np.testing.assert_allclose(y[0], exact, atol=1e-2)
        if scale > 1:
            dx = fa.normalize.backward(samples(x.shape, dtype), x=x, p=p)
            assert np.isfinite(dx).all()
            y = fa.standardize(x)
            np.testing.assert_allclose(y, twin("standardize", "forward", want, epsilon=0), rtol=8 * eps, atol=eps)
    zeros = np.zeros((2, 5), dtype)
    np.testing.assert_array_equal(fa.normalize(zeros, p=p), 0)
    np.testing.assert_array_equal(fa.normalize(zeros, p=p, epsilon=0), 0)
    dy = np.ones_like(zeros)
    np.testing.assert_allclose(fa.normalize.backward(dy, x=zeros, p=p), 1e12, rtol=2 * eps)
    np.testing.assert_array_equal(fa.normalize.backward(dy, x=zeros, p=p, epsilon=0), 0)
    tiny = np.full((1, 4), info.smallest_subnormal, dtype)  # below epsilon
    np.testing.assert_allclose(fa.normalize(tiny, p=p), tiny / dtype.type(1e-12), rtol=2 * eps)


@pytest.mark.parametrize("n", [4, 8, 10, 16, 33, 97, 600])
@pytest.mark.parametrize(("name", "params"), CASES)
def test_same_bits_beside_rows_that_need_care(name, params, n, isa, dtype):
    """Huge, tiny, zero and infinite rows, and a mask that hides nothing, change nothing of the other rows."""
    f, info = fa.activations[name].with_params(**params), np.finfo(dtype)
    rows = 70 if n == 600 else 700
    x, dy = samples((rows, n), dtype), samples((rows, n), dtype, 1)
    y, dx = f(x), f.backward(dy, x=x)
    shown = np.ones(x.shape, bool)
    np.testing.assert_array_equal(f(x, where=shown), y)
    np.testing.assert_array_equal(f.backward(dy, x=x, where=shown), dx)
    mixed = x.copy()
    for k, scale in enumerate([info.max / 64, info.tiny, 0, np.inf]):
        mixed[5 + 9 * k :: 41] = x[5 + 9 * k :: 41] * dtype.type(scale)
    same = (mixed == x).all(axis=1)
    assert 0.8 < same.mean() < 1
    with np.errstate(all="ignore"):
        for mine, want in ((f(mixed), y), (f.backward(dy, x=mixed), dx)):
            np.testing.assert_array_equal(mine[same], want[same])
        turned = np.ascontiguousarray(mixed.T), np.ascontiguousarray(dy.T)
        np.testing.assert_array_equal(f(turned[0], axis=0).T[same], y[same])
        np.testing.assert_array_equal(f.backward(turned[1], x=turned[0], axis=0).T[same], dx[same])
    for row in (0, rows - 1):
        np.testing.assert_array_equal(f(x[row]), y[row])
        np.testing.assert_array_equal(f.backward(dy[row], x=x[row]), dx[row])


@pytest.mark.parametrize("n", [40, 1000, 30_000])
def test_one_value_far_from_the_others(n, isa, dtype):
    """Partial sums start at what the largest term needs: the small ones keep their digits."""
    x = samples((3, n), np.float64) + np.array([[0.0], [50.0], [0.0]])
    x[0, n // 2], x[1, 3], x[2, -1] = 1e5, -3e6, 1e-3
    x = x.astype(dtype)
    eps = np.finfo(dtype).eps
    for name, axis in (("standardize", -1), ("normalize", -1), ("standardize", 0), ("normalize", 0)):
        mine = fa.activations[name](x.T.copy() if axis == 0 else x, axis=axis)
        mine = mine.T if axis == 0 else mine
        np.testing.assert_allclose(mine, twin(name, "forward", x.astype(np.longdouble)), rtol=4 * eps, atol=eps / 64)


def test_infinities_and_nan(isa, dtype):
    inf, nan = np.inf, np.nan
    x = np.array([[1, inf, 2], [-inf, 1, inf], [nan, 1, 2], [1, 2, 3]], dtype)
    dy = np.ones_like(x)
    with np.errstate(all="raise"):
        for p in (1, 2, inf):
            y = fa.normalize(x, p=p)
            np.testing.assert_array_equal(y[:3], [[0, nan, 0], [nan, 0, nan], [nan] * 3])  # x / inf; NaN spreads
            assert np.isfinite(y[3]).all()
        y, dx = fa.standardize(x), fa.standardize.backward(dy, x=x)
    for a in (y, dx):
        assert np.isnan(a).all(axis=-1).tolist() == [True, True, True, False]
        assert np.isfinite(a[3]).all()


@pytest.mark.slow
def test_rows_longer_than_float32_counts():
    x = np.tile(np.array([[1], [-1]], np.float32), (2**23 + 2**21, 2))
    y = fa.standardize(x, axis=0, epsilon=0)
    assert (y == x).all()
    dx = fa.standardize.backward(x + 1, x=x, axis=0, epsilon=0)
    assert np.abs(dx).max() < 1e-5


# -- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "params"), CASES)
@pytest.mark.parametrize("n", [6, 40, 100])
def test_masked_entries_have_no_part(name, params, n, isa, dtype):
    f = fa.activations[name].with_params(**params)
    x, dy = samples((3, n), dtype), samples((3, n), dtype, 1)
    shown = np.arange(n) % 3 != 1
    y, dx = f(x, where=shown), f.backward(dy, x=x, where=shown)
    assert y.dtype == dx.dtype == dtype
    assert not y[:, ~shown].any()
    assert not dx[:, ~shown].any()
    eps = np.finfo(dtype).eps  # of other sums: by the place of an element in its row
    np.testing.assert_allclose(y[:, shown], f(x[:, shown]), rtol=4 * eps, atol=4 * eps)
    alone = f.backward(dy[:, shown], x=x[:, shown])
    np.testing.assert_allclose(dx[:, shown], alone, rtol=0, atol=(8 + np.sqrt(n)) * eps * np.abs(dy).sum(-1).max())
    spoilt = np.where(shown, x, [np.nan, np.inf, -np.inf] * (n // 3) + [np.nan] * (n % 3)).astype(dtype)
    np.testing.assert_array_equal(f(spoilt, where=shown), y)
    np.testing.assert_array_equal(f.backward(dy, x=spoilt, where=shown), dx)
    np.testing.assert_array_equal(f(x.T, where=shown[:, None], axis=0), y.T)
    masked = np.ma.array(spoilt, mask=np.tile(~shown, (3, 1)))
    found = f(masked)
    np.testing.assert_array_equal(found.mask, masked.mask)
    np.testing.assert_array_equal(found.data, y)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_that_is_masked_whole(name, dtype):
    f = fa.activations[name]
    x, dy = samples((2, 9), dtype), samples((2, 9), dtype, 1)
    shown = np.array([[True], [False]])
    with np.errstate(all="raise"):
        y, dx = f(x, where=shown), f.backward(dy, x=x, where=shown)
    np.testing.assert_array_equal(y[0], f(x[0]))
    assert not y[1].any()
    assert not dx[1].any()


def test_an_infinite_entry_that_is_not_masked_is_none():
    x = np.array([[1, -np.inf, 3, 4.0]])
    assert np.isnan(fa.standardize(x)).all()
    y = fa.standardize(x, where=[True, True, True, False])
    assert np.isnan(y[0, :3]).all()
    assert y[0, 3] == 0


# -- axes, layouts, types --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "params"), CASES)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_any_axis(name, params, axis, dtype):
    f = fa.activations[name].with_params(**params)
    x, dy = samples((4, 5, 6), dtype), samples((4, 5, 6), dtype, 1)
    moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    y, dx = f(x, axis=axis), f.backward(dy, x=x, axis=axis)
    np.testing.assert_array_equal(np.moveaxis(y, axis, -1), f(moved))
    np.testing.assert_array_equal(np.moveaxis(dx, axis, -1), f.backward(np.moveaxis(dy, axis, -1), x=moved))
    out = np.empty_like(x)
    assert f(x, axis=axis, out=out) is out
    np.testing.assert_array_equal(out, y)
    assert f.backward(dy, x=x, axis=axis, out=out) is out
    np.testing.assert_array_equal(out, dx)
    x2, dy2 = x.copy(), dy.copy()
    np.testing.assert_array_equal(f.backward(dy2, x=x2, axis=axis, out=dy2), dx)
    np.testing.assert_array_equal(f(x2, axis=axis, out=x2), y)
    part = x[::-1, ::2, ::-1]
    np.testing.assert_array_equal(f(part, axis=axis), f(part.copy(), axis=axis))


@pytest.mark.parametrize(("name", "params"), CASES)
@pytest.mark.parametrize("n", [2, 20, 97, 600])
def test_same_bits_for_any_threads_layout_and_instruction_set(name, params, n, n_threads, isa, dtype):
    from fastact._core import runtime

    f = fa.activations[name].with_params(**params)
    x, dy = samples((701, n), dtype), samples((701, n), dtype, 1)
    runtime.isa_select("scalar")
    with fa.num_threads(1):
        want, slopes = f(x), f.backward(dy, x=x)
    runtime.isa_select(isa)
    across, dy_across = np.ascontiguousarray(x.T), np.ascontiguousarray(dy.T)
    np.testing.assert_array_equal(f(x), want)
    np.testing.assert_array_equal(f(x[::-1]), want[::-1])
    np.testing.assert_array_equal(f(np.asfortranarray(x)), want)
    np.testing.assert_array_equal(f(x[5:6]), want[5:6])
    np.testing.assert_array_equal(f(across, axis=0), want.T)
    np.testing.assert_array_equal(f.backward(dy, x=x), slopes)
    np.testing.assert_array_equal(f.backward(dy[5:6], x=x[5:6]), slopes[5:6])
    np.testing.assert_array_equal(f.backward(dy_across, x=across, axis=0), slopes.T)
    np.testing.assert_array_equal(f.backward(dy, x=np.asfortranarray(x)), slopes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["e", "f", "d", "b", "B", "?", "h", "i", "l", ">f4", "bfloat16"])
def test_types(name, kind):
    if kind == "bfloat16":
        pytest.importorskip("ml_dtypes")
    f = fa.activations[name]
    x = np.array([[0, 1, 3], [1, 1, 0]]).astype(kind)
    for given in ({}, {"epsilon": 1e-3}, {"where": np.array([True, True, False])}):
        y = f(x, **given)
        assert y.dtype == (x.dtype if kind == "bfloat16" else np.sin(x).dtype)
        rough = {2: 2e-3, 4: 1e-6, 8: 1e-12}[y.dtype.itemsize] * (8 if kind == "bfloat16" else 1)
        np.testing.assert_allclose(y.astype(float), f(x.astype(float), **given), rtol=rough, atol=rough)
    dx = f.backward(y, x=x)
    assert dx.dtype == y.dtype
    assert f(np.ones((2, 3), np.float32), dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("name", NAMES)
def test_empty_and_small(name):
    f = fa.activations[name]
    for shape in ((0,), (0, 3), (3, 0), (2, 0, 3)):
        x = np.zeros(shape, np.float32)
        assert f(x).shape == shape
        assert f.backward(x, x=x).shape == shape
    np.testing.assert_array_equal(f([1, 2.5]), f(np.array([1, 2.5])))
    assert f(np.ones((3, 1)))[0, 0] == (name == "normalize")
    with pytest.raises(ValueError, match="x: expected at least one dimension"):
        f(1.0)


def test_a_value_of_a_parameter_for_each_row(dtype):
    x, dy = samples((3, 6), dtype), samples((3, 6), dtype, 1)
    p, epsilon = np.array([1, 2, np.inf], dtype), np.array([0, 1e-5, 2], dtype)
    y, dx = fa.normalize(x, p=p), fa.normalize.backward(dy, x=x, p=p)
    z = fa.standardize(x, epsilon=epsilon)
    for row in range(3):
        np.testing.assert_array_equal(y[row], fa.normalize(x[row], p=p[row]))
        np.testing.assert_array_equal(dx[row], fa.normalize.backward(dy[row], x=x[row], p=p[row]))
        np.testing.assert_array_equal(z[row], fa.standardize(x[row], epsilon=epsilon[row]))


def test_copies_and_layers():
    f = fa.normalize.with_params(p=1)
    assert copy.deepcopy(f) == pickle.loads(pickle.dumps(f)) == f != fa.normalize
    x = samples((4, 5), np.float64)
    np.testing.assert_array_equal(f(x), fa.normalize(x, p=1))
    np.testing.assert_array_equal(f.backward(x, x=x + 1), fa.normalize.backward(x, x=x + 1, p=1))
    for layer in (fa.nn.Activation("standardize"), fa.nn.Dense(5, 3, activation=f, dtype="float64", rng=0)):
        y, backward = layer.forward(x)
        dy = samples(y.shape, np.float64, 1)
        np.testing.assert_allclose(backward(dy), row_gradient(layer, x, dy), atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_other_libraries(name):
    dask, xarray, pandas = map(pytest.importorskip, ("dask.array", "xarray", "pandas"))
    f = fa.activations[name]
    x = samples((6, 8), np.float32)
    for make in (lambda a: dask.from_array(a, chunks=(2, 8)), xarray.DataArray, pandas.DataFrame):
        y = np.asarray(f(make(x)))
        np.testing.assert_array_equal(y, f(x))
        assert y.dtype == np.float32
    shown = np.arange(8) % 3 != 1
    y = f(xarray.DataArray(x, dims=("time", "unit")), axis="unit", where=xarray.DataArray(shown, dims="unit"))
    np.testing.assert_array_equal(y, f(x, where=shown))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: fa.normalize(x, p=3), ValueError, "p: expected 1, 2 or infinity, got 3"),
        (lambda x: fa.normalize(x, p=[1, np.nan]), ValueError, "p: expected 1, 2 or infinity"),
        (lambda x: fa.normalize.with_params(p=0), ValueError, "p: expected 1, 2 or infinity"),
        (lambda x: fa.normalize(x, epsilon=-1), ValueError, "epsilon: expected a finite number of at least 0, got -1"),
        (lambda x: fa.standardize(x, epsilon=np.nan), ValueError, "epsilon: expected a finite number of at least 0"),
        (lambda x: fa.standardize(x, epsilon=np.inf), ValueError, "epsilon: expected a finite number of at least 0"),
        (lambda x: fa.standardize(x, epsilon="a"), TypeError, "epsilon: expected a real number"),
        (lambda x: fa.standardize(x, p=2), TypeError, "standardize: expected parameters among: epsilon; got 'p'"),
        (lambda x: fa.standardize(x, mask=x > 0), TypeError, "expected the mask as where="),
        (lambda x: fa.standardize(x, where=["a"] * 8), TypeError, "where: expected booleans"),
        (lambda x: fa.normalize(x, where=np.ones((2, 8), bool)), ValueError, "where: expected a shape"),
        (lambda x: fa.normalize(x, axis=1), ValueError, "axis: expected -1 to 0"),
        (lambda x: fa.normalize(x * 1j), TypeError, "normalize: x: expected real numbers .* got dtype complex128"),
        (lambda x: fa.standardize(np.array([x, None], object)), TypeError, "standardize: x: expected real numbers"),
        (lambda x: fa.standardize.backward(x), TypeError, "standardize.backward: x: expected the input"),
        (lambda x: fa.normalize.backward(x, y=x), TypeError, "its output is not enough"),
        (
            lambda x: fa.normalize.backward(x, x=x[:3]),
            ValueError,
            "shapes that broadcast together, got dy .8,., x .3,.",
        ),
        (lambda x: fa.normalize(x, out=np.empty(7)), ValueError, "out: expected shape .8,., got .7,."),
        (lambda x: fa.standardize.derivative(x), TypeError, r"use standardize.backward\(dy, x=x\)"),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call(np.arange(8.0))
