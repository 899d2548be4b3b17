"""What an elementwise activation is like, found from the function itself: Lipschitz constant, saturation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastact._activations import Activation

SLOPE = 1e-3  # below it a function counts as saturated
_FAR = 1e4  # nothing new is expected beyond


def _grid() -> Any:
    """Points of [-1e4, 1e4], 0.005 apart within [-20, 20]; none is a round number, where kinks lie."""
    far = np.geomspace(20.01, _FAR, 400)
    return np.concatenate([-far[::-1], np.linspace(-20, 20, 8001) + 1.7e-5, far])


def lipschitz(f: Activation) -> float:
    """The least L with \\|f(a) - f(b)\\| <= L \\|a - b\\|, to 4 digits; inf where f jumps or its slope has no bound.

    Examples
    --------
    >>> import fastact as fa
    >>> from fastact._analysis import lipschitz
    >>> round(lipschitz(fa.sigmoid), 4), lipschitz(fa.step)
    (0.25, inf)
    """
    x = _grid()
    y = np.asarray(f(x), np.float64)
    if not np.isfinite(y).all():
        return math.inf
    slope = np.abs(np.diff(y) / np.diff(x))
    near = np.abs(x[1:]) <= _FAR / 10
    steepest = float(slope.max())
    if steepest > 1.05 * slope[near].max():  # still growing
        return math.inf
    for _ in range(3):  # look closer where it is steepest
        at = int(slope.argmax())
        x = np.linspace(x[max(at - 1, 0)], x[min(at + 2, len(x) - 1)], 31)
        slope = np.abs(np.diff(np.asarray(f(x), np.float64)) / np.diff(x))
        if slope.max() > 5 * steepest:
            return math.inf
        steepest = max(steepest, float(slope.max()))
    return steepest


def saturation(f: Activation, slope: float = SLOPE) -> list[tuple[float, float]]:
    """The intervals on which the derivative is less than ``slope`` in size, from left to right.

    Examples
    --------
    >>> import fastact as fa
    >>> from fastact._analysis import saturation
    >>> [(round(a, 3), round(b, 3)) for a, b in saturation(fa.sigmoid)]
    [(-inf, -6.906), (6.906, inf)]
    """

    def flat(x: Any) -> Any:
        return np.abs(np.asarray(f.derivative(np.asarray(x, np.float64)))) < slope

    x = _grid()
    is_flat = flat(x)
    edges = []
    for i in np.flatnonzero(is_flat[1:] != is_flat[:-1]):
        low, high = x[i], x[i + 1]
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if flat(middle) == is_flat[i] else (low, middle)
        edges.append(float(high))
    if is_flat[0]:
        edges.insert(0, -math.inf)
    if is_flat[-1]:
        edges.append(math.inf)
    return list(zip(edges[::2], edges[1::2], strict=True))
