"""``Sequential``: layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, overload

import numpy.typing as npt

from fastact._arguments import Array
from fastact.nn.base import Backward, Layer, RunResult
from fastact.nn.members import Members, each_state, pass_back, with_lengths


class Sequential(Members):
    """A chain of layers, each given the output of the one before.

    Parameters
    ----------
    *layers : Layer
        The same layer may stand at several places: it is one set of parameters, counted once, and its gradients add up.

    Notes
    -----
    Names are torch.nn's: ``"0.weight"``, ``"2.0.bias"`` in a chain within a chain. ``len``, indices, slices (a new
    chain of the same layers) and iteration work as on a tuple.

    Recurrent members start from zeros in ``model(x)`` and ``model.forward(x)``. To carry their states from one stretch
    of a sequence to the next (truncated backpropagation through time), ``y, backward = model.forward(x, state=state)``
    takes and ``backward.state`` gives a tuple with one state for each recurrent member, in order; ``state=None`` is
    zeros, and so is None in place of a member's state. ``backward(dy, dstate=...)`` and ``backward.dstate`` are tuples
    of their gradients. For inference, ``model.run(x, state=state)`` gives ``y`` and ``state``.

    ``lengths=``, the steps of each padded sequence, goes to all members that take it (``takes_lengths``): recurrent
    layers, pooling over time.

    With frozen layers at its beginning, ``backward(dy, input_gradient=False)`` stops at the first layer that is
    trained; ``backward.dstate`` is None for those below.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> model = fa.nn.Sequential(fa.nn.Dense(4, 8, "relu"), fa.nn.Dense(8, 3))
    >>> model(np.ones((2, 4), np.float32)).shape
    (2, 3)
    >>> list(model.parameters())
    ['0.weight', '0.bias', '1.weight', '1.bias']
    >>> len(model), model[1].out_features
    (2, 3)
    """

    def __init__(self, *layers: Layer) -> None:
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(
                    f"layers: expected layers, got {layer!r} of type {type(layer).__name__} at place {i}"
                    + ("; unpack it: Sequential(*layers)" if isinstance(layer, (list, tuple)) else "")
                    + ("; as a layer: fa.nn.Activation(...)" if isinstance(layer, str) or callable(layer) else "")
                )
        self.layers = layers
        self.stateful = any(layer.stateful for layer in layers)
        self.takes_lengths = any(layer.takes_lengths for layer in layers)
        dtypes = {p.dtype.name: name for name, p in self.parameters().items()}
        if len(dtypes) > 1:
            raise TypeError(
                "layers: expected one dtype in a model, got "
                + " and ".join(f"{dtype} ({name})" for dtype, name in dtypes.items())
                + "; give all layers the same dtype="
            )

    def __len__(self) -> int:
        return len(self.layers)

    def __bool__(self) -> bool:
        return True  # an empty chain is still a model

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    @overload
    def __getitem__(self, index: int) -> Any: ...  # whose attributes depend on which layer stands there
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Any:
        return Sequential(*self.layers[index]) if isinstance(index, slice) else self.layers[index]

    def __call__(self, x: Any, /, lengths: npt.ArrayLike | None = None) -> Array:
        """Output of the last layer. Nothing is kept.

        Parameters
        ----------
        x : array
        lengths : integers of shape (B,), optional
            Steps of each sequence, for the members that take them.
        """
        if lengths is not None:
            self._refuse_lengths(lengths)
        i = 0
        try:
            for i, layer in enumerate(self.layers):  # noqa: B007
                if lengths is None or not layer.takes_lengths:  # noqa: SIM108
                    x = layer(x)
                else:
                    x = layer(x, lengths=lengths)
        except _NAMED as error:
            raise _in_layer(i, self.layers[i], error) from error
        return x

    def run(self, x: Any, /, state: tuple[Any, ...] | None = None, lengths: npt.ArrayLike | None = None) -> RunResult:
        """Inference that takes and gives the states of the recurrent members: a result with ``y`` and ``state``."""
        self._refuse_lengths(lengths)
        states = self._states(state)
        final = []
        i = 0
        try:
            for i, layer in enumerate(self.layers):  # noqa: B007
                more = with_lengths(layer, lengths)
                if layer.stateful:
                    result = layer.run(x, state=next(states), **more)
                    final.append(result.state)
                    x = result.y
                else:
                    x = layer(x, **more)
        except _NAMED as error:
            raise _in_layer(i, self.layers[i], error) from error
        return RunResult(x, tuple(final))

    def stream(self, batch_size: int = 1, state: tuple[Any, ...] | None = None) -> ChainStream:
        """This model one time step at a time: ``stream.step(x)`` takes and gives arrays of (B, features).

        After a recurrent member without ``return_sequences`` each step gives what the model would give for the sequence
        up to there.

        Parameters
        ----------
        batch_size : int
            B, the number of sequences that go side by side.
        state : tuple or None
            Initial states, one for each recurrent member; None is zeros.

        Returns
        -------
        ChainStream
            With ``step(x, out=None)``, ``reset()`` and ``state``.

        Raises
        ------
        ValueError, TypeError
            If a member cannot run step by step: a bidirectional one, one of your own without ``stream``.

        Examples
        --------
        >>> import numpy as np
        >>> import fastact as fa
        >>> model = fa.nn.Sequential(fa.nn.Embedding(50, 8), fa.nn.LSTM(8, 16), fa.nn.Dense(16, 50))
        >>> stream = model.stream(batch_size=2)
        >>> scores = stream.step([7, 9])
        >>> scores.shape, stream.step(scores.argmax(1)) is scores
        ((2, 50), True)
        """
        if not self.layers:
            raise ValueError("stream: expected a model of one layer or more, got an empty chain")
        return ChainStream(self.layers, batch_size, self._states(state))

    def forward(
        self, x: Any, /, state: tuple[Any, ...] | None = None, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Backward]:
        """Output of the last layer in training mode, and the backward of the chain.

        Parameters
        ----------
        x : array
        state : tuple or None
            One state for each recurrent member; None is zeros.
        lengths : integers of shape (B,), optional
            Steps of each sequence, for the members that take them.

        Returns
        -------
        y : array
        backward : ChainBackward
            ``dx = backward(dy)``; in a chain with recurrent members ``backward.state`` holds their final states.
        """
        states = self._states(state)
        if lengths is not None:
            self._refuse_lengths(lengths)
        backwards = []
        i = 0
        try:
            for i, layer in enumerate(self.layers):  # noqa: B007
                if lengths is not None and layer.takes_lengths:
                    more = {"state": next(states)} if layer.stateful else {}
                    x, backward = layer.forward(x, lengths=lengths, **more)
                else:
                    x, backward = layer.forward(x, state=next(states)) if layer.stateful else layer.forward(x)
                backwards.append(backward)
        except _NAMED as error:
            raise _in_layer(i, self.layers[i], error) from error
        return x, ChainBackward(self.layers, backwards, x.shape, x.dtype, self._first_trained())

    def _first_trained(self) -> int:
        """Place of the first layer that is trained, the number of layers if there is none; 0, at no cost, where nothing
        is frozen and in a chain within a chain."""
        if self._arena is None or self._arena.trained.spans is None:
            return 0
        for i, layer in enumerate(self.layers):
            if any(p.trainable for p in layer.parameters().values()):
                return i
        return len(self.layers)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        i = 0
        try:
            for i, layer in enumerate(self.layers):  # noqa: B007
                shape = layer.output_shape(shape)
        except _NAMED as error:
            raise _in_layer(i, self.layers[i], error) from error
        return shape

    def _parts(self, shape: tuple[int, ...]) -> Iterator[tuple[str, Layer, tuple[int, ...]]]:
        for i, layer in enumerate(self.layers):
            yield str(i), layer, shape
            shape = layer.output_shape(shape)

    def _states(self, state: tuple[Any, ...] | None) -> Iterator[Any]:
        return iter(each_state(state, sum(layer.stateful for layer in self.layers) if self.stateful else 0))


class ChainBackward(Backward):
    """Backward of a ``Sequential``.

    Attributes
    ----------
    state : tuple
        Final states of the recurrent members, in order.
    dstate : tuple or None
        After the call: the gradients of their initial states.
    """

    __slots__ = ("_first", "dstate", "state")

    def __init__(
        self, layers: tuple[Layer, ...], backwards: list[Any], shape: tuple[int, ...], dtype: Any, first: int
    ) -> None:
        super().__init__(list(zip(layers, backwards, strict=True)), shape, dtype)
        self._first = first  # the gradient of what goes into it, nothing below needs
        self.state = tuple(b.state for layer, b in zip(layers, backwards, strict=True) if layer.stateful)
        self.dstate: tuple[Any, ...] | None = None

    def __call__(self, dy: Any, input_gradient: bool = True, dstate: tuple[Any, ...] | None = None) -> Any:
        """Gradient of x for the gradient dy of y and, per recurrent member, ``dstate`` of its final state."""
        dy = self._check(dy)
        pending = list(each_state(dstate, len(self.state), "dstate"))
        found = []
        steps = self._begin()
        last = 0 if input_gradient else max(0, min(self._first, len(steps) - 1))
        while len(steps) > last:
            layer, backward = steps.pop()  # what it holds is free after its own step
            wanted = input_gradient or len(steps) > last
            if layer.stateful:
                dy = pass_back(backward, dy, wanted, dstate=pending.pop())
                found.append(backward.dstate)
            else:
                dy = pass_back(backward, dy, wanted)
        self.dstate = (*[None] * len(pending), *reversed(found))
        return dy if input_gradient else None


class ChainStream:
    """A ``Sequential`` over a stream; ``model.stream(batch_size)`` makes it.

    Attributes
    ----------
    batch_size : int
    state : tuple
        The states of the recurrent members, in order; assigning sets them, None is zeros.
    """

    def __init__(self, layers: tuple[Layer, ...], batch_size: int, states: Iterator[Any]) -> None:
        self._layers = layers
        self._streams: list[Any] = []
        for i, layer in enumerate(layers):
            try:
                more = {"state": next(states)} if layer.stateful else {}
                self._streams.append(layer.stream(batch_size, **more))
            except _NAMED as error:
                raise _in_layer(i, layer, error) from error
        self._stateful = [s for s, layer in zip(self._streams, layers, strict=True) if layer.stateful]
        self.batch_size = batch_size

    def step(self, x: Any, out: Array | None = None) -> Array:
        """The next time step, of (B, ...). Without ``out`` the result's array is overwritten by the next step."""
        i = 0
        try:
            for i, stream in enumerate(self._streams[:-1]):  # noqa: B007
                x = stream.step(x)
            i = len(self._streams) - 1
            return self._streams[i].step(x, out)
        except _NAMED as error:
            raise _in_layer(i, self._layers[i], error) from error

    def reset(self) -> None:
        """Back to states of zeros, for the next sequences."""
        for stream in self._streams:
            stream.reset()

    @property
    def state(self) -> tuple[Any, ...]:
        return tuple([stream.state for stream in self._stateful])

    @state.setter
    def state(self, state: tuple[Any, ...] | None) -> None:
        states = each_state(state, len(self._stateful))
        before = self.state
        try:
            for stream, each in zip(self._stateful, states, strict=True):
                stream.state = each
        except _NAMED:
            for stream, each in zip(self._stateful, before, strict=True):
                stream.state = each
            raise


_NAMED = (ValueError, TypeError, IndexError)


def _in_layer(i: int, layer: Layer, error: Exception) -> Exception:
    """The same error, saying in which layer of the chain."""
    if type(error) not in _NAMED:  # a subclass may be built of other arguments
        raise error
    return type(error)(f"in layer {i}, {layer!r}: {error}")
