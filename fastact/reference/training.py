"""Training: embedding rows, optimiser updates.

Updates are the formulas of PyTorch's optimisers, written with the time step t (from 1) and the state as arguments and
results.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from fastact.reference.catalogue import Array, _f64


def embedding_forward(weight: ArrayLike, indices: ArrayLike) -> Array:
    """Rows of the table (N, D) by index: (..., D)."""
    return _f64(weight)[np.asarray(indices)]


def embedding_backward(indices: ArrayLike, dy: ArrayLike, rows: int) -> Array:
    """Gradient of the table (N, D): the sum of the dy (..., D) of each index."""
    dy = _f64(dy)
    gradient = np.zeros((rows, dy.shape[-1]))
    np.add.at(gradient, np.asarray(indices), dy)
    return gradient


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


def amsgrad(
    w: ArrayLike,
    gradient: ArrayLike,
    m: Array,
    v: Array,
    u: Array,
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> tuple[Array, Array, Array, Array]:
    """Adam's step with the greatest v so far: new w, moments and greatest v."""
    b1, b2 = betas
    _, m, v = adam(w, gradient, m, v, t, lr, betas, eps)
    u = np.maximum(u, v)
    return _f64(w) - lr * (m / (1 - b1**t)) / (np.sqrt(u / (1 - b2**t)) + eps), m, v, u


def adamw(
    w: ArrayLike, gradient: ArrayLike, m: Array, v: Array, t: int, lr: float, weight_decay: float
) -> tuple[Array, Array, Array]:
    """Adam's step after w has decayed."""
    return adam(_f64(w) * (1 - lr * weight_decay), gradient, m, v, t, lr)


def nadam(
    w: ArrayLike, gradient: ArrayLike, m: Array, v: Array, t: int, lr: float, momentum_decay: float
) -> tuple[Array, Array, Array]:
    """Step number t with betas 0.9 and 0.999: new w and moments."""
    mu = [0.9 * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in range(1, t + 2)]
    g = _f64(gradient)
    _, m, v = adam(w, g, m, v, t)
    root = np.sqrt(v / (1 - 0.999**t)) + 1e-8
    ahead = lr * mu[t] / (1 - math.prod(mu)) * m + lr * (1 - mu[t - 1]) / (1 - math.prod(mu[:t])) * g
    return _f64(w) - ahead / root, m, v


def lion(
    w: ArrayLike, gradient: ArrayLike, m: Array, lr: float, betas: tuple[float, float], weight_decay: float
) -> tuple[Array, Array]:
    """New w and moment."""
    b1, b2 = betas
    g = _f64(gradient)
    return _f64(w) - lr * (np.sign(b1 * m + (1 - b1) * g) + weight_decay * _f64(w)), b2 * m + (1 - b2) * g


def rmsprop(
    w: ArrayLike,
    gradient: ArrayLike,
    m: Array,
    v: Array,
    u: Array,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    centered: bool,
) -> tuple[Array, Array, Array, Array]:
    """New w, velocity, mean square and mean."""
    g = _f64(gradient) + weight_decay * _f64(w)
    v = alpha * v + (1 - alpha) * g * g
    u = alpha * u + (1 - alpha) * g
    m = momentum * m + g / (np.sqrt(v - u * u if centered else v) + eps)
    return _f64(w) - lr * m, m, v, u


def adagrad(
    w: ArrayLike, gradient: ArrayLike, v: Array, t: int, lr: float, lr_decay: float, eps: float
) -> tuple[Array, Array]:
    """Step number t: new w and sum of squares."""
    v = v + _f64(gradient) ** 2
    return _f64(w) - lr / (1 + (t - 1) * lr_decay) * _f64(gradient) / (np.sqrt(v) + eps), v


def adadelta(
    w: ArrayLike, gradient: ArrayLike, v: Array, u: Array, lr: float, rho: float, eps: float
) -> tuple[Array, Array, Array]:
    """New w, mean square of the gradients and of the steps."""
    g = _f64(gradient)
    v = rho * v + (1 - rho) * g * g
    step = np.sqrt(u + eps) / np.sqrt(v + eps) * g
    return _f64(w) - lr * step, v, rho * u + (1 - rho) * step * step


def rprop(
    w: ArrayLike,
    gradient: ArrayLike,
    before: Array,
    sizes: Array,
    etas: tuple[float, float],
    step_sizes: tuple[float, float],
) -> tuple[Array, Array, Array]:
    """New w, the gradient to compare the next with, and sizes of the steps."""
    g = _f64(gradient)
    turned = np.sign(g) * np.sign(before)
    sizes = np.clip(sizes * np.where(turned > 0, etas[1], np.where(turned < 0, etas[0], 1.0)), *step_sizes)
    g = np.where(turned < 0, 0.0, g)
    return _f64(w) - np.sign(g) * sizes, g, sizes


def global_norm(gradients: list[ArrayLike]) -> float:
    """Euclidean norm of all gradients as one vector."""
    return math.sqrt(sum(float(np.sum(_f64(g) ** 2)) for g in gradients))
