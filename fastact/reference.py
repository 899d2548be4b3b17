"""The pure-NumPy twin of every kernel: readable, in float64, right in the tails; what the kernels are tested against.

Each section mirrors one family of kernels. Nothing here is fast, and nothing here imports the compiled core.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Parameter = float | Array

# ---------------------------------------------------------------------------------------------------------------------
# Activations
# ---------------------------------------------------------------------------------------------------------------------
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
    "sigmoid": Elementwise(sigmoid, _sigmoid_1, _sigmoid_2, lambda y: _f64(y) * (1 - _f64(y))),
    "tanh": Elementwise(tanh, _tanh_1, _tanh_2, lambda y: (1 - _f64(y)) * (1 + _f64(y))),
    "relu": Elementwise(relu, step, _constant(0.0), step),
    "leaky_relu": Elementwise(leaky_relu, _leaky_relu_1, _constant(0.0), _leaky_relu_1),
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
    "softmax": Rowwise(softmax, softmax_backward),
    "log_softmax": Rowwise(log_softmax, log_softmax_backward),
    "softmin": Rowwise(softmin, softmin_backward),
    "logsumexp": Rowwise(logsumexp, logsumexp_backward),
    "hardmax": Rowwise(hardmax, lambda dy, y: np.zeros_like(_f64(dy))),
    "sparsemax": Rowwise(sparsemax, sparsemax_backward),
    "maxout": Rowwise(maxout, maxout_backward),
    "glu": _gated(sigmoid, _sigmoid_1, False),
    "swiglu": _gated(silu, _silu_1, True),
    "geglu": _gated(gelu, _gelu_1, False),
    "geglu_tanh": _gated(gelu_tanh, _gelu_tanh_1, False),
    "reglu": _gated(relu, step, False),
}


# ---------------------------------------------------------------------------------------------------------------------
# Products
# ---------------------------------------------------------------------------------------------------------------------


def matmul(
    a: ArrayLike,
    b: ArrayLike,
    bias: ArrayLike | None = None,
    activation: Callable[[Array], Array] | None = None,
    start: ArrayLike | None = None,
) -> Array:
    """activation(start + a b + bias), the sums over k in float64; a (M, K), b (K, N), bias (N,), start (M, N)."""
    z = np.asarray(_f64(a)[:, :, np.newaxis] * _f64(b)[np.newaxis, :, :]).sum(1)
    if start is not None:
        z = _f64(start) + z
    if bias is not None:
        z = z + _f64(bias)
    return z if activation is None else activation(z)


# ---------------------------------------------------------------------------------------------------------------------
# Training: embedding rows, losses, optimiser updates
# ---------------------------------------------------------------------------------------------------------------------
# Losses give the mean and its gradient; updates are the formulas of PyTorch's optimisers, written with the time step t
# (from 1) and the state as arguments and results.


def embedding_forward(weight: ArrayLike, indices: ArrayLike) -> Array:
    """Rows of the table (N, D) by index: (..., D)."""
    return _f64(weight)[np.asarray(indices)]


def embedding_backward(indices: ArrayLike, dy: ArrayLike, rows: int) -> Array:
    """Gradient of the table (N, D): the sum of the dy (..., D) of each index."""
    dy = _f64(dy)
    gradient = np.zeros((rows, dy.shape[-1]))
    np.add.at(gradient, np.asarray(indices), dy)
    return gradient


def cross_entropy(logits: ArrayLike, target: ArrayLike, ignore_index: int | None = None) -> tuple[float, Array]:
    """Mean of log(sum_j exp(z_j)) - z_t over the positions that are not ignored, and its gradient (..., C)."""
    z = _f64(logits)
    t = np.asarray(target)
    counts = np.ones(t.shape, bool) if ignore_index is None else t != ignore_index
    onehot = np.eye(z.shape[-1])[np.where(counts, t, 0)]
    shifted = z - z.max(-1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(-1, keepdims=True)
    each = np.log(sums[..., 0]) - (shifted * onehot).sum(-1)
    number = max(int(counts.sum()), 1)
    gradient = (exponentials / sums - onehot) * counts[..., None] / number
    return float(each[counts].sum()) / number, gradient


def squared_error(prediction: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Mean of (prediction - target)^2 and its gradient."""
    difference = _f64(prediction) - _f64(target)
    return float(np.mean(difference**2)), 2 * difference / difference.size


def sgd(
    w: ArrayLike,
    gradient: ArrayLike,
    velocity: ArrayLike,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> tuple[Array, Array]:
    """One step: new w and velocity."""
    g = _f64(gradient) + weight_decay * _f64(w)
    v = momentum * _f64(velocity) + g
    return _f64(w) - lr * (g + momentum * v if nesterov else v), v


def adam(
    w: ArrayLike,
    gradient: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    t: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:
    """Step number t: new w and moments."""
    b1, b2 = betas
    g = _f64(gradient) + weight_decay * _f64(w)
    m = b1 * _f64(first) + (1 - b1) * g
    v = b2 * _f64(second) + (1 - b2) * g * g
    return _f64(w) - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps), m, v


def global_norm(gradients: list[ArrayLike]) -> float:
    """Euclidean norm of all gradients as one vector."""
    return math.sqrt(sum(float(np.sum(_f64(g) ** 2)) for g in gradients))


# ---------------------------------------------------------------------------------------------------------------------
# Layers
# ---------------------------------------------------------------------------------------------------------------------


def dense(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, activation: str = "linear") -> Array:
    """f(x W' + b): x (N, I), weight (H, I), bias (H,) -> (N, H)."""
    z = _f64(x) @ _f64(weight).T
    return activations[activation].forward(z if bias is None else z + _f64(bias))


def dense_backward(
    dy: ArrayLike, x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, activation: str = "linear"
) -> tuple[Array, Array, Array]:
    """Gradients of x (N, I), weight (H, I) and bias (H,) for the gradient dy (N, H) of the output."""
    x, weight, function = _f64(x), _f64(weight), activations[activation]
    z = x @ weight.T if bias is None else x @ weight.T + _f64(bias)
    elementwise = isinstance(function, Elementwise)
    dz = function.backward(dy, x=z) if elementwise else function.backward(dy, function.forward(z))
    return dz @ weight, dz.T @ x, dz.sum(axis=0)


# ---------------------------------------------------------------------------------------------------------------------
# Recurrent layers
# ---------------------------------------------------------------------------------------------------------------------
# Time-major, one layer and direction: x (T, B, I), y (T, B, H), h and c (B, H); weights as in torch.nn,
# gates in the order i, f, g, o.


@dataclass
class LSTMTrace:
    """What ``lstm_forward`` computes; h and c begin with the initial state: (T + 1, B, H)."""

    x: Array
    h: Array
    c: Array
    gates: Array  # (T, 4, B, H)

    @property
    def y(self) -> Array:
        return self.h[1:]


def lstm_forward(
    x: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias: ArrayLike,
    h0: ArrayLike | None = None,
    c0: ArrayLike | None = None,
) -> LSTMTrace:
    """One LSTM layer; ``bias`` (4H,) is the sum of both biases."""
    x, weight_ih, weight_hh, bias = _f64(x), _f64(weight_ih), _f64(weight_hh), _f64(bias)
    steps, batch, hidden = x.shape[0], x.shape[1], weight_hh.shape[1]
    h, c = np.zeros((steps + 1, batch, hidden)), np.zeros((steps + 1, batch, hidden))
    h[0] = 0 if h0 is None else h0
    c[0] = 0 if c0 is None else c0
    gates = np.zeros((steps, 4, batch, hidden))
    for t in range(steps):
        z = x[t] @ weight_ih.T + h[t] @ weight_hh.T + bias
        z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
        c[t + 1] = f * c[t] + i * g
        h[t + 1] = o * np.tanh(c[t + 1])
        gates[t] = i, f, g, o
    return LSTMTrace(x, h, c, gates)


def lstm_backward(
    trace: LSTMTrace,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    dy: ArrayLike,
    dh: ArrayLike | None = None,
    dc: ArrayLike | None = None,
) -> dict[str, Array]:
    """Gradients "x", "weight_ih", "weight_hh", "bias", "h0", "c0"; dh and dc are those of the final state."""
    weight_ih, weight_hh, dy = _f64(weight_ih), _f64(weight_hh), _f64(dy)
    x, h, c = trace.x, trace.h, trace.c
    d_ih, d_hh, d_bias = np.zeros_like(weight_ih), np.zeros_like(weight_hh), np.zeros(len(weight_hh))
    dx = np.zeros_like(x)
    d_h = np.zeros_like(h[0]) if dh is None else _f64(dh)
    d_c = np.zeros_like(c[0]) if dc is None else _f64(dc)
    for t in reversed(range(len(x))):
        i, f, g, o = trace.gates[t]
        d_h = d_h + dy[t]
        tanh_c = np.tanh(c[t + 1])
        d_c = d_c + d_h * o * (1 - tanh_c**2)
        dz = np.concatenate(
            [
                d_c * g * i * (1 - i),
                d_c * c[t] * f * (1 - f),
                d_c * i * (1 - g**2),
                d_h * tanh_c * o * (1 - o),
            ],
            axis=1,
        )
        d_ih += dz.T @ x[t]
        d_hh += dz.T @ h[t]
        d_bias += dz.sum(0)
        dx[t] = dz @ weight_ih
        d_h = dz @ weight_hh
        d_c = d_c * f
    return {"x": dx, "weight_ih": d_ih, "weight_hh": d_hh, "bias": d_bias, "h0": d_h, "c0": d_c}
