"""prelu and rrelu: slopes that are learned, or drawn; their gradients."""

from __future__ import annotations

import copy
import doctest
import math
import pickle

import numpy as np
import pytest

import fastact as fa
from fastact import _slopes, reference


def pair(shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype(dtype)


# -------------------------------------------------------------------------------------------------------------- prelu

# Shape of x, of alpha, and the axis.
SHAPES = [
    ((5,), (), None), ((4, 3), (3,), None), ((4, 3), (4, 1), None), ((4, 3), (1,), None), ((4, 3), (4, 3), None),
    ((2, 3, 5), (3,), 1), ((2, 3, 5), (3,), -2), ((2, 3, 5), (1,), 1), ((2, 3, 5), (3, 1), None), ((2, 3, 5), (5,), 2),
    ((2, 3, 5), (2, 1, 5), None), ((2, 3, 5), (1, 3, 1), None), ((0, 3), (3,), None), ((3, 0), (3, 1), None),
    ((), (), None),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "slopes", "axis"), SHAPES)
def test_prelu(shape, slopes, axis, dtype, n_threads):
    dy, x = pair(shape, dtype)
    alpha = np.random.default_rng(1).uniform(-1, 1, slopes).astype(dtype)
    laid = alpha if axis is None else np.expand_dims(alpha, [k for k in range(len(shape)) if k != axis % len(shape)])
    y = fa.prelu(x, alpha=alpha, axis=axis)
    np.testing.assert_array_equal(y, np.where(x > 0, x, laid * x))
    assert y.dtype == dtype
    dx, dalpha = fa.prelu.gradients(dy, x, alpha=alpha, axis=axis)
    np.testing.assert_array_equal(dx, np.where(x > 0, dy, laid * dy))
    np.testing.assert_array_equal(dx, fa.prelu.backward(dy, x=x, alpha=alpha, axis=axis))
    assert dalpha.shape == slopes
    assert dalpha.dtype == dtype
    want = reference.prelu_slope_gradient(dy, x, laid).reshape(slopes)
    np.testing.assert_allclose(dalpha, want, rtol=np.finfo(dtype).eps, atol=1e-13)
    y2, backward = fa.prelu.forward(x, alpha=alpha, axis=axis)
    np.testing.assert_array_equal(y2, y)
    for got, same in zip(backward(dy), (dx, dalpha), strict=True):
        np.testing.assert_array_equal(got, same)


def test_prelu_gradients_are_those_of_differences():
    dy, x = pair((3, 4, 2))
    alpha, step = np.array([0.25, -0.5, 0.0, 1.5]), 1e-6
    dx, dalpha = fa.prelu.gradients(dy, x, alpha=alpha, axis=1)

    def loss(x, alpha):
        return float((dy * fa.prelu(x, alpha=alpha, axis=1)).sum())

    for k in range(4):
        d = step * (np.arange(4) == k)
        assert dalpha[k] == pytest.approx((loss(x, alpha + d) - loss(x, alpha - d)) / (2 * step), rel=1e-6)
    for place in np.ndindex(x.shape):
        d = np.zeros(x.shape)
        d[place] = step
        assert dx[place] == pytest.approx((loss(x + d, alpha) - loss(x - d, alpha)) / (2 * step), rel=1e-6, abs=1e-9)


def test_prelu_slope_gradient_is_summed_soundly(dtype):
    """To the last place or two over 300,000 terms, where a running sum in float32 is off by hundreds."""
    x = -np.random.default_rng(0).uniform(0, 1, (300_000, 2)).astype(dtype)
    dy = np.ones_like(x)
    got = fa.prelu.gradients(dy, x, alpha=np.zeros(2, dtype))[1]
    want = [math.fsum(column) for column in x.T.tolist()]
    np.testing.assert_allclose(got, want, rtol=2 * np.finfo(dtype).eps)


# Rows and columns around those that the kernels take at a time (4 rows, a vector of columns) and sum (64 rows).
@pytest.mark.parametrize("columns", [1, 3, 16, 33, 130])
@pytest.mark.parametrize("rows", [1, 4, 7, 64, 131])
def test_prelu_of_columns_is_that_of_numpy(rows, columns, dtype, isa, n_threads):
    dy, x = pair((rows, columns), dtype)
    x[rows // 2, columns // 2], x[0, columns - 1] = -np.inf, 0
    alpha = np.random.default_rng(1).uniform(-1, 1, columns).astype(dtype)
    out = np.empty_like(x)
    assert fa.prelu(x, out=out, alpha=alpha) is out
    np.testing.assert_array_equal(out, np.where(x > 0, x, alpha * x))
    np.testing.assert_array_equal(fa.prelu(x, alpha=alpha), out)
    dx, dalpha = fa.prelu.gradients(dy, x, alpha=alpha)
    np.testing.assert_array_equal(dx, np.where(x > 0, dy, alpha * dy))
    terms = np.where(x > 0, 0, dy.astype(np.float64) * x)
    np.testing.assert_allclose(dalpha, terms.sum(0), rtol=np.finfo(dtype).eps, atol=1e-13)
    one = fa.prelu.gradients(dy, x, alpha=dtype.type(0.5))[1]
    np.testing.assert_allclose(one, terms.sum(), rtol=np.finfo(dtype).eps, atol=1e-12)
    fa.prelu(x, out=x, alpha=alpha)
    np.testing.assert_array_equal(x, out)


def test_prelu_slope_gradient_shows_nan_in_its_column_only(dtype):
    dy, x = pair((70, 5), dtype)
    want = fa.prelu.gradients(dy, x, alpha=np.ones(5, dtype))[1]
    x[65, 1], dy[3, 2], want[1:3] = np.nan, np.nan, np.nan
    x[3, 2], x[4, 4], dy[4, 4] = -1, 1, np.nan  # a slope that took no part
    dx, dalpha = fa.prelu.gradients(dy, x, alpha=np.ones(5, dtype))
    np.testing.assert_array_equal(np.isnan(dalpha), [False, True, True, False, False])
    assert np.isnan(dx).sum() == 3
    np.testing.assert_array_equal(dalpha[[0, 3]], want[[0, 3]])


def test_prelu_has_the_same_bits_for_any_number_of_threads(dtype):
    dy, x = pair((1000, 131), dtype)
    alpha = np.linspace(-1, 1, 131).astype(dtype)
    found = []
    for n in (1, 2, 3):
        with fa.num_threads(n):
            found.append([fa.prelu(x, alpha=alpha), *fa.prelu.gradients(dy, x, alpha=alpha)])
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(a, b)


def test_prelu_slope_gradient_has_the_same_bits_in_any_layout(dtype):
    dy, x = pair((37, 11, 19), dtype)
    alpha = np.linspace(-1, 1, 11).astype(dtype)
    dalpha = fa.prelu.gradients(dy, x, alpha=alpha, axis=1)[1]
    for layout in (
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: a[:, :, ::-1].copy()[:, :, ::-1],
    ):
        np.testing.assert_array_equal(fa.prelu.gradients(layout(dy), layout(x), alpha=alpha, axis=1)[1], dalpha)


def test_prelu_at_the_kink_and_beyond():
    x = np.array([0.0, -0.0, np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(fa.prelu.backward(np.ones(5), x=x, alpha=-2.0), [-2, -2, np.nan, 1, -2])
    for value, want in ((0.0, 0), (-0.0, 0), (np.nan, np.nan), (np.inf, 0), (-np.inf, -np.inf)):
        np.testing.assert_array_equal(fa.prelu.gradients(1.0, value)[1], want)
    assert fa.prelu.gradients(np.inf, 1.0)[1] == 0  # a slope that took no part


def test_prelu_types():
    dy, x = pair((6,), np.float32)
    assert fa.prelu.gradients(dy, x)[1].dtype == np.float32  # a plain number as the slope
    assert fa.prelu.gradients(dy, x, alpha=np.float64(0.5))[1].dtype == np.float32  # numbers do not promote
    assert fa.prelu.gradients(dy, x, alpha=np.full(6, 0.5))[1].dtype == np.float64
    assert fa.prelu.gradients(dy.astype("e"), x.astype("e"))[1].dtype == np.float16
    assert fa.prelu.gradients([1, 2], [-3, 4], alpha=[0.5, 0.5])[1].tolist() == [-3, 0]
    hidden = np.ma.array(x, mask=x < np.median(x))
    dalpha = fa.prelu.gradients(dy, hidden)[1]
    assert dalpha == fa.prelu.gradients(dy[~hidden.mask], x[~hidden.mask])[1]


def test_prelu_is_its_own_activation():
    f = fa.prelu.with_params(alpha=0.1)
    assert f != fa.leaky_relu.with_params(alpha=0.1)
    assert pickle.loads(pickle.dumps(f)) == f == copy.deepcopy(f)
    assert repr(f) == "Activation('prelu', alpha=0.1)"
    assert f(np.array([-10.0])) == -1
    assert fa.prelu(np.float32(-1)) == np.float32(-0.25)
    np.testing.assert_array_equal(fa.prelu.derivative([-1.0, 1.0], alpha=[3.0, 4.0]), [3, 1])
    assert np.asarray(fa.nn.Dense(3, 2, "prelu", rng=0)(np.ones((4, 3)))).shape == (4, 2)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: fa.prelu(x, alpha=[1, 2, 3, 4], axis=0), ValueError, "expected 3 slopes for axis 0 of x .* got 4"),
        (lambda x: fa.prelu(x, alpha=[[1]], axis=0), ValueError, r"one dimension beside axis=, got shape \(1, 1\)"),
        (lambda x: fa.prelu(x, alpha=[1, 2], axis=2), ValueError, "axis: expected -2 to 1 for x of shape .* got 2"),
        (lambda x: fa.prelu(x, alpha=[1, 2], axis="a"), TypeError, "axis: expected an integer, got 'a'"),
        (lambda x: fa.prelu(x, alpha=[1, 2, 3]), ValueError, r"prelu: expected shapes .* got x \(3, 4\), alpha \(3,\)"),
        (lambda x: fa.prelu(x, slope=1), TypeError, "prelu: expected parameters among: alpha; got 'slope'"),
        (lambda x: fa.prelu.backward(x, y=x), TypeError, "prelu.backward: x: expected the input .* not enough"),
        (lambda x: fa.prelu.backward(x), TypeError, "prelu.backward: x: expected the input of the forward call"),
        (lambda x: fa.prelu.gradients(x[0], x), ValueError, r"prelu.gradients: dy: expected the shape of x \(3, 4\)"),
        (lambda x: fa.prelu.gradients(x, x, alpha=np.ones((5, 3, 4))), ValueError, "alpha: expected a shape that br"),
        (lambda x: fa.prelu.gradients(x, x, alpha=np.ones(3)), ValueError, r"broadcasts to x \(3, 4\), got \(3,\)"),
        (lambda x: fa.prelu.gradients(x, x + 1j), TypeError, "prelu.gradients: x: expected real .* complex128"),
        (lambda x: fa.prelu.gradients(x.astype(object), x), TypeError, "prelu.gradients: dy: .* dtype object"),
    ],
)
def test_prelu_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call(np.ones((3, 4)))


# -------------------------------------------------------------------------------------------------------------- rrelu


def test_rrelu_without_training_has_the_mean_slope(dtype):
    x = pair((50,), dtype)[0]
    mean = fa.leaky_relu.with_params(alpha=11 / 48)
    np.testing.assert_array_equal(fa.rrelu(x), mean(x))
    np.testing.assert_allclose(fa.rrelu(x), reference.rrelu(x), rtol=np.finfo(dtype).eps)
    np.testing.assert_array_equal(fa.rrelu.backward(x, x=x), mean.backward(x, x=x))
    np.testing.assert_array_equal(fa.rrelu.derivative(x), mean.derivative(x))
    np.testing.assert_array_equal(fa.rrelu(x, lower=1, upper=2), np.where(x > 0, x, dtype.type(1.5) * x))
    bound = fa.rrelu.with_params(lower=0.0)
    assert pickle.loads(pickle.dumps(bound)) == bound != fa.rrelu
    assert pickle.loads(pickle.dumps(fa.rrelu)) is fa.rrelu
    np.testing.assert_array_equal(bound(x), fa.leaky_relu(x, alpha=1 / 6))
    out = np.empty_like(x)
    assert fa.rrelu(x, out=out) is out


def test_rrelu_in_training(dtype):
    dy, x = pair((1000, 30), dtype)
    y, backward = fa.rrelu.forward(x, rng=0)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y[x > 0], x[x > 0])
    slopes = (y / x)[x < 0]
    eps = 4 * np.finfo(dtype).eps
    assert slopes.min() >= 1 / 8 - eps
    assert slopes.max() <= 1 / 3 + eps
    for moment, want in ((slopes.mean(), 11 / 48), (slopes.var(), (5 / 24) ** 2 / 12)):
        assert moment == pytest.approx(want, rel=0.03)
    dx = backward(dy)
    np.testing.assert_array_equal(dx[x > 0], dy[x > 0])
    np.testing.assert_allclose(dx[x < 0], dy[x < 0] * slopes, rtol=eps)
    np.testing.assert_array_equal(backward(dy), dx)
    np.testing.assert_array_equal(fa.rrelu.forward(x, rng=0)[0], y)
    assert (fa.rrelu.forward(x, rng=1)[0] != y).any()
    fa.seed(5)
    y = fa.rrelu.forward(x)[0]
    fa.seed(5)
    np.testing.assert_array_equal(fa.rrelu.forward(x)[0], y)
    np.testing.assert_array_equal(fa.rrelu.forward(x, lower=0.5, upper=0.5)[0], fa.leaky_relu(x, alpha=0.5))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: fa.rrelu(x, lower=0.5), ValueError, "rrelu: lower, upper: expected lower <= upper, got 0.5 and 0.3"),
        (lambda x: fa.rrelu.with_params(upper=0), ValueError, "expected lower <= upper, got 0.125 and 0"),
        (lambda x: fa.rrelu(x, alpha=1), TypeError, "rrelu: expected parameters among: lower, upper; got 'alpha'"),
        (lambda x: fa.rrelu(x, lower=np.ones(3)), TypeError, "lower: expected a number"),
        (lambda x: fa.rrelu(x, lower=np.nan), ValueError, "lower: expected"),
        (lambda x: fa.rrelu(x + 1j), TypeError, "rrelu: x: expected real numbers .* got dtype complex128"),
        (lambda x: fa.rrelu(x, axis=1), TypeError, "axis: rrelu acts on each element"),
        (lambda x: fa.rrelu.backward(x, y=x), TypeError, "rrelu.backward: x: expected the input .* not enough"),
        (lambda x: fa.rrelu.backward(x, x=x[:2]), ValueError, r"rrelu.backward: expected shapes .* x \(2,\)"),
        (lambda x: fa.rrelu.forward(x.astype(object)), TypeError, "rrelu: x: expected real numbers .* dtype object"),
        (lambda x: fa.rrelu.forward(x, rng="seed"), TypeError, "rng"),
        (lambda x: fa.rrelu.derivative(x, order=3), ValueError, "rrelu.derivative: order: expected 1 or 2, got 3"),
    ],
)
def test_rrelu_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call(np.ones(3))


def test_doctests():
    assert doctest.testmod(_slopes).failed == 0
    for activation in (fa.prelu, fa.rrelu):
        found = doctest.DocTestParser().get_doctest(activation.__doc__, {}, activation.name, None, 0)
        assert found.examples
        assert doctest.DocTestRunner(verbose=False).run(found).failed == 0
