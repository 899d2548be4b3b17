"""Training: embedding rows, losses, optimiser updates.

Losses give the mean and its gradient; updates are the formulas of PyTorch's optimisers, written with the time step t
(from 1) and the state as arguments and results.
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
