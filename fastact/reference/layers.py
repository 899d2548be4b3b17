"""Layers without a state."""

from __future__ import annotations

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
