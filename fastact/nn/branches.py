"""Layers side by side over one input: ``Residual``, ``Concatenate`` and ``Bidirectional``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact._arguments import Array, as_floats, as_real
from fastact.nn.base import Backward, Layer, RunResult
from fastact.nn.members import Members, each_state, pass_back, with_lengths
from fastact.nn.recurrent import Recurrent
from fastact.nn.sequences import as_lengths

MERGES = ("concat", "sum", "mean")


class BranchesBackward(Backward):
    """Backward of layers side by side.

    Attributes
    ----------
    state : tuple
        Final states of the recurrent branches, in order.
    dstate : tuple or None
        After the call: the gradients of their initial states.
    """

    __slots__ = ("dstate", "state")

    def __init__(self, run: Any, shape: tuple[int, ...], dtype: Any, state: tuple[Any, ...]) -> None:
        super().__init__(run, shape, dtype)
        self.state = state
        self.dstate: tuple[Any, ...] | None = None

    def __call__(self, dy: Any, input_gradient: bool = True, dstate: tuple[Any, ...] | None = None) -> Any:
        """Gradient of x for the gradient dy of y and, per recurrent branch, ``dstate`` of its final state."""
        dy = self._check(dy)
        pending = each_state(dstate, len(self.state), "dstate")
        dx, self.dstate = self._begin()(dy, input_gradient, pending)
        return dx


class Branches(Layer):
    """What they share: each branch is given x, and what comes out is joined, summed or averaged."""

    merge: str

    @property
    def branches(self) -> tuple[Layer, ...]:
        """The layers, as they are called."""
        raise NotImplementedError

    def _settle(self) -> None:
        """To be called when the branches are there."""
        for layer in self.branches:
            if not isinstance(layer, Layer):
                raise TypeError(f"{type(self).__name__}: expected layers, got {layer!r} of type {type(layer).__name__}")
        if self.merge not in MERGES:
            raise ValueError(f"merge: expected one of {', '.join(MERGES)}, got {self.merge!r}")
        self.stateful = any(layer.stateful for layer in self.branches)
        self.takes_lengths = any(layer.takes_lengths for layer in self.branches)

    def __call__(self, x: Any, /, lengths: npt.ArrayLike | None = None) -> Array:
        """y of the shape of x but for the last axis; ``lengths`` goes to the branches that take it."""
        self._refuse_lengths(lengths)
        return self._merged([layer(x, **with_lengths(layer, lengths)) for layer in self.branches])

    def run(self, x: Any, /, state: tuple[Any, ...] | None = None, lengths: npt.ArrayLike | None = None) -> RunResult:
        """Inference that takes and gives the states of the recurrent branches."""
        self._refuse_lengths(lengths)
        branches = self.branches
        states = iter(each_state(state, sum(layer.stateful for layer in branches)))
        found, final = [], []
        for layer in branches:
            if layer.stateful:
                result = layer.run(x, state=next(states), **with_lengths(layer, lengths))
                final.append(result.state)
                found.append(result.y)
            else:
                found.append(layer(x, **with_lengths(layer, lengths)))
        return RunResult(self._merged(found), tuple(final))

    def forward(
        self, x: Any, /, state: tuple[Any, ...] | None = None, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, BranchesBackward]:
        """y in training mode, and its backward.

        Parameters
        ----------
        x : array
        state : tuple or None
            One state for each recurrent branch; None is zeros.
        lengths : integers of shape (B,), optional
            Steps of each sequence, for the branches that take them.
        """
        self._refuse_lengths(lengths)
        branches = self.branches
        states = iter(each_state(state, sum(layer.stateful for layer in branches)))
        found: list[Array] = []
        backwards: list[Any] = []
        for layer in branches:
            more = with_lengths(layer, lengths)
            if layer.stateful:
                more["state"] = next(states)
            y, backward = layer.forward(x, **more)
            found.append(y)
            backwards.append(backward)
        y = self._merged(found)
        widths = [each.shape[-1] for each in found]
        final = tuple([b.state for layer, b in zip(branches, backwards, strict=True) if layer.stateful])

        def run(dy: Array, input_gradient: bool, dstate: Any) -> tuple[Any, tuple[Any, ...]]:
            dx, dinitial, pending = None, [], iter(dstate)
            for layer, backward, part in zip(branches, backwards, self._split(dy, widths), strict=True):
                more = {"dstate": next(pending)} if layer.stateful else {}
                d = pass_back(backward, part, input_gradient, **more)
                if layer.stateful:
                    dinitial.append(backward.dstate)
                dx = d if dx is None else dx if d is None else dx + d
            return (dx if input_gradient else None), tuple(dinitial)

        return y, BranchesBackward(run, y.shape, y.dtype, final)

    def _merged(self, found: list[Array]) -> Array:
        shapes = {y.shape[:-1] if self.merge == "concat" else y.shape for y in found}
        if len(shapes) > 1 or not found[0].ndim:
            raise ValueError(
                f"{type(self).__name__}: expected outputs of one shape"
                + (" but for the last axis" if self.merge == "concat" else "")
                + f", got {' and '.join(str(y.shape) for y in found)}"
            )
        if self.merge == "concat":
            return np.concatenate(found, axis=-1)
        y = found[0] + found[1] if len(found) > 1 else found[0].copy()
        for other in found[2:]:
            y += other
        if self.merge == "mean":
            y *= 1 / len(found)
        return y

    def _split(self, dy: Array, widths: list[int]) -> list[Array]:
        """The gradients of the branches' outputs."""
        if self.merge == "concat":
            return np.split(dy, np.cumsum(widths)[:-1].tolist(), axis=-1)
        return [dy if self.merge == "sum" else dy * dy.dtype.type(1 / len(widths))] * len(widths)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shapes = [layer.output_shape(shape) for layer in self.branches]
        return (*shapes[0][:-1], sum(s[-1] for s in shapes)) if self.merge == "concat" else shapes[0]

    def _parts(self, shape: tuple[int, ...]) -> Iterator[tuple[str, Layer, tuple[int, ...]]]:
        for name, child in self.children().items():
            yield name, child, shape


class Concatenate(Members, Branches):
    """Several layers over one input, their outputs joined on the last axis.

    Parameters
    ----------
    *layers : Layer
        Each is given x. Their outputs have one shape but for the last axis.

    Notes
    -----
    Names are those of a ``Sequential``: ``"0.weight"``, ``"1.weight"``. States of recurrent branches are handled as
    there, too: ``state=`` and ``backward.state`` are tuples of one for each of them.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.Concatenate(fa.nn.Dense(3, 4, "relu"), fa.nn.Dense(3, 2, "tanh"))
    >>> layer(np.ones((5, 3), np.float32)).shape
    (5, 6)
    """

    merge = "concat"

    def __init__(self, *layers: Layer) -> None:
        if not layers:
            raise ValueError("layers: expected one or more, got none")
        self.layers = layers
        self._settle()

    @property
    def branches(self) -> tuple[Layer, ...]:
        return self.layers


class Residual(Branches):
    """x added to what a layer makes of it, y = x + inner(x) (He et al. 2015, arXiv:1512.03385).

    Parameters
    ----------
    inner : Layer
        Keeps the shape of x; a ``Sequential`` for several layers.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> inner = fa.nn.Sequential(fa.nn.LayerNorm(4), fa.nn.Dense(4, 8, "gelu"), fa.nn.Dense(8, 4))
    >>> model = fa.nn.Residual(inner)
    >>> model(np.ones((5, 4), np.float32)).shape, list(model.parameters())[:2]
    ((5, 4), ['inner.0.weight', 'inner.0.bias'])
    """

    merge = "sum"

    def __init__(self, inner: Layer) -> None:
        self.inner = inner
        self._settle()

    @property
    def branches(self) -> tuple[Layer, ...]:
        return _SAME, self.inner

    def _merged(self, found: list[Array]) -> Array:
        x, y = found
        return super()._merged([x.astype(y.dtype, copy=False), y])

    def stream(self, batch_size: int = 1, state: Any = None) -> ResidualStream:
        """``inner.stream`` with x added; ``state`` is a tuple of one for a recurrent ``inner``, as in ``forward``."""
        more = {"state": each_state(state, 1)[0]} if self.inner.stateful else {}
        return ResidualStream(self.inner.stream(batch_size, **more), self.inner.stateful)


class ResidualStream:
    """A ``Residual`` over a stream."""

    def __init__(self, inner: Any, stateful: bool) -> None:
        self._inner, self._stateful = inner, stateful
        self._y: Array | None = None
        self.batch_size = inner.batch_size

    def step(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        """The next time step, of (B, ...). Without ``out`` the result's array is overwritten by the next step."""
        y = self._inner.step(x)
        if out is None:
            if self._y is None or self._y.shape != y.shape:
                self._y = np.empty_like(y)
            out = self._y
        return np.add(as_floats(x, y.dtype, "x"), y, out=out)

    def reset(self) -> None:
        self._inner.reset()

    @property
    def state(self) -> tuple[Any, ...]:
        return (self._inner.state,) if self._stateful else ()

    @state.setter
    def state(self, state: tuple[Any, ...] | None) -> None:
        if self._stateful:
            self._inner.state = each_state(state, 1)[0]


class Bidirectional(Branches):
    """A layer over sequences and another one over the same sequences from their ends, side by side.

    ``fa.nn.LSTM(..., bidirectional=True)`` and its kin do the same faster, layer by layer of a stack; this is for other
    layers, different ones in the two directions, and whole stacks.

    Parameters
    ----------
    forward_layer : Layer
        Over (B, T, ...), or (T, B, ...) where it has ``time_major``; gives (B, T, H), or (B, H).
    backward_layer : Layer, optional
        None is one like the first with weights of its own. It is given the sequences mirrored, and its output is
        mirrored back; a recurrent layer made with ``reverse=True`` does that by itself. With ``lengths`` a sequence
        begins at its own end.
    merge : "concat", "sum" or "mean"
        How both outputs come together.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.Bidirectional(fa.nn.GRU(3, 4), merge="concat")
    >>> layer(np.ones((2, 5, 3), np.float32), lengths=[5, 2]).shape
    (2, 5, 8)
    """

    def __init__(self, forward_layer: Layer, backward_layer: Layer | None = None, merge: str = "concat") -> None:
        self.merge = merge
        self.forward_layer = forward_layer
        if isinstance(forward_layer, Recurrent) and (forward_layer.reverse or forward_layer.bidirectional):
            option = "reverse" if forward_layer.reverse else "bidirectional"
            raise ValueError(f"forward_layer: expected one that goes forwards, got {option}=True; leave that out")
        if backward_layer is None and isinstance(forward_layer, Layer):
            config = forward_layer.config()
            if isinstance(forward_layer, Recurrent):
                config["reverse"] = True
            backward_layer = type(forward_layer).from_config(config)
            if any(layer is other for layer in _all(forward_layer) for other in _all(backward_layer)):
                raise ValueError(
                    f"backward_layer: expected a layer, as a {type(forward_layer).__name__} holds layers that a second "
                    "one like it would share; give copy.deepcopy(forward_layer), or one made anew"
                )
        self.backward_layer = backward_layer
        self._settle()

    @property
    def branches(self) -> tuple[Layer, ...]:
        layer = self.backward_layer
        reverses = isinstance(layer, Recurrent) and layer.reverse
        return self.forward_layer, layer if reverses or not isinstance(layer, Layer) else _Mirrored(layer)


def _all(layer: Layer) -> list[Layer]:
    return [inner for _, inner in layer._tree()]


class _Same(Layer):
    """x itself: the short way of ``Residual``."""

    def __call__(self, x: Any, /) -> Array:
        return as_real(x, "x")

    def forward(self, x: Any, /) -> tuple[Array, Any]:
        return as_real(x, "x"), lambda dy: dy

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


_SAME = _Same()


class _Mirrored(Layer):
    """A layer over sequences from their ends to their beginnings."""

    def __init__(self, inner: Layer) -> None:
        self.inner = inner
        self.stateful = inner.stateful
        self.takes_lengths = True

    def _mirror(self, a: Array, like: Array, lengths: Array | None) -> Array:
        """``a`` with its time axis the other way round, if it has one, that of ``like``."""
        time = 0 if getattr(self.inner, "time_major", False) else 1
        if a.ndim < 3 or a.shape[:2] != like.shape[:2]:
            return a
        if lengths is None:
            return a[::-1] if time == 0 else a[:, ::-1]
        t = np.arange(a.shape[time])
        index = np.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)  # (B, T), its own inverse
        return np.take_along_axis(a, (index.T if time == 0 else index).reshape(*a.shape[:2], *[1] * (a.ndim - 2)), time)

    def _given(self, x: Any, lengths: Any) -> tuple[Array, Array | None, dict[str, Any]]:
        x = as_real(x, "x")
        if x.ndim < 2:
            raise ValueError(f"x: expected shape (B, T, ...), got {x.shape}")
        if lengths is not None:
            time = 0 if getattr(self.inner, "time_major", False) else 1
            lengths = as_lengths(lengths, x.shape[1 - time], x.shape[time])
        return x, lengths, with_lengths(self.inner, lengths)

    def _mirror_x(self, x: Array, lengths: Array | None) -> Array:
        return self._mirror(x if x.ndim > 2 else x[..., None], x, lengths).reshape(x.shape)

    def __call__(self, x: Any, /, lengths: Any = None) -> Array:
        x, lengths, more = self._given(x, lengths)
        return self._mirror(self.inner(self._mirror_x(x, lengths), **more), x, lengths)

    def run(self, x: Any, /, state: Any = None, lengths: Any = None) -> RunResult:
        x, lengths, more = self._given(x, lengths)
        result = self.inner.run(self._mirror_x(x, lengths), state=state, **more)
        return RunResult(self._mirror(result.y, x, lengths), result.state)

    def forward(self, x: Any, /, lengths: Any = None, **state: Any) -> tuple[Array, Any]:
        x, lengths, more = self._given(x, lengths)
        y, inner = self.inner.forward(self._mirror_x(x, lengths), **more, **state)
        y = self._mirror(y, x, lengths)
        return y, _MirroredBackward(self, inner, x, lengths, y)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.inner.output_shape(shape)


class _MirroredBackward(Backward):
    """Backward of ``_Mirrored``."""

    __slots__ = ("_layer", "_lengths", "_x", "dstate", "state")

    def __init__(self, layer: _Mirrored, inner: Any, x: Array, lengths: Array | None, y: Array) -> None:
        super().__init__(inner, y.shape, y.dtype)
        self._layer, self._x, self._lengths = layer, x, lengths
        self.state = getattr(inner, "state", None)
        self.dstate: Any = None

    def __call__(self, dy: npt.ArrayLike, input_gradient: bool = True, **dstate: Any) -> Any:
        dy = self._check(dy)
        layer, inner = self._layer, self._begin()
        dx = pass_back(inner, layer._mirror(dy, self._x, self._lengths), input_gradient, **dstate)
        self.dstate = getattr(inner, "dstate", None)
        return None if dx is None else layer._mirror_x(dx, self._lengths)
