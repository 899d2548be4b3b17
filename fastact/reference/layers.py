"""Layers without a state."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastact.reference.catalogue import Array, Elementwise, _f64, activations


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


def layer_norm(x: ArrayLike, gain: ArrayLike = 1.0, bias: ArrayLike = 0.0, eps: float = 1e-5) -> Array:
    """Each row of x (..., N) less its mean, over its standard deviation, times gain (N,), plus bias (N,)."""
    x = _f64(x)
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * _f64(gain) + _f64(bias)


def layer_norm_backward(
    dy: ArrayLike, x: ArrayLike, gain: ArrayLike = 1.0, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Gradients of x (R, N), gain and bias (N,)."""
    x, dy = _f64(x), _f64(dy)
    deviation = np.sqrt(x.var(-1, keepdims=True) + eps)
    xhat, a = (x - x.mean(-1, keepdims=True)) / deviation, dy * _f64(gain)
    dx = (a - a.mean(-1, keepdims=True) - xhat * (a * xhat).mean(-1, keepdims=True)) / deviation
    return dx, (dy * xhat).sum(0), dy.sum(0)


def rms_norm(x: ArrayLike, gain: ArrayLike = 1.0, eps: float = 1e-5) -> Array:
    """Each row of x (..., N) over its root mean square, times gain (N,)."""
    x = _f64(x)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * _f64(gain)


def rms_norm_backward(dy: ArrayLike, x: ArrayLike, gain: ArrayLike = 1.0, eps: float = 1e-5) -> tuple[Array, Array]:
    """Gradients of x (R, N) and gain (N,)."""
    x, dy = _f64(x), _f64(dy)
    root = np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    xhat, a = x / root, dy * _f64(gain)
    return (a - xhat * (a * xhat).mean(-1, keepdims=True)) / root, (dy * xhat).sum(0)


def batch_norm(x: ArrayLike, gain: ArrayLike = 1.0, bias: ArrayLike = 0.0, eps: float = 1e-5) -> Array:
    """Each column of x (R, N) less its mean, over its standard deviation, times gain (N,), plus bias (N,)."""
    x = _f64(x)
    return (x - x.mean(0)) / np.sqrt(x.var(0) + eps) * _f64(gain) + _f64(bias)


def batch_norm_backward(
    dy: ArrayLike, x: ArrayLike, gain: ArrayLike = 1.0, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Gradients of x (R, N), gain and bias (N,)."""
    x, dy = _f64(x), _f64(dy)
    deviation = np.sqrt(x.var(0) + eps)
    xhat, a = (x - x.mean(0)) / deviation, dy * _f64(gain)
    return (a - a.mean(0) - xhat * (a * xhat).mean(0)) / deviation, (dy * xhat).sum(0), dy.sum(0)
