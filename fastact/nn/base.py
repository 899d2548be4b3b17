"""What every layer stands on: ``Layer`` and the single-use ``Backward``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._activations import Activation, activations
from fastact._arguments import Array, as_floats, as_size
from fastact.errors import BackwardError
from fastact.nn.parameter import Arena, Buffer, Parameter, ReadView
from fastact.nn.streams import PlainStream

if TYPE_CHECKING:
    from fastact.nn.summary import Summary

AnyLayer = TypeVar("AnyLayer", bound="Layer")


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
    ...     def __init__(self, features, dtype="float32"):
    ...         self.features, self.dtype = features, dtype
    ...         self.add_parameter("factor", np.ones(features, dtype))
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

    Whether its gradients are right, ``fa.testing.check_gradients`` tells, by differences in float64:

    >>> fa.testing.check_gradients(Scale(3, "float64"), np.random.default_rng(0).normal(size=(4, 3)))

    One layer or model may be called on several inputs before any backward (a Siamese net): each call has a backward of
    its own, in whatever order they are called, and the gradients add up in the parameters that they share.

    >>> net = fa.nn.Sequential(fa.nn.Dense(3, 8, "tanh"), fa.nn.Dense(8, 2))
    >>> first, second = np.zeros((5, 3), np.float32), np.ones((5, 3), np.float32)
    >>> (a, backward_a), (b, backward_b) = net.forward(first), net.forward(second)
    >>> distance = ((a - b) ** 2).sum(axis=1)
    >>> dx_first, dx_second = backward_a(2 * (a - b)), backward_b(2 * (b - a))
    """

    stateful: bool = False  #: takes ``state=`` in forward; its backward has ``state`` and ``dstate``
    takes_lengths: bool = False  #: takes ``lengths=``, the steps of each sequence, in a call and in forward
    _transient: ClassVar[tuple[str, ...]] = ()  # attributes that are caches: no members, and None in copies and pickles
    _arena: Arena | None = None

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Parameter:
            """``add_parameter`` makes attributes that no checker of types can see; other unknown names pass as them."""

    # -- computing ------------------------------------------------------------------------------------------------

    def forward(self, x: Any, /, *args: Any, **kwargs: Any) -> tuple[Any, Callable[..., Any]]:
        """Output in training mode and its backward: ``y, backward = layer.forward(x)``; ``dx = backward(dy)``."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward(x) -> (y, backward)")

    def __call__(self, x: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Output for x (and what else ``forward`` takes). Nothing is kept."""
        return self.forward(x, *args, **kwargs)[0]

    def run(self, x: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Inference that gives more than the output: layers with a state have it, and attention.

        Raises
        ------
        TypeError
            For any other layer.
        """
        raise TypeError(f"{type(self).__name__}: expected a layer with a state, or attention, to run; call it instead")

    def predict(self, x: npt.ArrayLike, batch_size: int | None = None, lengths: npt.ArrayLike | None = None) -> Array:
        """Raw outputs for all of x, ``batch_size`` rows at a time (None: all in one call).

        Parameters
        ----------
        x : array of shape (B, ...)
        batch_size : int or None
        lengths : integers of shape (B,), optional
            Steps of each sequence, for a layer with ``takes_lengths``.

        Returns
        -------
        array of shape (B, ...)
            Whatever the layer puts out; the class axis of a classifier is the last one.
        """
        self._refuse_lengths(lengths)
        if batch_size is None:
            return self(x) if lengths is None else self(x, lengths=lengths)
        n = as_size(batch_size, "batch_size")
        rows = np.asarray(x)
        if rows.ndim == 0:
            raise ValueError("x: expected at least one axis (rows first), got a scalar")
        steps = None if lengths is None else np.asarray(lengths)
        if steps is not None and steps.shape != rows.shape[:1]:
            raise ValueError(f"lengths: expected one for each of the {len(rows)} rows of x, got shape {steps.shape}")

        def part(begin: int) -> Array:
            here = rows[begin : begin + n]
            return self(here) if steps is None else self(here, lengths=steps[begin : begin + n])

        first = part(0)
        if len(rows) <= n:
            return first
        out = np.empty((len(rows), *first.shape[1:]), first.dtype)
        out[:n] = first
        for begin in range(n, len(rows), n):
            out[begin : begin + n] = part(begin)
        return out

    def _refuse_lengths(self, lengths: Any) -> None:
        """An error for lengths that no part of this layer would heed."""
        if lengths is not None and not self.takes_lengths:
            raise ValueError(
                f"lengths: expected None, as {type(self).__name__} has no layer that takes lengths (recurrent layers "
                "and pooling over time do)"
            )

    def stream(self, batch_size: int = 1) -> Any:
        """This layer one time step at a time: ``stream.step(x, out=None)`` takes and gives arrays of (B, ...), and
        ``stream.reset()`` begins a new sequence.

        Raises
        ------
        TypeError
            For a layer that has no such thing; one of your own may define it.
        """
        if type(self)._into is Layer._into:
            raise TypeError(
                f"{type(self).__name__}: expected a layer that works step by step; define stream(batch_size)"
            )
        return PlainStream(self, batch_size)

    def _into(self, x: Any, out: Array | None) -> Array:
        """``self(x)`` in ``out``, or in a new array."""
        raise NotImplementedError

    # -- parameters -----------------------------------------------------------------------------------------------

    def add_parameter(self, name: str, value: npt.ArrayLike) -> Parameter:
        """Make a parameter of a copy of ``value`` and keep it as attribute ``name``.

        Raises
        ------
        ValueError
            If the layer is part of a flattened model: its arena cannot grow.
        """
        _check_name(name)
        for parameter in self.parameters().values():
            if parameter._arena is not None and parameter._arena() is not None:
                raise ValueError(f"name: cannot add {name!r} to a layer of a flattened model; add it before flatten()")
        parameter = Parameter(value, name)
        setattr(self, name, parameter)
        return parameter

    def add_buffer(self, name: str, value: npt.ArrayLike) -> Buffer:
        """Keep a copy of ``value`` as attribute ``name``: in state dicts, files and copies, but not trained.

        For what a layer learns by other means, such as running statistics. ``buffer.value = new`` writes it.
        """
        _check_name(name)
        buffer = Buffer(value, name)
        setattr(self, name, buffer)
        return buffer

    def children(self) -> dict[str, Layer]:
        """Inner layers by name, in the order of the attributes; lists and dicts add their index or key."""
        return {name: child for name, child in self._members() if isinstance(child, Layer)}

    def _members(self) -> Iterator[tuple[str, Buffer | Layer]]:
        """Parameters, buffers and inner layers that this layer holds itself."""

        def found(name: str, value: Any) -> Iterator[tuple[str, Buffer | Layer]]:
            if isinstance(value, (Buffer, Layer)):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for i, item in enumerate(value):
                    yield from found(f"{name}.{i}", item)
            elif isinstance(value, dict):
                for key, item in value.items():
                    yield from found(f"{name}.{key}", item)

        for name, value in vars(self).items():
            if name in self._transient:  # a cache may name parameters too
                continue
            if isinstance(value, (Buffer, Layer)):  # without a generator each: zero_grad asks at every step
                yield name, value
            elif isinstance(value, (list, tuple, dict)):
                yield from found(name, value)

    def _tree(self, prefix: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, Layer]]:
        """This layer and all inner ones with their prefixes, a shared one at each of its places."""
        yield prefix, self
        above = (*above, id(self))
        for name, child in self.children().items():
            if id(child) not in above:  # a reference back up is no part of the tree
                yield from child._tree(f"{prefix}{name}.", above)

    def _names(self) -> Iterator[tuple[str, Buffer]]:
        """All names of all parameters and buffers, a shared one under each of its names."""
        for prefix, layer in self._tree():
            for name, member in layer._members():
                if isinstance(member, Buffer):
                    yield prefix + name, member

    def _saved(self) -> dict[str, Buffer]:
        """Parameters and buffers by name: what a state dict and a file hold."""
        found: dict[str, Buffer] = {}
        seen: set[int] = set()
        for name, held in self._names():
            if id(held) not in seen:
                seen.add(id(held))
                found[name] = held
        return found

    def parameters(self) -> dict[str, Parameter]:
        """Parameters by name, ``"0.weight"`` for one of an inner layer; a shared one once, under its first name."""
        return {name: held for name, held in self._saved().items() if isinstance(held, Parameter)}

    def buffers(self) -> dict[str, Buffer]:
        """What ``add_buffer`` added, by name, as ``parameters``."""
        return {name: held for name, held in self._saved().items() if not isinstance(held, Parameter)}

    @property
    def num_parameters(self) -> int:
        """Numbers in the parameters, each counted once."""
        return sum(p.size for p in self.parameters().values())

    def freeze(self: AnyLayer) -> AnyLayer:
        """Keep all parameters and buffers as they are from now on, whatever is trained; returns the layer.

        Gradients still flow through the layer to those before it. ``Parameter.trainable`` freezes a single one.

        Examples
        --------
        >>> import numpy as np
        >>> import fastact as fa
        >>> model = fa.nn.Sequential(fa.nn.Dense(4, 8, "relu").freeze(), fa.nn.Dense(8, 3))
        >>> before = model.state_dict()
        >>> loss = fa.Trainer(model).step(np.ones((2, 4), np.float32), [0, 2])
        >>> [name for name, p in model.parameters().items() if (p.value != before[name]).any()]
        ['1.weight', '1.bias']
        """
        return self._set_trainable(False)

    def unfreeze(self: AnyLayer) -> AnyLayer:
        """Take ``freeze`` back, for all parameters and buffers; returns the layer."""
        return self._set_trainable(True)

    def _set_trainable(self: AnyLayer, trainable: bool) -> AnyLayer:
        for held in self._saved().values():
            held.trainable = trainable
        return self

    # -- description of a model -----------------------------------------------------------------------------------

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for an input of this shape; here by a call with zeros, in the parameters' dtype.

        The call is one of a copy: without ``__call__`` it is ``forward``, which may move statistics and draw numbers. A
        layer that takes something else, such as integers, defines it.
        """
        dtypes = [p.dtype for p in self.parameters().values()]
        with init.seeded(0):
            return np.shape(copy.deepcopy(self)(np.zeros(shape, dtypes[0] if dtypes else np.float32)))

    def _parts(self, shape: tuple[int, ...]) -> Iterator[tuple[str, Layer, tuple[int, ...] | None]]:
        """Inner layers with the shapes of their inputs, None where nothing tells; here by a call with zeros."""
        from fastact.nn.summary import inputs_of_members

        given = inputs_of_members(self, shape)
        for name, child in self.children().items():
            yield name, child, given.get(name)

    def summary(self, input_shape: tuple[int | None, ...], depth: int | None = None) -> Summary:
        """A table of the layers, the shapes of their outputs and their parameters; ``print`` shows it.

        Parameters
        ----------
        input_shape : tuple of int
            Of x, with its batch axis, which may be None.
        depth : int, optional
            Levels of layers within layers that are listed; all without.

        Returns
        -------
        Summary

        Raises
        ------
        ValueError
            If an input of that shape does not go through the layers.

        Examples
        --------
        >>> import fastact as fa
        >>> model = fa.nn.Sequential(fa.nn.Dense(4, 8, "relu"), fa.nn.Dense(8, 3))
        >>> print(model.summary((None, 4)))
        Layer       Output shape  Parameters
        ------------------------------------
        Sequential  (None, 3)
          0: Dense  (None, 8)             40
          1: Dense  (None, 3)             27
        ------------------------------------
        67 parameters (268 bytes)
        """
        from fastact.nn.summary import summarise

        return summarise(self, input_shape, depth)

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
        view = self.arena.values.view(ReadView)
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
        """Copies of the values of all parameters and buffers by name."""
        return {name: np.array(held.value) for name, held in self._saved().items()}

    def load_state_dict(self, state: Mapping[str, Any], *, finite: bool = False) -> None:
        """Write all values by name; a state dict of PyTorch with the same names loads as it is.

        Parameters
        ----------
        state : mapping of str to array-like
            One entry for each name in ``parameters()`` and ``buffers()``. The further names of a shared one may be
            there too, with the same numbers.
        finite : bool
            True refuses infinities and NaN.

        Raises
        ------
        ValueError
            Listing every missing and unexpected name and every wrong shape; with ``finite`` where the first number of
            an entry stands that is not. Nothing is written then.
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
            elif finite and not np.isfinite(array).all():
                place = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
                problems.append(f"{name!r}: expected finite numbers, got {array[place]} at {place}")
            elif alias_of == name:
                new[name] = array
            elif alias_of in new and not np.array_equal(new[alias_of], array, equal_nan=True):
                problems.append(f"{name!r}: the same parameter as {alias_of!r} here, but given other numbers")
        problems += [f"unexpected {name!r}" for name in given]
        if problems:
            raise ValueError(f"state: does not fit this {type(self).__name__}: " + "; ".join(problems))
        named = self._saved()
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
                value is inspect.Parameter.empty or isinstance(value, Buffer)
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


def _check_name(name: str) -> None:
    if not name.isidentifier():
        raise ValueError(f"name: expected a Python identifier, got {name!r}")
