"""Losses of yes or no: cross-entropy, focal loss, hinge; one number a decision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastact._arguments import Array, as_number
from fastact.losses.elements import ANY, PROBABILITIES, Bounds, ElementLoss


class BinaryCrossEntropy(ElementLoss):
    """Cross-entropy of independent decisions, mean over all elements: -t log p - (1 - t) log(1 - p).

    Parameters
    ----------
    inputs : {"probabilities", "logits"}
        What the prediction is: p itself (a sigmoid's output) or z with p = sigmoid(z). From logits nothing is lost
        where p is next to 0 or 1.
    pos_weight : float or sequence of C floats
        Factor of the first term, for all elements or along the last axis: above 1 it makes positives count more.
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    Targets are between 0 and 1. As in PyTorch (BCELoss, BCEWithLogitsLoss) logarithms of probabilities are at least
    -100 and derivatives have denominators of at least 1e-12: a probability of exactly 0 or 1 costs much, not all.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.BinaryCrossEntropy().forward(np.array([0.5, 0.25]), np.array([1.0, 0.0]))
    >>> round(loss, 6), backward().round(6)
    (0.490415, array([-1.      ,  0.666667]))
    >>> loss, backward = fa.losses.BinaryCrossEntropy("logits").forward(np.array([0.0, -800.0]), np.array([1.0, 1.0]))
    >>> round(loss, 6), backward()
    (400.346574, array([-0.25, -0.5 ]))
    """

    def __init__(
        self,
        inputs: str = "probabilities",
        pos_weight: float | Sequence[float] = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        if inputs not in ("probabilities", "logits"):
            raise ValueError(f"inputs: expected 'probabilities' or 'logits', got {inputs!r}")
        self.inputs = inputs
        self.pos_weight: float | tuple[float, ...]
        if isinstance(pos_weight, (Sequence, np.ndarray)):
            self.pos_weight = tuple(as_number(w, "pos_weight", 0.0) for w in pos_weight)
        else:
            self.pos_weight = as_number(pos_weight, "pos_weight", 0.0)

    def _kernel(self) -> str:
        return "binary" if self.inputs == "probabilities" else "binary_logits"

    def _parameters(self) -> tuple[float, float, float]:
        return self.pos_weight if isinstance(self.pos_weight, float) else 1.0, 0.0, 0.0

    def _columns(self, prediction: Array) -> Array | None:
        if isinstance(self.pos_weight, float):
            return None
        if prediction.shape[-1:] != (len(self.pos_weight),):
            raise ValueError(
                f"prediction: expected a last axis of {len(self.pos_weight)}, one for each pos_weight, got shape "
                f"{prediction.shape}"
            )
        return np.array(self.pos_weight, prediction.dtype)

    def _bounds(self) -> tuple[Bounds, Bounds]:
        return (PROBABILITIES if self.inputs == "probabilities" else ANY), PROBABILITIES


class BinaryFocal(ElementLoss):
    """Cross-entropy of logits that counts what is already right less: -a (1 - p)^gamma log p, p that of the truth.

    Parameters
    ----------
    gamma : float
        0 is cross-entropy.
    alpha : float or None
        Weight of positives, 1 - alpha that of negatives; None weighs both 1.
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    Lin et al., Focal Loss for Dense Object Detection, 2017; torchvision's sigmoid_focal_loss. A target t between 0 and
    1 mixes the losses of 1 and 0.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.BinaryFocal().forward(np.array([3.0, 3.0]), np.array([1.0, 0.0]))
    >>> round(loss, 6), backward().round(4)
    (1.037369, array([-0.    ,  0.4225]))
    """

    def __init__(self, gamma: float = 2.0, alpha: float | None = 0.25, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.gamma = as_number(gamma, "gamma", 0.0)
        self.alpha = None if alpha is None else as_number(alpha, "alpha", 0.0)
        if self.alpha is not None and self.alpha > 1:
            raise ValueError(f"alpha: expected 0 <= alpha <= 1 or None, got {alpha!r}")

    def _kernel(self) -> str:
        return "focal"

    def _parameters(self) -> tuple[float, float, float]:
        return (self.gamma, 1.0, 1.0) if self.alpha is None else (self.gamma, self.alpha, 1.0 - self.alpha)

    def _bounds(self) -> tuple[Bounds, Bounds]:
        return ANY, PROBABILITIES


_SIGNS = Bounds(-1.0, 1.0, "1 for one class, -1 or 0 for the other")


class Hinge(ElementLoss):
    """max(0, margin - y prediction) with y = 1 or -1, mean over all elements: the loss of support vector machines.

    Parameters
    ----------
    squared : bool
        The square of that, which has a gradient without jumps.
    margin : float
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    Targets are 1 for y = 1, and -1 or 0 for y = -1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.Hinge().forward(np.array([0.5, 2.0]), np.array([1.0, 1.0]))
    >>> loss, backward()
    (0.25, array([-0.5,  0. ]))
    """

    def __init__(self, squared: bool = False, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.squared = bool(squared)
        self.margin = as_number(margin, "margin", 0.0)

    def _kernel(self) -> str:
        return "squared_hinge" if self.squared else "hinge"

    def _parameters(self) -> tuple[float, float, float]:
        return self.margin, 0.0, 0.0

    def _bounds(self) -> tuple[Bounds, Bounds]:
        return ANY, _SIGNS
