"""Metrics of numbers: absolute and squared errors, the coefficient of determination."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fastact._arguments import Array, as_real
from fastact.metrics.base import MeanMetric, Metric, as_weights


def as_pair(prediction: npt.ArrayLike, target: npt.ArrayLike) -> tuple[Array, Array]:
    values, wanted = as_real(prediction, "prediction"), as_real(target, "target")
    if values.size == 0:
        raise ValueError(f"prediction: expected at least one element, got shape {values.shape}")
    if wanted.shape != values.shape:
        hint = f"; target.reshape({values.shape}) has it" if wanted.size == values.size else ""
        raise ValueError(f"target: expected the shape of the prediction, {values.shape}, got {wanted.shape}{hint}")
    return values.astype(np.float64, copy=False), wanted.astype(np.float64, copy=False)


class ErrorMetric(MeanMetric):
    """A mean over all elements of something of prediction - target."""

    def _of(self, error: Array) -> Array:
        raise NotImplementedError

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        values, wanted = as_pair(prediction, target)
        self._add(self._of(values - wanted), as_weights(weight, values.shape))


class MeanAbsoluteError(ErrorMetric):
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

    def _of(self, error: Array) -> Array:
        return np.asarray(np.abs(error))


class MeanSquaredError(ErrorMetric):
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

    def _of(self, error: Array) -> Array:
        return np.asarray(error**2)


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
        values, wanted = as_pair(prediction, target)
        weights = as_weights(weight, values.shape)
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
