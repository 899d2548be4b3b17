"""Initial weights, and ``seed``, which feeds every ``rng=None``.

The layers' defaults are PyTorch's distributions. Numbers are drawn in float64 and rounded, so that a float32 and a
float64 layer of one seed have the same weights to rounding.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rng = np.random.Generator | int | None

_shared: np.random.Generator | None = None  # made at first use: `import fastact` draws nothing


class _Local(threading.local):
    allowance: int | None = None  # bytes that `skipped` may still hand out; None outside it


_local = _Local()


def seed(value: int | None) -> None:
    """Restart the generator behind every ``rng=None``.

    Parameters
    ----------
    value : int or None
        Non-negative; None takes fresh entropy from the system.

    Examples
    --------
    >>> import fastact as fa
    >>> fa.seed(0)
    >>> a = fa.nn.Dense(2, 2).weight.value
    >>> fa.seed(0)
    >>> bool((fa.nn.Dense(2, 2).weight.value == a).all())
    True
    """
    global _shared
    _shared = generator(value, "seed")


def generator(rng: Rng = None, name: str = "rng") -> np.random.Generator:
    """The generator that an ``rng=`` argument means: itself, one of that seed, or for None the shared one.

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or a negative seed.
    """
    global _shared
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None and name == "rng":
        if _shared is None:
            _shared = np.random.default_rng()
        return _shared
    if rng is not None and (isinstance(rng, bool) or not isinstance(rng, (int, np.integer))):
        raise TypeError(f"{name}: expected a non-negative integer, a numpy.random.Generator or None, got {rng!r}")
    if rng is not None and rng < 0:
        raise ValueError(f"{name}: expected a non-negative integer, got {rng}")
    return np.random.default_rng(rng)


@contextmanager
def skipped(allowance: int) -> Iterator[None]:
    """In this thread, initialisers draw nothing and give zeros: for layers whose weights are loaded next.

    ``allowance`` bounds their total in bytes, so that a damaged description of a model cannot ask for all memory.
    """
    before, _local.allowance = _local.allowance, allowance
    try:
        yield
    finally:
        _local.allowance = before


def _zeros_if_skipped(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array | None:
    if _local.allowance is None:
        return None
    _local.allowance -= math.prod(shape) * np.dtype(dtype).itemsize
    if _local.allowance < 0:
        raise ValueError(f"shape: weights of shape {shape} are larger than what is there to load")
    return np.zeros(shape, dtype)


def uniform(shape: tuple[int, ...], bound: float, dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Uniform on [-bound, bound)."""
    zeros = _zeros_if_skipped(shape, dtype)
    return generator(rng).uniform(-bound, bound, shape).astype(dtype, copy=False) if zeros is None else zeros


def normal(shape: tuple[int, ...], std: float = 1.0, dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Normal with mean 0."""
    zeros = _zeros_if_skipped(shape, dtype)
    return generator(rng).normal(0.0, std, shape).astype(dtype, copy=False) if zeros is None else zeros


def fan_in_uniform(shape: tuple[int, ...], fan_in: int, dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Uniform on [-k, k), k = 1 / sqrt(fan_in): the default of ``torch.nn.Linear`` and, with H, of ``torch.nn.LSTM``.

    It is what ``kaiming_uniform_(a=sqrt(5))`` amounts to. Its variance is 1 / (3 fan_in), a sixth of what He et al.
    (2015, arXiv:1502.01852, eq. 10) derive for ReLU.
    """
    return uniform(shape, 1.0 / max(fan_in, 1) ** 0.5, dtype, rng)
