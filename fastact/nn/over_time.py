"""Layers about the time axis: ``TimeDistributed``; pooling, ``MeanPooling``, ``MaxPooling`` and ``LastStep``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact._arguments import Array, as_real, as_signal
from fastact._core import pooling
from fastact._core.workspace import empty
from fastact.nn.base import Backward, Layer
from fastact.nn.members import pass_back
from fastact.nn.sequences import as_lengths


def steps_there(lengths: Array, steps: int) -> Array:
    """Which steps of (B, T) are within the lengths."""
    return np.arange(steps) < lengths[:, None]


class TimeDistributed(Layer):
    """A layer at every step of sequences: its batch is all steps of all of them.

    ``Dense``, ``LayerNorm`` and activations take (B, T, I) as it is; this is for layers that take a batch of something
    else, and for ``BatchNorm`` over steps that are there: with ``lengths`` the others are left out, and y is 0 there.

    Parameters
    ----------
    inner : Layer
        Over (rows, ...), without a state.
    time_major : bool
        x is (T, B, ...).

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.TimeDistributed(fa.nn.Sequential(fa.nn.Flatten(), fa.nn.Dense(6, 4)))
    >>> layer(np.ones((2, 5, 3, 2), np.float32), lengths=[5, 1]).shape
    (2, 5, 4)
    """

    takes_lengths = True

    def __init__(self, inner: Layer, time_major: bool = False) -> None:
        if not isinstance(inner, Layer):
            raise TypeError(f"inner: expected a layer, got {inner!r} of type {type(inner).__name__}")
        self.inner = inner
        self.time_major = bool(time_major)

    def _given(self, x: Any, lengths: Any) -> tuple[Array, Array | None]:
        """x, and which of its steps are there, unless all are."""
        x = as_real(x, "x")
        if x.ndim < 2:
            raise ValueError(f"x: expected shape {'(T, B, ...)' if self.time_major else '(B, T, ...)'}, got {x.shape}")
        if lengths is None:
            return x, None
        time = 0 if self.time_major else 1
        there = steps_there(as_lengths(lengths, x.shape[1 - time], x.shape[time]), x.shape[time])
        return x, there.T if self.time_major else there

    def _rows(self, a: Array, there: Array | None) -> Array:
        return a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]) if there is None else a[there]

    def _back(self, rows: Array, shape: tuple[int, ...], there: Array | None) -> Array:
        """Rows at their places of an array (B, T, ...)."""
        if there is None:
            return rows.reshape(*shape[:2], *rows.shape[1:])
        a = np.zeros((*shape[:2], *rows.shape[1:]), rows.dtype)
        a[there] = rows
        return a

    def __call__(self, x: npt.ArrayLike, /, lengths: npt.ArrayLike | None = None) -> Array:
        """y of shape (B, T, ...) for x of shape (B, T, ...)."""
        array, there = self._given(x, lengths)
        return self._back(self.inner(self._rows(array, there)), array.shape, there)

    def forward(self, x: npt.ArrayLike, /, lengths: npt.ArrayLike | None = None) -> tuple[Array, Backward]:
        """y of shape (B, T, ...) in training mode, and its backward."""
        array, there = self._given(x, lengths)
        rows, inner = self.inner.forward(self._rows(array, there))
        y = self._back(rows, array.shape, there)

        def run(dy: Array, input_gradient: bool) -> Any:
            dx = pass_back(inner, self._rows(dy, there), input_gradient)
            return None if dx is None or not input_gradient else self._back(dx, array.shape, there)

        return y, Backward(run, y.shape, y.dtype)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) < 2:
            raise ValueError(f"x: expected shape (B, T, ...), got {shape}")
        return (*shape[:2], *self.inner.output_shape((shape[0] * shape[1], *shape[2:]))[1:])

    def _parts(self, shape: tuple[int, ...]) -> Iterator[tuple[str, Layer, tuple[int, ...]]]:
        yield "inner", self.inner, (shape[0] * shape[1], *shape[2:])


class Pooling(Layer):
    """What pooling over time shares: (B, T, ...) to (B, ...)."""

    takes_lengths = True

    def __init__(self, time_major: bool = False) -> None:
        self.time_major = bool(time_major)

    def _pooled(self, x: Array, lengths: Array | None) -> tuple[Array, Callable[[Array, Array], Any]]:
        """y of x (B, T, ...), and what fills dx, (B, T, ...), for dy."""
        raise NotImplementedError

    def _given(self, x: Any, lengths: Any) -> tuple[Array, Array | None]:
        x = as_signal(x)
        if x.ndim < 2 or not x.shape[0 if self.time_major else 1]:
            axes = "(T, B, ...)" if self.time_major else "(B, T, ...)"
            raise ValueError(f"x: expected shape {axes} with a step or more, got {x.shape}")
        if self.time_major:
            x = x.swapaxes(0, 1)
        return x, None if lengths is None else as_lengths(lengths, *x.shape[:2])

    def __call__(self, x: npt.ArrayLike, /, lengths: npt.ArrayLike | None = None) -> Array:
        """y of shape (B, ...) for x of shape (B, T, ...); ``lengths`` (B,) are the steps that count, 1 to T."""
        return self._pooled(*self._given(x, lengths))[0]

    def forward(self, x: npt.ArrayLike, /, lengths: npt.ArrayLike | None = None) -> tuple[Array, Backward]:
        """y of shape (B, ...), and its backward; dx is 0 beyond the lengths."""
        array, steps = self._given(x, lengths)
        y, fill = self._pooled(array, steps)
        shape, dtype = array.shape, array.dtype

        def run(dy: Array, input_gradient: bool) -> Array | None:
            if not input_gradient:
                return None
            dx = empty((shape[1], shape[0], *shape[2:]) if self.time_major else shape, dtype)
            fill(dy, dx.swapaxes(0, 1) if self.time_major else dx)
            return dx

        return y, Backward(run, y.shape, y.dtype)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) < 2:
            raise ValueError(f"x: expected shape (B, T, ...), got {shape}")
        return (shape[1] if self.time_major else shape[0], *shape[2:])


def _reduced(greatest: bool, x: Array, lengths: Array | None) -> tuple[Array, Callable[[Array, Array], Any]]:
    """The greatest or the mean of each sequence's steps, and what fills dx."""
    counts = None if lengths is None else lengths.astype(np.int64, copy=False)
    width = math.prod(x.shape[2:])
    shape = (*x.shape[:2], width)
    rows = x.reshape(shape)
    if (width > 1 and rows.strides[2] != rows.itemsize) or not rows.flags.aligned:
        rows = np.ascontiguousarray(rows)
    y = empty((x.shape[0], width), x.dtype)
    pooling.forward(greatest, rows, counts, y)

    def fill(dy: Array, dx: Array) -> None:
        pooling.backward(greatest, rows, counts, y, dy.reshape(y.shape), dx.reshape(shape))

    return y.reshape(x.shape[0], *x.shape[2:]), fill


class MeanPooling(Pooling):
    """The mean over the steps of each sequence: y = (x_1 + ... + x_n) / n, where n is its length.

    Parameters
    ----------
    time_major : bool
        x is (T, B, ...).

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> fa.nn.MeanPooling()(np.array([[[1.0], [3.0], [8.0]]] * 2), lengths=[3, 2])
    array([[4.],
           [2.]])
    """

    def _pooled(self, x: Array, lengths: Array | None) -> tuple[Array, Callable[[Array, Array], Any]]:
        return _reduced(False, x, lengths)


class MaxPooling(Pooling):
    """The greatest number of each feature over the steps of each sequence; its gradient goes to the first of those.

    Parameters
    ----------
    time_major : bool
        x is (T, B, ...).

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> fa.nn.MaxPooling()(np.array([[[1.0], [3.0], [8.0]]] * 2), lengths=[3, 2])
    array([[8.],
           [3.]])
    """

    def _pooled(self, x: Array, lengths: Array | None) -> tuple[Array, Callable[[Array, Array], Any]]:
        return _reduced(True, x, lengths)


class LastStep(Pooling):
    """The last step of each sequence.

    Parameters
    ----------
    time_major : bool
        x is (T, B, ...).

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> fa.nn.LastStep()(np.array([[[1.0], [3.0], [8.0]]] * 2), lengths=[3, 2])
    array([[8.],
           [3.]])
    """

    def _pooled(self, x: Array, lengths: Array | None) -> tuple[Array, Callable[[Array, Array], Any]]:
        at: Any = (slice(None), -1) if lengths is None else (np.arange(len(x)), lengths - 1)

        def fill(dy: Array, dx: Array) -> None:
            dx.fill(0)
            dx[at] = dy

        return x[at].copy(), fill
