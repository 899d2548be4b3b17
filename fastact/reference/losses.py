"""Losses: the mean and its gradient of the first two, the losses of all elements or rows of the others, unreduced."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from fastact.reference.catalogue import Array, _f64


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


def absolute_error(prediction: ArrayLike, target: ArrayLike) -> Array:
    """|p - t|."""
    return np.abs(_f64(prediction) - _f64(target))


def huber(prediction: ArrayLike, target: ArrayLike, delta: float = 1.0) -> Array:
    """d^2 / 2 for |d| <= delta, delta (|d| - delta / 2) beyond."""
    size = absolute_error(prediction, target)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))


def log_cosh(prediction: ArrayLike, target: ArrayLike) -> Array:
    """log(cosh(d)), by log1p(2 sinh(d / 2)^2) next to 0."""
    size = absolute_error(prediction, target)
    near = np.log1p(2 * np.sinh(np.minimum(size, 1) / 2) ** 2)
    return np.where(size < 1, near, size + np.log1p(np.exp(-2 * size)) - math.log(2))


def quantile(prediction: ArrayLike, target: ArrayLike, q: ArrayLike) -> Array:
    """max(q d, (q - 1) d), d = t - p."""
    d, q = _f64(target) - _f64(prediction), _f64(q)
    return np.maximum(q * d, (q - 1) * d)


def poisson(prediction: ArrayLike, target: ArrayLike, log_input: bool, full: bool, eps: float = 1e-8) -> Array:
    """Rate - t log(rate), with Stirling's approximation of log(t!) if full."""
    p, t = _f64(prediction), _f64(target)
    loss = np.exp(p) - t * p if log_input else p - t * np.log(p + eps)
    if full:
        big = np.maximum(t, 1)
        loss = loss + np.where(t > 1, big * np.log(big) - big + np.log(2 * np.pi * big) / 2, 0)
    return loss


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def binary_cross_entropy(
    prediction: ArrayLike, target: ArrayLike, logits: bool = False, pos_weight: ArrayLike = 1.0
) -> Array:
    """-w t log p - (1 - t) log(1 - p); logarithms of probabilities are at least -100."""
    p, t, w = _f64(prediction), _f64(target), _f64(pos_weight)
    if logits:
        return w * t * _softplus(-p) + (1 - t) * _softplus(p)
    with np.errstate(divide="ignore"):
        return -w * t * np.maximum(np.log(p), -100) - (1 - t) * np.maximum(np.log1p(-p), -100)


def binary_focal(logits: ArrayLike, target: ArrayLike, gamma: float, alpha: float | None) -> Array:
    """-a (1 - p)^gamma log p for 1, -(1 - a) p^gamma log(1 - p) for 0."""
    z, t = _f64(logits), _f64(target)
    positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    right, wrong = _softplus(-z), _softplus(z)
    return positive * t * np.exp(-gamma * wrong) * right + negative * (1 - t) * np.exp(-gamma * right) * wrong


def hinge(prediction: ArrayLike, target: ArrayLike, squared: bool, margin: float = 1.0) -> Array:
    """max(0, margin - y p), y = 1 for t > 0, else -1; or its square."""
    loss = np.maximum(0, margin - np.where(_f64(target) > 0, 1, -1) * _f64(prediction))
    return loss**2 if squared else loss


def kl_divergence(prediction: ArrayLike, target: ArrayLike, log_target: bool) -> Array:
    """t (log t - z), 0 where t is."""
    z, t = _f64(prediction), _f64(target)
    if log_target:
        return np.exp(t) * (t - z)
    return np.where(t > 0, t * (np.log(np.where(t > 0, t, 1)) - z), 0)


def log_softmax_rows(logits: ArrayLike) -> Array:
    """log(softmax(z)) along the last axis."""
    z = _f64(logits)
    shifted = z - z.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def class_cross_entropy(logits: ArrayLike, labels: ArrayLike, smoothing: float, weight: ArrayLike) -> Array:
    """(1 - s) w_t (-log p_t) + s / C sum_k w_k (-log p_k)."""
    cost, w, t = -log_softmax_rows(logits), _f64(weight), np.asarray(labels)
    own = np.take_along_axis(cost * w, t[..., None], -1)[..., 0]
    return (1 - smoothing) * own + smoothing * (cost * w).mean(-1)


def dense_cross_entropy(logits: ArrayLike, target: ArrayLike, smoothing: float, weight: ArrayLike) -> Array:
    """sum_k w_k ((1 - s) t_k + s / C) (-log p_k)."""
    t = _f64(target)
    shares = (1 - smoothing) * t + smoothing / t.shape[-1]
    return -(_f64(weight) * shares * log_softmax_rows(logits)).sum(-1)


def focal(logits: ArrayLike, labels: ArrayLike, gamma: float, alpha: ArrayLike) -> Array:
    """-alpha_t (1 - p)^gamma log p."""
    t = np.asarray(labels)
    log_p = np.take_along_axis(log_softmax_rows(logits), t[..., None], -1)[..., 0]
    return -_f64(alpha)[t] * (-np.expm1(log_p)) ** gamma * log_p


def multi_class_hinge(scores: ArrayLike, labels: ArrayLike, squared: bool, margin: float, weight: ArrayLike) -> Array:
    """w_t / C sum_j max(0, margin - z_t + z_j) over the other classes, or of squares."""
    z, t = _f64(scores), np.asarray(labels)[..., None]
    excess = np.maximum(0, margin - np.take_along_axis(z, t, -1) + z)
    excess[np.arange(z.shape[-1]) == t] = 0
    return _f64(weight)[t[..., 0]] * (excess**2 if squared else excess).mean(-1)


def cosine(prediction: ArrayLike, target: ArrayLike, eps: float = 1e-8) -> Array:
    """1 - p.t / (max(|p|, eps) max(|t|, eps))."""
    p, t = _f64(prediction), _f64(target)
    lengths = [np.maximum(np.linalg.norm(a, axis=-1), eps) for a in (p, t)]
    return 1 - (p * t).sum(-1) / (lengths[0] * lengths[1])


def ctc(logits: ArrayLike, labels: ArrayLike, blank: int = 0) -> float:
    """Minus the log-probability that logits (T, C) spell the labels (S,): Graves et al., 2006, equations 6 to 8."""
    log_p = log_softmax_rows(logits)
    states = [blank]
    for label in np.asarray(labels):
        states += [int(label), blank]
    forward = np.full(len(states), -np.inf)
    forward[0] = 0.0
    for row in log_p:
        before, forward = forward, np.full(len(states), -np.inf)
        for s, state in enumerate(states):
            ways = [before[s]]
            if s > 0:
                ways.append(before[s - 1])
            if s > 1 and state not in (blank, states[s - 2]):
                ways.append(before[s - 2])
            forward[s] = np.logaddexp.reduce(ways) + row[state]
    return -float(np.logaddexp.reduce(forward[-2:]))
