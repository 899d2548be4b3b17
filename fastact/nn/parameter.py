"""``Parameter``, ``Buffer`` and ``Arena``: the memory of what is trained, and of what a layer keeps besides.

A ``Parameter`` owns a 64-byte aligned, zero-padded segment of memory from its construction. ``Layer.flatten`` moves the
segments of a whole model into one ``Arena`` (a flat buffer of values, a flat buffer of gradients), so that one call
updates, reduces, clips or saves everything; the ``Parameter`` objects stay the same and their ``value`` follows.

Values are read through read-only views. Every write goes through a method that raises ``Parameter.version``, and that
is what keeps packed copies of weights honest.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact._arguments import DTYPES, Array, as_dtype, as_floats

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def aligned_zeros(size: int, dtype: np.dtype[Any]) -> Array:
    """A flat array of ``size`` zeros that begins at a multiple of 64 bytes."""
    raw = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip : skip + size * dtype.itemsize].view(dtype)


def padded_size(size: int, dtype: np.dtype[Any]) -> int:
    """``size`` elements rounded up to whole blocks of 64 bytes."""
    block = ALIGNMENT // dtype.itemsize
    return -(-size // block) * block


class ReadView(np.ndarray[Any, Any]):
    """What ``Parameter.value`` and ``Layer.flat_parameters`` show: an array whose errors tell how to write.

    What is computed from it is a plain array. Kernels are given ``Buffer._view``, the same without the Python methods.
    """

    __slots__ = ()

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else np.asarray(array)

    def __repr__(self) -> str:
        return repr(np.asarray(self))

    def copy(self, order: Any = "C") -> Array:
        return np.array(self, order=order)


def _refusing(name: str) -> Callable[..., Any]:
    inherited = getattr(np.ndarray, name)

    def method(self: ReadView, *args: Any) -> Any:
        if not self.flags.writeable:
            raise ValueError(
                "value: expected to be read, got a write into its read-only view, which packed copies of the weights "
                "would not notice; write p[index] = a, p.value = a or model.flat_parameters = a"
            )
        return inherited(self, *args)

    return method


for _name in ("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "fill"):
    setattr(ReadView, _name, _refusing(_name))


class Buffer:
    """An array that belongs to a layer and is saved and copied with it, but is not trained: running statistics, say.

    Parameters
    ----------
    value : array
        Initial value, copied. float32 and float64 keep their type.
    name : str
        What its layer calls it; only for messages.

    Attributes
    ----------
    value : array
        A read-only view. Writing: ``b.value = a`` (same shape) or ``b[...] = a`` (as NumPy assigns); both raise
        ``version``.
    version : int
    trainable : bool
        False after ``Layer.freeze``: then training does not change it.
    """

    __slots__ = ("__weakref__", "_data", "_shown", "_trainable", "_view", "dtype", "name", "shape", "size", "version")

    def __init__(self, value: npt.ArrayLike, name: str = "buffer") -> None:
        array = np.asarray(value)
        self.dtype = as_dtype(array.dtype)
        self.name = name
        self.shape = array.shape
        self.size = array.size
        self.version = 0
        self._trainable = True
        self._place(aligned_zeros(padded_size(self.size, self.dtype), self.dtype))
        self._data[...] = array

    def _place(self, segment: Array) -> None:
        """Let value live in this segment from now on (the caller copies what was there)."""
        self._data = segment[: self.size].reshape(self.shape)
        self._view = self._data.view()
        self._view.flags.writeable = False
        self._shown = self._view.view(ReadView)

    @property
    def value(self) -> Array:
        """Read-only view of the current value."""
        return self._shown

    @value.setter
    def value(self, new: npt.ArrayLike) -> None:
        self._data[...] = self._fitting(new, self.name)
        self.version += 1

    def _fitting(self, new: npt.ArrayLike, name: str) -> Array:
        array = as_floats(new, self.dtype, name)
        if array.shape != self.shape:
            raise ValueError(
                f"{name}: expected shape {self.shape}, got {array.shape}; {name}[...] = a broadcasts as NumPy does"
            )
        return array

    def __setitem__(self, index: Any, new: npt.ArrayLike) -> None:
        self._data[index] = as_floats(new, self.dtype, self.name)
        self.version += 1

    @property
    def trainable(self) -> bool:
        """Whether training changes it."""
        return self._trainable

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        self._trainable = bool(trainable)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy or (dtype is not None and np.dtype(dtype) != self.dtype):
            return np.array(self._data, dtype)
        return self._view

    def __repr__(self) -> str:
        frozen = "" if self._trainable else ", frozen"
        return f"{type(self).__name__}({self.name}, shape={self.shape}, dtype={self.dtype}{frozen})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), np.array(self._data), self.name, self.version, self._trainable)

    def __copy__(self) -> Any:
        return _restore(type(self), self._data, self.name, self.version, self._trainable)


def _restore(kind: type[Buffer], value: Array, name: str, version: int, trainable: bool) -> Buffer:
    held = kind(value, name)
    held.version = version
    held._trainable = trainable
    return held


class Parameter(Buffer):
    """An array that training changes, with its gradient.

    Parameters
    ----------
    value : array
        Initial value, copied. float32 and float64 keep their type.
    name : str
        What its layer calls it; only for messages.

    Notes
    -----
    Reading: ``p.value`` is a read-only view. Writing: ``p.value = a`` (same shape) or ``p[...] = a`` (as NumPy
    assigns), so ``p[:n] = a`` and not ``p.value[:n] = a``; both raise ``p.version``. A view taken before
    ``Layer.flatten`` shows the old memory: take ``p.value`` anew at each use. ``p.grad`` is a writable view that
    backward passes add to; its memory is made at first use, so a model that only predicts has none.

    With ``p.trainable = False`` optimisers leave it as it is, and layers save the work of its gradient, which then
    means nothing; ``layer.freeze()`` sets that for a whole layer.

    Copies and pickles carry value, version and ``trainable``; their gradient starts at zero.

    Examples
    --------
    >>> import numpy as np
    >>> from fastact.nn import Parameter
    >>> p = Parameter(np.zeros((2, 3), np.float32), "weight")
    >>> p[0] = 1
    >>> p.value
    array([[1., 1., 1.],
           [0., 0., 0.]], dtype=float32)
    >>> p.version
    1
    """

    __slots__ = ("_arena", "_grad")

    def __init__(self, value: npt.ArrayLike, name: str = "parameter") -> None:
        self._arena: weakref.ref[Arena] | None = None
        self._grad: Array | None = None
        super().__init__(value, name)

    @property
    def trainable(self) -> bool:
        """Whether optimisers change it."""
        return self._trainable

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        self._trainable = bool(trainable)
        arena = self._arena() if self._arena is not None else None
        if arena is not None:
            arena._trained = None

    @property
    def grad(self) -> Array:
        """Writable view of the gradient; backward passes add to it."""
        grad = self._grad
        if grad is None:
            arena = self._arena() if self._arena is not None else None
            if arena is not None:
                arena.gradients  # noqa: B018  (makes the buffer and every parameter's view of it)
            else:
                segment = aligned_zeros(padded_size(self.size, self.dtype), self.dtype)
                self._grad = segment[: self.size].reshape(self.shape)
            grad = self._grad
            assert grad is not None
        return grad

    @grad.setter
    def grad(self, new: npt.ArrayLike) -> None:
        grad = self.grad
        if new is not grad:  # the last step of `p.grad += a`
            grad[...] = self._fitting(new, f"{self.name}.grad")


@dataclass(frozen=True, slots=True)
class Trained:
    """What of an arena training changes.

    Attributes
    ----------
    parameters : tuple of Parameter
        Those that are trainable.
    spans : array of shape (k, 2), int64, or None
        Where their segments begin and end, in elements, neighbours joined; None where that is the whole arena.
    """

    parameters: tuple[Parameter, ...]
    spans: Array | None


class Arena:
    """The values of several parameters in one flat buffer and their gradients in another.

    Each parameter has a segment that begins at a multiple of 64 bytes; the padding between segments is zero in both
    buffers and stays zero under any optimiser whose update of (0, gradient 0) is 0.

    Parameters
    ----------
    parameters : iterable of Parameter
        All of one dtype, none in another living arena.

    Attributes
    ----------
    parameters : tuple of Parameter
    offsets : tuple of int
        Where each begins, in elements.
    dtype : numpy.dtype
    values, gradients : array of shape (size,)
        The two buffers, writable. Code that writes ``values`` calls ``bump()`` afterwards; everything else uses
        ``Parameter.value`` and ``Layer.flat_parameters``.
    trained : Trained
        The trainable parameters and their segments.
    """

    __slots__ = ("__weakref__", "_gradients", "_trained", "dtype", "offsets", "parameters", "size", "values")

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = tuple(parameters)
        dtypes = {p.dtype for p in self.parameters}
        if len(dtypes) > 1:
            names = "; ".join(
                f"{dtype}: {', '.join(p.name for p in self.parameters if p.dtype == dtype)}" for dtype in DTYPES
            )
            raise TypeError(f"dtype: expected one dtype for all parameters of a model, got {names}; set dtype= alike")
        self.dtype: np.dtype[Any] = dtypes.pop() if dtypes else DTYPES[0]
        offsets, end = [], 0
        for parameter in self.parameters:
            offsets.append(end)
            end += padded_size(parameter.size, self.dtype)
        self.offsets = tuple(offsets)
        self.size = end
        self.values = aligned_zeros(end, self.dtype)
        self._gradients: Array | None = None
        self._trained: Trained | None = None
        for parameter, segment in zip(self.parameters, self._segments(self.values), strict=True):
            old = parameter._data
            parameter._place(segment)
            parameter._data[...] = old
            parameter._arena = weakref.ref(self)
        if any(p._grad is not None for p in self.parameters):
            self.gradients  # noqa: B018  (moves what has been accumulated)

    def _segments(self, buffer: Array) -> Iterator[Array]:
        for parameter, offset in zip(self.parameters, self.offsets, strict=True):
            yield buffer[offset : offset + parameter.size]

    @property
    def gradients(self) -> Array:
        gradients = self._gradients
        if gradients is None:
            gradients = self._gradients = aligned_zeros(self.size, self.dtype)
            for parameter, segment in zip(self.parameters, self._segments(gradients), strict=True):
                view = segment.reshape(parameter.shape)
                if parameter._grad is not None:
                    view[...] = parameter._grad
                parameter._grad = view
        return gradients

    @property
    def trained(self) -> Trained:
        trained = self._trained
        if trained is None:
            trained = self._trained = self._find_trained()
        return trained

    def _find_trained(self) -> Trained:
        chosen = [p for p in self.parameters if p.trainable]
        if len(chosen) == len(self.parameters):
            return Trained(self.parameters, None)
        spans: list[list[int]] = []
        for p, begin, end in zip(self.parameters, self.offsets, (*self.offsets[1:], self.size), strict=True):
            if not p.trainable:
                continue
            if spans and spans[-1][1] == begin:
                spans[-1][1] = end
            else:
                spans.append([begin, end])
        return Trained(tuple(chosen), np.array(spans, np.int64).reshape(-1, 2))

    def bump(self) -> None:
        """Raise the version of every parameter: ``values`` has been written."""
        for parameter in self.parameters:
            parameter.version += 1

    def assign(self, new: npt.ArrayLike) -> None:
        """Copy a flat array over all values; what lies in its padding is ignored."""
        array = as_floats(new, self.dtype, "flat_parameters")
        if array.shape != (self.size,):
            raise ValueError(
                f"flat_parameters: expected shape {(self.size,)} (segments padded to 64 bytes), got {array.shape}; "
                "load_state_dict takes arrays by name"
            )
        for parameter, segment in zip(self.parameters, self._segments(array), strict=True):
            parameter._data[...] = segment.reshape(parameter.shape)
        self.bump()
