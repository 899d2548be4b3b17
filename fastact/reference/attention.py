"""Attention and content addressing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from fastact.reference.catalogue import Array, _f64, softmax, softmax_backward


def visible(
    batch: int, queries: int, keys: int, causal: bool = False, lengths: ArrayLike | None = None
) -> npt.NDArray[np.bool_]:
    """Whether query t sees key s: (B, 1, T, S)."""
    s, t = np.arange(keys), np.arange(queries)[:, np.newaxis]
    seen = np.broadcast_to(s <= t if causal else s >= 0 * t, (batch, queries, keys))
    if lengths is not None:
        seen = seen & (s < np.asarray(lengths)[:, np.newaxis, np.newaxis])
    return seen[:, np.newaxis]


def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    scale: float,
    seen: npt.NDArray[np.bool_] | bool = True,
    dropout: Array | float = 1.0,
) -> tuple[Array, Array]:
    """softmax(scale q k') v: q (B, h, T, D), k (B, h, S, D), v (B, h, S, V) -> y (B, h, T, V), p (B, h, T, S).

    ``dropout`` multiplies p; p is given without it.
    """
    scores = scale * _f64(q) @ _f64(k).swapaxes(-1, -2)
    p = softmax(np.where(seen, scores, -np.inf))
    return (p * dropout) @ _f64(v), p


def attention_backward(
    dy: ArrayLike, q: ArrayLike, k: ArrayLike, v: ArrayLike, scale: float, seen: npt.NDArray[np.bool_] | bool = True,
    dropout: Array | float = 1.0,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Gradients of q, k and v for the gradient dy (B, h, T, V)."""
    dy, q, k, v = _f64(dy), _f64(q), _f64(k), _f64(v)
    _, p = attention(q, k, v, scale, seen)
    dscores = scale * softmax_backward(dy @ v.swapaxes(-1, -2) * dropout, p)
    return dscores @ k, dscores.swapaxes(-1, -2) @ q, (p * dropout).swapaxes(-1, -2) @ dy


def content_weights(key: ArrayLike, memory: ArrayLike, strength: ArrayLike) -> Array:
    """softmax of strength times cosine(key, row of memory): (B, h, M), (B, N, M), (B, h) -> (B, h, N)."""
    key, memory = _f64(key), _f64(memory)
    sizes = np.linalg.norm(key, axis=-1)[:, :, np.newaxis] * np.linalg.norm(memory, axis=-1)[:, np.newaxis]
    products = key @ memory.swapaxes(-1, -2)
    cosine = np.divide(products, sizes, out=np.zeros_like(products), where=sizes > 0)
    return softmax(_f64(strength)[:, :, np.newaxis] * cosine)


def sharpened(w: ArrayLike, gamma: ArrayLike) -> Array:
    """w_i^gamma / sum_j w_j^gamma: (..., N), (...) -> (..., N)."""
    powers = _f64(w) ** _f64(gamma)[..., np.newaxis]
    return powers / powers.sum(axis=-1, keepdims=True)
