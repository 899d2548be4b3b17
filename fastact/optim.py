"""Optimisers: one fused pass over the flat parameters of a model, PyTorch's formulas and defaults.

``optimizer.step(model)`` reads ``model.flat_gradients`` and updates the parameters. An optimiser belongs to the first
model that it steps; its state is three flat arrays at most and a counter. The rules themselves, with their formulas,
are in src_c/training.h. ``LBFGS``, which needs the loss as often as it likes, has ``minimize`` instead.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from fastact._arguments import Array, as_number, as_size
from fastact._core import training as _core
from fastact.nn.base import Layer
from fastact.nn.parameter import Arena, aligned_zeros

__all__ = [
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Lion",
    "NAdam",
    "Optimizer",
    "RMSprop",
    "Rprop",
    "clip_by_global_norm",
    "clip_by_value",
    "global_norm",
]

# The smallest normal float32: an eps that vanished would divide 0 by 0 wherever no gradient has come yet.
SMALLEST_EPS = 1.1754943508222875e-38


def _pair(value: Any, name: str, below: float = 1.0) -> tuple[float, float]:
    """Two numbers, 0 <= number < below."""
    try:
        first, second = value
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected two numbers, got {value!r}") from None
    return as_number(first, f"{name}[0]", 0.0, below), as_number(second, f"{name}[1]", 0.0, below)


def _arena(model: Any) -> Arena:
    if not isinstance(model, Layer):
        raise TypeError(f"model: expected a fastact layer or model, got {type(model).__name__}")
    return model.arena


# What a setting may be, by its name: low <= value < high.
_BOUNDS = {
    "eps": (SMALLEST_EPS, math.inf),
    "momentum": (0.0, 1.0),
    "alpha": (0.0, 1.0),
    "rho": (0.0, 1.0),
}


class Optimizer:
    """Base of the optimisers. A subclass has a rule, names the rule's state arrays, and defines ``_coefficients``.

    Attributes
    ----------
    lr : float
        Learning rate; may be changed between steps.
    steps : int
        Updates made.
    """

    _rule: str
    _states: tuple[str | None, str | None, str | None] = (None, None, None)  # the names of m, v and u
    _settings: ClassVar[tuple[str, ...]] = ("lr",)

    lr: float
    weight_decay: float
    eps: float

    def __init__(self, lr: float, **settings: float) -> None:
        for name, value in {"lr": lr, **settings}.items():
            setattr(self, name, as_number(value, name, *_BOUNDS.get(name, (0.0, math.inf))))
        self._counter = np.zeros((), np.int64)
        self._state: dict[str, Array] = {}
        self._owner: weakref.ref[Arena] | None = None

    @property
    def _state_names(self) -> tuple[str, ...]:
        return tuple([name for name in self._states if name])

    def _initial(self, name: str) -> float:
        """What a state array begins with."""
        return 0.0

    @property
    def steps(self) -> int:
        """Updates made so far."""
        return int(self._counter)

    def step(self, model: Layer, gradient_scale: float = 1.0) -> None:
        """Update all parameters of ``model`` from their gradients, which stay as they are.

        Frozen parameters (``Parameter.trainable``) keep their values, and their part of the state stays as well.

        Parameters
        ----------
        model : Layer
            Flattened at the first call. Later calls take the same model.
        gradient_scale : float
            Multiplies the gradients as they are read (clipping by the global norm then costs no second pass).

        Raises
        ------
        ValueError
            If the optimiser belongs to another model.
        """
        arena = _arena(model)
        if self._owner is None or self._owner() is not arena:
            self._bind(arena)
        if arena.size:
            trained = arena.trained
            self._update(arena.values, arena.gradients, gradient_scale, trained.spans)
            for parameter in trained.parameters:
                parameter.version += 1

    def _bind(self, arena: Arena) -> None:
        """Make ``arena`` the one that this optimiser updates; its state is new, or was loaded or copied before."""
        name = type(self).__name__
        if self._owner is not None:
            raise ValueError(
                f"model: this {name} has the state of another model; make a new one, or "
                "load_state_dict(other.state_dict()) into a new one to go on from a copy"
            )
        for key in self._state_names:
            held = self._state.get(key)
            if held is None:
                self._state[key] = aligned_zeros(arena.size, arena.dtype)
                self._state[key] += self._initial(key)
            elif held.shape != (arena.size,) or held.dtype != arena.dtype:
                raise ValueError(
                    f"model: this {name} has state for {held.size} parameters of {held.dtype} (with padding), the "
                    f"model has {arena.size} of {arena.dtype}; use it with the model it was saved with"
                )
        self._owner = weakref.ref(arena)

    def _update(self, values: Array, gradients: Array, gradient_scale: float, spans: Array | None) -> None:
        m, v, u = self._states
        arrays = (
            self._state.get(m) if m else None,
            self._state.get(v) if v else None,
            self._state.get(u) if u else None,
        )
        coefficients = self._coefficients(self.steps + 1)
        rule = _core.RULES[self._rule]
        _core.update(rule, values, gradients, arrays, self._counter, spans, gradient_scale, *coefficients)

    def _coefficients(self, t: int) -> tuple[float, ...]:
        """The rule's numbers for step t: rate, decay, shrink, beta1, beta2, eps, root_scale, rate_now, low, high.

        Those at the end that it has not are left out.
        """
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Arguments that make the same optimiser without its state."""
        return {name: getattr(self, name) for name in self._settings}

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs: name, settings, counter, copies of the arrays.

        Returns
        -------
        dict
            ``{"name": str, "settings": dict, "steps": int, "arrays": dict of flat arrays}``; the arrays are laid out
            as ``model.flat_parameters``.
        """
        return {
            "name": type(self).__name__,
            "settings": self.config(),
            "steps": self.steps,
            "arrays": {key: array.copy() for key, array in self._state.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over settings, counter and arrays of a ``state_dict``. The model is the one of the next step.

        Raises
        ------
        ValueError
            If the state is that of another kind of optimiser or not complete. Nothing is changed then.
        """
        name = type(self).__name__
        try:
            kind, settings, steps, arrays = state["name"], state["settings"], state["steps"], state["arrays"]
            arrays = {key: np.asarray(array) for key, array in arrays.items()}
            steps = int(steps)
            settings = dict(settings)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"state: expected the entries name, settings, steps and arrays of {name}.state_dict(): {error!r}"
            ) from error
        if kind != name:
            raise ValueError(f"state: expected that of {name}, got that of {kind}; make a fa.optim.{kind} for it")
        copy = type(self)(**settings)  # checks the settings
        if arrays and set(arrays) != set(copy._state_names):
            raise ValueError(f"state: expected arrays {', '.join(copy._state_names)}, got {', '.join(arrays)}")
        for key, array in arrays.items():
            copy._state[key] = aligned_zeros(array.size, array.dtype)
            copy._state[key][...] = array
        copy._counter[...] = steps
        vars(self).update(vars(copy))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_owner": None}  # a copy belongs to the model that it steps first

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD`` without dampening.

    v = momentum v + g; w -= lr v (Nesterov: w -= lr (g + momentum v)), where g = gradient + weight_decay w.

    Parameters
    ----------
    lr : float
    momentum : float, 0 <= momentum < 1
    nesterov : bool
        Needs momentum.
    weight_decay : float
        L2 penalty, added to the gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> model = fa.nn.Layer()
    >>> w = model.add_parameter("w", np.ones(2))
    >>> w.grad[...] = [1, 2]
    >>> fa.optim.SGD(0.1).step(model)
    >>> w.value
    array([0.9, 0.8])
    """

    _settings = ("lr", "momentum", "nesterov", "weight_decay")
    momentum: float

    def __init__(
        self, lr: float = 1e-3, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, momentum=momentum, weight_decay=weight_decay)
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected momentum > 0 with it, got momentum=0; set momentum=0.9")
        if self.momentum:
            self._states = ("velocity", None, None)
        self._rule = "sgd" if not self.momentum else "sgd_nesterov" if self.nesterov else "sgd_momentum"

    def _coefficients(self, t: int) -> tuple[float, ...]:
        return self.lr, self.weight_decay, 1.0, self.momentum


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1) as ``torch.optim.Adam``: bias correction, eps outside the root.

    m += (1 - b1)(g - m); v = b2 v + (1 - b2) g^2; w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps), where
    g = gradient + weight_decay w.

    Parameters
    ----------
    lr : float
    betas : (float, float), each 0 <= beta < 1
    eps : float > 0
    weight_decay : float
        L2 penalty, added to the gradient.
    amsgrad : bool
        The greatest v so far in place of v (Reddi et al. 2018, arXiv:1904.09237).

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> model = fa.nn.Layer()
    >>> w = model.add_parameter("w", np.ones(2))
    >>> w.grad[...] = [1, -2]
    >>> fa.optim.Adam(0.1).step(model)
    >>> w.value.round(6)
    array([0.9, 1.1])
    """

    _settings = ("lr", "betas", "eps", "weight_decay", "amsgrad")

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(lr, eps=eps, weight_decay=weight_decay)
        self.betas = _pair(betas, "betas")
        self.amsgrad = bool(amsgrad)
        self._rule = "amsgrad" if self.amsgrad else "adam"
        self._states = ("first", "second", "greatest" if self.amsgrad else None)

    def _decay(self) -> tuple[float, float]:
        """What is added to the gradient for each unit of w, and what w is multiplied with."""
        return self.weight_decay, 1.0

    def _coefficients(self, t: int) -> tuple[float, ...]:
        b1, b2 = self.betas
        return self.lr / (1 - b1**t), *self._decay(), b1, b2, self.eps, 1 / math.sqrt(1 - b2**t)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101) as ``torch.optim.AdamW``.

    w *= 1 - lr weight_decay comes first; the gradient has no penalty.

    Parameters
    ----------
    lr, betas, eps, amsgrad
        As for ``Adam``.
    weight_decay : float
        A share of w for each unit of lr; Keras's default is 4e-3, optax's 1e-4.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> model = fa.nn.Layer()
    >>> w = model.add_parameter("w", np.ones(2))
    >>> fa.optim.AdamW(0.1, weight_decay=0.5).step(model)
    >>> w.value
    array([0.95, 0.95])
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, amsgrad)

    def _decay(self) -> tuple[float, float]:
        return 0.0, 1.0 - self.lr * self.weight_decay


class NAdam(Optimizer):
    """Adam with Nesterov's momentum (Dozat 2016) as ``torch.optim.NAdam``.

    With mu_t = b1 (1 - 0.96^(t momentum_decay) / 2) and M_t = mu_1 ... mu_t, and m and v as in Adam:
    w -= lr (mu_(t+1) m / (1 - M_(t+1)) + (1 - mu_t) g / (1 - M_t)) / (sqrt(v / (1 - b2^t)) + eps).

    Parameters
    ----------
    lr, betas, eps, weight_decay
        As for ``Adam``.
    momentum_decay : float
        How fast mu_t goes up to b1.
    """

    _rule = "nadam"
    _states = ("first", "second", None)
    _settings = ("lr", "betas", "eps", "weight_decay", "momentum_decay")
    momentum_decay: float

    def __init__(
        self,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
    ) -> None:
        super().__init__(lr, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
        self.betas = _pair(betas, "betas")
        self._product = (0, 1.0)  # t and M_t of the last step

    def _mu(self, t: int) -> float:
        return self.betas[0] * (1.0 - 0.5 * 0.96 ** (t * self.momentum_decay))

    def _coefficients(self, t: int) -> tuple[float, ...]:
        done, product = self._product if self._product[0] < t else (0, 1.0)
        for k in range(done + 1, t + 1):  # more than one only after a state was loaded
            product *= self._mu(k)
        self._product = t, product
        ahead = self._mu(t + 1)
        rate, now = self.lr * ahead / (1 - product * ahead), self.lr * (1 - self._mu(t)) / (1 - product)
        return rate, self.weight_decay, 1.0, *self.betas, self.eps, 1 / math.sqrt(1 - self.betas[1] ** t), now


class Lion(Optimizer):
    """Lion (Chen et al. 2023, arXiv:2302.06675, program 1): steps of one size, in the direction of a sign.

    w -= lr (sign(b1 m + (1 - b1) g) + weight_decay w); m = b2 m + (1 - b2) g.

    Parameters
    ----------
    lr : float
        A third to a tenth of Adam's.
    betas : (float, float), each 0 <= beta < 1
    weight_decay : float
        Decoupled, as in ``AdamW``.
    """

    _rule = "lion"
    _states = ("first", None, None)
    _settings = ("lr", "betas", "weight_decay")

    def __init__(self, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay=weight_decay)
        self.betas = _pair(betas, "betas")

    def _coefficients(self, t: int) -> tuple[float, ...]:
        return self.lr, 0.0, 1.0 - self.lr * self.weight_decay, *self.betas


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012, lecture 6e) as ``torch.optim.RMSprop``: eps outside the root.

    v = alpha v + (1 - alpha) g^2; w -= lr g / (sqrt(v) + eps), where g = gradient + weight_decay w.

    Parameters
    ----------
    lr : float
        1e-3 in Keras.
    alpha : float, 0 <= alpha < 1
        Keras's rho, 0.9 there and in optax.
    eps : float > 0
    weight_decay : float
        L2 penalty, added to the gradient.
    momentum : float, 0 <= momentum < 1
        m = momentum m + g / (sqrt(v) + eps) is the step then.
    centered : bool
        The variance of g under the root in place of its mean square (Graves 2013, arXiv:1308.0850).
    """

    _settings = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered")
    alpha: float
    momentum: float

    def __init__(
        self,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        self.centered = bool(centered)
        self._states = ("velocity" if self.momentum else None, "square", "mean" if self.centered else None)
        self._rule = f"rmsprop{'_centered' if self.centered else ''}{'_momentum' if self.momentum else ''}"

    def _coefficients(self, t: int) -> tuple[float, ...]:
        return self.lr, self.weight_decay, 1.0, self.momentum, self.alpha, self.eps


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011) as ``torch.optim.Adagrad``.

    v += g^2; w -= lr / (1 + (t - 1) lr_decay) g / (sqrt(v) + eps), where g = gradient + weight_decay w.

    Parameters
    ----------
    lr, lr_decay, weight_decay : float
    initial_accumulator_value : float
        What v begins with; 0.1 in Keras and optax.
    eps : float > 0
    """

    _rule = "adagrad"
    _states = (None, "square", None)
    _settings = ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")
    lr_decay: float
    initial_accumulator_value: float

    def __init__(
        self,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(
            lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )

    def _initial(self, name: str) -> float:
        return self.initial_accumulator_value

    def _coefficients(self, t: int) -> tuple[float, ...]:
        return self.lr / (1 + (t - 1) * self.lr_decay), self.weight_decay, 1.0, 0.0, 0.0, self.eps


class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012, arXiv:1212.5701) as ``torch.optim.Adadelta``: eps inside the roots.

    v = rho v + (1 - rho) g^2; d = sqrt(u + eps) / sqrt(v + eps) g; w -= lr d; u = rho u + (1 - rho) d^2, where
    g = gradient + weight_decay w.

    Parameters
    ----------
    lr : float
        1 as in the paper; 1e-3 in Keras.
    rho : float, 0 <= rho < 1
    eps : float > 0
    weight_decay : float
        L2 penalty, added to the gradient.
    """

    _rule = "adadelta"
    _states = (None, "square", "step_square")
    _settings = ("lr", "rho", "eps", "weight_decay")
    rho: float

    def __init__(self, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0) -> None:
        super().__init__(lr, rho=rho, eps=eps, weight_decay=weight_decay)

    def _coefficients(self, t: int) -> tuple[float, ...]:
        return self.lr, self.weight_decay, 1.0, 0.0, self.rho, self.eps


class Rprop(Optimizer):
    """Rprop (Riedmiller and Braun 1993) as ``torch.optim.Rprop``, for gradients of all data: their sizes do not count.

    Each weight has a step of its own, times etas[1] where the gradient keeps its sign; where it turns, times etas[0],
    and the weight stays.

    Parameters
    ----------
    lr : float
        The first steps.
    etas : (float, float), etas[0] < 1 < etas[1]
    step_sizes : (float, float)
        The smallest and the greatest step; OpenCV's smallest is 1.2e-7.
    """

    _rule = "rprop"
    _states = ("gradient", None, "sizes")
    _settings = ("lr", "etas", "step_sizes")

    def __init__(
        self,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
    ) -> None:
        super().__init__(lr)
        self.etas = _pair(etas, "etas", math.inf)
        self.step_sizes = _pair(step_sizes, "step_sizes", math.inf)
        if not 0 < self.etas[0] < 1 < self.etas[1]:
            raise ValueError(f"etas: expected 0 < etas[0] < 1 < etas[1], got {etas!r}; PyTorch's are (0.5, 1.2)")
        if self.step_sizes[0] > self.step_sizes[1]:
            raise ValueError(f"step_sizes: expected the smallest and the greatest step, got {step_sizes!r}; swap them")

    def _initial(self, name: str) -> float:
        return self.lr if name == "sizes" else 0.0

    def _coefficients(self, t: int) -> tuple[float, ...]:
        return self.lr, 0.0, 1.0, *self.etas, 0.0, 1.0, 0.0, *self.step_sizes


class LBFGS:
    """L-BFGS of SciPy on all parameters of a model at once, for small nets and gradients of all data.

    Parameters
    ----------
    max_iter : int
    history_size : int
        Pairs of steps and differences of gradients that are kept.
    tolerance_grad, tolerance_change : float
        It ends when the greatest gradient, or the loss by less than this share, changes no more.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> model = fa.nn.Layer()
    >>> w = model.add_parameter("w", np.ones(2))
    >>> def closure():
    ...     w.grad[...] = 2 * (w.value - [3, 4])
    ...     return float(np.sum((w.value - [3, 4]) ** 2))
    >>> result = fa.optim.LBFGS().minimize(model, closure)  # doctest: +SKIP
    >>> w.value.round(6)  # doctest: +SKIP
    array([3., 4.])
    """

    def __init__(
        self,
        max_iter: int = 200,
        history_size: int = 10,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
    ) -> None:
        self.max_iter = as_size(max_iter, "max_iter")
        self.history_size = as_size(history_size, "history_size")
        self.tolerance_grad = as_number(tolerance_grad, "tolerance_grad", 0.0)
        self.tolerance_change = as_number(tolerance_change, "tolerance_change", 0.0)

    def minimize(self, model: Layer, closure: Callable[[], float]) -> Any:
        """Parameters at which the loss is smallest near where they are; they stay in the model.

        Parameters
        ----------
        model : Layer
        closure : callable
            The loss, with its gradient left in the parameters' ``grad``; those are zero when it is called.

        Returns
        -------
        scipy.optimize.OptimizeResult
            With ``fun``, the loss, ``nit``, ``nfev`` and ``message``.

        Raises
        ------
        ModuleNotFoundError
            Without SciPy.
        """
        try:
            from scipy.optimize import minimize
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("LBFGS: expected SciPy to be installed; pip install scipy") from error
        arena = _arena(model)
        spans = arena.trained.spans
        trained = [slice(None)] if spans is None else [slice(*span) for span in spans.tolist()]

        def gathered(flat: Array) -> Array:
            return np.concatenate([flat[:0], *[flat[part] for part in trained]]).astype(np.float64)

        def put(x: Array) -> None:
            begin = 0
            for part in trained:
                into = arena.values[part]
                into[...] = x[begin : begin + len(into)]
                begin += len(into)
            arena.bump()

        def measured(x: Array) -> tuple[float, Array]:
            put(x)
            model.zero_grad()
            return float(closure()), gathered(arena.gradients)

        options: dict[str, float] = {"maxiter": self.max_iter, "maxcor": self.history_size}
        options |= {"gtol": self.tolerance_grad, "ftol": self.tolerance_change}
        found = minimize(measured, gathered(arena.values), jac=True, method="L-BFGS-B", options=options)
        put(found.x)
        return found


def global_norm(model: Layer) -> float:
    """Euclidean norm of all gradients of a model as one vector; same bits for any number of threads.

    Those of frozen parameters do not count.
    """
    arena = _arena(model)
    return math.sqrt(_core.sum_squares(arena.gradients, arena.trained.spans))


def clip_scale(norm: float, max_norm: float) -> float:
    """Factor that brings a gradient of this norm down to ``max_norm``: PyTorch's min(1, max_norm / (norm + 1e-6))."""
    return min(1.0, max_norm / (norm + 1e-6))


def clip_by_global_norm(model: Layer, max_norm: float) -> float:
    """Scale all gradients so that their global norm is at most ``max_norm``, as torch's ``clip_grad_norm_``.

    Parameters
    ----------
    model : Layer
    max_norm : float > 0

    Returns
    -------
    float
        The norm before. Where it is NaN or infinite the gradients are left alone: scaled, they would all be lost.
    """
    limit = as_number(max_norm, "max_norm", 0.0, above=True)
    norm = global_norm(model)
    scale = clip_scale(norm, limit)
    if scale < 1.0 and math.isfinite(norm):
        gradients = model.flat_gradients
        gradients *= scale
    return norm


def clip_by_value(model: Layer, limit: float) -> None:
    """Bound every gradient by -limit and limit, as torch's ``clip_grad_value_``; NaN stays."""
    limit = as_number(limit, "limit", 0.0, above=True)
    gradients = _arena(model).gradients
    np.clip(gradients, -limit, limit, out=gradients)
