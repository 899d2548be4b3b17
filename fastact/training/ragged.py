"""Sequences of different lengths as batches: those of like length together, padded to the longest of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastact._arguments import Array, as_real, as_size
from fastact.losses import Loss
from fastact.nn.base import Layer
from fastact.training.batches import Batch, Seeds, as_rows, named, shuffled, split_at
from fastact.training.nonfinite import first_bad
from fastact.training.weights import ClassWeights

PREDICTED_TOGETHER = 64  # sequences, unless a batch size is given: all in one would be padded to the longest of all
POOL = 64  # batches whose sequences are sorted by length together: sorting all would make the same batches each epoch


class RaggedData:
    """A list of sequences, with a target for each or for each step.

    Parameters
    ----------
    x : list of arrays of shape (T_i, ...)
        Each of at least one step, alike in the other axes.
    y : list of arrays of shape (T_i, ...), or array of shape (N, ...)
    weight : array of shape (N,), optional
    class_weights : ClassWeights, optional
    aligned : bool
        ``loss.aligned``; False for CTC, whose targets (N, S) are labels without steps.

    Notes
    -----
    A batch is padded with zeros to its longest sequence and brings ``lengths``. Where there is a target for each step,
    or the loss itself goes through the steps (CTC), those that are padding have weight 0. A shuffled epoch draws an
    order, sorts each ``POOL`` batches of it by length, and shuffles the batches: little padding, and other batches each
    time.
    """

    def __init__(
        self,
        x: Sequence[Array],
        y: Sequence[Array] | Array,
        weight: Array | None = None,
        class_weights: ClassWeights | None = None,
        aligned: bool = True,
    ) -> None:
        self.x, self.y, self.weight, self.class_weights, self.aligned = x, y, weight, class_weights, aligned
        self.rows = len(x)
        self.lengths = np.array([len(sequence) for sequence in x], np.int64)

    def split(self, fraction: float) -> tuple[RaggedData, RaggedData]:
        """The sequences for training and the last ``fraction`` of them, at least one each."""
        at = split_at(self.rows, fraction)
        return self._part(slice(at), self.class_weights), self._part(slice(at, None), None)

    def _part(self, rows: slice, class_weights: ClassWeights | None) -> RaggedData:
        weight = None if self.weight is None else self.weight[rows]
        return RaggedData(self.x[rows], self.y[rows], weight, class_weights, self.aligned)

    def batches(self, batch_size: int | None, seeds: Seeds = None, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from number ``first`` on."""
        for rows in self._groups(self.rows if batch_size is None else batch_size, seeds)[first:]:
            yield self._padded(rows)

    def _groups(self, size: int, seeds: Seeds) -> list[Array]:
        """Numbers of the sequences of each batch."""
        if seeds is None:
            order = np.arange(self.rows)
            return [order[begin : begin + size] for begin in range(0, self.rows, size)]
        order = shuffled(self.rows, *seeds)
        groups = []
        for begin in range(0, self.rows, POOL * size):
            pool = order[begin : begin + POOL * size]
            pool = pool[self.lengths[pool].argsort(kind="stable")]
            groups += [pool[i : i + size] for i in range(0, len(pool), size)]
        return [groups[i] for i in np.random.default_rng((*seeds, 1)).permutation(len(groups))]

    def _padded(self, rows: Array) -> Batch:
        lengths = self.lengths[rows]
        x = padded([self.x[i] for i in rows], lengths)
        weight = None if self.weight is None else self.weight[rows]
        y = self.y[rows] if isinstance(self.y, np.ndarray) else padded([self.y[i] for i in rows], lengths)
        if not (isinstance(self.y, np.ndarray) and self.aligned):
            there = (np.arange(x.shape[1]) < lengths[:, None]).astype(np.float32)
            weight = there if weight is None else there * weight[:, None]
        if self.class_weights is not None:
            weight = self.class_weights.times(y, weight)
        return Batch(x, y, weight, lengths)

    def first_bad(self) -> str | None:
        """Where the data are first NaN or infinite, in words."""
        for i in range(self.rows):
            for name, array in ((f"x[{i}]", self.x[i]), (f"y[{i}]", self.y[i])):
                if bad := first_bad(array):
                    return f"{name} = {bad}"
        return None


def padded(sequences: list[Array], lengths: Array) -> Array:
    """Sequences (T_i, ...) as one array (B, max T_i, ...), zeros beyond their ends."""
    out = np.zeros((len(sequences), lengths.max(), *sequences[0].shape[1:]), sequences[0].dtype)
    for row, sequence in zip(out, sequences, strict=True):
        row[: len(sequence)] = sequence
    return out


def is_ragged(x: Any) -> bool:
    """Whether ``x`` is a list (or an array of objects) of sequences that are not all of one length."""
    if not (isinstance(x, (list, tuple)) or (isinstance(x, np.ndarray) and x.dtype == object and x.ndim == 1)):
        return False
    if len(x) == 0 or not all(hasattr(item, "__len__") and not isinstance(item, (str, bytes)) for item in x):
        return False
    return len({len(item) for item in x}) > 1


def as_inputs(x: Any, dtype: np.dtype[Any], name: str = "x") -> list[Array]:
    """Sequences as arrays of the model's dtype, or of integers, alike but for their lengths.

    Raises
    ------
    ValueError
        For an empty sequence, or sequences that differ in other axes.
    TypeError
        For what are no numbers.
    """
    inputs = [as_rows(as_real(item, f"{name}[{i}]"), dtype) for i, item in enumerate(x)]
    for i, item in enumerate(inputs):
        if not len(item):
            raise ValueError(f"{name}[{i}]: expected at least one step, got an empty sequence; leave it out")
        if item.shape[1:] != inputs[0].shape[1:] or item.dtype != inputs[0].dtype:
            raise ValueError(
                f"{name}[{i}]: expected steps as in {name}[0], of shape {inputs[0].shape[1:]} and type "
                f"{inputs[0].dtype}, got {item.shape[1:]} and {item.dtype}"
            )
    return inputs


def predicted(model: Layer, x: Any, batch_size: int | None) -> list[Array] | Array:
    """Outputs for sequences of different lengths, in the order given; those of like length go together.

    Returns
    -------
    list of arrays of shape (T_i, ...), or array of shape (N, ...)
        The latter from a model that puts out one thing for a whole sequence.
    """
    inputs = as_inputs(x, model.arena.dtype)
    lengths = np.array([len(sequence) for sequence in inputs])
    order = lengths.argsort(kind="stable")
    size = PREDICTED_TOGETHER if batch_size is None else as_size(batch_size, "batch_size")
    every_step = _keeps_steps(model, inputs[order[0]])
    outputs: list[Array] = [inputs[0]] * len(inputs)
    for begin in range(0, len(order), size):
        rows = order[begin : begin + size]
        y = model(padded([inputs[i] for i in rows], lengths[rows]), lengths=lengths[rows])
        for i, output in zip(rows, y, strict=True):
            outputs[i] = output[: lengths[i]].copy() if every_step else output
    return outputs if every_step else np.stack(outputs)


def _keeps_steps(model: Layer, sequence: Array) -> bool:
    """Whether the output has an axis of steps: it grows with a step of padding."""
    steps = len(sequence)
    more = padded([sequence], np.array([steps + 1]))
    shapes = [model(x, lengths=np.array([steps])).shape for x in (sequence[None], more)]
    return [shape[1:2] for shape in shapes] == [(steps,), (steps + 1,)]


def as_sequences(
    x: Any, y: Any, model: Layer, loss: Loss, names: tuple[str, str] = ("x", "y")
) -> tuple[list[Array], list[Array] | Array]:
    """Sequences and their targets in the form that model and loss take; targets for each step stay a list.

    Raises
    ------
    ValueError
        As ``as_inputs``, or for targets that do not fit.
    TypeError
        For what are no numbers.
    """
    dtype = model.arena.dtype
    inputs = as_inputs(x, dtype, names[0])
    count = len(y) if hasattr(y, "__len__") else 0
    if count != len(inputs):
        raise ValueError(
            f"{names[1]}: expected one target for each of the {len(inputs)} sequences of {names[0]}, got {count}"
        )
    every_step = loss.aligned and all(
        hasattr(t, "__len__") and len(t) == len(s) for t, s in zip(y, inputs, strict=True)
    )
    lengths = np.array([len(inputs[0])])
    output = model(inputs[0][None], lengths=lengths)
    if not every_step:
        with named(names[1]):
            targets = loss.prepare(y, dtype)
            loss.check(output.shape[1:], targets)
        return inputs, targets
    steps = []
    for i, item in enumerate(y):
        with named(f"{names[1]}[{i}]"):
            steps.append(loss.prepare(item, dtype))
            loss.check((len(inputs[i]), *output.shape[2:]), steps[i][None])
    return inputs, steps
