"""Arrays of rows as batches: checked once, weighted, split for validation, handed out in a new order each epoch.

``ArrayData`` is the plain kind of data; ``ragged.RaggedData`` and ``iterables.IterableData`` have the same face:
``rows``, ``split``, ``batches`` and ``first_bad``. ``data.as_data`` chooses among them.
"""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastact._arguments import Array, as_real, as_size
from fastact.losses import Loss
from fastact.nn.base import Layer
from fastact.training.nonfinite import first_bad
from fastact.training.weights import ClassWeights

Seeds = tuple[int, int] | None
"""(seed, epoch), from which the order of an epoch follows; None is the order in which the rows stand."""

CHECKED_ROWS = 65_536  # of a memory-mapped file that are looked at together


class Batch(NamedTuple):
    """What one pass through the model takes.

    Attributes
    ----------
    x, y : arrays of shape (B, ...)
    weight : array of shape (B,) or (B, T), optional
        Of the terms of the loss; 0 leaves a position out.
    lengths : array of shape (B,), optional
        Steps of each sequence; what lies beyond is padding.
    """

    x: Any
    y: Any
    weight: Array | None = None
    lengths: Array | None = None

    def arguments(self, state: Any = None) -> dict[str, Any]:
        """What the model is called with besides x."""
        given = {} if state is None else {"state": state}
        if self.lengths is not None:
            given["lengths"] = self.lengths
        return given


class ArrayData:
    """Arrays of as many rows.

    Parameters
    ----------
    x, y : arrays of shape (N, ...)
        In memory, or mapped from a file: then only the rows of a batch are read, and converted there.
    weight : array of shape (N,) or (N, T), optional
    class_weights : ClassWeights, optional
    model, loss
        What the data are for: a mapped file is converted to their types batch by batch.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        model: Layer,
        loss: Loss,
        weight: Array | None = None,
        class_weights: ClassWeights | None = None,
    ) -> None:
        self.x, self.y, self.weight, self.class_weights = x, y, weight, class_weights
        self.model, self.loss = model, loss
        self.rows = len(x)
        self._lazy = is_mapped(x) or is_mapped(y)

    def split(self, fraction: float) -> tuple[ArrayData, ArrayData]:
        """The rows for training and the last ``fraction`` of them, at least one row each."""
        at = split_at(self.rows, fraction)
        return self._part(slice(at), self.class_weights), self._part(slice(at, None), None)

    def _part(self, rows: slice, class_weights: ClassWeights | None) -> ArrayData:
        weight = None if self.weight is None else self.weight[rows]
        return ArrayData(self.x[rows], self.y[rows], self.model, self.loss, weight, class_weights)

    def batches(self, batch_size: int | None, seeds: Seeds = None, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from number ``first`` on; the last may be smaller. Unshuffled rows are views."""
        rows = self.rows
        size = rows if batch_size is None else batch_size
        # All rows in one batch are the same batch in any order, and need no copy.
        order = None if seeds is None or size >= rows else shuffled(rows, *seeds)
        for begin in range(first * size, rows, size):
            if order is None:
                yield self._batch(
                    self.x[begin : begin + size], self.y[begin : begin + size], slice(begin, begin + size)
                )
            elif size == 1:
                row = order[begin]
                part = slice(row, row + 1)
                yield self._batch(self.x[part], self.y[part], part)
            else:
                chosen = order[begin : begin + size]
                yield self._batch(self.x.take(chosen, 0), self.y.take(chosen, 0), chosen)

    def _batch(self, x: Array, y: Array, rows: Any) -> Batch:
        if self._lazy:
            dtype = self.model.arena.dtype
            x, y = as_rows(x, dtype), self.loss.prepare(y, dtype)
        weight = None if self.weight is None else self.weight[rows]
        if self.class_weights is not None:
            weight = self.class_weights.times(y, weight)
        return Batch(x, y, weight)

    def first_bad(self) -> str | None:
        """Where the data are first NaN or infinite, in words."""
        for begin in range(0, self.rows, CHECKED_ROWS):
            for name, array in (("x", self.x), ("y", self.y)):
                if bad := first_bad(array[begin : begin + CHECKED_ROWS], begin):
                    return f"{name} = {bad}"
        return None


def as_inputs(x: Any, dtype: np.dtype[Any], name: str = "x") -> Array:
    """``x`` as an array of rows; real numbers become the model's dtype here once, integers (indices) stay.

    A mapped file stays one, whatever its type.

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
    return array if is_mapped(array) else as_rows(array, dtype)


def as_rows(x: Array, dtype: np.dtype[Any]) -> Array:
    """Real numbers in the model's dtype; integers as they are."""
    return x.astype(dtype, copy=False) if x.dtype.kind == "f" else x


def is_mapped(array: Any) -> bool:
    """Whether an array is a view of a memory-mapped file, which is not to be read as a whole."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


def as_arrays(
    x: Any,
    y: Any,
    model: Layer,
    loss: Loss,
    names: tuple[str, str] = ("x", "y"),
) -> tuple[Array, Array]:
    """Inputs and targets, as many of one as of the other, in the form that model and loss take without converting.

    The model runs on the first row, so that targets which do not fit its output are refused before training begins.
    """
    dtype = model.arena.dtype
    inputs = as_inputs(x, dtype, names[0])
    mapped = is_mapped(y)
    with named(names[1]):
        targets = np.asarray(y) if mapped else loss.prepare(y, dtype)
    if targets.ndim == 0 or len(targets) != len(inputs):
        got = "a scalar" if targets.ndim == 0 else f"{len(targets)}"
        raise ValueError(
            f"{names[1]}: expected one row for each of the {len(inputs)} rows of {names[0]}, got {got} "
            f"({names[0]} has shape {inputs.shape}, {names[1]} {targets.shape})"
        )
    output = model(as_rows(inputs[:1], dtype))
    if not mapped:
        with named(names[1]):
            loss.check(output.shape[1:], targets)
    else:
        for begin in range(0, len(targets), CHECKED_ROWS):
            with named(f"{names[1]}[{begin}:]"):
                loss.check(output.shape[1:], loss.prepare(targets[begin : begin + CHECKED_ROWS], dtype))
    return inputs, targets


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """A loss speaks of its argument ``target``; the caller knows it as ``name``."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(re.sub(r"\btarget\b", name, str(error))) from error


def as_batch_size(batch_size: Any, rows: int | None) -> int | None:
    """``batch_size`` as an int, None for all rows; ``"auto"`` is 32, or all rows where they are fewer.

    Raises
    ------
    ValueError
        If it is larger than the number of rows (None where nobody knows that).
    """
    if batch_size is None:
        return None
    if isinstance(batch_size, str) and batch_size == "auto":
        return 32 if rows is None else min(32, rows)
    size = as_size(batch_size, "batch_size")
    if rows is not None and size > rows:
        raise ValueError(f"batch_size: expected at most the {rows} rows of training data, got {size}; None is all rows")
    return size


def split_at(rows: int, fraction: float) -> int:
    """How many of the rows are for training when the last ``fraction`` is held back. At least one on each side.

    Raises
    ------
    ValueError
        For a fraction outside (0, 1), or a single row.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"validation: expected a fraction 0 < validation < 1 or a pair (x, y), got {fraction!r}")
    if rows < 2:
        raise ValueError(f"validation: expected at least 2 rows to split, got {rows}; pass validation=(x, y)")
    return rows - min(max(round(rows * fraction), 1), rows - 1)


def shuffled(rows: int, seed: int, epoch: int) -> Array:
    """The order of the rows in an epoch: depends on seed and epoch alone, so a resumed run needs no generator state."""
    return np.random.default_rng((seed, epoch)).permutation(rows)
