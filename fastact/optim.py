"""Optimisers: one fused pass over the flat parameters of a model, PyTorch's formulas and defaults.

``optimizer.step(model)`` reads ``model.flat_gradients`` and updates the parameters. An optimiser belongs to the first
model that it steps; its state is two flat arrays at most and a counter.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastact._arguments import Array, as_number
from fastact._core import training as _core
from fastact.nn.base import Layer
from fastact.nn.parameter import Arena, aligned_zeros

__all__ = ["SGD", "Adam", "Optimizer", "clip_by_global_norm", "global_norm"]


def _arena(model: Any) -> Arena:
    if not isinstance(model, Layer):
        raise TypeError(f"model: expected a fastact layer or model, got {type(model).__name__}")
    return model.arena


class Optimizer:
    """Base of the optimisers. A subclass names its state arrays and defines ``_update``.

    Attributes
    ----------
    lr : float
        Learning rate; may be changed between steps.
    steps : int
        Updates made.
    """

    _state_names: tuple[str, ...] = ()
    _settings: ClassVar[tuple[str, ...]] = ("lr",)

    def __init__(self, lr: float) -> None:
        self.lr = as_number(lr, "lr", 0.0)
        self._counter = np.zeros((), np.int64)
        self._state: dict[str, Array] = {}
        self._owner: weakref.ref[Arena] | None = None

    @property
    def steps(self) -> int:
        """Updates made so far."""
        return int(self._counter)

    def step(self, model: Layer, gradient_scale: float = 1.0) -> None:
        """Update all parameters of ``model`` from their gradients, which stay as they are.

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
            self._update(arena.values, arena.gradients, gradient_scale)
            arena.bump()

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
            elif held.shape != (arena.size,) or held.dtype != arena.dtype:
                raise ValueError(
                    f"model: this {name} has state for {held.size} parameters of {held.dtype} (with padding), the "
                    f"model has {arena.size} of {arena.dtype}; use it with the model it was saved with"
                )
        self._owner = weakref.ref(arena)

    def _update(self, values: Array, gradients: Array, gradient_scale: float) -> None:
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

    def __init__(
        self, lr: float = 1e-3, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr)
        self.momentum = as_number(momentum, "momentum", 0.0, 1.0)
        self.nesterov = bool(nesterov)
        self.weight_decay = as_number(weight_decay, "weight_decay", 0.0)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected momentum > 0 with it, got momentum=0; set momentum=0.9")
        self._state_names = ("velocity",) if self.momentum else ()

    def _update(self, values: Array, gradients: Array, gradient_scale: float) -> None:
        _core.sgd(
            values,
            gradients,
            self._state.get("velocity"),
            self._counter,
            self.lr,
            self.momentum,
            self.nesterov,
            self.weight_decay,
            gradient_scale,
        )


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

    _state_names = ("first", "second")
    _settings = ("lr", "betas", "eps", "weight_decay")

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr)
        try:
            beta1, beta2 = betas
        except (TypeError, ValueError):
            raise ValueError(f"betas: expected two numbers, got {betas!r}") from None
        self.betas = (as_number(beta1, "betas[0]", 0.0, 1.0), as_number(beta2, "betas[1]", 0.0, 1.0))
        # The smallest normal float32: an eps that vanished would divide 0 by 0 wherever no gradient has come yet.
        self.eps = as_number(eps, "eps", 1.1754943508222875e-38)
        self.weight_decay = as_number(weight_decay, "weight_decay", 0.0)

    def _update(self, values: Array, gradients: Array, gradient_scale: float) -> None:
        _core.adam(
            values,
            gradients,
            self._state["first"],
            self._state["second"],
            self._counter,
            self.lr,
            *self.betas,
            self.eps,
            self.weight_decay,
            gradient_scale,
        )


def global_norm(model: Layer) -> float:
    """Euclidean norm of all gradients of a model as one vector; same bits for any number of threads."""
    return math.sqrt(_core.sum_squares(_arena(model).gradients))


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
