"""Metrics of classes: accuracy, top-k, precision, recall and F1, perplexity."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fastact._arguments import Array, as_number, as_real, as_size, place_of
from fastact.losses import CrossEntropy
from fastact.metrics.base import MeanMetric, Metric, as_weights


def misfit(prediction: Array, target: Array) -> ValueError:
    return ValueError(
        f"target: expected shape {prediction.shape[:-1]} (class numbers, classes on the last axis of the prediction) "
        f"or {prediction.shape} (one-hot rows, or 0 and 1 for each probability), got {target.shape}"
    )


def as_labels(prediction: npt.ArrayLike, target: npt.ArrayLike) -> tuple[Array, Array, bool]:
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
        raise misfit(scores, labels)
    return flat, labels, True


def check_labels(labels: Array, weights: Array, classes: int) -> None:
    """Every label that counts is a whole number 0 <= label < classes."""
    wrong = (weights > 0) & ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))
    if wrong.any():
        where = tuple(np.argwhere(wrong)[0])
        raise ValueError(
            f"target: expected classes 0 <= class < {classes}, got {labels[where]} at position {place_of(where)}; give "
            "positions that are to be left out weight 0, or set ignore_index"
        )


class ClassMetric(Metric):
    """Of classes: knows which positions count, and what is predicted there."""

    def __init__(self, threshold: float = 0.5, ignore_index: int | None = None) -> None:
        self.threshold = as_number(threshold, "threshold", -math.inf, above=True)
        self.ignore_index = ignore_index
        super().__init__()

    def _counted(self, labels: Array, weight: npt.ArrayLike | None, classes: int) -> Array:
        weights = as_weights(weight, labels.shape)
        if self.ignore_index is not None:
            weights = weights * (labels != self.ignore_index)
        check_labels(labels, weights, classes)
        return weights

    def _predicted(
        self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None
    ) -> tuple[Array, Array, Array, int]:
        """Flat arrays of the positions that count: predicted and true classes, weights; and the number of classes."""
        scores, labels, binary = as_labels(prediction, target)
        classes = 2 if binary else scores.shape[-1]
        weights = self._counted(labels, weight, classes)
        found = scores > self.threshold if binary else scores.argmax(-1)
        keep = weights > 0
        return found[keep].astype(np.int64), labels[keep].astype(np.int64), weights[keep], classes


class Accuracy(ClassMetric, MeanMetric):
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


class TopKAccuracy(ClassMetric, MeanMetric):
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
        scores, labels, binary = as_labels(prediction, target)
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


class Confusion(ClassMetric):
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


class Precision(Confusion):
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


class Recall(Confusion):
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


class F1(Confusion):
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


class Perplexity(MeanMetric):
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

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        measure = self._loss.measure(np.asarray(prediction), target, None, weight)
        self._total += measure.mean * measure.size
        self._weight += measure.size

    def result(self) -> float:
        mean = super().result()
        return math.exp(mean) if not mean >= 709.0 else math.inf
