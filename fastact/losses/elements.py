"""What losses of single elements share: one kernel call, and what to say of numbers out of range."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fastact._arguments import Array, as_floats, place_of
from fastact._core import losses as _core
from fastact.losses.base import KernelLoss, Measure, as_dense, as_weight, spread


class Bounds(NamedTuple):
    """Of the numbers that mean something, and what to call them."""

    low: float = -math.inf
    high: float = math.inf
    words: str = ""


ANY = Bounds()
PROBABILITIES = Bounds(0.0, 1.0, "probabilities between 0 and 1")


class ElementLoss(KernelLoss):
    """Loss of each element of the prediction against one of the target; the mean is over all elements.

    A subclass names its kernel (src_c/losses.h) and gives its parameters.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def _kernel(self) -> str:
        raise NotImplementedError

    def _parameters(self) -> tuple[float, float, float]:
        """Numbers a, b and c of the kernel."""
        return 0.0, 0.0, 0.0

    def _columns(self, prediction: Array) -> Array | None:
        """Parameter a along the last axis, where it differs there."""
        return None

    def _bounds(self) -> tuple[Bounds, Bounds]:
        """Of prediction and target."""
        return ANY, ANY

    def _group(self, prediction: tuple[int, ...]) -> int:
        """How many elements make up a term of the mean."""
        return 1

    def _wanted(self, prediction: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the target."""
        return prediction

    def _positions(self, prediction: tuple[int, ...]) -> tuple[int, ...]:
        return prediction

    def _compute(
        self, prediction: Array, target: Any, gradient: Array | None, each: Array | None, weight: Any, count: bool
    ) -> Measure:
        shape = prediction.shape
        targets = self.prepare(target, prediction.dtype)
        if targets.shape != self._wanted(shape):
            raise ValueError(self._shape_message(shape, targets.shape))
        weights = as_weight(weight, self._positions(shape), prediction.dtype)
        terms = each if each is None or each.shape == shape else np.empty(shape, prediction.dtype)
        bounds, wanted = self._bounds()
        loss, size = _core.elements(
            _core.ELEMENT[self._kernel()],
            prediction,
            targets,
            gradient,
            terms,
            weights,
            self.reduction not in ("sum", "none"),
            *self._parameters(),
            bounds.low,
            bounds.high,
            wanted.low,
            wanted.high,
            self._columns(prediction),
            self._group(shape),
        )
        if loss != loss:
            self._refuse("prediction", prediction, bounds, weights)
            self._refuse("target", targets, wanted, weights)
        if each is not None and terms is not None and terms is not each:
            np.sum(terms, -1, out=each)
        return Measure(loss, size)

    @staticmethod
    def _refuse(name: str, array: Array, bounds: Bounds, weight: Array | None = None) -> None:
        """Raise ValueError if a number that counts is out of bounds."""
        wrong = (array < bounds.low) | (array > bounds.high)
        if weight is not None and weight.ndim <= array.ndim:
            wrong &= spread(weight, array.shape)
        if wrong.any():
            where = tuple(np.argwhere(wrong)[0])
            raise ValueError(f"{name}: expected {bounds.words}, got {array[where]:g} at position {place_of(where)}")

    def check(self, row: tuple[int, ...], target: Array) -> None:
        """Refuse targets of another shape than the outputs, or out of range."""
        shape = (len(target), *row)
        if target.shape != self._wanted(shape):
            raise ValueError(self._shape_message(shape, target.shape))
        self._refuse("target", target, self._bounds()[1])

    def _shape_message(self, prediction: tuple[int, ...], target: tuple[int, ...]) -> str:
        wanted = self._wanted(prediction)
        what = "the shape of the prediction" if wanted == prediction else "one number for each row of the prediction"
        hint = f"; target.reshape({wanted}) has it" if math.prod(target) == math.prod(wanted) else ""
        return f"target: expected {what}, {wanted}, got {target}{hint}"

    def prepare(self, target: Any, dtype: np.dtype[Any]) -> Array:
        """``target`` as a C-contiguous array of ``dtype``."""
        return as_dense(as_floats(target, dtype, "target"), dtype)
