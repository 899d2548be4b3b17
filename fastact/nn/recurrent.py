"""Recurrent layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._arguments import Array, as_dtype, as_floats, as_size
from fastact._core import recurrent as core
from fastact.nn.base import Backward, Layer, RunResult
from fastact.nn.parameter import Parameter

State = tuple[Array, Array]


class LSTMBackward(Backward):
    """The backward pass of one call of ``LSTM.forward``, single use.

    Attributes
    ----------
    state : (h, c)
        Final state of the forward pass, each of shape (num_layers, B, H).
    dstate : (dh, dc)
        Gradient of the initial state, same shapes; there after the call.
    """

    __slots__ = ("dstate", "state")

    def __init__(
        self,
        run: Callable[..., Any],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        state: State,
    ) -> None:
        super().__init__(run, shape, dtype)
        self.state = state
        self.dstate: State | None = None

    def __call__(  # type: ignore[override]
        self, dy: npt.ArrayLike | None, dstate: Any = None, *, input_gradient: bool = True
    ) -> Any:
        """Gradient of x for the gradient of y and of the final state; parameter gradients add up in ``grad``.

        Parameters
        ----------
        dy : array of the shape of y, or None
            None means zero: only the final state was used.
        dstate : (dh, dc), optional
            Gradient of the final state, each of shape (num_layers, B, H).
        input_gradient : bool
            False skips dx and returns None: the first layer of a model does not need it.

        Returns
        -------
        dx : array of the shape of x

        Raises
        ------
        BackwardError
            On a second call.
        ValueError, TypeError
            If dy or dstate do not fit. Nothing is touched then, and the closure remains usable.
        """
        if dy is not None:
            dy = self._check(dy)
        dh, dc = check_state(dstate, "dstate", self.state[0].shape, self._dtype)
        dx, self.dstate = self._begin()(dy, dh, dc, input_gradient)
        return dx


def check_state(
    state: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[Array, Array] | tuple[None, None]:
    """``state`` as two C-contiguous arrays of this shape, or (None, None) for None."""
    if state is None:
        return None, None
    try:
        h, c = state
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}: expected a pair (h, c) of arrays of shape (num_layers, B, H) = {shape}, got {describe(state)}"
        ) from None
    arrays = []
    for part, letter in ((h, "h"), (c, "c")):
        array = as_floats(part, dtype, f"{name}: {letter}")
        if array.shape != shape:
            fix = f"; add the axis of layers: {letter}[None]" if array.shape == shape[1:] and shape[0] == 1 else ""
            raise ValueError(f"{name}: expected {letter} of shape (num_layers, B, H) = {shape}, got {array.shape}{fix}")
        arrays.append(np.ascontiguousarray(array))
    return arrays[0], arrays[1]


def describe(value: Any) -> str:
    """A value in an error message: arrays by shape, sequences by length."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__


class PackedStack:
    """The packed weights of all layers and what they were made of; a class, so that no Parameter is found in it."""

    __slots__ = ("for_training", "layers", "made_of", "parameters")

    def __init__(self, parameters: list[dict[str, Parameter | None]], for_training: bool) -> None:
        self.parameters = parameters  # of each layer, by attribute
        self.made_of = [(name, p, p.version) for layer in parameters for name, p in layer.items() if p is not None]
        self.layers = [
            core.pack_lstm(*(None if p is None else p.value for p in layer.values()), for_training)
            for layer in parameters
        ]
        self.for_training = for_training

    def is_current(self, parameters: dict[str, Any], training: bool) -> bool:
        """Whether the weights and the instruction set are still the same, and training finds what it needs."""
        for name, parameter, version in self.made_of:
            if parameter.version != version or parameters.get(name) is not parameter:
                return False
        return (self.for_training or not training) and self.layers[0].current


class LSTM(Layer):
    r"""Long short-term memory, one or more layers over whole sequences.

    For each step, with ``*`` elementwise:

    .. math::

        i, f, o &= \sigma(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) \\
        g &= \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) \\
        c_t &= f * c_{t-1} + i * g \\
        h_t &= o * \tanh(c_t)

    each gate with its own rows of the weights, in the order i, f, g, o.

    Parameters
    ----------
    input_size : int
        I, features of each step of the input.
    hidden_size : int
        H, units of each layer.
    num_layers : int
        Layers on top of each other: each reads the output of the one below.
    bias : bool
        False leaves both biases out.
    double_bias : bool
        PyTorch's two biases, ``bias_ih`` and ``bias_hh``; False keeps ``bias_ih`` alone. Only their sum matters, but
        with two, an optimiser moves it twice as fast.
    time_major : bool
        Arrays are (T, B, I) and (T, B, H) instead of (B, T, I) and (B, T, H).
    return_sequences : bool
        False gives the last output only, (B, H).
    forget_bias : float or None
        Initial bias of the forget gate, written once: ``bias_ih`` holds it and ``bias_hh`` zero there. None draws it
        like the others. Of no effect without bias.
    dtype : float32 or float64
    rng : numpy.random.Generator, int or None
        Draws the initial weights, uniform on [-1/sqrt(H), 1/sqrt(H)) as in PyTorch; None is what ``fa.seed`` seeds.

    Attributes
    ----------
    weight_ih_l0 : Parameter, (4H, I)
        Further layers: ``weight_ih_l1`` (4H, H) and so on. Names, shapes and order of gates are PyTorch's.
    weight_hh_l0 : Parameter, (4H, H)
    bias_ih_l0, bias_hh_l0 : Parameter, (4H,)

    Notes
    -----
    The cell is that of Hochreiter and Schmidhuber (1997, Neural Computation 9(8)) with the forget gate of Gers,
    Schmidhuber and Cummins (2000, Neural Computation 12(10)); a forget bias of 1 follows Jozefowicz, Zaremba and
    Sutskever (2015, ICML).

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.LSTM(3, 8, rng=0)
    >>> x = np.ones((2, 5, 3), np.float32)  # (B, T, I)
    >>> layer(x).shape
    (2, 5, 8)
    >>> y, backward = layer.forward(x)
    >>> dx = backward(np.ones_like(y))
    >>> dx.shape, layer.weight_hh_l0.grad.shape
    ((2, 5, 3), (32, 8))
    >>> h, c = backward.state  # final state, each (num_layers, B, H)
    >>> bool((h[0] == y[:, -1]).all())
    True
    """

    stateful = True
    _transient = ("_packed",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        double_bias: bool = True,
        time_major: bool = False,
        return_sequences: bool = True,
        forget_bias: float | None = 1.0,
        dtype: npt.DTypeLike = np.float32,
        rng: init.Rng = None,
    ) -> None:
        self.input_size = as_size(input_size, "input_size")
        self.hidden_size = as_size(hidden_size, "hidden_size")
        self.num_layers = as_size(num_layers, "num_layers")
        self.bias = bool(bias)
        self.double_bias = bool(double_bias)
        self.time_major = bool(time_major)
        self.return_sequences = bool(return_sequences)
        try:
            if forget_bias is not None and not math.isfinite(forget_bias):
                raise ValueError(f"forget_bias: expected a finite number or None, got {forget_bias!r}")
        except TypeError:
            raise TypeError(f"forget_bias: expected a finite number or None, got {forget_bias!r}") from None
        self.forget_bias = None if forget_bias is None else float(forget_bias)
        self.dtype = as_dtype(dtype)
        self._packed: PackedStack | None = None
        rng = init.generator(rng)
        H = self.hidden_size
        for layer in range(self.num_layers):
            for name, shape in self._shapes(layer).items():
                if shape is None:
                    continue
                value = init.fan_in_uniform(shape, H, self.dtype, rng)
                if len(shape) == 1 and self.forget_bias is not None:
                    value[H : 2 * H] = self.forget_bias if name.startswith("bias_ih") else 0
                self.add_parameter(name, value)

    # -- weights --------------------------------------------------------------------------------------------------

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...] | None]:
        """Shapes of a layer's parameters by name, in the order that the core takes them; None for one that is not."""
        rows = 4 * self.hidden_size
        return {
            f"weight_ih_l{layer}": (rows, self.hidden_size if layer else self.input_size),
            f"weight_hh_l{layer}": (rows, self.hidden_size),
            f"bias_ih_l{layer}": (rows,) if self.bias else None,
            f"bias_hh_l{layer}": (rows,) if self.bias and self.double_bias else None,
        }

    def _parameters_of(self, layer: int) -> dict[str, Parameter | None]:
        """The parameters in the order of ``_shapes``; a shared one, put there by the user, must fit as well."""
        found: dict[str, Parameter | None] = {}
        for name, shape in self._shapes(layer).items():
            parameter = None if shape is None else getattr(self, name, None)
            if shape is not None and not (
                isinstance(parameter, Parameter) and parameter.shape == shape and parameter.dtype == self.dtype
            ):
                raise ValueError(f"{name}: expected a Parameter of shape {shape} and {self.dtype}, got {parameter!r}")
            found[name] = parameter
        return found

    def _pack(self, training: bool) -> PackedStack:
        """Packed weights of all layers, made anew when a parameter's version or the instruction set has changed."""
        packed = self._packed  # one read: another thread may replace it
        if packed is None or not packed.is_current(self.__dict__, training):
            parameters = [self._parameters_of(layer) for layer in range(self.num_layers)]
            packed = self._packed = PackedStack(parameters, training)
        return packed

    def adapt_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """With ``double_bias=False``, both biases of a state dict add up to the one that is kept."""
        if self.bias and not self.double_bias:
            for layer in range(self.num_layers):
                first, second = f"bias_ih_l{layer}", f"bias_hh_l{layer}"
                if first in state and second in state:
                    other = as_floats(state.pop(second), self.dtype, f"state[{second!r}]")
                    state[first] = as_floats(state[first], self.dtype, f"state[{first!r}]") + other
        return state

    # -- computing ------------------------------------------------------------------------------------------------

    def _input(self, x: Any) -> tuple[Array, int, tuple[int, ...]]:
        """x checked, the batch size and the shape of y."""
        if x.__class__ is not np.ndarray or x.dtype is not self.dtype:
            x = as_floats(x, self.dtype, "x")
        shape = x.shape
        if len(shape) != 3 or shape[2] != self.input_size:
            axes = "(T, B, I)" if self.time_major else "(B, T, I)"
            fix = ""
            if len(shape) == 2 and shape[1] == self.input_size:
                fix = "; add the batch axis: x[:, None]" if self.time_major else "; add the batch axis: x[None]"
            raise ValueError(f"x: expected shape {axes} with I = {self.input_size}, got {shape}{fix}")
        batch = shape[1] if self.time_major else shape[0]
        return x, batch, (shape[0], shape[1], self.hidden_size) if self.return_sequences else (batch, self.hidden_size)

    def __call__(self, x: npt.ArrayLike, /, state: Any = None) -> Array:
        """Outputs of the last layer at all steps. Nothing is kept.

        Parameters
        ----------
        x : array of shape (B, T, I), or (T, B, I) if ``time_major``
        state : (h, c), optional
            Initial state, each of shape (num_layers, B, H); zero without.

        Returns
        -------
        y : array of shape (B, T, H) or (T, B, H); (B, H) without ``return_sequences``

        Raises
        ------
        ValueError, TypeError
            If x or state do not fit.
        """
        x, batch, shape = self._input(x)
        h0, c0 = check_state(state, "state", (self.num_layers, batch, self.hidden_size), self.dtype)
        y = core.empty(shape, self.dtype)
        core.lstm_forward(
            self._pack(False).layers, x, y, h0, c0, None, None, self.time_major, self.return_sequences, False
        )
        return y

    def run(self, x: npt.ArrayLike, state: Any = None) -> RunResult:
        """Inference that also gives the final state.

        Parameters
        ----------
        x, state
            As in a plain call.

        Returns
        -------
        RunResult
            With ``y`` and ``state``, which continues the sequence: ``layer.run(more, state=result.state)``.
        """
        x, batch, shape = self._input(x)
        state_shape = (self.num_layers, batch, self.hidden_size)
        h0, c0 = check_state(state, "state", state_shape, self.dtype)
        y, h, c = core.empty(shape, self.dtype), np.empty(state_shape, self.dtype), np.empty(state_shape, self.dtype)
        core.lstm_forward(self._pack(False).layers, x, y, h0, c0, h, c, self.time_major, self.return_sequences, False)
        return RunResult(y, (h, c))

    def forward(self, x: npt.ArrayLike, /, state: Any = None) -> tuple[Array, LSTMBackward]:  # type: ignore[override]
        """Outputs in training mode and their backward pass.

        Parameters
        ----------
        x, state
            As in a plain call. x must not be written before backward has run.

        Returns
        -------
        y : array
        backward : LSTMBackward
            ``dx = backward(dy, dstate=None)``; ``backward.state``, ``backward.dstate``.
        """
        x, batch, shape = self._input(x)
        state_shape = (self.num_layers, batch, self.hidden_size)
        h0, c0 = check_state(state, "state", state_shape, self.dtype)
        y, h, c = core.empty(shape, self.dtype), np.empty(state_shape, self.dtype), np.empty(state_shape, self.dtype)
        packed = self._pack(True)
        tape = core.lstm_forward(packed.layers, x, y, h0, c0, h, c, self.time_major, self.return_sequences, True)
        parameters = packed.parameters

        def run(dy: Array | None, dh: Array | None, dc: Array | None, input_gradient: bool) -> Any:
            dx = core.empty(x.shape, self.dtype) if input_gradient else None
            dh0, dc0 = np.empty(state_shape, self.dtype), np.empty(state_shape, self.dtype)
            gradients = [tuple(None if p is None else p.grad for p in layer.values()) for layer in parameters]
            core.lstm_backward(tape, dy, dh, dc, dx, dh0, dc0, gradients)
            return dx, (dh0, dc0)

        return y, LSTMBackward(run, shape, self.dtype, (h, c))
