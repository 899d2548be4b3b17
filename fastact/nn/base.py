"""What every layer stands on: ``Parameter``, ``Arena``, ``Layer`` and the single-use ``Backward``.

A ``Parameter`` owns a 64-byte aligned, zero-padded segment of memory from its construction. ``Layer.flatten`` moves the
segments of a whole model into one ``Arena`` (a flat buffer of values, a flat buffer of gradients), so that one call
updates, reduces, clips or saves everything; the ``Parameter`` objects stay the same and their ``value`` follows.

Values are read through read-only views. Every write goes through a method that raises ``Parameter.version``, and that
is what keeps packed copies of weights honest.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastact._activations import Activation, activations
from fastact.errors import BackwardError

Array = npt.NDArray[Any]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def as_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """``dtype`` as one of the two that layers compute in.

    Raises
    ------
    TypeError
        If it is neither float32 nor float64.
    """
    for known in DTYPES:
        with suppress(TypeError):  # np.dtype's, for what is no type at all
            if dtype is not None and np.dtype(dtype) == known:
                return known  # NumPy's own object, so that layers can compare with `is`
    raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}")


def as_size(value: Any, name: str, least: int = 1) -> int:
    """``value`` as an int of at least ``least``; ``name`` is the argument's, for the message."""
    try:
        size = value.__index__()
    except (AttributeError, TypeError):
        raise TypeError(f"{name}: expected an integer, got {value!r} of type {type(value).__name__}") from None
    if isinstance(value, bool) or size < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    return int(size)


def as_floats(value: Any, dtype: np.dtype[Any], name: str) -> Array:
    """``value`` as an array of ``dtype``; real numbers of any type are converted, anything else is refused.

    Raises
    ------
    TypeError
        For complex numbers, strings, objects, ragged lists and masked arrays.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a plain array, got a masked one; fill it first: {name}.filled(0)")
    try:
        array = np.asarray(value)
    except Exception as error:  # whatever a foreign __array__ raises
        raise TypeError(
            f"{name}: expected an array of numbers, got {type(value).__name__} that NumPy cannot read: {error}"
        ) from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {array.dtype} ({type(value).__name__})")
    return array.astype(dtype, copy=False)


def aligned_zeros(size: int, dtype: np.dtype[Any]) -> Array:
    """A flat array of ``size`` zeros that begins at a multiple of 64 bytes."""
    raw = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip : skip + size * dtype.itemsize].view(dtype)


def padded_size(size: int, dtype: np.dtype[Any]) -> int:
    """``size`` elements rounded up to whole blocks of 64 bytes."""
    block = ALIGNMENT // dtype.itemsize
    return -(-size // block) * block


class Parameter:
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
    assigns); both raise ``p.version``. A view taken before ``Layer.flatten`` shows the old memory: take ``p.value``
    anew at each use. ``p.grad`` is a writable view that backward passes add to; its memory is made at first use, so a
    model that only predicts has none.

    Copies and pickles carry value and version; their gradient starts at zero.

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

    __slots__ = ("__weakref__", "_arena", "_data", "_grad", "_view", "dtype", "name", "shape", "size", "version")

    def __init__(self, value: npt.ArrayLike, name: str = "parameter") -> None:
        array = np.asarray(value)
        self.dtype = as_dtype(array.dtype)
        self.name = name
        self.shape = array.shape
        self.size = array.size
        self.version = 0
        self._arena: weakref.ref[Arena] | None = None
        self._grad: Array | None = None
        self._place(aligned_zeros(padded_size(self.size, self.dtype), self.dtype))
        self._data[...] = array

    def _place(self, segment: Array) -> None:
        """Let value live in this segment from now on (the caller copies what was there)."""
        self._data = segment[: self.size].reshape(self.shape)
        self._view = self._data.view()
        self._view.flags.writeable = False

    @property
    def value(self) -> Array:
        """Read-only view of the current value."""
        return self._view

    @value.setter
    def value(self, new: npt.ArrayLike) -> None:
        array = as_floats(new, self.dtype, self.name)
        if array.shape != self.shape:
            raise ValueError(
                f"{self.name}: expected shape {self.shape}, got {array.shape}; p[...] = a broadcasts as NumPy does"
            )
        self._data[...] = array
        self.version += 1

    def __setitem__(self, index: Any, new: npt.ArrayLike) -> None:
        self._data[index] = as_floats(new, self.dtype, self.name)
        self.version += 1

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
        if new is grad:  # the last step of `p.grad += a`
            return
        array = as_floats(new, self.dtype, f"{self.name}.grad")
        if array.shape != self.shape:
            raise ValueError(f"{self.name}.grad: expected shape {self.shape}, got {array.shape}")
        grad[...] = array

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy or (dtype is not None and np.dtype(dtype) != self.dtype):
            return np.array(self._data, dtype)
        return self._view

    def __repr__(self) -> str:
        return f"Parameter({self.name}, shape={self.shape}, dtype={self.dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_parameter, (np.array(self._data), self.name, self.version)

    def __copy__(self) -> Parameter:
        return _restore_parameter(self._data, self.name, self.version)


def _restore_parameter(value: Array, name: str, version: int) -> Parameter:
    parameter = Parameter(value, name)
    parameter.version = version
    return parameter


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
    """

    __slots__ = ("__weakref__", "_gradients", "dtype", "offsets", "parameters", "size", "values")

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


class Backward:
    """The backward pass of one call of ``Layer.forward``: ``dx = backward(dy)``, once.

    Parameters
    ----------
    run : callable
        ``run(dy, input_gradient) -> dx``. Adds to the gradients of the parameters; ``dy`` has been checked. With
        ``input_gradient=False`` nobody wants dx: return None and save the work.
    shape, dtype
        Of y, hence of dy.

    Notes
    -----
    dy of the wrong shape or type is refused before anything is touched, and the closure remains usable. What ``run``
    holds is released by the call. Recurrent layers derive a class that adds ``state`` and ``dstate`` and shares
    ``_check`` and ``_begin``; ``run`` must not refer to that object, or the buffers live until the next garbage
    collection.
    """

    __slots__ = ("_dtype", "_run", "_shape")

    def __init__(self, run: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._run = run
        self._shape = shape
        self._dtype = dtype

    def __call__(self, dy: npt.ArrayLike, input_gradient: bool = True) -> Any:
        """Gradient of the input for the gradient ``dy`` of the output; parameter gradients add up in ``grad``.

        Parameters
        ----------
        dy : array, shape of y
        input_gradient : bool
            False skips dx and returns None: the first layer of a model does not need it.

        Raises
        ------
        BackwardError
            On a second call: what it needed is gone.
        ValueError, TypeError
            If dy does not fit y.
        """
        dy = self._check(dy)
        return self._begin()(dy, input_gradient)

    def _check(self, dy: Any) -> Array:
        if dy.__class__ is not np.ndarray or dy.dtype is not self._dtype:
            dy = as_floats(dy, self._dtype, "dy")
        if dy.shape != self._shape:
            raise ValueError(f"dy: expected the shape of y, {self._shape}, got {dy.shape}")
        return dy

    def _begin(self) -> Any:
        """Hand out ``run`` and forget it."""
        run = self._run
        if run is None:
            raise BackwardError("backward: expected one call for each forward, got a second; call forward again")
        self._run = None
        return run


@dataclass(slots=True)
class RunResult:
    """What ``run`` of a recurrent layer or model returns: an inference with more than the output.

    Attributes
    ----------
    y : array
    state
        Final state, in the form that ``state=`` takes.
    cells, gates
        Where they were asked for.
    """

    y: Array
    state: Any = None
    cells: Array | None = None
    gates: dict[str, Array] | Array | None = None


class Layer:
    """Base of all layers and models.

    A subclass defines ``forward`` and keeps its parameters (``add_parameter``) and inner layers as plain attributes,
    also in lists, tuples and dicts; they are found there, under torch.nn's kind of names. ``__call__`` may be defined
    as well, where inference can do with less than ``forward``. A layer holds nothing of a call, so that inference is
    re-entrant; a cache (packed weights, say) is keyed by ``Parameter.version`` and named in ``_transient``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> class Scale(fa.nn.Layer):
    ...     def __init__(self, features):
    ...         self.features = features
    ...         self.add_parameter("factor", np.ones(features, np.float32))
    ...     def forward(self, x):
    ...         factor = self.factor
    ...         y = x * factor.value
    ...         def backward(dy):
    ...             factor.grad[...] += (dy * x).sum(0)
    ...             return dy * factor.value
    ...         return y, backward
    >>> layer = Scale(3)
    >>> y, backward = layer.forward(np.ones((2, 3), np.float32))
    >>> dx = backward(np.ones((2, 3), np.float32))
    >>> layer.factor.grad
    array([2., 2., 2.], dtype=float32)
    """

    stateful: bool = False  #: takes ``state=`` in forward; its backward has ``state`` and ``dstate``
    _transient: ClassVar[tuple[str, ...]] = ()  # attributes that are caches: no members, and None in copies and pickles
    _arena: Arena | None = None

    # -- computing ------------------------------------------------------------------------------------------------

    def forward(self, x: Any, /, **kwargs: Any) -> tuple[Any, Callable[..., Any]]:
        """Output in training mode and its backward: ``y, backward = layer.forward(x)``; ``dx = backward(dy)``."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward(x) -> (y, backward)")

    def __call__(self, x: Any, /) -> Any:
        """Output for x. Nothing is kept."""
        return self.forward(x)[0]

    def predict(self, x: npt.ArrayLike, batch_size: int | None = None) -> Array:
        """Raw outputs for all of x, ``batch_size`` rows at a time (None: all in one call).

        Parameters
        ----------
        x : array of shape (B, ...)
        batch_size : int or None

        Returns
        -------
        array of shape (B, ...)
            Whatever the layer puts out; the class axis of a classifier is the last one.
        """
        if batch_size is None:
            return self(x)
        n = as_size(batch_size, "batch_size")
        rows = np.asarray(x)
        if rows.ndim == 0:
            raise ValueError("x: expected at least one axis (rows first), got a scalar")
        if len(rows) <= n:
            return self(rows)
        first = self(rows[:n])
        out = np.empty((len(rows), *first.shape[1:]), first.dtype)
        out[:n] = first
        for begin in range(n, len(rows), n):
            out[begin : begin + n] = self(rows[begin : begin + n])
        return out

    # -- parameters -----------------------------------------------------------------------------------------------

    def add_parameter(self, name: str, value: npt.ArrayLike) -> Parameter:
        """Make a parameter of a copy of ``value`` and keep it as attribute ``name``.

        Raises
        ------
        ValueError
            If the layer is part of a flattened model: its arena cannot grow.
        """
        if not name.isidentifier():
            raise ValueError(f"name: expected a Python identifier, got {name!r}")
        for parameter in self.parameters().values():
            if parameter._arena is not None and parameter._arena() is not None:
                raise ValueError(f"name: cannot add {name!r} to a layer of a flattened model; add it before flatten()")
        parameter = Parameter(value, name)
        setattr(self, name, parameter)
        return parameter

    def children(self) -> dict[str, Layer]:
        """Inner layers by name, in the order of the attributes; lists and dicts add their index or key."""
        return {name: child for name, child in self._members() if isinstance(child, Layer)}

    def _members(self) -> Iterator[tuple[str, Parameter | Layer]]:
        """Parameters and inner layers that this layer holds itself."""

        def found(name: str, value: Any) -> Iterator[tuple[str, Parameter | Layer]]:
            if isinstance(value, (Parameter, Layer)):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for i, item in enumerate(value):
                    yield from found(f"{name}.{i}", item)
            elif isinstance(value, dict):
                for key, item in value.items():
                    yield from found(f"{name}.{key}", item)

        for name, value in vars(self).items():
            if name not in self._transient:  # a cache may name parameters too
                yield from found(name, value)

    def _tree(self, prefix: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, Layer]]:
        """This layer and all inner ones with their prefixes, a shared one at each of its places."""
        yield prefix, self
        above = (*above, id(self))
        for name, child in self.children().items():
            if id(child) not in above:  # a reference back up is no part of the tree
                yield from child._tree(f"{prefix}{name}.", above)

    def _names(self) -> Iterator[tuple[str, Parameter]]:
        """All names of all parameters, a shared one under each of its names."""
        for prefix, layer in self._tree():
            for name, member in layer._members():
                if isinstance(member, Parameter):
                    yield prefix + name, member

    def parameters(self) -> dict[str, Parameter]:
        """Parameters by name, ``"0.weight"`` for one of an inner layer; a shared one once, under its first name."""
        found: dict[str, Parameter] = {}
        seen: set[int] = set()
        for name, parameter in self._names():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                found[name] = parameter
        return found

    @property
    def num_parameters(self) -> int:
        """Trained numbers, each counted once."""
        return sum(p.size for p in self.parameters().values())

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        if self._arena is not None:
            if self._arena._gradients is not None:
                self._arena._gradients.fill(0)
            return
        for parameter in self.parameters().values():
            if parameter._grad is not None:
                parameter._grad.fill(0)

    # -- the flat buffers -----------------------------------------------------------------------------------------

    def flatten(self) -> Arena:
        """Move all parameters into one arena, or return the one they are in.

        The Trainer and ``flat_parameters`` call it. All parameters have one dtype. A parameter is in one arena at a
        time, for as long as the model that was flattened lives.

        Raises
        ------
        TypeError
            If the parameters have both dtypes.
        ValueError
            If some of them belong to another flattened model, or the model has changed since it was flattened.
        """
        named = self.parameters()
        parameters = list(named.values())
        arenas = {id(a): a for p in parameters if p._arena is not None and (a := p._arena()) is not None}
        if not arenas:
            if self._arena is not None and not parameters:
                return self._arena
            self._arena = Arena(parameters)
        else:
            arena = next(iter(arenas.values()))
            if len(arenas) > 1 or {id(p) for p in parameters} != {id(p) for p in arena.parameters}:
                taken = [name for name, p in named.items() if p._arena is not None and p._arena() is not None]
                raise ValueError(
                    f"flatten: expected parameters that belong to no other flattened model, got {', '.join(taken)}; "
                    "flatten (or train) only the outermost model, use copy.deepcopy(layer) in a second one, and "
                    "copy.deepcopy(model) after a change of a flattened model"
                )
            self._arena = arena
        return self._arena

    @property
    def arena(self) -> Arena:
        """The arena of this model; flattens it at first use. For optimisers: costs nothing later."""
        return self._arena if self._arena is not None else self.flatten()

    @property
    def flat_parameters(self) -> Array:
        """All values as one read-only flat array, segments padded with zeros to 64 bytes. Assigning writes them."""
        view = self.arena.values.view()
        view.flags.writeable = False
        return view

    @flat_parameters.setter
    def flat_parameters(self, new: npt.ArrayLike) -> None:
        self.arena.assign(new)

    @property
    def flat_gradients(self) -> Array:
        """All gradients as one writable flat array, laid out as ``flat_parameters``."""
        return self.arena.gradients

    @flat_gradients.setter
    def flat_gradients(self, new: npt.ArrayLike) -> None:
        gradients = self.arena.gradients
        if new is not gradients:  # the last step of `model.flat_gradients *= a`
            gradients[...] = as_floats(new, self.arena.dtype, "flat_gradients")

    # -- state dicts ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """Copies of all values by name."""
        return {name: np.array(p.value) for name, p in self.parameters().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Write all values by name; a state dict of PyTorch with the same names loads as it is.

        Parameters
        ----------
        state : mapping of str to array-like
            One entry for each name in ``parameters()``. The further names of a shared parameter may be there too, with
            the same numbers.

        Raises
        ------
        ValueError
            Listing every missing and unexpected name and every wrong shape. Nothing is written then.
        TypeError
            If an entry is not made of real numbers.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a mapping of names to arrays, got {type(state).__name__}")
        given: dict[str, Any] = dict(state)
        for prefix, layer in self._tree():
            if type(layer).adapt_state is Layer.adapt_state:
                continue
            own = {name[len(prefix) :]: given.pop(name) for name in list(given) if name.startswith(prefix)}
            given.update((prefix + name, value) for name, value in layer.adapt_state(own).items())

        problems: list[str] = []
        new: dict[str, Array] = {}
        first_name: dict[int, str] = {}
        for name, parameter in self._names():
            alias_of = first_name.setdefault(id(parameter), name)
            if name not in given:
                if alias_of == name:
                    problems.append(f"missing {name!r} {parameter.shape}")
                continue
            array = as_floats(given.pop(name), parameter.dtype, f"state[{name!r}]")
            if array.shape != parameter.shape:
                problems.append(f"{name!r}: expected shape {parameter.shape}, got {array.shape}")
            elif alias_of == name:
                new[name] = array
            elif alias_of in new and not np.array_equal(new[alias_of], array, equal_nan=True):
                problems.append(f"{name!r}: the same parameter as {alias_of!r} here, but given other numbers")
        problems += [f"unexpected {name!r}" for name in given]
        if problems:
            raise ValueError(f"state: does not fit this {type(self).__name__}: " + "; ".join(problems))
        named = self.parameters()
        for name, array in new.items():
            named[name].value = array

    def adapt_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Hook of ``load_state_dict``: this layer's entries (its prefix removed) in its own form.

        For layers that also take other forms of their weights, such as two biases where they keep the sum.
        """
        return state

    # -- description, copies --------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Arguments that rebuild this layer without its weights, by ``type(layer).from_config(config)``.

        The values are made of JSON's types, layers and activations. Here: each argument of ``__init__`` but ``rng``,
        read from the attribute of the same name; a layer that stores them otherwise overrides this.

        Raises
        ------
        TypeError
            If an argument has no such attribute.
        """
        found: dict[str, Any] = {}
        for name, argument in inspect.signature(type(self)).parameters.items():
            if name == "rng":
                continue
            value = getattr(self, name, inspect.Parameter.empty)
            if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD) or (
                value is inspect.Parameter.empty or isinstance(value, Parameter)
            ):
                raise TypeError(
                    f"{type(self).__name__}: expected an attribute {name!r} that holds the argument of __init__, found "
                    "none; store it, or define config() to return the arguments as a dict"
                )
            found[name] = value.name if isinstance(value, np.dtype) else value
        return found

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """A layer from what ``config`` gave."""
        return cls(**config)

    def __repr__(self) -> str:
        try:
            arguments = self.config()
        except TypeError:
            arguments = {}
        inside = ", ".join(
            f"{name}={(value.name if isinstance(value, Activation) and activations[value.name] is value else value)!r}"
            for name, value in arguments.items()
        )
        return f"{type(self).__name__}({inside})"

    def __getstate__(self) -> dict[str, Any]:
        state = {name: None if name in self._transient else value for name, value in vars(self).items()}
        state["_arena"] = self._arena is not None  # an arena is rebuilt, not copied
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        flat = state.pop("_arena", False)
        vars(self).update(state)
        if flat:
            self.flatten()
