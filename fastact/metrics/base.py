"""What all metrics are: ``Metric``, for metrics of your own too; means of terms; functions; weights, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact._arguments import Array, as_real, over_leading


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


class MeanMetric(Metric):
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


def as_weights(weight: npt.ArrayLike | None, shape: tuple[int, ...]) -> Array:
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
    return np.broadcast_to(over_leading(array, len(shape)), shape)
