"""What all losses are: ``Loss``, for losses of your own too; what they return; their arguments, checked."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastact._arguments import DTYPES, Array, as_floats, over_leading
from fastact._core.workspace import empty
from fastact.errors import BackwardError

INT64 = np.dtype(np.int64)
REDUCTIONS = ("mean", "sum", "none")


class Measure(NamedTuple):
    """What a loss found on one batch.

    Attributes
    ----------
    mean : float
        The loss: sum(w l) / sum(w) over its terms l with weights w, or what another reduction makes of them.
    size : float
        sum(w), the number of terms without weights: the weight of this batch in a mean over several.
    correct : float
        The part of ``size`` that argmax finds; -1 where that means nothing.
    """

    mean: float
    size: float
    correct: float = -1.0


class LossBackward:
    """Backward pass of one ``Loss.forward``: ``dprediction = backward()``, once."""

    __slots__ = ("_gradient",)

    def __init__(self, gradient: Array) -> None:
        self._gradient: Array | None = gradient

    def __call__(self, dloss: npt.ArrayLike | None = None) -> Array:
        """Gradient of the loss by the prediction, in its shape.

        Parameters
        ----------
        dloss : float or array in the shape of the loss, optional
            Factor of the loss in what is differentiated; with reduction "none" one for each loss. 1 unless given.

        Raises
        ------
        BackwardError
            On a second call.
        """
        gradient = self._gradient
        if gradient is None:
            raise BackwardError("backward: expected one call for each forward, got a second; call forward again")
        if dloss is not None:
            factors = as_floats(dloss, gradient.dtype, "dloss")
            if factors.shape != gradient.shape[: factors.ndim]:
                raise ValueError(f"dloss: expected the shape of the loss, got {factors.shape}")
            gradient *= over_leading(factors, gradient.ndim)
        self._gradient = None
        return gradient


class Loss:
    """Base of all losses. A subclass defines ``measure``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> class Absolute(fa.losses.Loss):
    ...     def measure(self, prediction, target, gradient=None, weight=None):
    ...         w = np.ones(prediction.shape) if weight is None else weight
    ...         d = prediction - target
    ...         if gradient is not None:
    ...             gradient[...] = w * np.sign(d) / w.sum()
    ...         return fa.losses.Measure(float(np.average(np.abs(d), weights=w)), float(w.sum()))
    >>> loss, backward = Absolute().forward(np.array([1.0, 2.0]), np.array([3.0, 2.0]))
    >>> loss, backward()
    (1.0, array([-0.5,  0. ]))
    """

    #: whether ``measure`` counts correct classes, from which a Trainer reports accuracy
    counts_correct: bool = False
    #: whether the targets of a sequence go with its steps one to one; CTC's labels have a length of their own
    aligned: bool = True

    def measure(self, prediction: Array, target: Any, /, *args: Any, **kwargs: Any) -> Measure:
        """Loss of a batch: ``measure(prediction, target, gradient=None, weight=None)``.

        Parameters
        ----------
        prediction : array
        target : array
        gradient : array in the prediction's shape, optional
            C-contiguous; overwritten with the derivative of the loss.
        weight : array over the leading axes of the positions, optional
            Of shape (B,) or (B, T): how much each row, or each position in it, counts. The mean is sum(w l) / sum(w);
            where the weight is 0 (a mask) nothing counts, whatever stands there. A Trainer passes it only where it has
            one, so a loss of your own may do without.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no measure(prediction, target, gradient=None)")

    def forward(
        self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None
    ) -> tuple[Any, LossBackward]:
        """Loss of a batch and its backward: ``loss, backward = ...``; ``dprediction = backward()``.

        ``weight`` is as in ``measure``. The loss is a float, with reduction "none" an array of the weighted losses.
        """
        values = as_prediction(prediction)
        gradient = empty(values.shape, values.dtype)
        if weight is None:
            return self.measure(values, target, gradient).mean, LossBackward(gradient)
        return self.measure(values, target, gradient, np.asarray(weight)).mean, LossBackward(gradient)

    def prepare(self, target: Any, dtype: np.dtype[Any]) -> Array:
        """``target`` in the form that ``measure`` takes without converting; a Trainer calls it once for all data."""
        return np.asarray(target)

    def check(self, row: tuple[int, ...], target: Array) -> None:
        """Refuse prepared targets of all data that cannot go with outputs of shape (rows, *row).

        A Trainer calls it before the first update, so that a wrong label does not stop it in the middle of an epoch.
        """

    def config(self) -> dict[str, Any]:
        """Settings that the constructor takes, for messages and checkpoints."""
        return {}

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({inside})"


class KernelLoss(Loss):
    """A loss of this package. A subclass defines ``_compute`` and ``_positions``.

    Its constructor's arguments are its attributes of the same names.
    """

    reduction: str

    def __init__(self, reduction: str) -> None:
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction: expected one of {', '.join(map(repr, REDUCTIONS))}, got {reduction!r}")
        self.reduction = reduction

    def measure(
        self, prediction: Array, target: Any, gradient: Array | None = None, weight: Any | None = None
    ) -> Measure:
        if self.reduction == "none":
            raise ValueError(
                "reduction: expected 'mean' or 'sum' where one number is needed, got 'none'; forward returns the array"
            )
        return self._compute(as_prediction(prediction), target, gradient, None, weight, True)

    measure.__doc__ = Loss.measure.__doc__

    def forward(
        self, prediction: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None
    ) -> tuple[Any, LossBackward]:
        values = as_prediction(prediction)
        gradient = empty(values.shape, values.dtype)
        if self.reduction != "none":
            return self._compute(values, target, gradient, None, weight, False).mean, LossBackward(gradient)
        each = np.empty(self._positions(values.shape), values.dtype)
        self._compute(values, target, gradient, each, weight, False)
        return each, LossBackward(gradient)

    forward.__doc__ = Loss.forward.__doc__

    def _compute(
        self, prediction: Array, target: Any, gradient: Array | None, each: Array | None, weight: Any, count: bool
    ) -> Measure:
        """The loss; fills ``gradient`` and ``each``, the weighted losses before reduction, unless they are None.

        ``count`` asks for the correct classes, where they mean something: only a Trainer wants to know.
        """
        raise NotImplementedError

    def _positions(self, prediction: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the losses before reduction."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        settings = inspect.signature(type(self)).parameters.values()
        values = {s.name: getattr(self, s.name) for s in settings if hasattr(self, s.name)}
        return {s.name: values[s.name] for s in settings if s.name in values and values[s.name] != s.default}


def as_prediction(prediction: Any) -> Array:
    """``prediction`` as a dense, aligned float32 or float64 array with at least one element."""
    array = np.asarray(prediction)
    native = array.dtype.newbyteorder("=")
    if native not in DTYPES:
        raise TypeError(
            f"prediction: expected float32 or float64, got {array.dtype}; convert it: prediction.astype(np.float32)"
        )
    if array.size == 0:
        raise ValueError(f"prediction: expected at least one element, got shape {array.shape}")
    return as_dense(array, native)


def as_dense(array: Array, dtype: np.dtype[Any]) -> Array:
    """``array`` itself if it is C-contiguous, aligned and of this dtype, else a copy that is."""
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.require(array, dtype, ["C", "A"])


def as_weight(weight: Any, positions: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
    """``weight`` as a dense array over leading axes of the positions; that no weight is negative, the kernels check."""
    if weight is None:
        return None
    array = as_dense(as_floats(weight, dtype, "weight"), dtype)
    if array.shape != positions[: array.ndim]:
        raise ValueError(
            f"weight: expected a shape of leading axes of the positions {positions}, got {array.shape}; one weight a "
            f"row has shape {positions[:1]}"
        )
    return array


def spread(weight: Array | None, shape: tuple[int, ...]) -> Array:
    """Whether each element of ``shape`` counts."""
    if weight is None:
        return np.ones(shape, bool)
    return np.broadcast_to(over_leading(weight != 0, len(shape)), shape)
