"""What all recurrent layers share: stacks, directions, dropout between layers, the calls.

A layer of the stack runs once a direction, each a pass of the compiled core over its sequences; here the passes are put
together. How sequences lie in arrays is ``sequences.py``'s, the forms of a state are ``states.py``'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._activations import Activation, as_activation
from fastact._arguments import Array, as_dtype, as_floats, as_number, as_size
from fastact._core import recurrent as core
from fastact._core.workspace import empty
from fastact.nn.base import Backward, Layer, RunResult
from fastact.nn.dropout import dropout_mask
from fastact.nn.parameter import Parameter
from fastact.nn.sequences import EQUAL, Equal, Ragged, as_lengths
from fastact.nn.states import Layers, States, part
from fastact.nn.streams import RecurrentStream

MERGES = ("concat", "sum", "mean", "none")
PRECISIONS = ("bfloat16", "int8")

_scratch = partial(empty, pooled=1)  # between two layers: of any size handed out again at the next call


class RecurrentBackward(Backward):
    """The backward pass of one call of a recurrent layer's ``forward``, single use.

    Attributes
    ----------
    state
        Final state of the forward pass, in the form that ``state=`` takes.
    dstate
        Gradient of the initial state, same form; there after the call.
    """

    __slots__ = ("_batch", "_states", "dstate", "state")

    def __init__(
        self,
        run: Callable[..., Any],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        states: States,
        state: Any,
        batch: int,
    ) -> None:
        super().__init__(run, shape, dtype)
        self.state = state
        self.dstate: Any = None
        self._states = states
        self._batch = batch

    def __call__(  # type: ignore[override]
        self, dy: npt.ArrayLike | None, dstate: Any = None, *, input_gradient: bool = True
    ) -> Any:
        """Gradient of x for the gradient of y and of the final state; parameter gradients add up in ``grad``.

        Parameters
        ----------
        dy : array of the shape of y, or None
            None means zero: only the final state was used.
        dstate : optional
            Gradient of the final state, in the form of ``state``.
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
        final = None if dstate is None else self._states.check(dstate, "dstate", self._batch)
        dx, self.dstate = self._begin()(dy, final, input_gradient)
        return dx


@dataclass(frozen=True, slots=True)
class InferenceWeights:
    """How precise the weights of inference are; a pack sees by it, as by a Parameter, when it is out of date."""

    precision: str | None
    version: int = 0


class PackedStack:
    """The packed weights of all layers and what they were made of; a class, so that no Parameter is found in it."""

    __slots__ = ("cells", "for_training", "made_of", "parameters")

    def __init__(
        self,
        cell: core.Cell,
        parameters: list[list[dict[str, Parameter | None]]],
        for_training: bool,
        weights: InferenceWeights,
    ) -> None:
        self.parameters = parameters  # by layer and direction, by attribute
        self.made_of: list[tuple[str, Parameter | InferenceWeights, int]] = [
            (name, p, p.version) for layer in parameters for w in layer for name, p in w.items() if p is not None
        ]
        self.made_of.append(("_weights", weights, weights.version))
        precision = None if for_training else weights.precision
        self.cells = [
            [
                core.pack_cell(cell, for_training, precision, *(None if p is None else p.value for p in w.values()))
                for w in layer
            ]
            for layer in parameters
        ]
        self.for_training = for_training

    def is_current(self, parameters: dict[str, Any], training: bool) -> bool:
        """Whether the weights and the instruction set are still the same, and training finds what it needs."""
        fits = (self.for_training or not training) and self.cells[0][0].current
        return fits and core.unchanged(self.made_of, parameters)


class Recurrent(Layer):
    """A stack of recurrent layers, each in one or both directions. Subclasses are LSTM and its kin."""

    stateful = True
    takes_lengths = True
    _transient = ("_packed", "_rounded", "_cell")
    _letters: str  # of the state
    _blocks = 1  # of H rows in the weights
    _biases_add_up = True  # one bias can stand for both

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int,
        *,
        bias: bool,
        double_bias: bool,
        bidirectional: bool,
        merge: str,
        reverse: bool,
        dropout: float,
        recurrent_dropout: float,
        zoneout: float,
        clip: float | None,
        layer_norm: bool,
        layer_norm_eps: float,
        time_major: bool,
        return_sequences: bool,
        inference_weights: str | None,
        dtype: npt.DTypeLike,
        rng: init.Rng,
        cell_zoneout: float = 0.0,
        projection_size: int | None = None,
    ) -> None:
        self.input_size = as_size(input_size, "input_size")
        self.num_layers = as_size(num_layers, "num_layers")
        self.hidden_size: int | list[int]
        if isinstance(hidden_size, (list, tuple)):
            self.hidden_sizes = tuple(as_size(h, f"hidden_size[{n}]") for n, h in enumerate(hidden_size))
            self.hidden_size = list(self.hidden_sizes)
            if not self.hidden_sizes or self.num_layers not in (1, len(self.hidden_sizes)):
                raise ValueError(
                    f"hidden_size: expected one size for each of the {self.num_layers} layers, "
                    f"got {len(self.hidden_sizes)}; leave num_layers out"
                )
            self.num_layers = len(self.hidden_sizes)
        else:
            self.hidden_size = as_size(hidden_size, "hidden_size")
            self.hidden_sizes = (self.hidden_size,) * self.num_layers
        self.projection_size = None if projection_size is None else as_size(projection_size, "projection_size")
        self.output_sizes = self.hidden_sizes  # of h in each layer
        if self.projection_size is not None:
            self.output_sizes = (self.projection_size,) * self.num_layers
        self.bias = bool(bias)
        self.double_bias = bool(double_bias)
        self.bidirectional = bool(bidirectional)
        self.reverse = bool(reverse)
        if self.bidirectional and self.reverse:
            raise ValueError("reverse: expected False for a bidirectional layer, which runs both ways; leave it out")
        if merge not in MERGES:
            raise ValueError(f"merge: expected one of {', '.join(MERGES)}, got {merge!r}")
        self.merge = merge
        self.dropout = as_number(dropout, "dropout", 0, 1)
        if self.dropout and self.num_layers == 1:
            raise ValueError(
                f"dropout: expected 0 for a single layer, got {dropout!r}: it acts between layers; use two or more"
            )
        self.recurrent_dropout = as_number(recurrent_dropout, "recurrent_dropout", 0, 1)
        self.zoneout = as_number(zoneout, "zoneout", 0, 1)
        self.cell_zoneout = as_number(cell_zoneout, "cell_zoneout", 0, 1)
        self.clip = None if clip is None else as_number(clip, "clip", 0, above=True)
        self.layer_norm = bool(layer_norm)
        self.layer_norm_eps = as_number(layer_norm_eps, "layer_norm_eps", 0, above=True)
        self.time_major = bool(time_major)
        self.return_sequences = bool(return_sequences)
        self.dtype = as_dtype(dtype)
        self.rng = None if rng is None else init.generator(rng)
        sizes = {letter: self.output_sizes if letter == "h" else self.hidden_sizes for letter in self._letters}
        self._states = States(sizes, self._directions, self.dtype)
        self._features = (2, self.output_sizes[-1]) if self.bidirectional and merge == "none" else (self._width(-1),)
        masked = self.recurrent_dropout or self.zoneout or self.cell_zoneout
        ways = self.bidirectional or self.reverse
        self._single = self.num_layers == 1 and not ways and self.return_sequences and not masked
        self._cell: core.Cell | None = None
        self._packed: PackedStack | None = None
        self._rounded: PackedStack | None = None  # of inference_weights
        self.inference_weights = inference_weights
        self._add_weights(init.generator(self.rng))

    # -- weights --------------------------------------------------------------------------------------------------

    def _cell_shapes(self, inputs: int, hidden: int) -> dict[str, tuple[int, ...] | None]:
        """Shapes of a cell's parameters by name, in the order that the core takes them; None for one that is not."""
        rows = self._blocks * hidden
        return {
            "weight_ih": (rows, inputs),
            "weight_hh": (rows, hidden if self.projection_size is None else self.projection_size),
            "bias_ih": (rows,) if self.bias else None,
            "bias_hh": (rows,) if self.bias and self.double_bias else None,
            "weight_norm_ih": (rows,) if self.layer_norm else None,
            "weight_norm_hh": (rows,) if self.layer_norm else None,
            "weight_norm_c": None,
            "bias_norm_c": None,
        }

    def _make_cell(self) -> core.Cell:
        """What the core does between the products."""
        raise NotImplementedError

    @property
    def _norm_eps(self) -> float:
        """As the core takes it."""
        return self.layer_norm_eps if self.layer_norm else 0.0

    def _gate_values(self, tape: core.Tape) -> dict[str, Array]:
        """The gates of a pass at every step by letter."""
        raise ValueError(f"gates: expected False, as {type(self).__name__} has no gates; y holds its states")

    def _initial(self, name: str, shape: tuple[int, ...], hidden: int, rng: np.random.Generator) -> Array:
        if "_norm_" in name:
            return np.full(shape, name.startswith("weight"), self.dtype)
        return init.fan_in_uniform(shape, hidden, self.dtype, rng)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 3 or shape[2] != self.input_size:
            axes = "(T, B, I)" if self.time_major else "(B, T, I)"
            raise ValueError(f"x: expected shape {axes} with I = {self.input_size}, got {shape}")
        rows = shape[:2] if self.return_sequences else shape[1:2] if self.time_major else shape[:1]
        return (*rows, *self._features)

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _width(self, layer: int) -> int:
        """Features that a layer puts out."""
        return self.output_sizes[layer] * (self._directions if self.merge in ("concat", "none") else 1)

    def _shapes(self, layer: int, direction: int) -> dict[str, tuple[int, ...] | None]:
        """``_cell_shapes`` under the names of the attributes."""
        suffix = f"_l{layer}_reverse" if direction else f"_l{layer}"
        shapes = self._cell_shapes(self._width(layer - 1) if layer else self.input_size, self.hidden_sizes[layer])
        return {name + suffix: shape for name, shape in shapes.items()}

    def _add_weights(self, rng: np.random.Generator) -> None:
        for layer, hidden in enumerate(self.hidden_sizes):
            for direction in range(self._directions):
                for name, shape in self._shapes(layer, direction).items():
                    if shape is not None:
                        self.add_parameter(name, self._initial(name, shape, hidden, rng))

    def _parameters_of(self, layer: int, direction: int) -> dict[str, Parameter | None]:
        """The parameters in the order of ``_shapes``; a shared one, put there by the user, must fit as well."""
        found: dict[str, Parameter | None] = {}
        for name, shape in self._shapes(layer, direction).items():
            parameter = None if shape is None else getattr(self, name, None)
            if shape is not None and not (
                isinstance(parameter, Parameter) and parameter.shape == shape and parameter.dtype == self.dtype
            ):
                raise ValueError(f"{name}: expected a Parameter of shape {shape} and {self.dtype}, got {parameter!r}")
            found[name] = parameter
        return found

    @property
    def inference_weights(self) -> str | None:
        """How the weights are rounded in inference: "bfloat16", "int8", or None for not at all."""
        return self._weights.precision

    @inference_weights.setter
    def inference_weights(self, precision: str | None) -> None:
        if precision is not None and precision not in PRECISIONS:
            raise ValueError(
                f"inference_weights: expected {', '.join(PRECISIONS)} or None, got {precision!r}; None keeps float32"
            )
        if precision is not None and self.dtype != np.float32:
            raise ValueError(
                f"inference_weights: expected None for a layer of {self.dtype}, got {precision!r}: rounded weights "
                "are for speed; make the layer with dtype=np.float32"
            )
        self._weights = InferenceWeights(precision)
        self._packed = self._rounded = None

    def _pack(self, training: bool) -> PackedStack:
        """Packed weights of all layers, made anew when a parameter's version or the instruction set has changed."""
        weights = self._weights
        rounded = weights.precision is not None and not training
        packed = self._rounded if rounded else self._packed  # one read: another thread may replace it
        if packed is None or not packed.is_current(self.__dict__, training):
            parameters = [
                [self._parameters_of(layer, direction) for direction in range(self._directions)]
                for layer in range(self.num_layers)
            ]
            if self._cell is None:
                self._cell = self._make_cell()
            packed = PackedStack(self._cell, parameters, training, weights)
            if rounded:
                self._rounded = packed
            else:
                self._packed = packed
        return packed

    def adapt_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """With ``double_bias=False``, both biases of a state dict add up to the one that is kept."""
        if self.bias and not self.double_bias and self._biases_add_up:
            for first in [name for name in state if name.startswith("bias_ih_l")]:
                second = first.replace("_ih_", "_hh_")
                if second in state:
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
        if self.return_sequences:
            return x, batch, (shape[0], shape[1], *self._features)
        return x, batch, (batch, *self._features)

    def __call__(self, x: npt.ArrayLike, /, state: Any = None, lengths: npt.ArrayLike | None = None) -> Array:
        """Outputs of the last layer at all steps. Nothing is kept.

        Parameters
        ----------
        x : array of shape (B, T, I), or (T, B, I) if ``time_major``
        state : optional
            Initial state: zero without. See the class for its form.
        lengths : integers of shape (B,), optional
            Steps of each sequence, 1 to T. Steps beyond are not computed: y is zero there, and the final state of a
            sequence is that of its last step. Backwards, a sequence begins at its own end.

        Returns
        -------
        y : array of shape (B, T, H) or (T, B, H); (B, H) without ``return_sequences``
            2H features where two directions are concatenated.

        Raises
        ------
        ValueError, TypeError
            If x, state or lengths do not fit.
        """
        x, batch, shape = self._input(x)
        if state is not None:
            state = self._states.check(state, "state", batch)
        if lengths is None and self._single:
            return self._run_single(x, shape, state, None, self._pack(False), False)[0]
        return self._run(x, batch, shape, state, lengths, self._pack(False))[0]

    def run(
        self,
        x: npt.ArrayLike,
        state: Any = None,
        lengths: npt.ArrayLike | None = None,
        *,
        all_cells: bool = False,
        gates: bool = False,
    ) -> RunResult:
        """Inference that also gives the final state, and on request what went on inside.

        Parameters
        ----------
        x, state, lengths
            As in a plain call.
        all_cells : bool
            The cell states of all layers after every step, for those that have one.
        gates : bool
            The gates of all layers at every step.

        Returns
        -------
        RunResult
            With ``y`` and ``state``, which continues the sequence: ``layer.run(more, state=result.state)``; ``cells``
            of shape (layers x directions, B, T, H), or (layers x directions, T, B, H) if ``time_major``; ``gates``, a
            dict of such arrays by the gate's letter. Layers of different sizes give a tuple of one array a layer.
        """
        x, batch, shape = self._input(x)
        states = self._states
        if all_cells and "c" not in self._letters:
            raise ValueError(
                f"all_cells: expected False, as {type(self).__name__} has no cell state; y holds its states"
            )
        initial = states.check(state, "state", batch)
        final = states.new(batch)
        y, sequences, tapes, _ = self._run(
            x, batch, shape, initial, lengths, self._pack(False), final, tapes_wanted=all_cells or gates
        )
        result = RunResult(y, states.public(sequences.unsort(final)))

        def joined(layers: list[list[Array]]) -> Any:
            return states.joined([np.stack(directions) for directions in layers])

        if all_cells:
            result.cells = joined(
                [
                    [self._traced(tape.sequence(1), sequences, x.shape[:2], d) for d, tape in enumerate(layer)]
                    for layer in tapes
                ]
            )
        if gates:
            values = [
                [
                    {k: self._traced(a, sequences, x.shape[:2], d) for k, a in self._gate_values(tape).items()}
                    for d, tape in enumerate(layer)
                ]
                for layer in tapes
            ]
            result.gates = {k: joined([[each[k] for each in layer] for layer in values]) for k in values[0][0]}
        return result

    def _traced(self, a: Array, sequences: Equal | Ragged, shape: tuple[int, ...], direction: int) -> Array:
        """What a pass left at every step, in the user's layout."""
        if self.reverse or direction == 1:
            a = sequences.mirror(a)
        if isinstance(sequences, Equal):
            return sequences.pack(a)  # the same axes the other way round
        out = np.empty((*shape, a.shape[-1]), self.dtype)
        sequences.unpack(a, out)
        return out

    def stream(self, batch_size: int = 1, state: Any = None) -> RecurrentStream:
        """This layer one time step at a time: ``stream.step(x)`` takes x of shape (B, I) and gives h of (B, H).

        The same bits as a call with the whole sequence; no memory is taken after this. Dropout does not act, as in
        any inference, nor do ``time_major`` and ``return_sequences``.

        Parameters
        ----------
        batch_size : int
            B, the number of sequences that go side by side.
        state : optional
            Initial state: zero without. See the class for its form.

        Returns
        -------
        RecurrentStream
            With ``step(x, out=None)``, ``reset()`` and ``state``.

        Raises
        ------
        ValueError
            If the layer runs backwards, or state does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> import fastact as fa
        >>> layer = fa.nn.LSTM(3, 8, num_layers=2, rng=0)
        >>> x = np.random.default_rng(0).normal(size=(1, 5, 3)).astype(np.float32)
        >>> stream = layer.stream()
        >>> y = [stream.step(x[:, t]).copy() for t in range(5)]
        >>> bool((np.stack(y, axis=1) == layer(x)).all())
        True
        """
        if self.bidirectional or self.reverse:
            option = "bidirectional" if self.bidirectional else "reverse"
            raise ValueError(
                f"{option}: expected False for a stream, got True: the way back begins at the last step, which a "
                "stream does not have yet; call the layer with stretches of the sequence instead"
            )
        return RecurrentStream(self, batch_size, state)

    def forward(
        self, x: npt.ArrayLike, /, state: Any = None, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, RecurrentBackward]:
        """Outputs in training mode, dropout included, and their backward pass.

        Parameters
        ----------
        x, state, lengths
            As in a plain call. x must not be written before backward has run.

        Returns
        -------
        y : array
        backward : RecurrentBackward
            ``dx = backward(dy, dstate=None)``; ``backward.state``, ``backward.dstate``.
        """
        x, batch, shape = self._input(x)
        states = self._states
        initial = states.check(state, "state", batch)
        packed = self._pack(True)
        if lengths is None and self._single:
            return self._forward_single(x, batch, shape, initial, packed)
        final = states.new(batch)
        y, sequences, tapes, masks = self._run(x, batch, shape, initial, lengths, packed, final, training=True)

        def run(dy: Array | None, dfinal: list[Layers] | None, input_gradient: bool) -> Any:
            dinitial = states.new(batch)
            dx = empty(x.shape, self.dtype) if input_gradient else None
            self._run_backward(dy, dfinal, dx, dinitial, sequences, tapes, masks, packed.parameters)
            return dx, states.public(sequences.unsort(dinitial))

        return y, RecurrentBackward(run, y.shape, self.dtype, states, states.public(sequences.unsort(final)), batch)

    # A single layer over equal sequences in one direction: nothing to put together. What is around the core is 3 to 5
    # us less than by ``_run``: a fifth of a step at (100, 1, 32, 32).

    def _run_single(
        self,
        x: Array,
        shape: tuple[int, ...],
        initial: list[Layers] | None,
        final: tuple[Array, ...] | None,
        packed: PackedStack,
        training: bool,
    ) -> tuple[Array, Any]:
        """y and the tape."""
        y = empty(shape, self.dtype)
        begin = None if initial is None else part(initial, 0, 0)
        return y, core.forward_pass(packed.cells[0][0], x, y, begin, final, None, training, self.time_major)

    def _forward_single(
        self, x: Array, batch: int, shape: tuple[int, ...], initial: list[Layers] | None, packed: PackedStack
    ) -> tuple[Array, RecurrentBackward]:
        states, dtype = self._states, self.dtype
        final = states.new_single(batch)
        y, tape = self._run_single(x, shape, initial, final, packed, True)

        def run(dy: Array | None, dfinal: list[Layers] | None, input_gradient: bool) -> Any:
            dx = empty(x.shape, dtype) if input_gradient else None
            dinitial = states.new_single(batch)
            end = None if dfinal is None else part(dfinal, 0, 0)
            core.backward_pass(tape, dy, end, dx, False, dinitial, gradients_of(packed.parameters[0][0]))
            return dx, states.public_single(dinitial)

        return y, RecurrentBackward(run, shape, dtype, states, states.public_single(final), batch)

    def _run(
        self,
        x: Array,
        batch: int,
        shape: tuple[int, ...],
        initial: list[Layers] | None,
        lengths: npt.ArrayLike | None,
        packed: PackedStack,
        final: list[Layers] | None = None,
        training: bool = False,
        tapes_wanted: bool = False,
    ) -> tuple[Array, Equal | Ragged, list[list[Any]], list[Array | None]]:
        """y, the form of the sequences, and of each layer its tapes and the mask of its dropout.

        ``final`` is filled, in the order of the sequences.
        """
        sequences: Equal | Ragged = EQUAL[self.time_major]
        if lengths is not None:
            steps = x.shape[0] if self.time_major else x.shape[1]
            lengths = as_lengths(lengths, batch, steps)
            if batch and lengths.min() < steps:
                sequences = Ragged(lengths, steps, self.time_major)
        keep = training or tapes_wanted
        if final is None and not self.return_sequences:
            final = self._states.new(batch)
        if initial is not None:
            initial = sequences.sort(initial)
        y = empty(shape, self.dtype) if self.return_sequences else None
        inner = sequences.pack(x)
        rows = inner.shape[:-1]
        tapes: list[list[Any]] = []
        masks: list[Array | None] = []
        for n, cells in enumerate(packed.cells):
            P, last = self.output_sizes[n], n == self.num_layers - 1
            merged = len(cells) == 2 and self.merge in ("sum", "mean")
            direct = last and y is not None and isinstance(sequences, Equal) and not merged
            kept = keep and len(cells) == 1 and not last  # the next layer reads the states where they are
            out: Array | None = None
            if direct:
                assert y is not None
                out = sequences.pack(flat(y))
            elif not kept and not (last and y is None):
                out = _scratch((*rows, len(cells) * P), self.dtype)
            tapes.append([])
            for d, cell in enumerate(cells):
                backwards = self.reverse or d == 1
                place = None if out is None else out[..., d * P : d * P + P]
                into = place
                if backwards and place is not None:
                    into = place[::-1] if isinstance(sequences, Equal) else _scratch(place.shape, self.dtype)
                seen = sequences.mirror(inner) if backwards else inner
                tape = core.forward_pass(
                    cell,
                    seen,
                    into,
                    part(initial, n, d),
                    part(final, n, d),
                    sequences.starts,
                    keep,
                    masks=self._cell_masks(n, batch, rows) if training else None,
                )
                if backwards and isinstance(sequences, Ragged) and into is not None:
                    place[...] = sequences.mirror(into)  # type: ignore[index]
                tapes[-1].append(tape)
            if kept:
                out = tapes[-1][0].sequence()
                out = sequences.mirror(out) if self.reverse else out
            if merged and out is not None:
                to = sequences.pack(y) if last and isinstance(sequences, Equal) and y is not None else None
                out = np.add(out[..., :P], out[..., P:], out=to)
                if self.merge == "mean":
                    out *= 0.5
            masks.append(None)
            if not last:
                assert out is not None
                inner = out
                if self.dropout and training:
                    masks[-1] = mask = self._drawn(out.shape, self.dropout, 1 / (1 - self.dropout))
                    inner = out * mask
            elif y is not None and isinstance(sequences, Ragged):
                assert out is not None
                sequences.unpack(out, y)
        if y is None:
            assert final is not None
            y = self._merge_final(sequences.unsort(final)[0][-1], shape)
        return y, sequences, tapes, masks

    def _drawn(self, shape: tuple[int, ...], probability: float, scale: float = 1) -> Array:
        """0 with this probability, else ``scale``."""
        return dropout_mask(shape, probability, self.dtype, self.rng, scale)

    def _cell_masks(self, layer: int, batch: int, rows: tuple[int, ...]) -> core.Masks | None:
        """What one pass of training draws; h has the shape (*rows, P) at all steps."""
        P, H = self.output_sizes[layer], self.hidden_sizes[layer]
        drop = take_h = take_c = None
        if self.recurrent_dropout:
            drop = self._drawn((batch, P), self.recurrent_dropout, 1 / (1 - self.recurrent_dropout))
        if self.zoneout:
            take_h = self._drawn((*rows, P), self.zoneout)
        if self.cell_zoneout:
            take_c = self._drawn((*rows, H), self.cell_zoneout)
        return None if drop is None and take_h is None and take_c is None else (drop, take_h, take_c)

    def _merge_final(self, h: Array, shape: tuple[int, ...]) -> Array:
        """The output without ``return_sequences``: the last layer's final h (directions, B, H), merged."""
        if self._directions == 1:
            return h[0].copy()
        if self.merge in ("concat", "none"):
            return h.swapaxes(0, 1).reshape(shape)
        return h.sum(0) if self.merge == "sum" else h.mean(0, dtype=self.dtype)

    def _run_backward(
        self,
        dy: Array | None,
        dfinal: list[Layers] | None,
        dx: Array | None,
        dinitial: list[Layers],
        sequences: Equal | Ragged,
        tapes: list[list[Any]],
        masks: list[Array | None],
        parameters: list[list[dict[str, Parameter | None]]],
    ) -> None:
        """Backward of ``_run``; ``dx`` and ``dinitial`` are filled, the latter in the order of the sequences."""
        if not self.return_sequences and dy is not None:
            dfinal = self._split_final(dy, dfinal)
            dy = None
        if dfinal is not None:
            dfinal = sequences.sort(dfinal)
        d = None if dy is None else sequences.pack(flat(dy))
        for n in reversed(range(self.num_layers)):
            P, merged = self.output_sizes[n], self.bidirectional and self.merge in ("sum", "mean")
            mask = masks[n]
            if mask is not None:
                assert d is not None
                d *= mask
            if merged and self.merge == "mean" and d is not None:
                d = d * self.dtype.type(0.5)
            into: Array | None = None
            if n > 0:
                into = _scratch((*tapes[n][0].x.shape[:-1], self._width(n - 1)), self.dtype)
            elif dx is not None:
                into = sequences.pack(dx) if isinstance(sequences, Equal) else np.empty(tapes[n][0].x.shape, self.dtype)
            for direction, tape in enumerate(tapes[n]):
                backwards = self.reverse or direction == 1
                of_y = d if d is None or merged else d[..., direction * P : direction * P + P]
                if backwards and of_y is not None:
                    of_y = sequences.mirror(of_y)
                target, adds = into, direction == 1
                if backwards and into is not None:
                    if isinstance(sequences, Equal):
                        target = into[::-1]
                    else:
                        target, adds = _scratch(into.shape, self.dtype), False
                gradients = gradients_of(parameters[n][direction])
                core.backward_pass(
                    tape, of_y, part(dfinal, n, direction), target, adds, part(dinitial, n, direction), gradients
                )
                if backwards and isinstance(sequences, Ragged) and into is not None:
                    assert target is not None
                    if direction == 1:
                        into += sequences.mirror(target)
                    else:
                        into[...] = sequences.mirror(target)
            d = into
        if dx is not None and isinstance(sequences, Ragged):
            assert d is not None
            sequences.unpack(d, dx)

    def _split_final(self, dy: Array, dfinal: list[Layers] | None) -> list[Layers]:
        """dy, the gradient of the final h of the last layer, added to that of the final state."""
        P, D = self.output_sizes[-1], self._directions
        of_h = np.empty((D, len(dy), P), self.dtype)
        if D == 1 or self.merge in ("sum", "mean"):
            of_h[:] = dy if D == 1 or self.merge == "sum" else dy * self.dtype.type(0.5)
        else:
            of_h[:] = dy.reshape(len(dy), D, P).swapaxes(0, 1)
        if dfinal is None:
            zeros = self._states.zeros(len(dy))
            zeros[0][-1] = of_h
            return zeros
        return [[*dfinal[0][:-1], dfinal[0][-1] + of_h], *dfinal[1:]]


def flat(y: Array) -> Array:
    """y, or dy, with the features of both directions on one axis."""
    return y if y.ndim == 3 else y.reshape(*y.shape[:2], y.shape[2] * y.shape[3])


def bound(clip: float | None) -> float:
    """As the core takes it."""
    return math.inf if clip is None else clip


def gate_value(function: Activation, kept: Array, clip: float | None) -> Array:
    """A gate from what the tape has of it: itself, or what goes into its activation."""
    if clip is not None:
        return function(kept.clip(-clip, clip))
    return kept if function.name in ("sigmoid", "tanh") else function(kept)


def gradients_of(parameters: dict[str, Parameter | None]) -> tuple[Array | None, ...]:
    """What a pass backward adds to; nothing where all is frozen."""
    if not any(p is not None and p.trainable for p in parameters.values()):
        return (None,) * len(parameters)
    return tuple([None if p is None else p.grad for p in parameters.values()])


def cell_function(name: str, spec: str | Activation) -> Activation:
    """An activation that can run inside a cell."""
    if spec is None:
        raise TypeError(f'{name}: expected a name or an Activation, got None; "linear" passes its input on')
    function = as_activation(spec)
    if function.index < 0:
        raise ValueError(
            f"{name}: expected an elementwise activation of the catalogue, got {function.name}: it runs inside the "
            "compiled cell"
        )
    return function
