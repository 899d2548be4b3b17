"""Data for training: checked once, split for validation, handed out in batches of rows."""

from __future__ import annotations

import contextlib
import numbers
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastact._arguments import Array, as_real, as_size
from fastact.losses import Loss
from fastact.nn.base import Layer


def as_inputs(x: Any, dtype: np.dtype[Any], name: str = "x") -> Array:
    """``x`` as an array of rows; real numbers become the model's dtype here once, integers (indices) stay.

    Raises
    ------
    TypeError
        For what ``as_real`` refuses.
    ValueError
        Without rows.
    """
    array = as_real(x, name)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name}: expected at least one row of data, got shape {array.shape}")
    return array.astype(dtype, copy=False) if array.dtype.kind == "f" else array


def as_pair(x: Any, y: Any, model: Layer, loss: Loss, names: tuple[str, str] = ("x", "y")) -> tuple[Array, Array]:
    """Inputs and targets, as many of one as of the other, in the form that model and loss take without converting.

    The model runs on the first row, so that targets which do not fit its output are refused before training begins.
    """
    dtype = model.arena.dtype
    inputs = as_inputs(x, dtype, names[0])
    with _named(names[1]):
        targets = loss.prepare(y, dtype)
    if targets.ndim == 0 or len(targets) != len(inputs):
        got = "a scalar" if targets.ndim == 0 else f"{len(targets)}"
        raise ValueError(
            f"{names[1]}: expected one row for each of the {len(inputs)} rows of {names[0]}, got {got} "
            f"({names[0]} has shape {inputs.shape}, {names[1]} {targets.shape})"
        )
    output = model(inputs[:1])
    with _named(names[1]):
        loss.check(output.shape[1:], targets)
    return inputs, targets


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """A loss speaks of its argument ``target``; the caller knows it as ``name``."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(re.sub(r"\btarget\b", name, str(error))) from error


def as_batch_size(batch_size: Any, rows: int) -> int:
    """``batch_size`` as an int; None is all rows, and so is anything beyond them."""
    return rows if batch_size is None else min(as_size(batch_size, "batch_size"), rows)


def split(x: Array, y: Array, fraction: float) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Training rows and the last ``fraction`` of the rows, for validation. At least one row on each side.

    Raises
    ------
    ValueError
        For a fraction outside (0, 1), or a single row.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"validation: expected a fraction 0 < validation < 1 or a pair (x, y), got {fraction!r}")
    if len(x) < 2:
        raise ValueError(f"validation: expected at least 2 rows to split, got {len(x)}; pass validation=(x, y)")
    held = min(max(round(len(x) * fraction), 1), len(x) - 1)
    return (x[:-held], y[:-held]), (x[-held:], y[-held:])


def is_fraction(validation: Any) -> bool:
    """Whether ``validation=`` is a number, to be checked by ``split``, rather than data."""
    return isinstance(validation, (numbers.Real, np.number)) and not isinstance(validation, bool)


def shuffled(rows: int, seed: int, epoch: int) -> Array:
    """The order of the rows in an epoch: depends on seed and epoch alone, so a resumed run needs no generator state."""
    return np.random.default_rng((seed, epoch)).permutation(rows)


class Batches:
    """The batches of one epoch, by number.

    Parameters
    ----------
    x, y : arrays of as many rows
    batch_size : int
        The last batch may be smaller.
    order : array of row numbers, optional
        None takes the rows as they stand, as views.
    """

    __slots__ = ("batch_size", "order", "rows", "x", "y")

    def __init__(self, x: Array, y: Array, batch_size: int, order: Array | None = None) -> None:
        self.x, self.y, self.batch_size = x, y, batch_size
        self.rows = len(x)
        # All rows in one batch are the same batch in any order, and need no copy.
        self.order = None if batch_size >= self.rows else order

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __getitem__(self, i: int) -> tuple[Array, Array]:
        begin = i * self.batch_size
        if begin >= self.rows:
            raise IndexError(i)
        if self.order is None:
            rows = slice(begin, begin + self.batch_size)
            return self.x[rows], self.y[rows]
        if self.batch_size == 1:
            row = self.order[begin]
            return self.x[row : row + 1], self.y[row : row + 1]
        chosen = self.order[begin : begin + self.batch_size]
        return self.x.take(chosen, 0), self.y.take(chosen, 0)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return (self[i] for i in range(len(self)))
