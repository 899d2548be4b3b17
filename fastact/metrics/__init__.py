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

from collections.abc import Callable
from functools import partial
from typing import Any

from fastact._arguments import as_object
from fastact.metrics.base import Metric, OfFunction
from fastact.metrics.classes import F1, Accuracy, Perplexity, Precision, Recall, TopKAccuracy
from fastact.metrics.numbers import R2, MeanAbsoluteError, MeanSquaredError
from fastact.metrics.ranking import ROCAUC, BestThreshold, best_threshold, precision_recall_curve

__all__ = [
    "F1",
    "R2",
    "ROCAUC",
    "Accuracy",
    "BestThreshold",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "OfFunction",
    "Perplexity",
    "Precision",
    "Recall",
    "TopKAccuracy",
    "as_metric",
    "best_threshold",
    "precision_recall_curve",
]

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
    if callable(spec) and not isinstance(spec, (Metric, type)):
        return OfFunction(spec)
    return as_object(spec, Metric, _BY_NAME, "metric", "fa.metrics.Metric, or a function of (prediction, target)")
