"""Losses: one number that says how wrong predictions are, and its gradient, computed in the same pass.

``loss, backward = fa.losses.CrossEntropy().forward(prediction, target)`` gives the loss as a float and a single-use
``backward()`` that returns the gradient of the prediction. A Trainer takes a loss by name or as an object. A loss of
your own derives from ``Loss`` and defines ``measure``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fastact._arguments import as_object
from fastact.losses.base import Loss, LossBackward, Measure
from fastact.losses.binary import BinaryCrossEntropy, BinaryFocal, Hinge
from fastact.losses.classes import CategoricalCrossEntropy, CrossEntropy, Focal, MultiClassHinge
from fastact.losses.ctc import CTC
from fastact.losses.distributions import Cosine, KLDivergence
from fastact.losses.regression import Huber, LogCosh, MeanAbsoluteError, MeanSquaredError, Poisson, Quantile

__all__ = [
    "CTC",
    "BinaryCrossEntropy",
    "BinaryFocal",
    "CategoricalCrossEntropy",
    "Cosine",
    "CrossEntropy",
    "Focal",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "LossBackward",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Measure",
    "MultiClassHinge",
    "Poisson",
    "Quantile",
    "as_loss",
]

_BY_NAME: dict[str, Callable[[], Loss]] = {
    "cross_entropy": CrossEntropy,
    "categorical_cross_entropy": CategoricalCrossEntropy,
    "nll": partial(CrossEntropy, inputs="log_probabilities"),
    "binary_cross_entropy": BinaryCrossEntropy,
    "binary_cross_entropy_with_logits": partial(BinaryCrossEntropy, "logits"),
    "focal": Focal,
    "binary_focal": BinaryFocal,
    "hinge": Hinge,
    "squared_hinge": partial(Hinge, squared=True),
    "multi_class_hinge": MultiClassHinge,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "huber": Huber,
    "smooth_l1": partial(Huber, smooth_l1=True),
    "log_cosh": LogCosh,
    "quantile": Quantile,
    "poisson": Poisson,
    "kl_divergence": KLDivergence,
    "cosine": Cosine,
    "ctc": CTC,
}


def as_loss(spec: str | Loss) -> Loss:
    """A loss by name (``"cross_entropy"``, ``"mean_squared_error"`` or ``"mse"`` ...), or the loss itself.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones and the nearest.
    TypeError
        For anything that is neither a name nor a Loss.

    Examples
    --------
    >>> import fastact as fa
    >>> fa.losses.as_loss("smooth_l1")
    Huber(smooth_l1=True)
    """
    return as_object(spec, Loss, _BY_NAME, "loss", "fa.losses.Loss")
