"""Metrics: what a person wants to know of predictions, gathered batch by batch.

``metric.update(prediction, target, weight=None)`` for each batch, then ``metric.result()``; any division into batches
gives the result of all data at once. A Trainer takes metrics by name, as objects, or as functions of
(prediction, target).

Predictions are what a model puts out: classes on the last axis (logits or probabilities, the largest wins) against
class numbers or one-hot rows; or one number a position, the probability of class 1, against 0 and 1. ``weight`` is an
array over the leading axes of the positions, shape (B,) or (B, T); a weight of 0 leaves a position out, whatever stands
there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact._arguments import Array, as_entry, as_number, as_real, as_size
from fastact.losses import CrossEntropy

__all__ = [
    "F1",
    "R2",
    "ROCAUC",
    "Accuracy",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "OfFunction",
    "Perplexity",
    "Precision",
    "Recall",
    "TopKAccuracy",
    "as_metric",
]


class Metric:
    """Base of all metrics. A subclass defines ``reset``, ``update`` and ``result``.

    Attributes
    ----------
    name : str
        Under which a Trainer reports it.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> class Largest(fa.metrics.Metric):
    ...     name = "largest_error"
    ...     def reset(self):
    ...         self.largest = 0.0
    ...     def update(self, prediction, target, weight=None):
    ...         self.largest = max(self.largest, float(np.abs(prediction - target).max()))
    ...     def result(self):
    ...         return self.largest
    >>> metric = Largest()
    >>> metric.update(np.array([1.0, 5.0]), np.array([2.0, 2.0]))
    >>> metric.result()
    3.0
    """

    name: str = "metric"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        raise NotImplementedError(f"{type(self).__name__} defines no reset()")

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        """Take in a batch.

        Raises
        ------
        ValueError
            For shapes that do not fit, or values that are no class.
        TypeError
            For what are no numbers.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no update(prediction, target, weight=None)")

    def result(self) -> float:
        """Value over all batches since ``reset``; NaN before the first."""
        raise NotImplementedError(f"{type(self).__name__} defines no result()")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"


# ---- what a batch is made of ----


def _weights(weight: npt.ArrayLike | None, shape: tuple[int, ...]) -> Array:
    """``weight`` in float64, spread over positions of ``shape``."""
    if weight is None:
        return np.ones(shape)
    array = as_real(weight, "weight")
    if array.shape != shape[: array.ndim]:
        raise ValueError(
            f"weight: expected a shape of leading axes of the positions {shape}, got {array.shape}; one weight a row "
            f"has shape {shape[:1]}"
        )
    array = array.astype(np.float64, copy=False)
    if not ((array >= 0) & (array < math.inf)).all():
        raise ValueError("weight: expected finite weights of at least 0, got a negative one, an infinity or NaN")
    return np.broadcast_to(array.reshape(array.shape + (1,) * (len(shape) - array.ndim)), shape)


def _misfit(prediction: Array, target: Array) -> ValueError:
    return ValueError(
        f"target: expected shape {prediction.shape[:-1]} (class numbers, classes on the last axis of the prediction) "
        f"or {prediction.shape} (one-hot rows, or 0 and 1 for each probability), got {target.shape}"
    )


def _labels(prediction: npt.ArrayLike, target: npt.ArrayLike) -> tuple[Array, Array, bool]:
    """Prediction and class numbers of each position; and whether a position has one probability rather than C scores.

    A last axis of length 1 on either side is dropped where there are two classes.
    """
    scores, labels = as_real(prediction, "prediction"), as_real(target, "target")
    if scores.size == 0:
        raise ValueError(f"prediction: expected at least one element, got shape {scores.shape}")
    if scores.ndim and scores.shape[-1] > 1 and labels.shape == scores.shape[:-1]:
        return scores, labels, False
    if scores.ndim > 1 and scores.shape[-1] > 1 and labels.shape == scores.shape:
        return scores, labels.argmax(-1), False
    flat = scores[..., 0] if scores.ndim > 1 and scores.shape[-1] == 1 else scores
    if labels.ndim == flat.ndim + 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.shape != flat.shape:
        raise _misfit(scores, labels)
    return flat, labels, True


def _check_labels(labels: Array, weights: Array, classes: int) -> None:
    """Every label that counts is a whole number 0 <= label < classes."""
    wrong = (weights > 0) & ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = where[0] if len(where) == 1 else where
        raise ValueError(
            f"target: expected classes 0 <= class < {classes}, got {labels[where]} at position {place}; give positions "
            "that are to be left out weight 0, or set ignore_index"
        )


class _Classes(Metric):
    """Of classes: knows which positions count, and what is predicted there."""

    def __init__(self, threshold: float = 0.5, ignore_index: int | None = None) -> None:
        self.threshold = as_number(threshold, "threshold", -math.inf, above=True)
        self.ignore_index = ignore_index
        super().__init__()

    def _counted(self, labels: Array, weight: npt.ArrayLike | None, classes: int) -> Array:
        weights = _weights(weight, labels.shape)
        if self.ignore_index is not None:
            weights = weights * (labels != self.ignore_index)
        _check_labels(labels, weights, classes)
        return weights

    def _predicted(
        self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None
    ) -> tuple[Array, Array, Array, int]:
        """Flat arrays of the positions that count: predicted and true classes, weights; and the number of classes."""
        scores, labels, binary = _labels(prediction, target)
        classes = 2 if binary else scores.shape[-1]
        weights = self._counted(labels, weight, classes)
        found = scores > self.threshold if binary else scores.argmax(-1)
        keep = weights > 0
        return found[keep].astype(np.int64), labels[keep].astype(np.int64), weights[keep], classes


class _Mean(Metric):
    """A weighted mean: a subclass puts (sum, weight) together in ``update``."""

    def reset(self) -> None:
        self._total = 0.0
        self._weight = 0.0

    def _add(self, values: Array, weights: Array) -> None:
        counted = weights > 0
        self._total += float(np.sum(np.where(counted, values, 0.0) * weights))
        self._weight += float(weights.sum())

    def result(self) -> float:
        return self._total / self._weight if self._weight else math.nan


# ---- classes ----


class Accuracy(_Classes, _Mean):
    """Share of the positions whose class is found: argmax of C scores, or probability above the threshold.

    Parameters
    ----------
    threshold : float
        With one probability a position: above it is class 1. 0 for logits.
    ignore_index : int, optional
        Positions with this target do not count.

    Examples
    --------
    >>> import fastact as fa
    >>> metric = fa.metrics.Accuracy()
    >>> metric.update([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 0, 0])
    >>> round(metric.result(), 3)
    0.667
    """

    name = "accuracy"

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        found, labels, weights, _ = self._predicted(prediction, target, weight)
        self._add(found == labels, weights)


class TopKAccuracy(_Classes, _Mean):
    """Share of the positions whose class is among the k of the largest scores; of equal scores the first counts.

    Parameters
    ----------
    k : int
    ignore_index : int, optional
        Positions with this target do not count.

    Examples
    --------
    >>> import fastact as fa
    >>> metric = fa.metrics.TopKAccuracy(2)
    >>> metric.update([[0.1, 0.4, 0.5], [0.8, 0.15, 0.05]], [1, 2])
    >>> metric.name, metric.result()
    ('top_2_accuracy', 0.5)
    """

    def __init__(self, k: int = 5, ignore_index: int | None = None) -> None:
        self.k = as_size(k, "k")
        self.name = f"top_{self.k}_accuracy"
        super().__init__(ignore_index=ignore_index)

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        scores, labels, binary = _labels(prediction, target)
        if binary:
            raise ValueError(
                f"prediction: expected scores of two or more classes on the last axis, got {np.shape(prediction)}"
            )
        weights = self._counted(labels, weight, scores.shape[-1])
        chosen = np.where(weights > 0, labels, 0).astype(np.int64)[..., None]
        own = np.take_along_axis(scores, chosen, -1)
        before = np.arange(scores.shape[-1]) < chosen
        rank = ((scores > own) | ((scores == own) & before)).sum(-1)
        self._add((rank < self.k) & ~np.isnan(own[..., 0]), weights)


class _Confusion(_Classes):
    """Of the counts of true and false positives and of false negatives of each class."""

    kind = ""

    def __init__(self, average: str = "binary", threshold: float = 0.5, ignore_index: int | None = None) -> None:
        if average not in ("binary", "macro", "micro"):
            raise ValueError(f"average: expected 'binary', 'macro' or 'micro', got {average!r}")
        self.average = average
        self.name = self.kind if average == "binary" else f"{self.kind}_{average}"
        super().__init__(threshold, ignore_index)

    def reset(self) -> None:
        self._counts: Array = np.zeros((3, 0))  # right; predicted; there: per class, weighted

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        found, labels, weights, classes = self._predicted(prediction, target, weight)
        known = self._counts.shape[1]
        if self.average == "binary" and classes != 2:
            raise ValueError(f"average: expected 'macro' or 'micro' for {classes} classes, got 'binary'")
        if known not in (0, classes):
            raise ValueError(f"prediction: expected {known} classes as in the batches before, got {classes}")
        right = np.bincount(labels[found == labels], weights[found == labels], classes)
        counts = np.stack((right, np.bincount(found, weights, classes), np.bincount(labels, weights, classes)))
        self._counts = self._counts + counts if known else counts

    def result(self) -> float:
        right, predicted, there = self._counts
        if not there.sum():
            return math.nan
        if self.average == "binary":
            return self._score(right[1], predicted[1], there[1])
        if self.average == "micro":
            return self._score(right.sum(), predicted.sum(), there.sum())
        scores = [self._score(*counts) for counts in self._counts.T if counts[1] or counts[2]]
        return sum(scores) / len(scores)

    def _score(self, right: float, predicted: float, there: float) -> float:
        raise NotImplementedError


_AVERAGES = """

    Parameters
    ----------
    average : {"binary", "macro", "micro"}
        Of class 1; the mean over all classes that occur in target or prediction; or from the counts of all classes
        together (where each position has one class, the accuracy).
    threshold : float
        With one probability a position: above it is class 1. 0 for logits.
    ignore_index : int, optional
        Positions with this target do not count.

    Notes
    -----
    0 where nothing could be counted, as in scikit-learn.
"""


class Precision(_Confusion):
    __doc__ = f"""Share of what is predicted as a class that is of that class: tp / (tp + fp).{_AVERAGES}
    Examples
    --------
    >>> import fastact as fa
    >>> metric = fa.metrics.Precision()
    >>> metric.update([0.9, 0.6, 0.2, 0.1], [1, 0, 1, 0])
    >>> metric.result()
    0.5
    """
    kind = "precision"

    def _score(self, right: float, predicted: float, there: float) -> float:
        return float(right / predicted) if predicted else 0.0


class Recall(_Confusion):
    __doc__ = f"""Share of a class that is found: tp / (tp + fn).{_AVERAGES}
    Examples
    --------
    >>> import fastact as fa
    >>> metric = fa.metrics.Recall("macro")
    >>> metric.update([0.9, 0.6, 0.2, 0.1], [1, 0, 1, 1])
    >>> round(metric.result(), 3)
    0.167
    """
    kind = "recall"

    def _score(self, right: float, predicted: float, there: float) -> float:
        return float(right / there) if there else 0.0


class F1(_Confusion):
    __doc__ = f"""Harmonic mean of precision and recall: 2 tp / (2 tp + fp + fn).{_AVERAGES}
    Examples
    --------
    >>> import fastact as fa
    >>> metric = fa.metrics.F1()
    >>> metric.update([0.9, 0.6, 0.2, 0.1], [1, 0, 1, 0])
    >>> metric.result()
    0.5
    """
    kind = "f1"

    def _score(self, right: float, predicted: float, there: float) -> float:
        return float(2 * right / (predicted + there)) if predicted + there else 0.0


class ROCAUC(_Classes):
    """Area under the receiver operating characteristic: how likely a 1 scores above a 0, ties counting half. Exact.

    Takes one score a position, or two classes on the last axis, and keeps all of them until ``reset``: the area is not
    a mean over batches.

    Parameters
    ----------
    ignore_index : int, optional
        Positions with this target do not count.

    Notes
    -----
    NaN while only one of the classes has been seen.

    Examples
    --------
    >>> import fastact as fa
    >>> metric = fa.metrics.ROCAUC()
    >>> metric.update([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    >>> metric.result()
    0.75
    """

    name = "roc_auc"

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__(ignore_index=ignore_index)

    def reset(self) -> None:
        self._kept: list[tuple[Array, Array, Array]] = []

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        scores, labels, binary = _labels(prediction, target)
        if not binary:
            if scores.shape[-1] != 2:
                raise ValueError(
                    f"prediction: expected two classes or one score a position, got {scores.shape[-1]} classes; the "
                    "area is defined for two"
                )
            scores = scores[..., 1].astype(np.float64) - scores[..., 0]
        weights = self._counted(labels, weight, 2)
        keep = weights > 0
        scores = scores[keep].astype(np.float64)
        if np.isnan(scores).any():
            raise ValueError("prediction: expected numbers that can be ordered, got NaN")
        self._kept.append((scores, labels[keep] == 1, weights[keep]))

    def result(self) -> float:
        if not self._kept:
            return math.nan
        scores, positive, weights = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        values, place = np.unique(scores, return_inverse=True)
        ones = np.bincount(place, weights * positive, len(values))
        zeros = np.bincount(place, weights * ~positive, len(values))
        below = np.cumsum(zeros) - zeros
        pairs = ones.sum() * zeros.sum()
        return float(np.sum(ones * (below + zeros / 2)) / pairs) if pairs else math.nan


# ---- numbers ----


def _pair(prediction: npt.ArrayLike, target: npt.ArrayLike) -> tuple[Array, Array]:
    values, wanted = as_real(prediction, "prediction"), as_real(target, "target")
    if values.size == 0:
        raise ValueError(f"prediction: expected at least one element, got shape {values.shape}")
    if wanted.shape != values.shape:
        hint = f"; target.reshape({values.shape}) has it" if wanted.size == values.size else ""
        raise ValueError(f"target: expected the shape of the prediction, {values.shape}, got {wanted.shape}{hint}")
    return values.astype(np.float64, copy=False), wanted.astype(np.float64, copy=False)


class MeanAbsoluteError(_Mean):
    """Mean of \\|prediction - target\\| over all elements.

    Examples
    --------
    >>> import fastact as fa
    >>> metric = fa.metrics.MeanAbsoluteError()
    >>> metric.update([1.0, 3.0], [2.0, 1.0])
    >>> metric.result()
    1.5
    """

    name = "mean_absolute_error"

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        values, wanted = _pair(prediction, target)
        self._add(np.abs(values - wanted), _weights(weight, values.shape))


class MeanSquaredError(_Mean):
    """Mean of (prediction - target)^2 over all elements.

    Examples
    --------
    >>> import fastact as fa
    >>> metric = fa.metrics.MeanSquaredError()
    >>> metric.update([1.0, 3.0], [2.0, 1.0])
    >>> metric.result()
    2.5
    """

    name = "mean_squared_error"

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        values, wanted = _pair(prediction, target)
        self._add((values - wanted) ** 2, _weights(weight, values.shape))


class R2(Metric):
    """Coefficient of determination: 1 - sum (t - p)^2 / sum (t - mean t)^2; of several outputs (last axis) the mean.

    Notes
    -----
    As in scikit-learn: an output whose target never changes gives 1 if it is met exactly, else 0. The sums of squares
    around the mean are merged from batch to batch (Chan, Golub and LeVeque, 1979), so nothing cancels.

    Examples
    --------
    >>> import fastact as fa
    >>> metric = fa.metrics.R2()
    >>> metric.update([2.5, 0.0, 2.0, 8.0], [3.0, -0.5, 2.0, 7.0])
    >>> round(metric.result(), 4)
    0.9486
    """

    name = "r2"

    def reset(self) -> None:
        self._sums: Array | None = None  # weight, mean of the target, squares around it, squared errors: per output

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        values, wanted = _pair(prediction, target)
        weights = _weights(weight, values.shape)
        outputs = values.shape[-1] if values.ndim > 1 else 1
        p, t, w = (array.reshape(-1, outputs) for array in (values, wanted, weights))
        p, t = np.where(w > 0, p, 0.0), np.where(w > 0, t, 0.0)
        total = w.sum(0)
        mean = (w * t).sum(0) / np.where(total > 0, total, 1.0)
        new = np.stack((total, mean, (w * (t - mean) ** 2).sum(0), (w * (t - p) ** 2).sum(0)))
        if self._sums is None:
            self._sums = new
            return
        if self._sums.shape != new.shape:
            raise ValueError(
                f"prediction: expected {self._sums.shape[1]} outputs as in the batches before, got {outputs}"
            )
        before, mean_before, squares, errors = self._sums
        both = np.where(before + total > 0, before + total, 1.0)
        step = mean - mean_before
        self._sums = np.stack(
            (
                before + total,
                mean_before + step * total / both,
                squares + new[2] + step**2 * before * total / both,
                errors + new[3],
            )
        )

    def result(self) -> float:
        if self._sums is None or not self._sums[0].any():
            return math.nan
        _, _, squares, errors = self._sums
        constant = np.where(errors == 0, 1.0, 0.0)
        return float(np.mean(np.where(squares > 0, 1 - errors / np.where(squares > 0, squares, 1.0), constant)))


class Perplexity(Metric):
    """exp of the mean cross-entropy: of how many equally likely classes the model seems to choose.

    Parameters
    ----------
    ignore_index : int, optional
        Positions with this target do not count.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> metric = fa.metrics.Perplexity()
    >>> metric.update(np.zeros((3, 8)), [0, 5, 7])  # logits
    >>> round(metric.result(), 6)
    8.0
    """

    name = "perplexity"

    def __init__(self, ignore_index: int | None = None) -> None:
        self._loss = CrossEntropy(ignore_index)
        super().__init__()

    def reset(self) -> None:
        self._total = 0.0
        self._weight = 0.0

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        measure = self._loss.measure(np.asarray(prediction), target, None, weight)
        self._total += measure.mean * measure.size
        self._weight += measure.size

    def result(self) -> float:
        if not self._weight:
            return math.nan
        mean = self._total / self._weight
        return math.exp(mean) if mean < 709.0 else math.inf


class OfFunction(Metric):
    """A function of (prediction, target), or of (prediction, target, weight) where there are weights, over all data.

    Keeps every batch until ``reset``, so that a function which is no mean comes out right; for much data write a
    Metric.

    Parameters
    ----------
    function : callable
        ``function(prediction, target) -> float`` of arrays of all rows. scikit-learn's functions take the target first:
        ``lambda p, t: sklearn.metrics.mean_pinball_loss(t, p)``.
    name : str, optional
        Its ``__name__`` unless given.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> metric = fa.metrics.OfFunction(lambda p, t: float(np.median(np.abs(p - t))), "median_error")
    >>> metric.update(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    >>> metric.update(np.array([9.0]), np.array([8.0]))
    >>> metric.result()
    1.0
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.function = function
        self.name = str(name if name is not None else getattr(function, "__name__", type(function).__name__))
        super().__init__()

    def reset(self) -> None:
        self._kept: list[tuple[Array, Array, Array | None]] = []

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        kept = None if weight is None else np.array(weight)
        if self._kept and (kept is None) != (self._kept[0][2] is None):
            raise ValueError("weight: expected weights with every batch or with none")
        self._kept.append((np.array(prediction), np.array(target), kept))

    def result(self) -> float:
        if not self._kept:
            return math.nan
        predictions, targets, weights = zip(*self._kept, strict=True)
        arrays = [np.concatenate(predictions), np.concatenate(targets)]
        if weights[0] is not None:
            arrays.append(np.concatenate(weights))
        return float(self.function(*arrays))


_BY_NAME: dict[str, Callable[[], Metric]] = {
    "accuracy": Accuracy,
    "top_k_accuracy": TopKAccuracy,
    "top_5_accuracy": TopKAccuracy,
    "precision": Precision,
    "precision_macro": partial(Precision, "macro"),
    "precision_micro": partial(Precision, "micro"),
    "recall": Recall,
    "recall_macro": partial(Recall, "macro"),
    "recall_micro": partial(Recall, "micro"),
    "f1": F1,
    "f1_macro": partial(F1, "macro"),
    "f1_micro": partial(F1, "micro"),
    "roc_auc": ROCAUC,
    "r2": R2,
    "perplexity": Perplexity,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
}


def as_metric(spec: str | Metric | Callable[..., Any]) -> Metric:
    """A metric by name, the metric itself, or one made of a function (``OfFunction``).

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones and the nearest.
    TypeError
        For anything else.

    Examples
    --------
    >>> import fastact as fa
    >>> fa.metrics.as_metric("f1_macro")
    F1(name='f1_macro')
    """
    if isinstance(spec, Metric):
        return spec
    if isinstance(spec, str):
        return as_entry(spec, _BY_NAME, "metric")()
    if isinstance(spec, type) and issubclass(spec, Metric):
        raise TypeError(f"metric: expected a name or an object, got the class; write {spec.__name__}()")
    if callable(spec):
        return OfFunction(spec)
    raise TypeError(
        f"metric: expected one of {', '.join(_BY_NAME)}, an object derived from fa.metrics.Metric or a function of "
        f"(prediction, target), got {type(spec).__name__}"
    )
