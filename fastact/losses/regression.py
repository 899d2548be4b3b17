"""Losses of numbers against numbers: squared, absolute and robust errors, quantiles, counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastact._arguments import Array, as_number
from fastact.losses.elements import ANY, Bounds, ElementLoss


class MeanSquaredError(ElementLoss):
    """Mean over all elements of (prediction - target)^2; gradient 2 (prediction - target) / number of elements.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    Nothing is broadcast: (n, 1) against (n,) would silently compare every pair.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.MeanSquaredError().forward(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    >>> loss, backward()
    (2.0, array([0., 2.]))
    """

    def _kernel(self) -> str:
        return "squared_error"


class MeanAbsoluteError(ElementLoss):
    """Mean over all elements of \\|prediction - target\\|; the gradient where they are equal is 0.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.MeanAbsoluteError().forward(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    >>> loss, backward()
    (1.0, array([0. , 0.5]))
    """

    def _kernel(self) -> str:
        return "absolute_error"


class Huber(ElementLoss):
    """Squared near the target, absolute far from it: d^2 / 2 for \\|d\\| <= delta, delta (\\|d\\| - delta / 2) beyond.

    Parameters
    ----------
    delta : float
        Where one turns into the other.
    smooth_l1 : bool
        Divide by delta, so that the slope far away is 1: PyTorch's SmoothL1Loss, with delta as its beta.
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    Huber, Robust Estimation of a Location Parameter, 1964.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.Huber(delta=1.0).forward(np.array([0.5, 3.0]), np.zeros(2))
    >>> loss, backward()
    (1.3125, array([0.25, 0.5 ]))
    """

    def __init__(self, delta: float = 1.0, smooth_l1: bool = False, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.delta = as_number(delta, "delta", 0.0, above=True)
        self.smooth_l1 = bool(smooth_l1)

    def _kernel(self) -> str:
        return "huber"

    def _parameters(self) -> tuple[float, float, float]:
        return self.delta, 1.0 / self.delta if self.smooth_l1 else 1.0, 0.0


class LogCosh(ElementLoss):
    """log(cosh(prediction - target)): d^2 / 2 near the target, \\|d\\| - log 2 far from it; gradient tanh(d).

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.LogCosh().forward(np.array([1e-8, 1000.0]), np.zeros(2))
    >>> round(loss, 6), backward()
    (499.653426, array([5.e-09, 5.e-01]))
    """

    def _kernel(self) -> str:
        return "log_cosh"


class Quantile(ElementLoss):
    """Pinball loss, whose minimum is a quantile: max(q d, (q - 1) d), d = target - prediction.

    Parameters
    ----------
    quantiles : float or sequence of Q floats
        Each 0 < q < 1. With a sequence the prediction's last axis holds one estimate for each quantile, and the target
        has the shape without that axis.
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    Koenker and Bassett, Regression Quantiles, 1978. The gradient at d = 0 is 0.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.Quantile([0.1, 0.9]).forward(np.array([[1.0, 3.0]]), np.array([2.0]))
    >>> round(loss, 6), backward()
    (0.1, array([[-0.05,  0.05]]))
    """

    def __init__(self, quantiles: float | Sequence[float] = 0.5, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.quantiles: float | tuple[float, ...]
        if isinstance(quantiles, (Sequence, np.ndarray)):
            self.quantiles = tuple(as_number(q, "quantiles", 0.0, 1.0, above=True) for q in quantiles)
            if not self.quantiles:
                raise ValueError("quantiles: expected at least one, got none")
        else:
            self.quantiles = as_number(quantiles, "quantiles", 0.0, 1.0, above=True)

    def _kernel(self) -> str:
        return "quantile"

    def _parameters(self) -> tuple[float, float, float]:
        return self.quantiles if isinstance(self.quantiles, float) else 0.0, 0.0, 0.0

    def _wanted(self, prediction: tuple[int, ...]) -> tuple[int, ...]:
        if isinstance(self.quantiles, float):
            return prediction
        if not prediction or prediction[-1] != len(self.quantiles):
            raise ValueError(
                f"prediction: expected {len(self.quantiles)} estimates on the last axis, one for each quantile, got "
                f"shape {prediction}"
            )
        return prediction[:-1]

    def _columns(self, prediction: Array) -> Array | None:
        return None if isinstance(self.quantiles, float) else np.array(self.quantiles, prediction.dtype)


_COUNTS = Bounds(low=0.0, words="counts of at least 0")
_RATES = Bounds(low=0.0, words="rates of at least 0")


class Poisson(ElementLoss):
    """Negative log-likelihood of counts: rate - target log(rate), the rate exp(prediction) or the prediction itself.

    Parameters
    ----------
    log_input : bool
        Whether the prediction is the logarithm of the rate.
    full : bool
        Add Stirling's approximation of log(target!), which no gradient sees: t log t - t + log(2 pi t) / 2 for t > 1.
    eps : float
        Added to the rate within its logarithm, without log_input.
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    PyTorch's PoissonNLLLoss.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> loss, backward = fa.losses.Poisson().forward(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    >>> round(loss, 6), backward().round(6)
    (0.859141, array([0.      , 0.359141]))
    """

    def __init__(self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.log_input = bool(log_input)
        self.full = bool(full)
        self.eps = as_number(eps, "eps", 0.0)

    def _kernel(self) -> str:
        return "poisson_log" if self.log_input else "poisson"

    def _parameters(self) -> tuple[float, float, float]:
        return self.eps, 0.0, float(self.full)

    def _bounds(self) -> tuple[Bounds, Bounds]:
        return (ANY if self.log_input else _RATES), _COUNTS
