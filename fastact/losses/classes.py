"""Losses of one class among C, along the last axis: cross-entropy in its forms, focal loss, hinge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastact._arguments import Array, as_floats, as_number, over_leading, place_of
from fastact._core import losses as _core
from fastact.losses.base import INT64, KernelLoss, Measure, as_dense, as_weight, spread
from fastact.losses.elements import ANY, PROBABILITIES, ElementLoss

INPUTS = ("logits", "probabilities", "log_probabilities")
_LARGEST_INT = 2**63


def as_inputs_name(inputs: str) -> str:
    if inputs not in INPUTS:
        raise ValueError(f"inputs: expected one of {', '.join(map(repr, INPUTS))}, got {inputs!r}")
    return inputs


def as_class_weight(class_weight: Any, name: str = "class_weight") -> tuple[float, ...] | None:
    if class_weight is None:
        return None
    if not isinstance(class_weight, (Sequence, np.ndarray)) or isinstance(class_weight, str):
        raise TypeError(f"{name}: expected a sequence of numbers, one for each class, or None, got {class_weight!r}")
    return tuple(as_number(w, name, 0.0) for w in class_weight)


class RowLoss(KernelLoss):
    """Loss of rows of C numbers; the mean is over rows."""

    counts_correct = True

    def __init__(self, class_weight: Any, reduction: str) -> None:
        super().__init__(reduction)
        self.class_weight = as_class_weight(class_weight)

    def _class_weights(self, prediction: Array) -> Array | None:
        if self.class_weight is None:
            return None
        if len(self.class_weight) != prediction.shape[-1]:
            raise ValueError(
                f"class_weight: expected {prediction.shape[-1]} numbers, one for each class on the last axis of the "
                f"prediction, got {len(self.class_weight)}"
            )
        return np.array(self.class_weight, prediction.dtype)

    def _positions(self, prediction: tuple[int, ...]) -> tuple[int, ...]:
        return prediction[:-1]


class LabelLoss(RowLoss):
    """Against class numbers. A subclass gives its kernel and the numbers a and b."""

    ignore_index: int | None = None

    def _kernel(self) -> str:
        raise NotImplementedError

    def _parameters(self) -> tuple[float, float]:
        return 0.0, 0.0

    def _compute(
        self, prediction: Array, target: Any, gradient: Array | None, each: Array | None, weight: Any, count: bool
    ) -> Measure:
        shape = prediction.shape
        labels = self.prepare(target, prediction.dtype)
        if labels.shape != shape[:-1] or not shape:
            raise ValueError(self._shape_message(shape, labels.shape))
        weights = as_weight(weight, shape[:-1], prediction.dtype)
        loss, size, correct, bad = _core.rows(
            _core.ROW[self._kernel()],
            prediction,
            labels,
            None,
            gradient,
            each,
            weights,
            self.reduction == "mean",
            count,
            self.ignore_index,
            None if self.class_weight is None else self._class_weights(prediction),
            *self._parameters(),
        )
        if bad >= 0:
            if weights is not None:  # what a mask hides may be anything
                counts = spread(weights, labels.shape)
                if not counts.reshape(-1)[bad]:
                    return self._compute(prediction, np.where(counts, labels, 0), gradient, each, weight, count)
            raise ValueError(self._range_message(labels, bad, shape[-1]))
        if loss != loss:
            self._explain(prediction, labels)
        return Measure(loss, size, correct)

    def _explain(self, prediction: Array, labels: Array) -> None:
        """Raise where a loss of NaN has a reason that can be told."""

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
        bad = _core.first_outside(target, row[-1], self.ignore_index)
        if bad >= 0:
            raise ValueError(self._range_message(target, bad, row[-1]))

    def _range_message(self, target: Array, bad: int, classes: int) -> str:
        place = place_of(np.unravel_index(bad, target.shape))
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


class DenseLoss(RowLoss):
    """Against numbers in the shape of the prediction."""

    def _operands(self, prediction: Array, target: Any, weight: Any) -> tuple[Array, Array | None]:
        """Targets and weights as the kernels take them."""
        targets = self.prepare(target, prediction.dtype)
        self._check_shape(prediction.shape, targets.shape)
        return targets, as_weight(weight, prediction.shape[:-1], prediction.dtype)

    def prepare(self, target: Any, dtype: np.dtype[Any]) -> Array:
        """``target`` as a C-contiguous array of ``dtype``."""
        return as_dense(as_floats(target, dtype, "target"), dtype)

    def check(self, row: tuple[int, ...], target: Array) -> None:
        """Refuse targets of another shape than the outputs."""
        self._check_shape((len(target), *row), target.shape)

    @staticmethod
    def _check_shape(prediction: tuple[int, ...], target: tuple[int, ...]) -> None:
        if target == prediction and prediction:
            return
        hint = ""
        if target == prediction[:-1]:
            hint = "; class numbers go with CrossEntropy, or convert them: np.eye(C)[target]"
        elif math.prod(target) == math.prod(prediction):
            hint = f"; target.reshape({prediction}) has it"
        raise ValueError(
            f"target: expected the shape of the prediction, {prediction}, a row of numbers for each position, got "
            f"{target}{hint}"
        )


class CrossEntropy(LabelLoss):
    """Softmax cross-entropy of logits against class numbers, mean over all positions.

    For a row of logits z (raw outputs, no softmax before) and class t: log(sum_j exp(z_j)) - z_t, in nats; divide by
    log(2) for bits. Its gradient is softmax(z) - onehot(t), over the number of positions.

    Parameters
    ----------
    ignore_index : int, optional
        Positions with this target count nothing: no loss, no gradient, not in the mean. A batch of such positions alone
        has loss 0.
    inputs : {"logits", "probabilities", "log_probabilities"}
        What the prediction is. Of probabilities p the loss is -log(p_t), the logarithm at least -100; of
        log-probabilities it is -z_t, PyTorch's NLLLoss.
    label_smoothing : float
        The target is 1 - label_smoothing for its class, and besides label_smoothing / C for each class. Logits only.
    class_weight : sequence of C floats, optional
        How much each class counts, in the mean too: sum(w_t l) / sum(w_t).
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    As PyTorch's CrossEntropyLoss. The largest logit is subtracted first, so no logit overflows; sums run in float64 in
    a fixed order, so the loss has the same bits for any number of threads. A row of NaN, or with +inf, gives NaN.
    Accuracy is weighted as the mean is.

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
    >>> loss, backward = fa.losses.CrossEntropy().forward(np.zeros((2, 4)), [0, 3], weight=[1.0, 0.0])  # a mask
    >>> backward()
    array([[-0.75,  0.25,  0.25,  0.25],
           [ 0.  ,  0.  ,  0.  ,  0.  ]])
    """

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        inputs: str = "logits",
        label_smoothing: float = 0.0,
        class_weight: Sequence[float] | Array | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(class_weight, reduction)
        if ignore_index is not None and (isinstance(ignore_index, bool) or not hasattr(ignore_index, "__index__")):
            raise TypeError(f"ignore_index: expected an integer or None, got {ignore_index!r}")
        self.ignore_index = None if ignore_index is None else int(ignore_index)
        if self.ignore_index is not None and not -_LARGEST_INT <= self.ignore_index < _LARGEST_INT:
            raise ValueError(f"ignore_index: expected an integer of 64 bits, got {ignore_index}")
        self.inputs = as_inputs_name(inputs)
        self.label_smoothing = as_number(label_smoothing, "label_smoothing", 0.0, 1.0)
        if self.label_smoothing and self.inputs != "logits":
            raise ValueError(
                f"label_smoothing: expected 0 with inputs {inputs!r}, got {label_smoothing}; give logits, or smooth "
                "targets to CategoricalCrossEntropy"
            )

    def _kernel(self) -> str:
        return "cross_entropy" if self.inputs == "logits" else "picked"

    def _parameters(self) -> tuple[float, float]:
        return float(self.inputs == "log_probabilities"), self.label_smoothing

    def _explain(self, prediction: Array, labels: Array) -> None:
        if self.inputs == "probabilities":
            ElementLoss._refuse("prediction", prediction, PROBABILITIES)


class Focal(LabelLoss):
    """Cross-entropy of logits that counts what is already right less: -alpha_t (1 - p)^gamma log p, p = softmax(z)_t.

    Parameters
    ----------
    gamma : float
        0 is cross-entropy.
    alpha : sequence of C floats, optional
        Factor of the loss of each class; the mean is over positions, whatever their class.
    ignore_index : int, optional
        Positions with this target count nothing.
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    Lin et al., Focal Loss for Dense Object Detection, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.Focal().forward(np.array([[0.0, 0.0], [9.0, 0.0]]), [0, 0])
    >>> round(loss, 6), backward().round(6)
    (0.086643, array([[-0.149143,  0.149143],
           [-0.      ,  0.      ]]))
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: Sequence[float] | Array | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(None, reduction)
        self.gamma = as_number(gamma, "gamma", 0.0)
        self.alpha = self.class_weight = as_class_weight(alpha, "alpha")
        self.ignore_index = CrossEntropy(ignore_index).ignore_index

    def _kernel(self) -> str:
        return "focal_classes"

    def _parameters(self) -> tuple[float, float]:
        return self.gamma, 0.0


class MultiClassHinge(LabelLoss):
    """Every other class costs what it has over the margin below the true one: sum_j max(0, margin - z_t + z_j) / C.

    Parameters
    ----------
    squared : bool
        Squares of these.
    margin : float
    class_weight : sequence of C floats, optional
        Factor of the loss of each class; the mean is over positions, whatever their class.
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    Weston and Watkins, 1999; PyTorch's MultiMarginLoss.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.MultiClassHinge().forward(np.array([[2.0, 1.5, 0.0, 0.0]]), [0])
    >>> loss, backward()
    (0.125, array([[-0.25,  0.25,  0.  ,  0.  ]]))
    """

    def __init__(
        self,
        squared: bool = False,
        margin: float = 1.0,
        class_weight: Sequence[float] | Array | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(class_weight, reduction)
        self.squared = bool(squared)
        self.margin = as_number(margin, "margin", 0.0)

    def _kernel(self) -> str:
        return "margin"

    def _parameters(self) -> tuple[float, float]:
        return self.margin, float(self.squared)


class CategoricalCrossEntropy(DenseLoss):
    """Cross-entropy against a row of shares t for each position, such as one-hot rows: -sum_j t_j log p_j.

    Parameters
    ----------
    inputs : {"logits", "probabilities", "log_probabilities"}
        What the prediction is: z with p = softmax(z), p itself, the logarithm at least -100, or log p.
    label_smoothing : float
        The shares are (1 - label_smoothing) t + label_smoothing / C.
    class_weight : sequence of C floats, optional
        Factor of the term of each class; the mean is over positions. Of logits alone.
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    As PyTorch's CrossEntropyLoss with probabilities for targets. Targets need not add up to 1. Accuracy compares the
    largest entries.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.CategoricalCrossEntropy().forward(np.zeros((1, 4)), np.array([[0.5, 0.5, 0, 0]]))
    >>> round(loss, 6), backward()
    (1.386294, array([[-0.25, -0.25,  0.25,  0.25]]))
    >>> loss, backward = fa.losses.CategoricalCrossEntropy("probabilities").forward(
    ...     np.array([[0.25, 0.75]]), np.array([[0.0, 1.0]]))
    >>> round(loss, 6), backward().round(6)
    (0.287682, array([[-0.      , -1.333333]]))
    """

    def __init__(
        self,
        inputs: str = "logits",
        label_smoothing: float = 0.0,
        class_weight: Sequence[float] | Array | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(class_weight, reduction)
        self.inputs = as_inputs_name(inputs)
        self.label_smoothing = as_number(label_smoothing, "label_smoothing", 0.0, 1.0)
        if self.inputs != "logits" and self.class_weight is not None:
            raise ValueError(f"class_weight: expected None with inputs {inputs!r}, got {class_weight!r}; give logits")

    def _compute(
        self, prediction: Array, target: Any, gradient: Array | None, each: Array | None, weight: Any, count: bool
    ) -> Measure:
        shape = prediction.shape
        targets, weights = self._operands(prediction, target, weight)
        mean = self.reduction == "mean"
        if self.inputs == "logits":
            weight_of = self._class_weights(prediction)
            loss, size, correct, _ = _core.rows(
                _core.ROW["dense_cross_entropy"], prediction, None, targets, gradient, each, weights, mean, count, None,
                weight_of, 0.0, self.label_smoothing,
            )  # fmt: skip
            return Measure(loss, size, correct)
        keep, share = 1.0 - self.label_smoothing, self.label_smoothing / shape[-1]
        bounds = PROBABILITIES if self.inputs == "probabilities" else ANY
        terms = None if each is None else np.empty(shape, prediction.dtype)
        loss, size = _core.elements(
            _core.ELEMENT["probability" if self.inputs == "probabilities" else "log_probability"], prediction, targets,
            gradient, terms, weights, mean, keep, share, 0.0, *bounds[:2], columns=None, group=shape[-1],
        )  # fmt: skip
        if loss != loss:
            ElementLoss._refuse("prediction", prediction, bounds, weights)
        if each is not None and terms is not None:
            np.sum(terms, -1, out=each)
        if not count:
            return Measure(loss, size)
        found = prediction.argmax(-1) == targets.argmax(-1)
        if weights is None:
            return Measure(loss, size, float(found.sum()))
        return Measure(loss, size, float(np.sum(found * over_leading(weights, found.ndim), dtype=np.float64)))
