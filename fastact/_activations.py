"""Activation objects and the catalogue: ``fa.gelu``, ``fa.activations["gelu"]``.

What an activation is stands in the C table (``src_c/activations.def``); this module reads it back and gives each row a
face: the call, the backward pass, derivatives, bound parameters, documentation, pickling. Ordinary arrays never get
this far: ``Caller`` (``_core/activations.pyx``) takes them to the kernel, and the methods here serve what it declines.
"""

from __future__ import annotations

import difflib
import inspect
import math
import textwrap
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from fastact._core import activations as _core

_SUPPORTED = "real numbers (float16, float32, float64, integers or booleans)"


class Activation(_core.Caller):
    """An activation function over NumPy arrays, with its backward pass and derivatives.

    Instances stand in ``fastact.activations`` and as ``fastact.sigmoid``, ``fastact.gelu`` and so on.

    Attributes
    ----------
    name : str
    parameters : Mapping[str, float]
        Values that a call uses unless it names others: the defaults, or those of ``with_params``.
    backward_from : {"x", "y", "either"}
        What ``backward`` can work from: the input x, the output y, or either.
    ufunc : numpy.ufunc
        The ufunc beneath; parameters are its further inputs. A gufunc ``(n)->(n)`` for softmax and log_softmax.
    rowwise : bool
        True where an output depends on a whole row of inputs (softmax, log_softmax).
    formula : str
    ulp : Mapping[str, tuple[float, float, float]]
        Largest errors of f, f' and f'' in units in the last place, by dtype name; at the default parameters, as all
        that follows.
    note : str
        Who means what by the name, and other libraries' defaults.
    aliases : tuple[str, ...]
        Other names in the catalogue.
    surrogate : str
        Where not empty, the formula whose derivatives stand in for those of the function.
    zeros : tuple[tuple[float, ...], tuple[float, ...]]
        Interior zeros of f' and of f'' without a relative bound: within a factor of 1.25 of one, the error is at most
        4 eps times the derivative's largest value.
    kinks : tuple[float, ...]
        Where f, f' or f'' jumps.
    landmarks : list[tuple[float, float]]
        Pairs (x, f(x)) that come out exactly.
    range : tuple[float, float]
        Lower and upper end of f.
    monotonic, odd : bool

    Examples
    --------
    >>> import numpy as np, fastact as fa
    >>> x = np.array([-1.0, 0.0, 2.0])
    >>> fa.relu(x)
    array([0., 0., 2.])
    >>> fa.relu.backward(np.ones(3), x=x)
    array([0., 0., 1.])
    >>> fa.leaky_relu.with_params(alpha=0.5)(x)
    array([-0.5,  0. ,  2. ])
    """

    def __init__(self, name: str, index: int, rowwise: bool, parameters: Mapping[str, float], *_: Any) -> None:
        self.parameters: Mapping[str, float] = MappingProxyType(dict(parameters))

    # The facts of the row, shared by all Activations of a name.

    @property
    def backward_from(self) -> str:
        return _ROWS[self.name]["backward_from"]

    @property
    def formula(self) -> str:
        return _ROWS[self.name]["formula"]

    @property
    def ulp(self) -> Mapping[str, tuple[float, float, float]]:
        return MappingProxyType(_ROWS[self.name]["ulp"])

    @property
    def note(self) -> str:
        return _ROWS[self.name]["note"]

    @property
    def aliases(self) -> tuple[str, ...]:
        return _ROWS[self.name]["aliases"]

    @property
    def surrogate(self) -> str:
        return _ROWS[self.name]["surrogate"]

    @property
    def zeros(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return _ROWS[self.name]["zeros"]

    @property
    def kinks(self) -> tuple[float, ...]:
        return _ROWS[self.name]["kinks"]

    @property
    def landmarks(self) -> list[tuple[float, float]]:
        return list(_ROWS[self.name]["landmarks"])

    @property
    def range(self) -> tuple[float, float]:
        return _ROWS[self.name]["range"]

    @property
    def monotonic(self) -> bool:
        return _ROWS[self.name]["monotonic"]

    @property
    def odd(self) -> bool:
        return _ROWS[self.name]["odd"]

    def with_params(self, **params: float) -> Activation:
        """The same activation with other values of its parameters.

        Parameters
        ----------
        **params : float
            Real numbers; a call may also take arrays.

        Raises
        ------
        TypeError
            For a parameter that this activation does not have, or a value that is not a real number.

        Examples
        --------
        >>> import fastact as fa
        >>> fa.leaky_relu.with_params(alpha=0.2)
        Activation('leaky_relu', alpha=0.2)
        """
        values = dict(self.parameters)
        for name, value in params.items():
            if name not in values:
                self._unknown_parameter(name)
            number = _parameter(name, value)
            if not isinstance(number, float):
                raise TypeError(f"{name}: expected a real number, got an array; give arrays with the call instead")
            values[name] = number
        return self if values == self.parameters else _make(_ROWS[self.name], values, self)

    # What the direct path declines.

    def _call(self, x: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]) -> Any:
        options: dict[str, Any] = {}
        if out is not None:
            options["out"] = out
        if dtype is not None:
            options["dtype"] = dtype
        if self.rowwise:
            return self._call_rows(x, -1 if axis is None else axis, where, options, params)
        if axis is not None:
            raise TypeError(f"axis: {self.name} acts on each element and takes no axis; leave it out")
        if where is not True:
            options["where"] = where
        arguments = self._arguments(params)
        _integers_as_in_sin(options, arguments, x)
        return _run(self.name, self.ufunc, {"x": x, **arguments}, options)

    def _call_rows(self, x: Any, axis: Any, where: Any, options: dict[str, Any], params: dict[str, Any]) -> Any:
        self._arguments(params)
        mask = None
        if isinstance(x, np.ma.MaskedArray):
            mask = np.ma.getmaskarray(x)
            where, x = ~mask & where, x.data
        if where is not True:
            x = np.asarray(x)
            shown = np.where(where, x, -np.inf if x.dtype.kind == "f" else np.float64(-np.inf))
            if shown.shape != x.shape:
                raise ValueError(f"where: expected a shape that broadcasts to x {x.shape}, got {np.shape(where)}")
            x = shown.astype(x.dtype) if x.dtype.kind == "f" else shown
        if not options and _narrow(x):
            options["out"] = np.empty(np.shape(x), np.float16)
        options["axis"] = _axis(axis, x)
        y = _run(self.name, self.ufunc, {"x": x}, options)
        return y if mask is None else np.ma.array(y, mask=mask)

    def _backward(self, dy: Any, x: Any, y: Any, out: Any, axis: Any, params: dict[str, Any]) -> Any:
        name = f"{self.name}.backward"
        kind = "backward_x" if x is not None and "backward_x" in self.ufuncs else "backward_y"
        operand = x if kind == "backward_x" else y
        if kind not in self.ufuncs:
            raise TypeError(f"{name}: x: expected the input of the forward call, got None (its output is not enough)")
        if operand is None:
            wanted = "y= (the output)" if self.rowwise else "x= (the input) or y= (the output)"
            raise TypeError(f"{name}: expected {wanted} of the forward call, got neither; pass what that call saw")
        options: dict[str, Any] = {} if out is None else {"out": out}
        if self.rowwise:
            options["axis"] = _axis(-1 if axis is None else axis, operand)
            if out is None and _narrow(dy) and _narrow(operand):
                options["out"] = np.empty(np.broadcast_shapes(np.shape(dy), np.shape(operand)), np.float16)
        elif axis is not None:
            raise TypeError(f"axis: {self.name} acts on each element and takes no axis; leave it out")
        arguments = self._arguments(params)
        _integers_as_in_sin(options, arguments, dy, operand)
        return _run(name, self.ufuncs[kind], {"dy": dy, kind[-1]: operand, **arguments}, options)

    def _derivative(self, x: Any, order: Any, out: Any, params: dict[str, Any]) -> Any:
        name = f"{self.name}.derivative"
        if self.rowwise:
            raise TypeError(f"{name}: the derivative of a row is a matrix; use {self.name}.backward(dy, y=y)")
        if order not in (1, 2):
            raise ValueError(f"{name}: order: expected 1 or 2, got {order!r}")
        arguments = self._arguments(params)
        options: dict[str, Any] = {} if out is None else {"out": out}
        _integers_as_in_sin(options, arguments, x)
        return _run(name, self.ufuncs[f"derivative{int(order)}"], {"x": x, **arguments}, options)

    def _arguments(self, params: dict[str, Any]) -> dict[str, Any]:
        """Values of all parameters, in the order of the ufunc's inputs: floats, which never promote, or arrays."""
        for name in params:
            if name not in self.parameters:
                self._unknown_parameter(name)
        return {name: _parameter(name, params.get(name, default)) for name, default in self.parameters.items()}

    def _unknown_parameter(self, name: str) -> NoReturn:
        known = ", ".join(self.parameters) or "none"
        raise TypeError(f"{self.name}: expected parameters among: {known}; got {name!r}")

    # Identity: one object a name and set of parameters as far as ==, hash, pickle and copy are concerned.

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Activation):
            return NotImplemented
        return self.name == other.name and self.parameters == other.parameters

    def __hash__(self) -> int:
        return hash((self.name, *self.parameters.values()))

    def _bound(self) -> dict[str, float]:
        """The parameters that differ from the defaults."""
        return {k: v for k, v in self.parameters.items() if v != _ROWS[self.name]["parameters"][k]}

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.name, self._bound())

    def __repr__(self) -> str:
        return f"Activation({self.name!r}{''.join(f', {k}={v!r}' for k, v in self._bound().items())})"


def _restore(name: str, params: dict[str, float]) -> Activation:
    return activations[name].with_params(**params)


# ---------------------------------------------------------------------------------------------------------------------
# Arguments and their errors
# ---------------------------------------------------------------------------------------------------------------------


def _parameter(name: str, value: Any) -> Any:
    """A float for one real number, which NumPy then does not let promote x; an array as it is."""
    if type(value) is float:
        return value
    array = value if hasattr(value, "dtype") else np.asarray(value)
    if getattr(array.dtype, "kind", "f") not in "fiub":
        raise TypeError(f"{name}: expected a real number or an array of them, got {value!r}")
    return float(value) if np.ndim(array) == 0 else array


def _axis(axis: Any, x: Any) -> int:
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise TypeError(f"axis: expected an integer, got {axis!r}")
    axis = axis.__index__()
    if not hasattr(x, "__array_ufunc__") or isinstance(x, np.ndarray):
        ndim = np.ndim(x)
        if ndim == 0:
            raise ValueError("x: expected at least one dimension, got a scalar")
        if not -ndim <= axis < ndim:
            raise ValueError(f"axis: expected {-ndim} to {ndim - 1} for x of shape {np.shape(x)}, got {axis}")
    return axis


def _integers_as_in_sin(options: dict[str, Any], parameters: dict[str, Any], *arrays: Any) -> None:
    """Name the loop for integer arrays beside parameters: those are floats, and NumPy would take the float64 loop."""
    if parameters and "dtype" not in options and all(isinstance(a, (np.ndarray, np.generic)) for a in arrays):
        dtype = np.result_type(*arrays)
        if dtype.kind in "iub":
            options["dtype"] = {1: np.float16, 2: np.float32}.get(dtype.itemsize, np.float64)


def _narrow(x: Any) -> bool:
    """Whether NumPy's functions would give float16 for x; row ufuncs, which have no such loop, give float32."""
    return isinstance(x, np.ndarray) and x.dtype.type in (np.float16, np.int8, np.uint8, np.bool_)


def _run(function: str, ufunc: np.ufunc, inputs: dict[str, Any], options: dict[str, Any]) -> Any:
    """The ufunc's result, or an error that names the argument in place of NumPy's."""
    try:
        return ufunc(*inputs.values(), **options)
    except (TypeError, ValueError) as error:
        explained = _explained(error, function, inputs, options.get("out"), options.get("dtype"))
        if explained is error:
            raise
        raise explained from error


def _explained(error: Exception, function: str, inputs: dict[str, Any], out: Any, dtype: Any) -> Exception:
    """The error to raise for NumPy's refusal: ``error`` itself where there is nothing to add."""
    arrays = {}
    for name, value in inputs.items():
        if not isinstance(value, np.ndarray) and hasattr(value, "__array_ufunc__"):
            return error  # another library's array: its own message
        try:
            arrays[name] = np.asarray(value)
        except ValueError:
            return ValueError(f"{function}: {name}: expected an array, got a ragged sequence")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            got = f"got dtype {array.dtype}; use astype(np.float64)"
            return TypeError(f"{function}: {name}: expected {_SUPPORTED}, {got}")
    if dtype is not None and np.dtype(dtype) not in (np.float16, np.float32, np.float64):
        return TypeError(f"{function}: dtype: expected float16, float32 or float64, got {dtype!r}")
    shapes = {name: array.shape for name, array in arrays.items() if array.ndim or name in ("x", "dy", "y")}
    try:
        expected = np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        return ValueError(f"{function}: expected shapes that broadcast together, got {listed}")
    shape = np.shape(out[0] if isinstance(out, tuple) and out else out)
    if isinstance(error, ValueError) and out is not None and shape != expected:
        return ValueError(f"{function}: out: expected shape {expected}, got {shape}")
    return type(error)(f"{function}: {error}") if type(error) in (TypeError, ValueError) else error


# ---------------------------------------------------------------------------------------------------------------------
# The catalogue
# ---------------------------------------------------------------------------------------------------------------------

_SUMMARY = {
    "forward": "{formula}",
    "derivative1": "The derivative of {name}, {formula}, with respect to x.",
    "derivative2": "The second derivative of {name}, {formula}, with respect to x.",
    "backward_x": "dy times the derivative of {name}, {formula}, at x.",
    "backward_y": "dy times the derivative of {name}, {formula}, where its output is y.",
}


def _ufunc_doc(row: dict[str, Any], kind: str) -> str:
    return _SUMMARY[kind].format(**row)


_DOC = """\
{name}(x) = {formula}

Parameters
----------
x : array_like
    {x}
{parameters}{others} : optional
    As for any NumPy ufunc.

Returns
-------
y : ndarray
    The shape of {shape}.

Notes
-----
{notes}``backward(dy, ...)`` works from {source}.
"""
_DOC_EXAMPLE = """
Examples
--------
>>> import numpy as np, fastact as fa
>>> fa.{name}(np.array({xs})).tolist()
{ys}
"""
_SOURCES = {"x": "the input x", "y": "the output y", "either": "the input x or the output y"}


def _doc(row: dict[str, Any]) -> str:
    """A numpydoc text from the row of the table."""
    if row["rowwise"]:
        parts = {
            "x": "At least 1-d.",
            "parameters": "axis : int, default -1\n    The axis that is normalised.\n"
            "where : array_like of bool, default True\n    False entries, and masked ones, count as -inf.\n",
            "others": "out, dtype",
            "shape": "x",
            "notes": "",
        }
    else:
        low, high = row["range"]
        kinds = "".join(f", {kind}" for kind in ("monotonic", "odd") if row[kind])
        parts = {
            "x": "Any shape; float16, float32, float64, or integers, promoted as by numpy.sin.",
            "parameters": "".join(
                f"{name} : float or array_like, default {value:.6g}\n    A number does not promote x; an array may.\n"
                for name, value in row["parameters"].items()
            ),
            "others": "out, where, dtype",
            "shape": "the inputs, broadcast together",
            "notes": "".join(f"{line}\n" for line in textwrap.wrap(row["note"], 100))
            + (f"Derivatives are those of {row['surrogate']}.\n" if row["surrogate"] else "")
            + f"Range {low:g} to {high:g}{kinds}, at the default parameters.\n"
            + "".join(
                f"Largest error in {dtype}: {f:g} ulp, derivative {d1:g} ulp, second derivative {d2:g} ulp.\n"
                for dtype, (f, d1, d2) in row["ulp"].items()
            ),
        }
    doc = _DOC.format(name=row["name"], formula=row["formula"], source=_SOURCES[row["backward_from"]], **parts)
    finite = [(float(x), float(y)) for x, y in row["landmarks"] if math.isfinite(x)]
    if finite:
        doc += _DOC_EXAMPLE.format(name=row["name"], xs=[x for x, _ in finite], ys=[y for _, y in finite])
    return doc


def _signature(row: dict[str, Any]) -> inspect.Signature:
    kinds = inspect.Parameter
    keywords: dict[str, Any] = {"where": True, "dtype": None}
    keywords |= {"axis": -1} if row["rowwise"] else row["parameters"]
    return inspect.Signature(
        [kinds("x", kinds.POSITIONAL_OR_KEYWORD), kinds("out", kinds.POSITIONAL_OR_KEYWORD, default=None)]
        + [kinds(name, kinds.KEYWORD_ONLY, default=value) for name, value in keywords.items()]
    )


def _make(row: dict[str, Any], values: Mapping[str, float], base: Activation | None = None) -> Activation:
    doc = None if base is not None else lambda kind: _ufunc_doc(row, kind)
    activation = Activation(row["name"], row["index"], row["rowwise"], dict(values), doc, base)
    activation.__doc__ = _doc(row) if base is None else base.__doc__
    activation.__signature__ = _signature({**row, "parameters": values})  # type: ignore[attr-defined]
    return activation


_ROWWISE_FORMULAS = {"softmax": "exp(x_i) / sum_j exp(x_j)", "log_softmax": "x_i - log(sum_j exp(x_j))"}


def _read_table() -> dict[str, dict[str, Any]]:
    rows = {row["name"]: row | {"rowwise": False} for row in _core.describe_all()}
    for name, index in _core.ROWWISE.items():
        rows[name] = {
            "name": name,
            "index": index,
            "rowwise": True,
            "formula": _ROWWISE_FORMULAS[name],
            "parameters": {},
            "backward_from": "y",
            "ulp": {},
            "aliases": (),
            "note": "",
            "surrogate": "",
            "landmarks": [],
            "zeros": ((), ()),
            "kinks": (),
            "range": (0.0, 1.0) if name == "softmax" else (-math.inf, 0.0),
            "monotonic": False,
            "odd": False,
        }
    return rows


_ROWS = _read_table()


class Catalogue(Mapping[str, Activation]):
    """All activations by name, in the order of the table. Aliases are found, too, but not listed.

    Attributes
    ----------
    aliases : dict[str, Activation]
        Other names.

    Examples
    --------
    >>> import fastact as fa
    >>> fa.activations["gelu"] is fa.gelu
    True
    >>> fa.activations["gleu"]
    Traceback (most recent call last):
        ...
    KeyError: "activation: expected one of ...
    """

    def __init__(self) -> None:
        self._entries = {name: _make(row, row["parameters"]) for name, row in _ROWS.items()}
        self.aliases = {alias: self[name] for name, row in _ROWS.items() for alias in row["aliases"]}

    def __getitem__(self, name: str) -> Activation:
        try:
            return self._entries.get(name) or self.aliases[name]
        except KeyError:
            raise KeyError(self._unknown(name)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"activations({', '.join(self)})"

    def _unknown(self, name: object) -> str:
        near = difflib.get_close_matches(str(name), [*self._entries, *self.aliases], n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        return f"activation: expected one of {', '.join(self)}, got {name!r}{hint}"


activations = Catalogue()


def as_activation(spec: str | Activation | None) -> Activation:
    """The Activation that a layer's argument stands for.

    Parameters
    ----------
    spec : str, Activation or None
        A name of the catalogue, an Activation as it is, or None for ``linear``.

    Raises
    ------
    ValueError
        For an unknown name; the message suggests the nearest.
    TypeError
        For anything else.

    Examples
    --------
    >>> from fastact._activations import as_activation
    >>> as_activation("tanh"), as_activation(None)
    (Activation('tanh'), Activation('linear'))
    """
    if spec is None:
        return activations["linear"]
    if isinstance(spec, Activation):
        return spec
    if isinstance(spec, str):
        try:
            return activations[spec]
        except KeyError as error:
            raise ValueError(error.args[0]) from None
    raise TypeError(f"activation: expected a name, an Activation or None, got {type(spec).__name__}")
