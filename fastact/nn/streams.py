"""Streams: layers and models that are given a sequence one time step a call, as ``layer.stream()`` makes them.

Each keeps a state and buffers of its own; the weights are the layer's, whatever number of streams there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from fastact._arguments import Array, as_size
from fastact._core.stream import StackStream
from fastact.nn.states import Layers

if TYPE_CHECKING:
    from fastact.nn.base import Layer
    from fastact.nn.recurrent import Recurrent


class RecurrentStream(StackStream):
    """A recurrent layer over a stream; ``layer.stream(batch_size)`` makes it.

    ``step(x)`` gives what ``layer`` gives at the same place of the whole sequence, to the bit, and takes no memory. The
    weights are looked at before each step: new ones (training, ``load_state_dict``) count from the next step on. One
    stream is for one thread at a time; several streams of a layer may run in as many threads.

    Attributes
    ----------
    batch_size : int
        B.
    state
        The state after the last step, a copy in the layer's form; assigning sets it, None is zeros.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.GRU(3, 4, rng=0)
    >>> stream = layer.stream()
    >>> x = np.ones((1, 3), np.float32)
    >>> first = stream.step(x).copy()
    >>> between = stream.state
    >>> second = stream.step(x).copy()
    >>> stream.state = between  # back by a step
    >>> bool((stream.step(x) == second).all())
    True
    >>> stream.reset()
    >>> bool((stream.step(x) == first).all())
    True
    """

    def __init__(self, layer: Recurrent, batch_size: int, state: Any = None) -> None:
        super().__init__(layer.dtype, as_size(batch_size, "batch_size"), layer.input_size, layer.output_sizes[-1])
        self._layer = layer
        initial = layer._states.check(state, "state", self.batch_size)
        self._pack()
        if initial is not None:
            self._write(initial)

    def __repr__(self) -> str:
        return f"stream of {self._layer!r}, batch_size={self.batch_size}"

    def __reduce__(self) -> NoReturn:
        raise TypeError("stream: copies and pickles of it are not made; keep the layer and stream.state")

    @property
    def state(self) -> Any:
        return self._layer._states.public(self._read())

    @state.setter
    def state(self, state: Any) -> None:
        given = self._layer._states.check(state, "state", self.batch_size)
        if given is None:
            self.reset()
        else:
            self._write(given)

    def _read(self) -> list[Layers]:
        state = self._layer._states.new(self.batch_size)
        for letter, layers in enumerate(state):
            self._save(letter, layers)
        return state

    def _write(self, state: list[Layers]) -> None:
        for letter, layers in enumerate(state):
            self._load(letter, layers)

    def _pack(self) -> None:
        packed = self._layer._pack(False)
        self._take([cells[0] for cells in packed.cells], packed.made_of, vars(self._layer))

    def _renew(self) -> None:
        """Take weights that have changed; the state stays."""
        state = self._read()
        self._pack()
        self._write(state)


class PlainStream:
    """A layer without a state over a stream: the first step's result is the array that the next ones fill."""

    def __init__(self, layer: Layer, batch_size: int) -> None:
        self._layer = layer
        self._y: Array | None = None
        self.batch_size = as_size(batch_size, "batch_size")

    def __repr__(self) -> str:
        return f"stream of {self._layer!r}, batch_size={self.batch_size}"

    def step(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        """The layer's output for a time step of (B, ...); without ``out`` in the stream's own array."""
        if len(np.shape(x)) == 0 or np.shape(x)[0] != self.batch_size:
            raise ValueError(
                f"x: expected B = {self.batch_size} rows, the stream's batch_size, got shape {np.shape(x)}"
            )
        if out is not None:
            return self._layer._into(x, out)
        y = self._layer._into(x, self._y)
        self._y = y
        return y

    def reset(self) -> None:
        """Nothing is kept from step to step."""
