"""Metrics of scores that are to tell two classes apart at some threshold: the area under the ROC curve."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fastact._arguments import Array
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
