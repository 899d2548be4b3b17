"""The catalogue of activations: f, f' and f'' of the elementwise ones, f and its backward of those of rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Parameter = float | Array

# An elementwise activation is a triple: f, f', f'' of x and its parameters, and f' as a function of y = f(x) where y
# determines it. A row activation is f and the product of its transposed Jacobian with dy, as a function of y or of x.
#
# At a kink the derivative is PyTorch's: that of the side x <= 0 for the rectifiers, 0 at both ends of hard_tanh. NaN
# gives NaN in every function, constant derivatives included.


@dataclass(frozen=True)
class Elementwise:
    """f, f' and f'' of one elementwise activation, each ``(x, *parameters) -> array`` in float64."""

    forward: Callable[..., Array]
    derivative1: Callable[..., Array]
    derivative2: Callable[..., Array]
    derivative1_from_y: Callable[..., Array] | None = None

    def backward(self, dy: ArrayLike, *args: Any, x: ArrayLike | None = None, y: ArrayLike | None = None) -> Array:
        """dy f', from x or from y."""
        if x is not None:
            return np.multiply(_f64(dy), self.derivative1(x, *args))
        if self.derivative1_from_y is None:
            raise ValueError("y: this activation's derivative does not follow from its output; give x")
        return np.multiply(_f64(dy), self.derivative1_from_y(y, *args))


@dataclass(frozen=True)
class Rowwise:
    """f of one row activation and its backward (dy, y or x), over the last axis."""

    forward: Callable[..., Array]
    backward: Callable[..., Array]


def _f64(x: ArrayLike) -> Array:
    return np.asarray(x, np.float64)


def _constant(value: float) -> Callable[..., Array]:
    """The constant function, NaN at NaN."""
    return lambda x, *_: np.where(np.isnan(_f64(x)), np.nan, value)


def _times_logistic(a: Parameter, v: ArrayLike) -> Array:
    """a / (1 + e^-v). e^v enters as two halves, so that a large `a` meets it before it is subnormal."""
    v = _f64(v)
    half = np.exp(np.minimum(v, 0) / 2)
    return a * half * half / (1 + np.exp(-np.abs(v)))


def sigmoid(x: ArrayLike) -> Array:
    """1 / (1 + e^-x)."""
    return _times_logistic(1.0, x)


def _sigmoid_1(x: ArrayLike) -> Array:
    """sigma(x) sigma(-x), which keeps the relative precision of the smaller factor."""
    e = np.exp(-np.abs(_f64(x)))
    return e / (1 + e) ** 2


def _sigmoid_2(x: ArrayLike) -> Array:
    """sigma' (1 - 2 sigma), and 1 - 2 sigma(x) = -tanh(x / 2)."""
    return -_sigmoid_1(x) * np.tanh(_f64(x) / 2)


def tanh(x: ArrayLike) -> Array:
    """(e^x - e^-x) / (e^x + e^-x)."""
    return np.tanh(_f64(x))


def _tanh_1(x: ArrayLike) -> Array:
    """sech^2 x = 4 e^-2|x| / (1 + e^-2|x|)^2: 1 - tanh^2 would cancel."""
    e = np.exp(-2 * np.abs(_f64(x)))
    return 4 * e / (1 + e) ** 2


def _tanh_2(x: ArrayLike) -> Array:
    return -2 * tanh(x) * _tanh_1(x)


def scaled_tanh(x: ArrayLike, amplitude: Parameter = 1.7159, slope: Parameter = 2 / 3) -> Array:
    """amplitude tanh(slope x) (LeCun et al., Efficient BackProp, 1998)."""
    return amplitude * tanh(slope * _f64(x))


def _scaled_tanh_1(x: ArrayLike, amplitude: Parameter = 1.7159, slope: Parameter = 2 / 3) -> Array:
    return amplitude * np.asarray(slope) * _tanh_1(slope * _f64(x))


def _scaled_tanh_2(x: ArrayLike, amplitude: Parameter = 1.7159, slope: Parameter = 2 / 3) -> Array:
    return amplitude * np.square(slope) * _tanh_2(slope * _f64(x))


def linear(x: ArrayLike) -> Array:
    """x."""
    return _f64(x).copy()


def step(x: ArrayLike) -> Array:
    """1 for x > 0, else 0."""
    x = _f64(x)
    return np.where(np.isnan(x), x, x > 0)


def sign(x: ArrayLike) -> Array:
    """1 for x > 0, -1 for x < 0, else 0."""
    return np.sign(_f64(x))


def relu(x: ArrayLike) -> Array:
    """max(x, 0)."""
    x = _f64(x)
    return np.where(x <= 0, 0.0, x)


def leaky_relu(x: ArrayLike, alpha: Parameter = 0.01) -> Array:
    """x for x > 0, else alpha x."""
    x = _f64(x)
    return np.where(x > 0, x, alpha * x)


def _leaky_relu_1(x: ArrayLike, alpha: Parameter = 0.01) -> Array:
    x = _f64(x)
    return np.where(np.isnan(x), x, np.where(x > 0, 1.0, alpha))


def prelu(x: ArrayLike, alpha: Parameter = 0.25) -> Array:
    """leaky_relu with a learned slope (He et al., 2015)."""
    return leaky_relu(x, alpha)


def prelu_slope_gradient(dy: ArrayLike, x: ArrayLike, alpha: ArrayLike = 0.25) -> Array:
    """The gradient of alpha: dy x where x <= 0, summed to the shape of alpha, which broadcasts to x."""
    alpha, x = _f64(alpha), _f64(x)
    terms = np.where(x > 0, 0.0, _f64(dy) * x)
    lead = terms.ndim - alpha.ndim
    axes = tuple(k for k in range(terms.ndim) if k < lead or alpha.shape[k - lead] == 1)
    return terms.sum(axis=axes).reshape(alpha.shape)


def rrelu(x: ArrayLike, lower: float = 1 / 8, upper: float = 1 / 3) -> Array:
    """leaky_relu with the mean of the slopes that training draws from U(lower, upper) (Xu et al., 2015)."""
    return leaky_relu(x, (lower + upper) / 2)


def elu(x: ArrayLike, alpha: Parameter = 1.0) -> Array:
    """x for x > 0, else alpha (e^x - 1) (Clevert et al., 2015)."""
    x = _f64(x)
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _elu_1(x: ArrayLike, alpha: Parameter = 1.0) -> Array:
    x = _f64(x)
    return np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0)))


def _elu_2(x: ArrayLike, alpha: Parameter = 1.0) -> Array:
    x = _f64(x)
    return np.where(x >= 0, 0.0, alpha * np.exp(np.minimum(x, 0)))


def softplus(x: ArrayLike, beta: Parameter = 1.0, threshold: Parameter = math.inf) -> Array:
    """log(1 + e^(beta x)) / beta; x itself where beta x > threshold (PyTorch's is 20, ours never)."""
    v = beta * _f64(x)
    return np.where(v > threshold, x, np.logaddexp(0, v) / beta)


def _softplus_1(x: ArrayLike, beta: Parameter = 1.0, threshold: Parameter = math.inf) -> Array:
    v = beta * _f64(x)
    return np.where(v > threshold, 1.0, sigmoid(v))


def _softplus_2(x: ArrayLike, beta: Parameter = 1.0, threshold: Parameter = math.inf) -> Array:
    v = beta * _f64(x)
    return np.where(v > threshold, 0.0, beta * _sigmoid_1(v))


def _softplus_1_from_y(y: ArrayLike, beta: Parameter = 1.0, threshold: Parameter = math.inf) -> Array:
    """sigma(beta x) = 1 - e^(-beta y)."""
    v = beta * _f64(y)
    return np.where(v > threshold, 1.0, -np.expm1(-v))


def _at_most(x: ArrayLike, bound: float) -> Array:
    """x clipped to where the functions below have long reached their limits, so that inf * 0 can't arise."""
    return np.clip(_f64(x), -bound, bound)


def silu(x: ArrayLike) -> Array:
    """x sigma(x) (Elfwing et al., 2017; also known as swish)."""
    x = np.maximum(_f64(x), -1000)
    return _times_logistic(x, x)


def _silu_1(x: ArrayLike) -> Array:
    """sigma(x) + x sigma'(x)."""
    t = _at_most(x, 1000)
    return _times_logistic(1 + t * sigmoid(-t), t)


def _silu_2(x: ArrayLike) -> Array:
    """2 sigma' + x sigma'' = sigma' (2 - x tanh(x / 2))."""
    t = _at_most(x, 1000)
    return _times_logistic((2 - t * np.tanh(t / 2)) * sigmoid(np.abs(t)), -np.abs(t))


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _normal_cdf(x: Array) -> Array:
    """Phi. The rounding of x / sqrt(2) costs x^2 / 2 ulp in the left tail."""
    return _erfc(x * -math.sqrt(0.5)) / 2


def _times_normal_pdf(a: Parameter, x: Array) -> Array:
    """a phi(x), a meeting the exponential before it is subnormal."""
    half = np.exp(-np.square(x) / 4)
    return a * half * half / math.sqrt(2 * math.pi)


def gelu(x: ArrayLike) -> Array:
    """x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel, 2016)."""
    x = np.maximum(_f64(x), -50)
    return x * _normal_cdf(x)


def _gelu_1(x: ArrayLike) -> Array:
    """Phi(x) + x phi(x)."""
    t = _at_most(x, 50)
    return _normal_cdf(t) + _times_normal_pdf(t, t)


def _gelu_2(x: ArrayLike) -> Array:
    """(2 - x^2) phi(x)."""
    t = _at_most(x, 50)
    return _times_normal_pdf(2 - np.square(t), t)


# The tanh form of gelu is x sigma(v) with v = 2 sqrt(2 / pi) (x + 0.044715 x^3), since (1 + tanh u) / 2 = sigma(2 u).
_GELU_TANH = 2 * math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


def _gelu_tanh_v(t: Array) -> tuple[Array, Array, Array]:
    """v, v' and v''."""
    square = np.square(t)
    return (
        _GELU_TANH * t * (1 + _GELU_CUBIC * square),
        _GELU_TANH * (1 + 3 * _GELU_CUBIC * square),
        _GELU_TANH * 6 * _GELU_CUBIC * t,
    )


def gelu_tanh(x: ArrayLike) -> Array:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 (Hendrycks and Gimpel, 2016)."""
    v, _, _ = _gelu_tanh_v(_at_most(x, 50))
    return _times_logistic(np.maximum(_f64(x), -50), v)


def _gelu_tanh_1(x: ArrayLike) -> Array:
    """sigma(v) + x v' sigma'(v)."""
    t = _at_most(x, 50)
    v, v1, _ = _gelu_tanh_v(t)
    return _times_logistic(1 + t * v1 * sigmoid(-v), v)


def _gelu_tanh_2(x: ArrayLike) -> Array:
    """sigma' (2 v' + x v'') + x v'^2 sigma'' = sigma' (2 v' + x v'' - x v'^2 tanh(v / 2))."""
    t = _at_most(x, 50)
    v, v1, v2 = _gelu_tanh_v(t)
    return _times_logistic((2 * v1 + t * v2 - t * v1 * v1 * np.tanh(v / 2)) * sigmoid(np.abs(v)), -np.abs(v))


def hard_tanh(x: ArrayLike, low: Parameter = -1.0, high: Parameter = 1.0) -> Array:
    """x clipped to [low, high]."""
    return np.clip(_f64(x), low, high)


def _hard_tanh_1(x: ArrayLike, low: Parameter = -1.0, high: Parameter = 1.0) -> Array:
    x = _f64(x)
    return np.where(np.isnan(x), x, (x > low) & (x < high))


def affine(x: ArrayLike, slope: Parameter = 1.0, offset: Parameter = 0.0) -> Array:
    """slope x + offset."""
    return slope * _f64(x) + offset


def square(x: ArrayLike) -> Array:
    """x^2."""
    return np.square(_f64(x))


def absolute(x: ArrayLike) -> Array:
    """|x|."""
    return np.abs(_f64(x))


def exponential(x: ArrayLike) -> Array:
    """e^x."""
    return np.exp(_f64(x))


def relu6(x: ArrayLike, max_value: Parameter = 6.0) -> Array:
    """min(max(x, 0), max_value) (Krizhevsky, 2010)."""
    return np.clip(_f64(x), 0.0, max_value)


def _relu6_1(x: ArrayLike, max_value: Parameter = 6.0) -> Array:
    return _hard_tanh_1(x, 0.0, max_value)


def clipped_relu(
    x: ArrayLike, max_value: Parameter = np.inf, negative_slope: Parameter = 0.0, threshold: Parameter = 0.0
) -> Array:
    """min(x, max_value) for x > threshold, else negative_slope (x - threshold)."""
    x = _f64(x)
    with np.errstate(invalid="ignore"):
        below = np.where(np.equal(negative_slope, 0), _constant(0.0)(x), negative_slope * (x - threshold))
    return np.where(x > threshold, np.minimum(x, max_value), below)


def _clipped_relu_1(
    x: ArrayLike, max_value: Parameter = np.inf, negative_slope: Parameter = 0.0, threshold: Parameter = 0.0
) -> Array:
    x = _f64(x)
    inside = (x < max_value) | np.isposinf(max_value)
    slope = np.where(x > threshold, np.where(inside, 1.0, 0.0), negative_slope)
    return np.where(np.isnan(x), np.nan, slope)


def relu_squared(x: ArrayLike) -> Array:
    """max(x, 0)^2 (So et al., 2021)."""
    return np.square(relu(x))


def threshold(x: ArrayLike, threshold: Parameter = 1.0, value: Parameter = 0.0) -> Array:
    """x for x > threshold, else value."""
    x = _f64(x)
    return np.where(np.isnan(x) | (x > threshold), x, value)


def _threshold_1(x: ArrayLike, threshold: Parameter = 1.0, value: Parameter = 0.0) -> Array:
    return step(_f64(x) - threshold)


def hard_shrink(x: ArrayLike, threshold: Parameter = 0.5, bias: Parameter = 0.0) -> Array:
    """x less bias, towards 0, for |x| > threshold, else 0."""
    x = _f64(x)
    return np.where(np.abs(x) <= threshold, 0.0, x - np.sign(x) * bias)


def _hard_shrink_1(x: ArrayLike, threshold: Parameter = 0.5, bias: Parameter = 0.0) -> Array:
    return step(np.abs(_f64(x)) - threshold)


def soft_shrink(x: ArrayLike, threshold: Parameter = 0.5) -> Array:
    """x moved by threshold towards 0, and not beyond."""
    return hard_shrink(x, threshold, threshold)


def _ramp(x: ArrayLike, slope: Parameter, offset: Parameter) -> tuple[Array, Array]:
    """slope x + offset, and whether that is inside (0, 1)."""
    v = affine(x, slope, offset)
    return v, np.where(np.isnan(v), v, (v > 0) & (v < 1))


def hard_sigmoid(x: ArrayLike, slope: Parameter = 1 / 6, offset: Parameter = 0.5) -> Array:
    """slope x + offset, cut to [0, 1]."""
    return np.clip(affine(x, slope, offset), 0.0, 1.0)


def _hard_sigmoid_1(x: ArrayLike, slope: Parameter = 1 / 6, offset: Parameter = 0.5) -> Array:
    return slope * _ramp(x, slope, offset)[1]


def _hard_sigmoid_1_from_y(y: ArrayLike, slope: Parameter = 1 / 6, offset: Parameter = 0.5) -> Array:
    return slope * _hard_tanh_1(y, 0.0, 1.0)


def hard_swish(x: ArrayLike, slope: Parameter = 1 / 6, offset: Parameter = 0.5) -> Array:
    """x hard_sigmoid(x) (Howard et al., 2019)."""
    return np.maximum(_f64(x), -1e300) * hard_sigmoid(x, slope, offset)


def _hard_swish_1(x: ArrayLike, slope: Parameter = 1 / 6, offset: Parameter = 0.5) -> Array:
    v, inside = _ramp(x, slope, offset)
    return np.where(inside == 1, affine(x, 2 * np.asarray(slope), offset), np.clip(v, 0.0, 1.0))


def _hard_swish_2(x: ArrayLike, slope: Parameter = 1 / 6, offset: Parameter = 0.5) -> Array:
    return 2 * _hard_sigmoid_1(x, slope, offset)


def sparse_sigmoid(x: ArrayLike) -> Array:
    """(x + 1) / 2, cut to [0, 1] (Martins and Astudillo, 2016)."""
    return hard_sigmoid(x, 0.5, 0.5)


def _sparse_sigmoid_1(x: ArrayLike) -> Array:
    return _hard_sigmoid_1(x, 0.5, 0.5)


def sparse_plus(x: ArrayLike) -> Array:
    """The integral of sparse_sigmoid: 0, (x + 1)^2 / 4 on (-1, 1), x."""
    x = _f64(x)
    return np.where(x >= 1, x, np.square(sparse_sigmoid(x)))


def _sparse_plus_1_from_y(y: ArrayLike) -> Array:
    return np.sqrt(np.clip(_f64(y), 0.0, 1.0))


def gaussian(x: ArrayLike, alpha: Parameter = 1.0, beta: Parameter = 1.0) -> Array:
    """beta e^-(alpha x)^2 (OpenCV)."""
    return _times_gauss(beta, alpha * _f64(x))


def _times_gauss(a: Parameter, u: Array) -> Array:
    """a e^-u^2, a meeting the exponential before it is subnormal."""
    half = np.exp(-np.square(u) / 2)
    return a * half * half


def _gaussian_1(x: ArrayLike, alpha: Parameter = 1.0, beta: Parameter = 1.0) -> Array:
    u = _at_most(alpha * _f64(x), 50)
    return _times_gauss(-2 * alpha * beta * u, u)


def _gaussian_2(x: ArrayLike, alpha: Parameter = 1.0, beta: Parameter = 1.0) -> Array:
    u = _at_most(alpha * _f64(x), 50)
    return _times_gauss(2 * np.square(alpha) * beta * (2 * np.square(u) - 1), u)


def window(x: ArrayLike, center: Parameter = 0.0, radius: Parameter = 1.0) -> Array:
    """1 for |x - center| < radius, else 0."""
    x = _f64(x)
    return np.where(np.isnan(x), x, np.abs(x - center) < radius)


def _window_1(x: ArrayLike, center: Parameter = 0.0, radius: Parameter = 1.0) -> Array:
    """The derivative of the Gaussian with the window's centre and radius, as a surrogate: the true one is 0."""
    return _gaussian_1(_f64(x) - center, 1 / np.asarray(radius))


def _window_2(x: ArrayLike, center: Parameter = 0.0, radius: Parameter = 1.0) -> Array:
    return _gaussian_2(_f64(x) - center, 1 / np.asarray(radius))


_SELU = (1.6732632423543772, 1.0507009873554805)


def selu(x: ArrayLike, alpha: Parameter = _SELU[0], scale: Parameter = _SELU[1]) -> Array:
    """scale elu(x, alpha) (Klambauer et al., 2017)."""
    return scale * elu(x, alpha)


def _selu_1(x: ArrayLike, alpha: Parameter = _SELU[0], scale: Parameter = _SELU[1]) -> Array:
    return scale * _elu_1(x, alpha)


def _selu_2(x: ArrayLike, alpha: Parameter = _SELU[0], scale: Parameter = _SELU[1]) -> Array:
    return _elu_2(x, alpha * np.asarray(scale))


def _selu_1_from_y(y: ArrayLike, alpha: Parameter = _SELU[0], scale: Parameter = _SELU[1]) -> Array:
    """y + scale alpha on the left; the rounding error of that product counts where the two cancel."""
    y, product = _f64(y), scale * np.asarray(alpha)
    return np.where(y > 0, scale, y + product + _product_error(scale, alpha, product))


def _product_error(a: Parameter, b: Parameter, product: Parameter) -> Array:
    """a b - product, exactly (Dekker, 1971): each factor in two halves of 26 bits."""

    def halves(v: Parameter) -> tuple[Array, Array]:
        large = 134217729.0 * np.asarray(v, np.float64)
        high = large - (large - v)
        return high, v - high

    (a1, a2), (b1, b2) = halves(a), halves(b)
    return a1 * b1 - product + a1 * b2 + a2 * b1 + a2 * b2


def celu(x: ArrayLike, alpha: Parameter = 1.0) -> Array:
    """x for x > 0, else alpha (e^(x / alpha) - 1) (Barron, 2017)."""
    x = _f64(x)
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))


def _celu_1(x: ArrayLike, alpha: Parameter = 1.0) -> Array:
    return _elu_1(_f64(x) / alpha)


def _celu_2(x: ArrayLike, alpha: Parameter = 1.0) -> Array:
    return _elu_2(_f64(x) / alpha) / alpha


def _celu_1_from_y(y: ArrayLike, alpha: Parameter = 1.0) -> Array:
    y = _f64(y)
    return np.where(y > 0, 1.0, (y + alpha) / alpha)


def log_sigmoid(x: ArrayLike) -> Array:
    """log sigma(x) = -softplus(-x)."""
    return -softplus(-_f64(x))


def swish(x: ArrayLike, beta: Parameter = 1.0) -> Array:
    """x sigma(beta x) (Ramachandran et al., 2017)."""
    v = beta * _f64(x)
    return _times_logistic(np.where(v > -1000, x, 0.0), v)


def _swish_1(x: ArrayLike, beta: Parameter = 1.0) -> Array:
    return _silu_1(beta * _f64(x))


def _swish_2(x: ArrayLike, beta: Parameter = 1.0) -> Array:
    t = _at_most(beta * _f64(x), 1000)
    return _times_logistic(beta * (2 - t * np.tanh(t / 2)) * sigmoid(np.abs(t)), -np.abs(t))


def quick_gelu(x: ArrayLike, beta: Parameter = 1.702) -> Array:
    """swish with a slope that comes near to gelu."""
    return swish(x, beta)


def _quick_gelu_1(x: ArrayLike, beta: Parameter = 1.702) -> Array:
    return _swish_1(x, beta)


def _quick_gelu_2(x: ArrayLike, beta: Parameter = 1.702) -> Array:
    return _swish_2(x, beta)


def _mish_parts(t: Array) -> tuple[Array, Array, Array]:
    """e = e^-|t|; n and d of tanh(softplus(t)) = n / d, both divided by e^2t on the right."""
    e = np.exp(-np.abs(t))
    left = t < 0
    return e, np.where(left, e * (2 + e), 1 + 2 * e), np.where(left, 2 + e * (2 + e), 1 + 2 * e * (1 + e))


def mish(x: ArrayLike) -> Array:
    """x tanh(softplus(x)) (Misra, 2019)."""
    x = np.maximum(_f64(x), -1000)
    half = np.exp(np.minimum(x, 0) / 2)  # in two halves: x meets e^x before it is subnormal
    e, _, d = _mish_parts(x)
    return x * half * np.where(x < 0, 2 + e, 1 + 2 * e) / d * half


def _mish_1(x: ArrayLike) -> Array:
    """T + x sigma (1 - T^2), with T = tanh(softplus(x)) = n / d and 1 - T^2 = (d - n)(d + n) / d^2."""
    t = _at_most(x, 1000)
    half = np.exp(np.minimum(t, 0) / 2)
    e, _, d = _mish_parts(t)
    left = 4 * (1 + t) + e * (6 + 4 * t + e * (4 + e))
    right = 1 + e * (4 + e * (6 + 4 * t + 4 * e * (1 + t)))
    return half * np.where(t < 0, left, right) / np.square(d) * half


def _mish_2(x: ArrayLike) -> Array:
    """4 u (2 (2 + 4u + 3u^2 + u^3) + x (2 + 2u - 3u^2 - 2u^3)) / (2 + 2u + u^2)^3, u = e^x."""
    t = _at_most(x, 1000)
    e, _, d = _mish_parts(t)
    left = 2 * (2 + e * (4 + e * (3 + e))) + t * (2 + e * (2 - e * (3 + 2 * e)))
    right = 2 * (1 + e * (3 + e * (4 + 2 * e))) - t * (2 + e * (3 - 2 * e * (1 + e)))
    return np.where(t < 0, np.sqrt(e), e) * (4 * np.where(t < 0, left, right) / d**3) * np.where(t < 0, np.sqrt(e), e)


def softsign(x: ArrayLike) -> Array:
    """x / (1 + |x|)."""
    x = _at_most(x, 1e300)
    return x / (1 + np.abs(x))


def _softsign_1(x: ArrayLike) -> Array:
    return 1 / np.square(1 + np.abs(_f64(x)))


def _softsign_2(x: ArrayLike) -> Array:
    return -2 * np.sign(_f64(x)) / (1 + np.abs(_f64(x))) ** 3


def squareplus(x: ArrayLike, b: Parameter = 4.0) -> Array:
    """(x + sqrt(x^2 + b)) / 2; on the left x and the root would cancel (Barron, 2021)."""
    x = _f64(x)
    larger = np.abs(x) / 2 + np.hypot(x, np.sqrt(b)) / 2
    return np.where(x < 0, b / 4 / larger, larger)


def _squareplus_1(x: ArrayLike, b: Parameter = 4.0) -> Array:
    """f / s, s = sqrt(x^2 + b)."""
    x = _at_most(x, 1e200)
    return squareplus(x, b) / np.hypot(x, np.sqrt(b))


def _squareplus_2(x: ArrayLike, b: Parameter = 4.0) -> Array:
    s = np.hypot(_f64(x), np.sqrt(b))
    return b / 2 / s / s / s


def _squareplus_1_from_y(y: ArrayLike, b: Parameter = 4.0) -> Array:
    y = np.minimum(_f64(y), 1e100)
    return y * y / (y * y + b / 4)


def isru(x: ArrayLike, alpha: Parameter = 1.0) -> Array:
    """x / sqrt(1 + alpha x^2) (Carlile et al., 2017)."""
    x = _at_most(x, 1e100)
    return x / np.sqrt(1 + alpha * x * x)


def _isru_1(x: ArrayLike, alpha: Parameter = 1.0) -> Array:
    x = _at_most(x, 1e150)
    d = 1 + alpha * x * x
    return 1 / d / np.sqrt(d)


def _isru_2(x: ArrayLike, alpha: Parameter = 1.0) -> Array:
    x = _at_most(x, 1e150)
    d = 1 + alpha * x * x
    return -3 * alpha * x / d / d / np.sqrt(d)


def _isru_1_from_y(y: ArrayLike, alpha: Parameter = 1.0) -> Array:
    """(1 - alpha y^2)^1.5, factored: the difference of squares would cancel."""
    root = np.sqrt(alpha) * _f64(y)
    d = (1 - root) * (1 + root)
    return d * np.sqrt(d)


def dish(x: ArrayLike) -> Array:
    """x (1 + x / s) / 2, s = sqrt(1 + x^2) (thinc); x / (2 s (s - x)) on the left."""
    x = _f64(x)
    t = np.minimum(np.abs(x), np.finfo(np.float64).max)
    s = np.hypot(t, 1)
    left = np.where(np.isinf(x), 0.0, t / s / (s / 2 + t / 2) / 4)
    return np.where(x < 0, -left, x - left)


def _dish_1(x: ArrayLike) -> Array:
    """1 - f'(-x) on the right; (1 - t s) / (2 s^3 (s + t)) on the left, t = |x|, s = sqrt(1 + x^2)."""
    x = _f64(x)
    t = np.minimum(np.abs(x), 1e100)
    s = np.hypot(t, 1)
    left = np.where(np.abs(x) > 1e100, -0.25 / np.abs(x) / np.abs(x), (1 - t * s) / s / s / (2 * s * (s + t)))
    return np.where(x < 0, left, 1 - left)


def _dish_2(x: ArrayLike) -> Array:
    t = np.minimum(np.abs(_f64(x)), 1e150)
    s = np.hypot(t, 1)
    return (2 - t * t) / s**2 / s**2 / (2 * s)


def symmetric_sigmoid(x: ArrayLike, alpha: Parameter = 2 / 3, beta: Parameter = 1.7159) -> Array:
    """beta (1 - e^(-alpha x)) / (1 + e^(-alpha x)) = beta tanh(alpha x / 2) (OpenCV)."""
    return scaled_tanh(x, beta, np.asarray(alpha) / 2)


def _symmetric_sigmoid_1(x: ArrayLike, alpha: Parameter = 2 / 3, beta: Parameter = 1.7159) -> Array:
    return _scaled_tanh_1(x, beta, np.asarray(alpha) / 2)


def _symmetric_sigmoid_2(x: ArrayLike, alpha: Parameter = 2 / 3, beta: Parameter = 1.7159) -> Array:
    return _scaled_tanh_2(x, beta, np.asarray(alpha) / 2)


def _symmetric_sigmoid_1_from_y(y: ArrayLike, alpha: Parameter = 2 / 3, beta: Parameter = 1.7159) -> Array:
    return alpha / (2 * np.asarray(beta)) * (beta - _f64(y)) * (beta + _f64(y))


def tanh_shrink(x: ArrayLike) -> Array:
    """x - tanh x; for small x its series 2/3 x^3/2! - ..., as x cosh x - sinh x over cosh x."""
    x = _f64(x)
    w = np.square(np.where(np.abs(x) < 1, x, 0))
    numerator = sum((2 * k / math.factorial(2 * k + 1)) * w ** (k - 1) for k in range(1, 11))
    return np.where(np.abs(x) < 1, w * x * numerator / np.cosh(np.sqrt(w)), x - np.tanh(x))


def _tanh_shrink_1(x: ArrayLike) -> Array:
    return np.square(tanh(x))


def _tanh_shrink_2(x: ArrayLike) -> Array:
    return -_tanh_2(x)


def arctan(x: ArrayLike, amplitude: Parameter = 2 / math.pi, slope: Parameter = math.pi / 2) -> Array:
    """amplitude atan(slope x)."""
    return amplitude * np.arctan(slope * _f64(x))


def _arctan_1(x: ArrayLike, amplitude: Parameter = 2 / math.pi, slope: Parameter = math.pi / 2) -> Array:
    s = np.hypot(slope * _f64(x), 1)
    return amplitude * np.asarray(slope) / s / s


def _arctan_2(x: ArrayLike, amplitude: Parameter = 2 / math.pi, slope: Parameter = math.pi / 2) -> Array:
    u = _at_most(slope * _f64(x), 1e120)
    d = 1 + u * u
    return -2 * amplitude * np.square(slope) * u / d / d


def gudermannian(x: ArrayLike, amplitude: Parameter = 2 / math.pi, slope: Parameter = math.pi / 2) -> Array:
    """amplitude gd(slope x), gd(u) = 2 atan(tanh(u / 2))."""
    return 2 * amplitude * np.arctan(np.tanh(slope * _f64(x) / 2))


def _gudermannian_1(x: ArrayLike, amplitude: Parameter = 2 / math.pi, slope: Parameter = math.pi / 2) -> Array:
    """gd'(u) = 1 / cosh(u) = 2 e^-|u| / (1 + e^-2|u|)."""
    e = np.exp(-np.abs(slope * _f64(x)))
    return 2 * amplitude * np.asarray(slope) * e / (1 + e * e)


def _gudermannian_2(x: ArrayLike, amplitude: Parameter = 2 / math.pi, slope: Parameter = math.pi / 2) -> Array:
    return -slope * np.tanh(slope * _f64(x)) * _gudermannian_1(x, amplitude, slope)


_erf = np.vectorize(math.erf, otypes=[np.float64])
_HALF_ROOT_PI = math.sqrt(math.pi) / 2


def erf(x: ArrayLike, amplitude: Parameter = 1.0, slope: Parameter = _HALF_ROOT_PI) -> Array:
    """amplitude erf(slope x)."""
    return amplitude * _erf(slope * _f64(x))


def _erf_1(x: ArrayLike, amplitude: Parameter = 1.0, slope: Parameter = _HALF_ROOT_PI) -> Array:
    return _times_gauss(amplitude / _HALF_ROOT_PI * slope, _at_most(slope * _f64(x), 50))


def _erf_2(x: ArrayLike, amplitude: Parameter = 1.0, slope: Parameter = _HALF_ROOT_PI) -> Array:
    u = _at_most(slope * _f64(x), 50)
    return _times_gauss(-2 * amplitude / _HALF_ROOT_PI * np.square(slope) * u, u)


# Functions of rows, over the last axis. -inf (+inf for softmin) is a masked entry: it gets 0, or -inf from log_softmax.


def _exponentials(x: ArrayLike, temperature: Parameter = 1.0) -> tuple[Array, Array]:
    """(x - max) / temperature, and the row's sum of their exponentials: at least 1, also for a row that is all -inf."""
    x = _f64(x)
    top = x.max(axis=-1, keepdims=True, initial=-np.inf)
    shifted = (x - np.where(np.isneginf(top), 0, top)) / np.asarray(temperature)[..., np.newaxis]
    return shifted, np.maximum(np.exp(shifted).sum(axis=-1, keepdims=True), 1)


def softmax(x: ArrayLike, temperature: Parameter = 1.0) -> Array:
    """e^(x_i / t) / sum_j e^(x_j / t): (..., N), (...) -> (..., N). A row of -inf gives zeros."""
    shifted, total = _exponentials(x, temperature)
    return np.exp(shifted) / total


def softmax_backward(dy: ArrayLike, y: ArrayLike, temperature: Parameter = 1.0) -> Array:
    """y (dy - sum_j dy_j y_j) / t: (..., N), (..., N), (...) -> (..., N). dy does not count where y = 0 (masked)."""
    dy, y = np.where(_f64(y) == 0, 0, _f64(dy)), _f64(y)
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True)) / np.asarray(temperature)[..., np.newaxis]


def log_softmax(x: ArrayLike, temperature: Parameter = 1.0) -> Array:
    """x_i / t - log sum_j e^(x_j / t): (..., N), (...) -> (..., N). A row of -inf gives -inf."""
    shifted, total = _exponentials(x, temperature)
    return shifted - np.log(total)


def log_softmax_backward(dy: ArrayLike, y: ArrayLike, temperature: Parameter = 1.0) -> Array:
    """(dy_i - e^y_i sum_j dy_j) / t: (..., N), (..., N), (...) -> (..., N). dy does not count where y = -inf."""
    dy = np.where(np.isneginf(_f64(y)), 0, _f64(dy))
    return (dy - np.exp(_f64(y)) * dy.sum(axis=-1, keepdims=True)) / np.asarray(temperature)[..., np.newaxis]


def softmin(x: ArrayLike, temperature: Parameter = 1.0) -> Array:
    """softmax(-x)."""
    return softmax(-_f64(x), temperature)


def softmin_backward(dy: ArrayLike, y: ArrayLike, temperature: Parameter = 1.0) -> Array:
    return -softmax_backward(dy, y, temperature)


def logsumexp(x: ArrayLike) -> Array:
    """log sum_j e^x_j: (..., N) -> (...)."""
    x = _f64(x)
    top = x.max(axis=-1, initial=-np.inf)
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(top), top, top + np.log(_exponentials(x)[1][..., 0]))


def logsumexp_backward(dy: ArrayLike, x: ArrayLike) -> Array:
    """dy softmax(x): (...), (..., N) -> (..., N)."""
    return _f64(dy)[..., np.newaxis] * softmax(x)


def hardmax(x: ArrayLike) -> Array:
    """1 at the first of the greatest, else 0; zeros for a row of -inf, NaN for one with a NaN: (..., N) -> (..., N)."""
    x = _f64(x)
    top = x.max(axis=-1, keepdims=True, initial=-np.inf)
    first = np.cumsum(x == top, axis=-1) * (x == top) == 1
    return np.where(np.isnan(top), np.nan, first & (top > -np.inf))


def maxout(x: ArrayLike, pieces: float = 2) -> Array:
    """The greatest of every ``pieces`` neighbours: (..., N) -> (..., N / pieces)."""
    x = _f64(x)
    return x.reshape(*x.shape[:-1], -1, int(pieces)).max(axis=-1)


def maxout_backward(dy: ArrayLike, x: ArrayLike, pieces: float = 2) -> Array:
    """dy at the first of the greatest of each group: (..., N / pieces), (..., N) -> (..., N)."""
    x = _f64(x)
    first = hardmax(x.reshape(*x.shape[:-1], -1, int(pieces)))
    return (_f64(dy)[..., np.newaxis] * first).reshape(x.shape)


def sparsemax(x: ArrayLike) -> Array:
    """max(x - tau, 0) with sum 1, tau by sorting (Martins & Astudillo 2016, algorithm 1): (..., N) -> (..., N)."""
    x = _f64(x)
    if x.shape[-1] == 0:
        return x
    top = x.max(axis=-1, keepdims=True)
    x = x - np.where(np.isneginf(top), 0, top)
    z = -np.sort(-x, axis=-1)
    rank, sums = np.arange(1, x.shape[-1] + 1), z.cumsum(axis=-1)
    size = np.maximum((1 + rank * z > sums).sum(axis=-1, keepdims=True), 1)
    tau = (np.take_along_axis(sums, size - 1, axis=-1) - 1) / size
    return np.maximum(x - np.where(np.isneginf(tau), 0, tau), 0)


def sparsemax_backward(dy: ArrayLike, y: ArrayLike) -> Array:
    """dy - mean of dy over the support of y, 0 off it: (..., N), (..., N) -> (..., N)."""
    support = _f64(y) > 0
    mean = np.where(support, dy, 0).sum(axis=-1, keepdims=True) / np.maximum(support.sum(axis=-1, keepdims=True), 1)
    return np.where(support, _f64(dy) - mean, 0)


def _mean(x: Array) -> Array:
    return x.sum(axis=-1, keepdims=True) / max(x.shape[-1], 1)


def _centred(x: ArrayLike, epsilon: Parameter) -> tuple[Array, Array]:
    """x less its mean, and sqrt(variance + epsilon): infinity where that is 0."""
    d = _f64(x) - _mean(_f64(x))
    deviation = np.sqrt(_mean(np.square(d)) + np.asarray(epsilon)[..., np.newaxis])
    return d, np.where(deviation == 0, np.inf, deviation)


def standardize(x: ArrayLike, epsilon: Parameter = 1e-5) -> Array:
    """(x - mean) / sqrt(variance + epsilon): (..., N), (...) -> (..., N). Zeros for a row without a deviation."""
    d, deviation = _centred(x, epsilon)
    return d / deviation


def standardize_backward(dy: ArrayLike, x: ArrayLike, epsilon: Parameter = 1e-5) -> Array:
    """(dy - mean(dy) - y mean(dy y)) / sqrt(variance + epsilon): (..., N), (..., N), (...) -> (..., N)."""
    dy, (d, deviation) = _f64(dy), _centred(x, epsilon)
    y = d / deviation
    return (dy - _mean(dy) - y * _mean(dy * y)) / deviation


def _norms(x: Array, p: Parameter, epsilon: Parameter) -> tuple[Array, Array]:
    """The p-norm of rows, and what they are divided by: infinity for one of zeros without an epsilon."""
    p, a = np.asarray(p)[..., np.newaxis], np.abs(x)
    sums = np.where(p == 1, a.sum(axis=-1, keepdims=True), np.sqrt(np.square(a).sum(axis=-1, keepdims=True)))
    norm = np.where(np.isinf(p), a.max(axis=-1, keepdims=True, initial=0), sums)
    divisor = np.maximum(norm, np.asarray(epsilon)[..., np.newaxis])
    return norm, np.where(divisor == 0, np.inf, divisor)


def normalize(x: ArrayLike, p: Parameter = 2.0, epsilon: Parameter = 1e-12) -> Array:
    """x / max(norm, epsilon), p = 1, 2 or infinity: (..., N), (...), (...) -> (..., N)."""
    x = _f64(x)
    return x / _norms(x, p, epsilon)[1]


def normalize_backward(dy: ArrayLike, x: ArrayLike, p: Parameter = 2.0, epsilon: Parameter = 1e-12) -> Array:
    """(dy - norm'(x) sum(dy y)) / norm, or dy / epsilon: (..., N), (..., N), (...), (...) -> (..., N)."""
    dy, x = _f64(dy), _f64(x)
    norm, divisor = _norms(x, p, epsilon)
    greatest = np.abs(x) == norm
    shared = np.sign(x) * greatest / np.maximum(greatest.sum(axis=-1, keepdims=True), 1)
    order = np.asarray(p)[..., np.newaxis]
    slope = np.where(order == 1, np.sign(x), np.where(order == 2, x / divisor, shared))
    along = (dy * x / divisor).sum(axis=-1, keepdims=True)
    return (dy - np.where(norm < np.asarray(epsilon)[..., np.newaxis], 0, slope * along)) / divisor


def _gated(f: Callable[..., Array], f1: Callable[..., Array], gate_first: bool) -> Rowwise:
    """f of one half times the other: (..., 2N) -> (..., N); its backward takes x."""

    def halves(x: ArrayLike) -> list[Array]:
        parts = np.split(_f64(x), 2, axis=-1)
        return parts if gate_first else parts[::-1]

    def forward(x: ArrayLike) -> Array:
        gated, value = halves(x)
        return f(gated) * value

    def backward(dy: ArrayLike, x: ArrayLike) -> Array:
        gated, value = halves(x)
        parts = [_f64(dy) * value * f1(gated), _f64(dy) * f(gated)]
        return np.concatenate(parts if gate_first else parts[::-1], axis=-1)

    return Rowwise(forward, backward)


activations: dict[str, Elementwise | Rowwise] = {
    "linear": Elementwise(linear, _constant(1.0), _constant(0.0), _constant(1.0)),
    "step": Elementwise(step, _constant(0.0), _constant(0.0), _constant(0.0)),
    "sign": Elementwise(sign, _constant(0.0), _constant(0.0), _constant(0.0)),
    "sigmoid": Elementwise(sigmoid, _sigmoid_1, _sigmoid_2, lambda y: _f64(y) * (1 - _f64(y))),
    "tanh": Elementwise(tanh, _tanh_1, _tanh_2, lambda y: (1 - _f64(y)) * (1 + _f64(y))),
    "relu": Elementwise(relu, step, _constant(0.0), step),
    "leaky_relu": Elementwise(leaky_relu, _leaky_relu_1, _constant(0.0), _leaky_relu_1),
    "prelu": Elementwise(prelu, lambda x, alpha=0.25: _leaky_relu_1(x, alpha), _constant(0.0)),
    "elu": Elementwise(elu, _elu_1, _elu_2, lambda y, alpha=1.0: np.where(_f64(y) > 0, 1.0, _f64(y) + alpha)),
    "softplus": Elementwise(softplus, _softplus_1, _softplus_2, _softplus_1_from_y),
    "silu": Elementwise(silu, _silu_1, _silu_2),
    "gelu": Elementwise(gelu, _gelu_1, _gelu_2),
    "gelu_tanh": Elementwise(gelu_tanh, _gelu_tanh_1, _gelu_tanh_2),
    "hard_tanh": Elementwise(hard_tanh, _hard_tanh_1, _constant(0.0), _hard_tanh_1),
    "scaled_tanh": Elementwise(
        scaled_tanh,
        _scaled_tanh_1,
        _scaled_tanh_2,
        lambda y, amplitude=1.7159, slope=2 / 3: slope / amplitude * (amplitude - _f64(y)) * (amplitude + _f64(y)),
    ),
    "affine": Elementwise(
        affine,
        lambda x, slope=1.0, offset=0.0: np.where(np.isnan(_f64(x)), np.nan, slope),
        _constant(0.0),
        lambda y, slope=1.0, offset=0.0: np.where(np.isnan(_f64(y)), np.nan, slope),
    ),
    "square": Elementwise(square, lambda x: 2 * _f64(x), _constant(2.0)),
    "absolute": Elementwise(absolute, sign, _constant(0.0)),
    "exponential": Elementwise(exponential, exponential, exponential, linear),
    "relu6": Elementwise(relu6, _relu6_1, _constant(0.0), _relu6_1),
    "clipped_relu": Elementwise(clipped_relu, _clipped_relu_1, _constant(0.0)),
    "relu_squared": Elementwise(
        relu_squared, lambda x: 2 * relu(x), lambda x: 2 * step(x), lambda y: 2 * np.sqrt(relu(y))
    ),
    "threshold": Elementwise(threshold, _threshold_1, _constant(0.0), _threshold_1),
    "hard_shrink": Elementwise(hard_shrink, _hard_shrink_1, _constant(0.0), lambda y, *_: step(np.abs(_f64(y)))),
    "soft_shrink": Elementwise(soft_shrink, _hard_shrink_1, _constant(0.0), lambda y, *_: step(np.abs(_f64(y)))),
    "hard_sigmoid": Elementwise(hard_sigmoid, _hard_sigmoid_1, _constant(0.0), _hard_sigmoid_1_from_y),
    "hard_swish": Elementwise(hard_swish, _hard_swish_1, _hard_swish_2),
    "sparse_sigmoid": Elementwise(
        sparse_sigmoid, _sparse_sigmoid_1, _constant(0.0), lambda y: _hard_tanh_1(y, 0.0, 1.0) / 2
    ),
    "sparse_plus": Elementwise(sparse_plus, sparse_sigmoid, _sparse_sigmoid_1, _sparse_plus_1_from_y),
    "window": Elementwise(window, _window_1, _window_2),
    "gaussian": Elementwise(gaussian, _gaussian_1, _gaussian_2),
    "selu": Elementwise(selu, _selu_1, _selu_2, _selu_1_from_y),
    "celu": Elementwise(celu, _celu_1, _celu_2, _celu_1_from_y),
    "log_sigmoid": Elementwise(
        log_sigmoid, lambda x: sigmoid(-_f64(x)), lambda x: -_sigmoid_1(x), lambda y: -np.expm1(_f64(y))
    ),
    "swish": Elementwise(swish, _swish_1, _swish_2),
    "quick_gelu": Elementwise(quick_gelu, _quick_gelu_1, _quick_gelu_2),
    "mish": Elementwise(mish, _mish_1, _mish_2),
    "softsign": Elementwise(softsign, _softsign_1, _softsign_2, lambda y: np.square(1 - np.abs(_f64(y)))),
    "squareplus": Elementwise(squareplus, _squareplus_1, _squareplus_2, _squareplus_1_from_y),
    "isru": Elementwise(isru, _isru_1, _isru_2, _isru_1_from_y),
    "dish": Elementwise(dish, _dish_1, _dish_2),
    "symmetric_sigmoid": Elementwise(
        symmetric_sigmoid, _symmetric_sigmoid_1, _symmetric_sigmoid_2, _symmetric_sigmoid_1_from_y
    ),
    "tanh_shrink": Elementwise(tanh_shrink, _tanh_shrink_1, _tanh_shrink_2),
    "arctan": Elementwise(arctan, _arctan_1, _arctan_2),
    "gudermannian": Elementwise(gudermannian, _gudermannian_1, _gudermannian_2),
    "erf": Elementwise(erf, _erf_1, _erf_2),
    "softmax": Rowwise(softmax, softmax_backward),
    "log_softmax": Rowwise(log_softmax, log_softmax_backward),
    "softmin": Rowwise(softmin, softmin_backward),
    "logsumexp": Rowwise(logsumexp, logsumexp_backward),
    "hardmax": Rowwise(hardmax, lambda dy, y: np.zeros_like(_f64(dy))),
    "sparsemax": Rowwise(sparsemax, sparsemax_backward),
    "standardize": Rowwise(standardize, standardize_backward),
    "normalize": Rowwise(normalize, normalize_backward),
    "maxout": Rowwise(maxout, maxout_backward),
    "glu": _gated(sigmoid, _sigmoid_1, False),
    "swiglu": _gated(silu, _silu_1, True),
    "geglu": _gated(gelu, _gelu_1, False),
    "geglu_tanh": _gated(gelu_tanh, _gelu_tanh_1, False),
    "reglu": _gated(relu, step, False),
}

# f' and f'' as a reader would write them: of x, y = f(x) and the parameters. What follows a comma says what a letter
# stands for. Phi and phi are the normal distribution and its density. Of a row function: dx, of dy and x or y.
_SILU = ("sigmoid(u) * (1 + u * sigmoid(-u))", "beta * sigmoid(u) * sigmoid(-u) * (2 - u * tanh(u / 2))")
derivatives: dict[str, tuple[str, ...]] = {
    "linear": ("1", "0"),
    "step": ("0", "0"),
    "sign": ("0", "0"),
    "sigmoid": ("y * (1 - y)", "y * (1 - y) * (1 - 2 * y)"),
    "tanh": ("1 - y**2", "-2 * y * (1 - y**2)"),
    "relu": ("1 if x > 0 else 0", "0"),
    "leaky_relu": ("1 if x > 0 else alpha", "0"),
    "prelu": ("1 if x > 0 else alpha", "0"),
    "rrelu": ("1 if x > 0 else (lower + upper) / 2", "0"),
    "elu": ("1 if x > 0 else alpha * exp(x)", "0 if x >= 0 else alpha * exp(x)"),
    "softplus": (
        "1 if u > threshold else sigmoid(u), u = beta * x",
        "0 if u > threshold else beta * sigmoid(u) * sigmoid(-u), u = beta * x",
    ),
    "silu": ("sigmoid(x) * (1 + x * sigmoid(-x))", "sigmoid(x) * sigmoid(-x) * (2 - x * tanh(x / 2))"),
    "gelu": ("Phi(x) + x * phi(x)", "(2 - x**2) * phi(x)"),
    "gelu_tanh": (
        "sigmoid(v) * (1 + x * v1 * sigmoid(-v)), v = sqrt(8 / pi) * (x + 0.044715 * x**3), "
        "v1 = sqrt(8 / pi) * (1 + 0.134145 * x**2)",
        "sigmoid(v) * sigmoid(-v) * (2 * v1 + x * v2 - x * v1**2 * tanh(v / 2)), "
        "v = sqrt(8 / pi) * (x + 0.044715 * x**3), v1 = sqrt(8 / pi) * (1 + 0.134145 * x**2), "
        "v2 = sqrt(8 / pi) * 0.26829 * x",
    ),
    "hard_tanh": ("1 if low < x < high else 0", "0"),
    "scaled_tanh": (
        "slope / amplitude * (amplitude**2 - y**2)",
        "-2 * (slope / amplitude)**2 * y * (amplitude**2 - y**2)",
    ),
    "affine": ("slope", "0"),
    "square": ("2 * x", "2"),
    "absolute": ("sign(x)", "0"),
    "exponential": ("y", "y"),
    "relu6": ("1 if 0 < x < max_value else 0", "0"),
    "clipped_relu": ("1 if threshold < x < max_value else 0 if x > threshold else negative_slope", "0"),
    "relu_squared": ("2 * max(x, 0)", "2 if x > 0 else 0"),
    "threshold": ("1 if x > threshold else 0", "0"),
    "hard_shrink": ("1 if abs(x) > threshold else 0", "0"),
    "soft_shrink": ("1 if abs(x) > threshold else 0", "0"),
    "hard_sigmoid": ("slope if 0 < u < 1 else 0, u = slope * x + offset", "0"),
    "hard_swish": (
        "0 if u <= 0 else 1 if u >= 1 else u + slope * x, u = slope * x + offset",
        "2 * slope if 0 < u < 1 else 0, u = slope * x + offset",
    ),
    "sparse_sigmoid": ("1 / 2 if -1 < x < 1 else 0", "0"),
    "sparse_plus": ("min(max((x + 1) / 2, 0), 1)", "1 / 2 if -1 < x < 1 else 0"),
    "window": (
        "-2 / radius * u * exp(-u**2), u = (x - center) / radius",
        "(4 * u**2 - 2) / radius**2 * exp(-u**2), u = (x - center) / radius",
    ),
    "gaussian": ("-2 * alpha**2 * x * y", "2 * alpha**2 * (2 * (alpha * x)**2 - 1) * y"),
    "selu": ("scale if x > 0 else scale * alpha * exp(x)", "0 if x >= 0 else scale * alpha * exp(x)"),
    "celu": ("1 if x > 0 else exp(x / alpha)", "0 if x >= 0 else exp(x / alpha) / alpha"),
    "log_sigmoid": ("sigmoid(-x)", "-sigmoid(x) * sigmoid(-x)"),
    "swish": tuple(f"{formula}, u = beta * x" for formula in _SILU),
    "quick_gelu": tuple(f"{formula}, u = beta * x" for formula in _SILU),
    "mish": (
        "t + x * (1 - t**2) * sigmoid(x), t = tanh(log(1 + exp(x)))",
        "(1 - t**2) * sigmoid(x) * (2 + x * (sigmoid(-x) - 2 * t * sigmoid(x))), t = tanh(log(1 + exp(x)))",
    ),
    "softsign": ("1 / (1 + abs(x))**2", "-2 * sign(x) / (1 + abs(x))**3"),
    "squareplus": ("(1 + x / sqrt(x**2 + b)) / 2", "b / 2 / sqrt(x**2 + b)**3"),
    "isru": ("1 / sqrt(1 + alpha * x**2)**3", "-3 * alpha * x / sqrt(1 + alpha * x**2)**5"),
    "dish": (
        "(1 + x * (2 + x**2) / sqrt(1 + x**2)**3) / 2",
        "(2 - x**2) / 2 / sqrt(1 + x**2)**5",
    ),
    "symmetric_sigmoid": (
        "alpha / 2 / beta * (beta**2 - y**2)",
        "-alpha**2 / 2 / beta**2 * y * (beta**2 - y**2)",
    ),
    "tanh_shrink": ("tanh(x)**2", "2 * tanh(x) * (1 - tanh(x)**2)"),
    "arctan": (
        "amplitude * slope / (1 + u**2), u = slope * x",
        "-2 * amplitude * slope**2 * u / (1 + u**2)**2, u = slope * x",
    ),
    "gudermannian": (
        "amplitude * slope / cosh(u), u = slope * x",
        "-amplitude * slope**2 * tanh(u) / cosh(u), u = slope * x",
    ),
    "erf": (
        "2 / sqrt(pi) * amplitude * slope * exp(-u**2), u = slope * x",
        "-4 / sqrt(pi) * amplitude * slope**2 * u * exp(-u**2), u = slope * x",
    ),
    "softmax": ("y * (dy - sum(dy * y)) / temperature",),
    "log_softmax": ("(dy - exp(y) * sum(dy)) / temperature",),
    "softmin": ("-y * (dy - sum(dy * y)) / temperature",),
    "logsumexp": ("dy * softmax(x)",),
    "hardmax": ("0",),
    "sparsemax": ("dy less its mean where y > 0, else 0",),
    "standardize": ("(dy - mean(dy) - y * mean(dy * y)) / sqrt(variance(x) + epsilon)",),
    "normalize": ("(dy - norm'(x) * sum(dy * y)) / norm(x, p), or dy / epsilon where the norm is below",),
    "maxout": ("dy at the first of the greatest of each group, else 0",),
    "gumbel_softmax": ("y * (dy - sum(dy * y)) / temperature",),
    "glu": ("da = dy * sigmoid(b), db = dy * a * sigmoid'(b)",),
    "swiglu": ("da = dy * silu'(a) * b, db = dy * silu(a)",),
    "geglu": ("da = dy * gelu(b), db = dy * a * gelu'(b)",),
    "geglu_tanh": ("da = dy * gelu_tanh(b), db = dy * a * gelu_tanh'(b)",),
    "reglu": ("da = dy * relu(b), db = dy * a * relu'(b)",),
}
