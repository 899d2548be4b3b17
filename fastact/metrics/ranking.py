"""Of scores that are to tell two classes apart at some threshold: the area under the ROC curve, the curve of precision
and recall, and the threshold that is best."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastact._arguments import Array, as_number
from fastact.metrics.classes import ClassMetric, as_labels


class ROCAUC(ClassMetric):
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
        self._kept.append(self._scores(prediction, target, weight))

    def _scores(
        self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None
    ) -> tuple[Array, Array, Array]:
        """Of the positions that count: scores of class 1 against class 0, whether it is 1, weights."""
        scores, labels, binary = as_labels(prediction, target)
        if not binary:
            if scores.shape[-1] != 2:
                raise ValueError(
                    f"prediction: expected two classes or one score a position, got {scores.shape[-1]} classes; the "
                    "area is defined for two"
                )
            scores = scores[..., 1].astype(np.float64) - scores[..., 0]
        weights = self._counted(labels, weight, 2)
        keep = weights > 0
        scores = scores[keep].astype(scores.dtype if scores.dtype.kind == "f" else np.float64, copy=False)
        if np.isnan(scores).any():
            raise ValueError("prediction: expected numbers that can be ordered, got NaN")
        return scores, labels[keep] == 1, weights[keep]

    def result(self) -> float:
        if not self._kept:
            return math.nan
        scores, positive, weights = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        _, ones, zeros = _counts(scores, positive, weights)
        below = np.cumsum(zeros) - zeros
        pairs = ones.sum() * zeros.sum()
        return float(np.sum(ones * (below + zeros / 2)) / pairs) if pairs else math.nan


def _counts(scores: Array, positive: Array, weights: Array) -> tuple[Array, Array, Array]:
    """The different scores, ascending, and the weights of class 1 and of class 0 at each of them."""
    values, place = np.unique(scores, return_inverse=True)
    ones, zeros = (np.bincount(place, weights * which, len(values)) for which in (positive, ~positive))
    return values, ones, zeros


def _found(
    prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None
) -> tuple[Array, Array, Array]:
    """The different scores, ascending, and what is found rightly and wrongly from each of them on."""
    thresholds, ones, zeros = _counts(*ROCAUC()._scores(prediction, target, weight))
    if not thresholds.size:
        raise ValueError("weight: expected a weight above 0 somewhere, got none")
    return thresholds, np.cumsum(ones[::-1])[::-1], np.cumsum(zeros[::-1])[::-1]


def precision_recall_curve(
    prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> tuple[Array, Array, Array]:
    """Precision and recall of class 1 for every threshold that makes a difference.

    Parameters
    ----------
    prediction : array of shape (N,), or (N, 2)
        A score of each position, probability or logit; or those of two classes, of which the difference counts.
    target : array of shape (N,)
        0 and 1.
    weight : array of shape (N,), optional

    Returns
    -------
    precision, recall : arrays of shape (n + 1,)
        Of "the score is at least thresholds[i]"; 1 and 0 at the end, for a threshold above all scores. Without a 1 in
        the targets recall is 1.
    thresholds : array of shape (n,)
        The different scores, ascending.

    Notes
    -----
    What scikit-learn's function of that name gives for ``(target, prediction)``.

    Examples
    --------
    >>> import fastact as fa
    >>> precision, recall, thresholds = fa.metrics.precision_recall_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    >>> precision.round(3), recall, thresholds
    (array([0.5  , 0.667, 0.5  , 1.   , 1.   ]), array([1. , 1. , 0.5, 0.5, 0. ]), array([0.1 , 0.35, 0.4 , 0.8 ]))
    """
    thresholds, right, wrong = _found(prediction, target, weight)
    recall = right / right[0] if right[0] > 0 else np.ones(len(right))
    return np.append(right / (right + wrong), 1.0), np.append(recall, 0.0), thresholds


class BestThreshold(NamedTuple):
    """What ``best_threshold`` found.

    Attributes
    ----------
    threshold : float
        Class 1 is above it.
    score, precision, recall : float
        F-beta and its two parts, there.
    """

    threshold: float
    score: float
    precision: float
    recall: float


def best_threshold(
    prediction: npt.ArrayLike, target: npt.ArrayLike, beta: float = 1.0, weight: npt.ArrayLike | None = None
) -> BestThreshold:
    """The threshold of the greatest F-beta, (1 + beta^2) precision recall / (beta^2 precision + recall).

    Choose it on data that the model has not learnt from, and measure it on others again.

    Parameters
    ----------
    prediction, target, weight
        As for ``precision_recall_curve``.
    beta : float
        How many times as much recall counts as precision; 1 is F1.

    Returns
    -------
    BestThreshold
        ``threshold`` goes into ``fa.metrics.F1(threshold=...)``: half-way between two neighbouring scores, so that it
        does not hang on rounding. Of equal ones the highest.

    Raises
    ------
    ValueError
        Without a 1 in the targets: nothing could be found.

    Examples
    --------
    >>> import fastact as fa
    >>> fa.metrics.best_threshold([0.1, 0.4, 0.3, 0.8], [0, 0, 1, 1])
    BestThreshold(threshold=0.2, score=0.8, precision=0.6666666666666666, recall=1.0)
    """
    square = as_number(beta, "beta", 0.0, above=True) ** 2
    thresholds, right, wrong = _found(prediction, target, weight)
    there = right[0]
    if there == 0:
        raise ValueError("target: expected class 1 at some position that counts, got none")
    score = (1 + square) * right / (square * there + right + wrong)
    best = len(score) - 1 - int(np.argmax(score[::-1]))
    here = thresholds[best]
    below = thresholds[best - 1] if best else np.nextafter(here, -np.inf, dtype=thresholds.dtype)
    between = below / 2 + here / 2
    threshold = between if below <= between < here else below
    precision = right[best] / (right[best] + wrong[best])
    return BestThreshold(float(threshold), float(score[best]), float(precision), float(right[best] / there))
