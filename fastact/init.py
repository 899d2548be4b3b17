"""Initial weights, and ``seed``, which feeds every ``rng=None``.

The layers' defaults are PyTorch's distributions. Numbers are drawn in float64 and rounded, so that a float32 and a
float64 layer of one seed have the same weights to rounding.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rng = np.random.Generator | int | None

_shared: np.random.Generator | None = None  # made at first use: `import fastact` draws nothing


class _Skip(threading.local):
    on = False


_skip = _Skip()


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
def skipped() -> Iterator[None]:
    """In this thread, initialisers give zeros and draw nothing: for layers whose weights are loaded next."""
    before, _skip.on = _skip.on, True
    try:
        yield
    finally:
        _skip.on = before


def uniform(shape: tuple[int, ...], bound: float, dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Uniform on [-bound, bound)."""
    if _skip.on:
        return np.zeros(shape, dtype)
    return generator(rng).uniform(-bound, bound, shape).astype(dtype, copy=False)


def normal(shape: tuple[int, ...], std: float = 1.0, dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Normal with mean 0."""
    if _skip.on:
        return np.zeros(shape, dtype)
    return generator(rng).normal(0.0, std, shape).astype(dtype, copy=False)


def fan_in_uniform(shape: tuple[int, ...], fan_in: int, dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Uniform on [-k, k), k = 1 / sqrt(fan_in): the default of ``torch.nn.Linear`` and, with H, of ``torch.nn.LSTM``.

    It is what ``kaiming_uniform_(a=sqrt(5))`` amounts to. Its variance is 1 / (3 fan_in), a sixth of what He et al.
    (2015, arXiv:1502.01852, eq. 10) derive for ReLU.
    """
    return uniform(shape, 1.0 / max(fan_in, 1) ** 0.5, dtype, rng)
