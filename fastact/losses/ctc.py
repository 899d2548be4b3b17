"""Connectionist temporal classification: labels without their times."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastact._arguments import Array, as_floats, as_size
from fastact._core import losses as _core
from fastact.losses.base import INT64, KernelLoss, LossBackward, Measure, as_dense, as_prediction, place_of


class CTC(KernelLoss):
    """Minus the log-probability that a sequence of logits spells the labels, repetitions merged and blanks dropped.

    Parameters
    ----------
    blank : int
        The class that means no label.
    zero_infinity : bool
        A sequence that is too short for its labels gets loss 0 and no gradient instead of an infinite loss.
    reduction : {"mean", "sum", "none"}
        "mean" divides each sequence's loss by the number of its labels before the mean over sequences, as PyTorch does.

    Notes
    -----
    Graves et al., Connectionist Temporal Classification, 2006. The prediction (B, T, C) holds logits, batch first;
    PyTorch's CTCLoss takes log-probabilities, time first. The gradient is that by the logits.

    Targets are a list of B sequences of labels, or an array (B, S) whose rows end at their first blank or negative
    number; a prediction ends where its weight (B, T) becomes 0. ``forward`` and ``measure`` also take the lengths.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> logits = np.zeros((1, 3, 3))
    >>> loss, backward = fa.losses.CTC().forward(logits, [[1, 2]])
    >>> round(loss, 6)  # 5 of the 27 sequences spell 1 2: 112, 122, 012, 102, 120; and there are 2 labels
    0.843199
    >>> backward().round(3)
    array([[[ 0.067, -0.233,  0.167],
            [ 0.067, -0.033, -0.033],
            [ 0.067,  0.167, -0.233]]])
    """

    aligned = False

    def __init__(self, blank: int = 0, zero_infinity: bool = False, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.blank = as_size(blank, "blank", least=0)
        self.zero_infinity = bool(zero_infinity)

    def measure(
        self,
        prediction: Array,
        target: Any,
        gradient: Array | None = None,
        weight: Any | None = None,
        *,
        input_lengths: npt.ArrayLike | None = None,
        target_lengths: npt.ArrayLike | None = None,
    ) -> Measure:
        """Loss of a batch.

        Parameters
        ----------
        prediction : array of shape (B, T, C)
            Logits.
        target : integer array of shape (B, S), or list of B integer sequences of any lengths
        gradient : array of shape (B, T, C), optional
            C-contiguous; overwritten with the derivative of the loss.
        weight : array of shape (B,) or (B, T), optional
            Of sequences; of shape (B, T) a sequence's weight at each of its steps, 0 from its end on.
        input_lengths, target_lengths : integer arrays of shape (B,), optional

        Raises
        ------
        ValueError
            For shapes that do not fit, labels out of range, or lengths beyond the arrays.
        """
        if self.reduction == "none":
            return super().measure(prediction, target)  # refuses
        values = as_prediction(prediction)
        return self._sequences(values, target, gradient, None, weight, input_lengths, target_lengths)

    def forward(
        self,
        prediction: npt.ArrayLike,
        target: npt.ArrayLike,
        weight: npt.ArrayLike | None = None,
        *,
        input_lengths: npt.ArrayLike | None = None,
        target_lengths: npt.ArrayLike | None = None,
    ) -> tuple[Any, LossBackward]:
        """Loss of a batch, as from ``measure``, and its backward; with reduction "none" an array (B,) of losses."""
        values = as_prediction(prediction)
        gradient = np.empty(values.shape, values.dtype)
        each = np.empty(values.shape[:1], values.dtype) if self.reduction == "none" else None
        found = self._sequences(values, target, gradient, each, weight, input_lengths, target_lengths)
        return found.mean if each is None else each, LossBackward(gradient)

    def _sequences(
        self,
        prediction: Array,
        target: Any,
        gradient: Array | None,
        each: Array | None,
        weight: Any,
        input_lengths: Any,
        target_lengths: Any,
    ) -> Measure:
        if prediction.ndim != 3:
            raise ValueError(f"prediction: expected shape (B, T, C), got {prediction.shape}")
        labels = self.prepare(target, prediction.dtype)
        if labels.ndim != 2 or len(labels) != len(prediction):
            raise ValueError(f"target: expected shape (B, S) with B = {len(prediction)}, got {labels.shape}")
        classes = prediction.shape[2]
        if self.blank >= classes:
            raise ValueError(
                f"blank: expected 0 <= blank < {classes} (the last axis of the prediction), got {self.blank}"
            )
        counts = self._label_counts(labels, target_lengths)
        self._check_labels(labels, counts, classes)
        sequence_weight, steps = self._steps(prediction, weight)
        if input_lengths is not None:
            steps = np.minimum(_lengths(input_lengths, "input_lengths", *prediction.shape[:2]), steps)
        size = float(sequence_weight.sum())
        share = sequence_weight
        if self.reduction == "mean":
            share = share / (np.maximum(counts, 1) * (size or 1.0))
        losses = np.empty(len(labels))
        _core.ctc(prediction, labels, counts, steps, share, gradient, losses, self.blank, self.zero_infinity)
        weighted = np.where(share > 0, losses, 0.0) * share
        if each is not None:
            each[...] = weighted
        return Measure(float(weighted.sum()), size)

    def _label_counts(self, labels: Array, target_lengths: Any) -> Array:
        if target_lengths is not None:
            return _lengths(target_lengths, "target_lengths", *labels.shape)
        ends = (labels < 0) | (labels == self.blank)
        return as_dense(np.where(ends.any(1), ends.argmax(1), labels.shape[1]), INT64) if labels.size else _none(labels)

    def _check_labels(self, labels: Array, counts: Array, classes: int) -> None:
        inside = np.arange(labels.shape[1]) < counts[:, None]
        wrong = inside & ((labels < 0) | (labels >= classes) | (labels == self.blank))
        if wrong.any():
            where = tuple(np.argwhere(wrong)[0])
            raise ValueError(
                f"target: expected classes 0 <= class < {classes} other than the blank {self.blank}, got "
                f"{labels[where]} at position {place_of(where)}"
            )

    @staticmethod
    def _steps(prediction: Array, weight: Any) -> tuple[Array, Array]:
        """Weight of each sequence, and the number of its steps."""
        rows, steps = prediction.shape[:2]
        if weight is None:
            return np.ones(rows), np.full(rows, steps, np.int64)
        weights = as_floats(weight, np.dtype(np.float64), "weight")
        if weights.shape not in ((rows,), (rows, steps)):
            raise ValueError(f"weight: expected shape {(rows,)} or {(rows, steps)}, got {weights.shape}")
        if not ((weights >= 0) & (weights < np.inf)).all():
            raise ValueError("weight: expected finite weights of at least 0, got a negative one, an infinity or NaN")
        if weights.ndim == 1:
            return as_dense(weights, weights.dtype), np.full(rows, steps, np.int64)
        counts = (weights > 0).sum(1)
        if (weights != weights[:, :1] * (np.arange(steps) < counts[:, None])).any():
            raise ValueError("weight: expected one number at all steps of a sequence and 0 from its end on, got others")
        return weights[:, 0].copy(), as_dense(counts, INT64)

    def prepare(self, target: Any, dtype: np.dtype[Any]) -> Array:
        """``target`` as a C-contiguous int64 array (B, S), sequences of different lengths padded with -1."""
        if not isinstance(target, (list, tuple)) and not (isinstance(target, np.ndarray) and target.dtype == object):
            return _integers(target, "target")
        rows = [_integers(row, f"target[{i}]") for i, row in enumerate(target)]
        for i, row in enumerate(rows):
            if row.ndim != 1:
                raise ValueError(f"target[{i}]: expected a sequence of labels, got shape {row.shape}")
        labels = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int64)
        for padded, row in zip(labels, rows, strict=True):
            padded[: len(row)] = row
        return labels

    def check(self, row: tuple[int, ...], target: Array) -> None:
        """Refuse targets that are no rows of labels, or labels out of range."""
        if len(row) != 2 or target.ndim != 2:
            raise ValueError(
                f"target: expected shape (B, S) for predictions (B, T, C), got {target.shape} for rows of {row}"
            )
        self._check_labels(target, self._label_counts(target, None), row[1])


def _integers(labels: Any, name: str) -> Array:
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers (class numbers), got {array.dtype}")
    return as_dense(array, INT64)


def _none(labels: Array) -> Array:
    return np.zeros(len(labels), np.int64)


def _lengths(lengths: Any, name: str, rows: int, most: int) -> Array:
    array = np.asarray(lengths)
    if array.dtype.kind not in "iu" or array.shape != (rows,):
        raise ValueError(
            f"{name}: expected {rows} integers, one for each sequence, got {array.dtype} of shape {array.shape}"
        )
    wrong = (array < 0) | (array > most)
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(f"{name}: expected 0 <= length <= {most}, got {array[at]} at position {at}")
    return as_dense(array, INT64)
