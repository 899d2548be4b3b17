"""Products of matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from fastact.reference.catalogue import Array, _f64


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
