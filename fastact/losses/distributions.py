"""Losses of directions and distributions: cosine distance, Kullback-Leibler divergence."""

from __future__ import annotations

from typing import Any

from fastact._arguments import Array, as_number
from fastact._core import losses as _core
from fastact.losses.base import Measure
from fastact.losses.classes import DenseLoss
from fastact.losses.elements import ANY, Bounds, ElementLoss


class Cosine(DenseLoss):
    """Cosine distance along the last axis, mean over positions: 1 - p.t / (\\|p\\| \\|t\\|), between 0 and 2.

    Parameters
    ----------
    eps : float
        Lengths are at least this.
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    PyTorch's CosineEmbeddingLoss of pairs that belong together. A prediction of zeros has loss 1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.Cosine().forward(np.array([[1.0, 0.0]]), np.array([[3.0, 3.0]]))
    >>> round(loss, 6), backward().round(6)
    (0.292893, array([[ 0.      , -0.707107]]))
    """

    counts_correct = False

    def __init__(self, eps: float = 1e-8, reduction: str = "mean") -> None:
        super().__init__(None, reduction)
        self.eps = as_number(eps, "eps", 0.0, above=True)

    def _compute(
        self, prediction: Array, target: Any, gradient: Array | None, each: Array | None, weight: Any, count: bool
    ) -> Measure:
        targets, weights = self._operands(prediction, target, weight)
        loss, size, _, _ = _core.rows(
            _core.ROW["cosine"],
            prediction,
            None,
            targets,
            gradient,
            each,
            weights,
            self.reduction == "mean",
            a=self.eps,
        )
        return Measure(loss, size)


_SHARES = Bounds(low=0.0, words="probabilities of at least 0")


class KLDivergence(ElementLoss):
    """Kullback-Leibler divergence from a distribution t to a prediction z of log-probabilities: t (log t - z).

    Parameters
    ----------
    log_target : bool
        Whether the target holds log t.
    reduction : {"batchmean", "mean", "sum", "none"}
        "batchmean" sums the last axis and takes the mean over positions: the divergence itself. "mean" is over
        elements, 1 / C of that: what PyTorch 2 does unless told otherwise, and announces to give up.

    Notes
    -----
    Kullback and Leibler, 1951; PyTorch's KLDivLoss. Where t is 0 the term is 0.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.KLDivergence().forward(np.log([[0.25, 0.75]]), np.array([[0.5, 0.5]]))
    >>> round(loss, 6), backward()
    (0.143841, array([[-0.5, -0.5]]))
    """

    def __init__(self, log_target: bool = False, reduction: str = "batchmean") -> None:
        super().__init__("mean" if reduction == "batchmean" else reduction)
        self.reduction = reduction
        self.log_target = bool(log_target)

    def _kernel(self) -> str:
        return "kl_log" if self.log_target else "kl"

    def _group(self, prediction: tuple[int, ...]) -> int:
        return prediction[-1] if self.reduction == "batchmean" and prediction else 1

    def _bounds(self) -> tuple[Bounds, Bounds]:
        return ANY, (ANY if self.log_target else _SHARES)
