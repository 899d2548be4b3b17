"""Losses: one number that says how wrong predictions are, and its gradient, computed in the same pass.

``loss, backward = fa.losses.CrossEntropy().forward(prediction, target)`` gives the loss as a float and a single-use
``backward()`` that returns the gradient of the prediction. A Trainer takes a loss by name or as an object. A loss of
your own derives from ``Loss`` and defines ``measure``.
"""

from __future__ import annotations

import difflib
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastact._arguments import DTYPES, Array, as_floats
from fastact._core import training as _core
from fastact.errors import BackwardError

__all__ = ["CrossEntropy", "Loss", "LossBackward", "MeanSquaredError", "Measure", "as_loss"]


INT64 = np.dtype(np.int64)


class Measure(NamedTuple):
    """What a loss found on one batch.

    Attributes
    ----------
    mean : float
        The loss.
    size : int
        Over how many terms the mean was taken: the weight of this batch in a mean over several.
    correct : int
        How many of them argmax finds; -1 where that means nothing.
    """

    mean: float
    size: int
    correct: int = -1


class LossBackward:
    """Backward pass of one ``Loss.forward``: ``dprediction = backward()``, once."""

    __slots__ = ("_gradient",)

    def __init__(self, gradient: Array) -> None:
        self._gradient: Array | None = gradient

    def __call__(self) -> Array:
        """Gradient of the mean loss by the prediction, in its shape.

        Raises
        ------
        BackwardError
            On a second call.
        """
        gradient = self._gradient
        if gradient is None:
            raise BackwardError("backward: expected one call for each forward, got a second; call forward again")
        self._gradient = None
        return gradient


class Loss:
    """Base of all losses. A subclass defines ``measure``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> class Absolute(fa.losses.Loss):
    ...     def measure(self, prediction, target, gradient=None):
    ...         d = prediction - target
    ...         if gradient is not None:
    ...             np.sign(d, out=gradient)
    ...             gradient /= d.size
    ...         return fa.losses.Measure(float(np.abs(d).mean()), d.size)
    >>> loss, backward = Absolute().forward(np.array([1.0, 2.0]), np.array([3.0, 2.0]))
    >>> loss, backward()
    (1.0, array([-0.5,  0. ]))
    """

    #: whether ``measure`` counts correct classes, from which a Trainer reports accuracy
    counts_correct: bool = False

    def measure(self, prediction: Array, target: Any, gradient: Array | None = None) -> Measure:
        """Loss of a batch; ``gradient``, C-contiguous in the prediction's shape, is overwritten with its derivative."""
        raise NotImplementedError(f"{type(self).__name__} defines no measure(prediction, target, gradient=None)")

    def forward(self, prediction: npt.ArrayLike, target: npt.ArrayLike) -> tuple[float, LossBackward]:
        """Loss of a batch and its backward: ``loss, backward = ...``; ``dprediction = backward()``."""
        values = as_prediction(prediction)
        gradient = np.empty(values.shape, values.dtype)
        return self.measure(values, target, gradient).mean, LossBackward(gradient)

    def prepare(self, target: Any, dtype: np.dtype[Any]) -> Array:
        """``target`` in the form that ``measure`` takes without converting; a Trainer calls it once for all data."""
        return np.asarray(target)

    def check(self, row: tuple[int, ...], target: Array) -> None:
        """Refuse prepared targets of all data that cannot go with outputs of shape (rows, *row).

        A Trainer calls it before the first update, so that a wrong label does not stop it in the middle of an epoch.
        """

    def config(self) -> dict[str, Any]:
        """Settings, for messages and checkpoints."""
        return {}

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({inside})"


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


class CrossEntropy(Loss):
    """Softmax cross-entropy of logits against class numbers, mean over all positions.

    For a row of logits z (raw outputs, no softmax before) and class t: log(sum_j exp(z_j)) - z_t, in nats; divide by
    log(2) for bits. Its gradient is softmax(z) - onehot(t), over the number of positions.

    Parameters
    ----------
    ignore_index : int, optional
        Positions with this target count nothing: no loss, no gradient, not in the mean. A batch of such positions alone
        has loss 0.

    Notes
    -----
    The largest logit is subtracted first, so no logit overflows; sums run in float64 in a fixed order, so the loss has
    the same bits for any number of threads. A row of NaN, or with +inf, gives NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.CrossEntropy().forward(np.zeros((2, 4), np.float32), [0, 3])
    >>> round(loss, 6)
    1.386294
    >>> backward()
    array([[-0.375,  0.125,  0.125,  0.125],
           [ 0.125,  0.125,  0.125, -0.375]], dtype=float32)
    """

    counts_correct = True

    def __init__(self, ignore_index: int | None = None) -> None:
        if ignore_index is not None and (isinstance(ignore_index, bool) or not hasattr(ignore_index, "__index__")):
            raise TypeError(f"ignore_index: expected an integer or None, got {ignore_index!r}")
        self.ignore_index = None if ignore_index is None else int(ignore_index)
        if self.ignore_index is not None and not -(2**63) <= self.ignore_index < 2**63:
            raise ValueError(f"ignore_index: expected an integer of 64 bits, got {ignore_index}")

    def measure(self, prediction: Array, target: Any, gradient: Array | None = None) -> Measure:
        """Loss of a batch.

        Parameters
        ----------
        prediction : array of shape (..., C)
            Logits, float32 or float64.
        target : integer array of shape (...)
            Classes, 0 <= class < C.
        gradient : array of shape (..., C), optional
            C-contiguous; overwritten with the derivative of the loss.

        Returns
        -------
        Measure
            With the number of positions that count and of those that argmax finds.

        Raises
        ------
        ValueError
            For shapes that do not fit, or a class out of range, with its position. Nothing is written then.
        TypeError
            For targets that are not integers.
        """
        logits = as_prediction(prediction)
        targets = self.prepare(target, logits.dtype)
        shape = logits.shape
        if targets.shape != shape[:-1] or not shape:
            raise ValueError(self._shape_message(shape, targets.shape))
        classes = shape[-1]
        flat = None if gradient is None else gradient.reshape(-1, classes)
        mean, count, correct, bad = _core.cross_entropy(
            logits.reshape(-1, classes), targets.reshape(-1), flat, self.ignore_index, True
        )
        if bad >= 0:
            raise ValueError(self._range_message(targets, bad, classes))
        return Measure(mean, count, correct)

    def prepare(self, target: Any, dtype: np.dtype[Any]) -> Array:
        """``target`` as a C-contiguous int64 array."""
        array = np.asarray(target)
        if array.dtype.kind not in "iub":
            raise TypeError(
                f"target: expected integers (class numbers), got {array.dtype}; whole numbers convert with "
                "target.astype(np.int64), one-hot rows or probabilities with np.argmax(target, axis=-1)"
            )
        return as_dense(array, INT64)

    def check(self, row: tuple[int, ...], target: Array) -> None:
        """Refuse targets of the wrong shape, or classes out of range."""
        shape = (len(target), *row)
        if not row or target.shape != shape[:-1]:
            raise ValueError(self._shape_message(shape, target.shape))
        bad = _core.first_outside(target.reshape(-1), row[-1], self.ignore_index)
        if bad >= 0:
            raise ValueError(self._range_message(target, bad, row[-1]))

    def _range_message(self, target: Array, bad: int, classes: int) -> str:
        where = tuple(int(i) for i in np.unravel_index(bad, target.shape))
        place = where[0] if len(where) == 1 else where
        besides = "" if self.ignore_index is None else f" or ignore_index {self.ignore_index}"
        return (
            f"target: expected classes 0 <= class < {classes} (the last axis of the prediction){besides}, got "
            f"{target.reshape(-1)[bad]} at position {place}; number the classes from 0 or widen the last layer"
        )

    @staticmethod
    def _shape_message(prediction: tuple[int, ...], target: tuple[int, ...]) -> str:
        message = (
            f"target: expected shape {prediction[:-1]}, one class for each position of the prediction {prediction} "
            f"(classes on the last axis), got {target}"
        )
        if target == prediction:
            message += "; one-hot targets convert with np.argmax(target, axis=-1)"
        elif math.prod(target) == math.prod(prediction[:-1]):
            message += f"; target.reshape({prediction[:-1]}) has it"
        return message

    def config(self) -> dict[str, Any]:
        return {"ignore_index": self.ignore_index}


class MeanSquaredError(Loss):
    """Mean over all elements of (prediction - target)^2; gradient 2 (prediction - target) / number of elements.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.MeanSquaredError().forward(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    >>> loss, backward()
    (2.0, array([0., 2.]))
    """

    def measure(self, prediction: Array, target: Any, gradient: Array | None = None) -> Measure:
        """Loss of a batch.

        Parameters
        ----------
        prediction, target : arrays of one shape
            Nothing is broadcast: (n, 1) against (n,) would silently compare every pair.
        gradient : array of the same shape, optional
            C-contiguous; overwritten with the derivative of the loss.

        Raises
        ------
        ValueError
            For different shapes.
        TypeError
            For targets that are not real numbers.
        """
        values = as_prediction(prediction)
        targets = self.prepare(target, values.dtype)
        if targets.shape != values.shape:
            raise ValueError(self._shape_message(values.shape, targets.shape))
        flat = None if gradient is None else gradient.reshape(-1)
        return Measure(_core.squared_error(values.reshape(-1), targets.reshape(-1), flat), values.size)

    def check(self, row: tuple[int, ...], target: Array) -> None:
        """Refuse targets of another shape than the outputs."""
        if target.shape[1:] != row:
            raise ValueError(self._shape_message((len(target), *row), target.shape))

    @staticmethod
    def _shape_message(prediction: tuple[int, ...], target: tuple[int, ...]) -> str:
        hint = f"; target.reshape({prediction}) has it" if math.prod(target) == math.prod(prediction) else ""
        return f"target: expected the shape of the prediction, {prediction}, got {target}{hint}"

    def prepare(self, target: Any, dtype: np.dtype[Any]) -> Array:
        """``target`` as a C-contiguous array of ``dtype``."""
        return as_dense(as_floats(target, dtype, "target"), dtype)


_BY_NAME: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
}


def as_loss(spec: str | Loss) -> Loss:
    """A loss by name (``"cross_entropy"``, ``"mean_squared_error"`` or ``"mse"``), or the loss itself.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones and the nearest.
    TypeError
        For anything that is neither a name nor a Loss.
    """
    if isinstance(spec, Loss):
        return spec
    if isinstance(spec, str):
        if spec in _BY_NAME:
            return _BY_NAME[spec]()
        near = difflib.get_close_matches(spec.lower(), _BY_NAME, 1)
        raise ValueError(
            f"loss: expected one of {', '.join(_BY_NAME)}, got {spec!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    if isinstance(spec, type) and issubclass(spec, Loss):
        raise TypeError(f"loss: expected a name or an object, got the class; write {spec.__name__}()")
    raise TypeError(
        f"loss: expected one of {', '.join(_BY_NAME)} or an object derived from fa.losses.Loss, got "
        f"{type(spec).__name__}"
    )
