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
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from fastact import _protocol
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
        The ufunc beneath; parameters are its further inputs. A gufunc ``(n)->(n)`` for softmax and its kin; None where
        the function is made of others.
    rowwise : bool
        True where an output depends on a whole row of inputs (softmax, glu), and calls take ``axis=``.
    keeps_shape : bool
        False where the output has another shape than x (logsumexp, maxout, glu).
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
        Interior zeros of f' and of f'' without a relative bound: within a factor of 1.4 of one, the error is at most
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

    def __init__(
        self,
        name: str,
        index: int,
        rowwise: bool,
        parameters: Mapping[str, float],
        doc: Callable[[str], str] | None,
        base: Activation | None,
        facts: dict[str, Any],
    ) -> None:
        self.parameters: Mapping[str, float] = MappingProxyType(dict(parameters))
        self._facts = facts
        self.__doc__ = _doc(facts) if base is None else base.__doc__
        self.__signature__ = _signature({**facts, "parameters": parameters})

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Activation:
        """The activation that a row of the table describes."""
        return cls(
            facts["name"], facts["index"], facts["rowwise"], dict(facts["parameters"]),
            lambda kind: _ufunc_doc(facts, kind), None, facts,
        )  # fmt: skip

    def _with_values(self, values: dict[str, Any]) -> Activation:
        """This activation with other values of its parameters."""
        return type(self)(self.name, self.index, self.rowwise, values, None, self, self._facts)

    # The facts of the row, shared by all Activations of a name.

    @property
    def keeps_shape(self) -> bool:
        """Whether f(x) has the shape of x, as a layer's ``activation=`` needs."""
        return self._facts.get("keeps_shape", True)

    @property
    def backward_from(self) -> str:
        return self._facts["backward_from"]

    @property
    def formula(self) -> str:
        return self._facts["formula"]

    @property
    def ulp(self) -> Mapping[str, tuple[float, float, float]]:
        return MappingProxyType(self._facts.get("ulp", {}))

    @property
    def note(self) -> str:
        return self._facts.get("note", "")

    @property
    def aliases(self) -> tuple[str, ...]:
        return self._facts.get("aliases", ())

    @property
    def surrogate(self) -> str:
        return self._facts.get("surrogate", "")

    @property
    def zeros(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self._facts.get("zeros", ((), ()))

    @property
    def kinks(self) -> tuple[float, ...]:
        return self._facts.get("kinks", ())

    @property
    def landmarks(self) -> list[tuple[float, float]]:
        return list(self._facts.get("landmarks", ()))

    @property
    def range(self) -> tuple[float, float]:
        return self._facts["range"]

    @property
    def monotonic(self) -> bool:
        return self._facts.get("monotonic", False)

    @property
    def odd(self) -> bool:
        return self._facts.get("odd", False)

    @property
    def precise(self) -> Activation:
        """The same function with compensated arithmetic: nearly correctly rounded, at mostly 1.5 to 2 times the cost.

        Its f, f' and f'' are held to 1.1 ulp. By name it is ``"gelu.precise"``; its own precise tier is itself.

        Raises
        ------
        AttributeError
            For functions of rows, gated ones and those made of others, which have one tier.

        Examples
        --------
        >>> import fastact as fa
        >>> fa.gelu.precise, fa.gelu.ulp["float32"][0], fa.gelu.precise.ulp["float32"][0]
        (Activation('gelu.precise'), 3.0, 1.1)
        """
        twin = activations.precise.get(self.name)
        if twin is None:
            if (self.ulp and max(map(max, self.ulp.values())) <= 1.1) or self.name.endswith(".precise"):
                return self
            raise AttributeError(
                f"{self.name}: has no precise tier; of a scaled one, take it first: f.precise.scaled()"
            )
        return twin._with_values(dict(self.parameters)) if self._bound() else twin

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
            values[name] = real_number(name, value)
            self._check_value(name, values[name])
        return self if values == self.parameters else self._with_values(values)

    def scaled(
        self,
        *,
        input_scale: float = 1.0,
        input_shift: float = 0.0,
        output_scale: float = 1.0,
        output_shift: float = 0.0,
    ) -> Activation:
        """output_scale * f(input_scale * x + input_shift) + output_shift, evaluated in cache, without temporaries.

        Raises
        ------
        TypeError
            For an activation of rows, or a value that is not a real number.

        Examples
        --------
        >>> import fastact as fa
        >>> lecun = fa.tanh.scaled(input_scale=2 / 3, output_scale=1.7159)
        >>> round(float(lecun(1.0)), 4), lecun.parameters["output_scale"]
        (1.0, 1.7159)
        """
        from fastact._custom import scaled

        return scaled(self, input_scale, input_shift, output_scale, output_shift)

    @staticmethod
    def from_functions(
        f: Callable[..., Any],
        df: Callable[..., Any],
        d2f: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        check: bool = False,
        **parameters: float,
    ) -> Activation:
        """An activation of Python functions, usable wherever one of the catalogue is; slower, and not to be saved.

        Parameters
        ----------
        f, df, d2f : callable
            The function and its first and second derivative, of an array x of float32 or float64 and, by name, the
            parameters. They see arrays block by block and must not change x. Without d2f there is no order 2.
        name : str, optional
            Default that of f; none of the catalogue's.
        check : bool
            Compare the derivatives with differences; ``activation.check(x)`` does so at points of your own.
        **parameters : float
            Further arguments of the functions, with their defaults.

        Raises
        ------
        ValueError
            For a name that is taken, or where ``check`` finds a derivative wrong.
        TypeError
            For what is no function, or no number.

        Examples
        --------
        >>> import numpy as np, fastact as fa
        >>> bump = fa.Activation.from_functions(
        ...     lambda x: np.exp(-x * x), lambda x: -2 * x * np.exp(-x * x), name="bump", check=True)
        >>> bump(np.array([0.0])), bump.backward(np.ones(1), x=np.array([0.0]))
        (array([1.]), array([-0.]))
        """
        from fastact._custom import from_functions

        return from_functions(f, df, d2f, name, check, parameters)

    # What the direct path declines.

    def _call(self, x: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]) -> Any:
        if axis is not None:
            raise TypeError(f"axis: {self.name} acts on each element and takes no axis; leave it out")
        return self._run_ufunc(self.name, "forward", {"x": x}, out, where, dtype, params)

    def _backward(
        self, dy: Any, x: Any, y: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]
    ) -> Any:
        name = f"{self.name}.backward"
        if axis is not None:
            raise TypeError(f"axis: {self.name} acts on each element and takes no axis; leave it out")
        kind = "backward_y" if x is None and "backward_y" in self.ufuncs else "backward_x"
        operand = y if kind == "backward_y" else x
        if operand is None:
            self._no_operand(name, y)
        return self._run_ufunc(name, kind, {"dy": dy, kind[-1]: operand}, out, where, dtype, params)

    def _no_operand(self, name: str, y: Any) -> NoReturn:
        """The error of a backward that got neither x nor y, or not the one that it needs."""
        if self.backward_from == "x":
            hint = "its output is not enough" if y is not None else "pass what that call saw"
            raise TypeError(f"{name}: x: expected the input of the forward call, got None ({hint})")
        wanted = "y= (the output)" if self.backward_from == "y" else "x= (the input) or y= (the output)"
        raise TypeError(f"{name}: expected {wanted} of the forward call, got neither; pass what that call saw")

    def _derivative(self, x: Any, order: Any, out: Any, where: Any, dtype: Any, params: dict[str, Any]) -> Any:
        name = f"{self.name}.derivative"
        self._check_order(order)
        return self._run_ufunc(name, f"derivative{int(order)}", {"x": x}, out, where, dtype, params)

    def _check_order(self, order: Any) -> None:
        if order not in (1, 2):
            raise ValueError(f"{self.name}.derivative: order: expected 1 or 2, got {order!r}")

    def _run_ufunc(
        self, function: str, kind: str, inputs: dict[str, Any], out: Any, where: Any, dtype: Any, params: dict[str, Any]
    ) -> Any:
        """The ufunc of this kind over the inputs and parameters, with NumPy's options where they are given."""
        arguments = self._arguments(params)
        options: dict[str, Any] = {} if out is None else {"out": out}
        if where is not True:
            check_where(function, where)
            options["where"] = where
        if dtype is not None:
            options["dtype"] = dtype
        _promote_as_sin(options, arguments, *inputs.values())
        return _run(function, self.ufuncs[kind], {**inputs, **arguments}, options)

    def _arguments(self, params: dict[str, Any]) -> dict[str, Any]:
        """Values of all parameters, in the order of the ufunc's inputs: floats, which never promote, or arrays."""
        for name in params:
            if name not in self.parameters:
                self._unknown_parameter(name)
        return {name: _parameter(name, params.get(name, default)) for name, default in self.parameters.items()}

    def _check_value(self, name: str, value: Any) -> None:
        """Raise ValueError where a parameter is out of its domain."""

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
        return {k: v for k, v in self.parameters.items() if v != self._facts["parameters"][k]}

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.name, self._bound())

    def __repr__(self) -> str:
        return f"Activation({self.name!r}{''.join(f', {k}={v!r}' for k, v in self._bound().items())})"


def _restore(name: str, params: dict[str, float]) -> Activation:
    return activations.named(name).with_params(**params)


# ---------------------------------------------------------------------------------------------------------------------
# Arguments and their errors
# ---------------------------------------------------------------------------------------------------------------------


def _parameter(name: str, value: Any) -> Any:
    """A float for one real number, which NumPy then does not let promote x; an array as it is."""
    if type(value) is float:
        return value
    try:
        array = value if hasattr(value, "dtype") else np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected a real number or an array of them, got a ragged sequence") from None
    if getattr(array.dtype, "kind", "f") not in "fiub":
        raise TypeError(f"{name}: expected a real number or an array of them, got {value!r}")
    return float(value) if np.ndim(array) == 0 else array


def real_number(name: str, value: Any) -> float:
    """A float for one real number, or the error that says what came instead."""
    number = _parameter(name, value)
    if not isinstance(number, float):
        raise TypeError(f"{name}: expected a real number, got an array; give arrays with the call instead")
    return number


def real_array(what: str, x: Any) -> Any:
    """x as an array (a subclass as it is) of real numbers, or the error that says what came instead."""
    try:
        array = np.asanyarray(x)
    except ValueError:
        raise ValueError(f"{what}: expected an array, got a ragged sequence") from None
    if (array.dtype.kind not in "fiub" or array.dtype.itemsize > 8) and not _protocol.is_bfloat16(array):
        raise TypeError(f"{what}: expected {_SUPPORTED}, got dtype {array.dtype}; use astype(np.float64)")
    return array


def _promote_as_sin(options: dict[str, Any], parameters: dict[str, Any], *arrays: Any) -> None:
    """Have the result's dtype be that of ``numpy.sin`` where the ufunc by itself would choose another.

    Integers beside parameters, which are floats, would take the float64 loop: the loop is named. bfloat16, which has no
    loop, would come back as float32: NumPy writes it into ``out``, block by block.
    """
    if "dtype" in options or "out" in options:
        return
    if any(map(_protocol.is_bfloat16, arrays)) and all(isinstance(a, np.ndarray) for a in arrays):
        if "where" not in options and np.result_type(*arrays) == arrays[0].dtype:
            shape = np.broadcast_shapes(*(np.shape(a) for a in (*arrays, *parameters.values())))
            options["out"] = np.empty(shape, arrays[0].dtype)
    elif parameters and (dtype := _protocol.common_dtype(arrays)) is not None:
        if dtype.kind in "iub":
            options["dtype"] = np.result_type(dtype, np.float16)
        elif dtype.kind == "f" and any(map(_protocol.is_foreign, arrays)):  # pandas makes float64 arrays of floats
            parameters |= {name: dtype.type(value) for name, value in parameters.items() if type(value) is float}


def _run(function: str, ufunc: np.ufunc, inputs: dict[str, Any], options: dict[str, Any]) -> Any:
    """The ufunc's result, or an error that names the argument in place of NumPy's."""
    try:
        if "axis" in options:
            return _protocol.call_rows(ufunc, list(inputs.values()), options.pop("axis"), options)
        return ufunc(*inputs.values(), **options)
    except (TypeError, ValueError) as error:
        explained = _explained(
            error, function, inputs, options.get("out"), options.get("dtype"), options.get("where", True)
        )
        if explained is error:
            raise
        raise explained from error


def _wrong_result(function: str, out: Any, dtype: Any) -> Exception | None:
    """The error of an ``out=`` or ``dtype=`` that no call could use."""
    if dtype is not None:
        with suppress(TypeError):  # np.dtype's, for what is no type
            kind = np.dtype(dtype)
            dtype = None if kind in (np.float16, np.float32, np.float64) or kind.name == "bfloat16" else dtype
        if dtype is not None:
            return TypeError(f"{function}: dtype: expected float16, float32 or float64, got {dtype!r}")
    out = out[0] if isinstance(out, tuple) and len(out) == 1 else out
    if out is None or _protocol.is_foreign(out):
        return None
    if not isinstance(out, np.ndarray):
        return TypeError(f"{function}: out: expected an array, got {type(out).__name__}; leave it out for a new one")
    if not np.can_cast(np.float32, out.dtype, "same_kind"):
        return TypeError(f"{function}: out: expected an array of floats, got dtype {out.dtype}")
    if not out.flags.writeable:
        return ValueError(f"{function}: out: expected an array that can be written, got a read-only one")
    return None


def check_result(function: str, out: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    """Raise the error of an ``out=`` or ``dtype=`` that cannot take a result of this shape."""
    if (wrong := _wrong_result(function, out, dtype)) is not None:
        raise wrong
    if out is not None and np.shape(out) != shape:
        raise ValueError(f"{function}: out: expected shape {shape}, got {np.shape(out)}")


def check_where(function: str, where: Any) -> None:
    """Raise the error of a ``where=`` that is no mask: NumPy would take words for True."""
    if where is not True and not _protocol.is_foreign(where) and np.asarray(where).dtype.kind not in "biu":
        raise TypeError(f"{function}: where: expected booleans, got dtype {np.asarray(where).dtype}; use where != 0")


def _explained(error: Exception, function: str, inputs: dict[str, Any], out: Any, dtype: Any, where: Any) -> Exception:
    """The error to raise for NumPy's refusal: ``error`` itself where there is nothing to add."""
    arrays = {}
    for name, value in inputs.items():
        if _protocol.is_foreign(value):
            return error  # another library's array: its own message
        try:
            arrays[name] = np.asarray(value)
        except ValueError:
            return ValueError(f"{function}: {name}: expected an array, got a ragged sequence")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            got = f"got dtype {array.dtype}; use astype(np.float64)"
            return TypeError(f"{function}: {name}: expected {_SUPPORTED}, {got}")
    if (wrong := _wrong_result(function, out, dtype)) is not None:
        return wrong
    shapes = {name: array.shape for name, array in arrays.items() if array.ndim or name in ("x", "dy", "y")}
    try:
        expected = np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        return ValueError(f"{function}: expected shapes that broadcast together, got {listed}")
    if where is not True:
        try:
            np.broadcast_shapes(expected, np.shape(where))
        except ValueError:
            return ValueError(
                f"{function}: where: expected a shape that broadcasts to {expected}, got {np.shape(where)}"
            )
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
    "forward_scaled": "{formula} of x, temperature.",
    "backward_y_scaled": "dy times the derivative of {name}, {formula}; of dy, y, temperature.",
}


def _ufunc_doc(row: dict[str, Any], kind: str) -> str:
    return _SUMMARY[kind].format(**row) + (row.get("operands", "") if kind == "forward" else "")


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
    if "doc" in row:  # of a family with its own arguments
        return row["doc"]
    if row["rowwise"]:
        parts = {
            "x": "At least 1-d.",
            "parameters": "axis : int, default -1\n    The axis of the rows; of an xarray object also its name.\n"
            "where : array_like of bool, default True\n    {masked}\n".format(
                masked=row.get("masked", "False entries, and masked ones, count as -inf.")
            )
            + "".join(
                f"{name} : float or array_like, default {value:.6g}\n    {row['parameter_docs'][name]}\n"
                for name, value in row["parameters"].items()
            ),
            "others": "out, dtype",
            "shape": row.get("shape", "x"),
            "notes": f"{textwrap.fill(row['note'], 100)}\n",
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
    finite = [(float(x), float(y)) for x, y in row.get("landmarks", ()) if math.isfinite(x)]
    if finite:
        doc += _DOC_EXAMPLE.format(name=row["name"], xs=[x for x, _ in finite], ys=[y for _, y in finite])
    return doc + row.get("example", "")


def _signature(row: dict[str, Any]) -> inspect.Signature:
    kinds = inspect.Parameter
    keywords: dict[str, Any] = {"where": True, "dtype": None}
    keywords |= ({"axis": -1} if row["rowwise"] else {}) | row["parameters"] | row.get("keywords", {})
    return inspect.Signature(
        [kinds("x", kinds.POSITIONAL_OR_KEYWORD), kinds("out", kinds.POSITIONAL_OR_KEYWORD, default=None)]
        + [kinds(name, kinds.KEYWORD_ONLY, default=value) for name, value in keywords.items()]
    )


class Catalogue(Mapping[str, Activation]):
    """All activations by name, in the order of the table. Aliases and ``"gelu.precise"`` are found, but not listed.

    Attributes
    ----------
    aliases : dict[str, Activation]
        Other names.
    unlisted : dict[str, Activation]
        Those that draw random numbers, which no layer takes by name.

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
        self._entries: dict[str, Activation] = {}
        self.unlisted: dict[str, Activation] = {}
        self.precise: dict[str, Activation] = {}  # by the name of the default tier
        self.aliases: dict[str, Activation] = {}

    def add(self, activation: Activation, listed: bool = True) -> None:
        """Take an activation in, as each family of them does when imported; ``listed`` ones are entries."""
        (self._entries if listed else self.unlisted)[activation.name] = activation
        self.aliases |= dict.fromkeys(activation.aliases, activation)

    def named(self, name: str) -> Activation:
        """An entry, or one that is not listed."""
        return self.unlisted.get(name) or self[name]

    def __getitem__(self, name: str) -> Activation:
        found = self._entries.get(name) or self.aliases.get(name)
        if found is None and isinstance(name, str) and name.endswith(".precise"):
            found = getattr(self[name.removesuffix(".precise")], "precise", None)
        if found is None:
            raise KeyError(self._unknown(name))
        return found

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
_rows = [facts | {"rowwise": False} for facts in _core.describe_all()]
for _facts in _rows:
    _tier = {"name": f"{_facts['name']}.precise", "index": _facts["index"] + len(_rows), "ulp": _facts["precise_ulp"]}
    activations.add(Activation.from_facts(_facts))
    activations.precise[_facts["name"]] = Activation.from_facts(_facts | _tier | {"aliases": ()})


def as_activation(spec: str | Activation | None, keeps_shape: bool = False) -> Activation:
    """The Activation that a layer's argument stands for.

    Parameters
    ----------
    spec : str, Activation or None
        A name of the catalogue, an Activation as it is, or None for ``linear``.
    keeps_shape : bool
        Refuse those whose output has another shape than x.

    Raises
    ------
    ValueError
        For an unknown name, where the message suggests the nearest, or a shape that changes.
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
    if isinstance(spec, str):
        try:
            spec = activations[spec]
        except KeyError as error:
            raise ValueError(error.args[0]) from None
    if not isinstance(spec, Activation):
        raise TypeError(f"activation: expected a name, an Activation or None, got {type(spec).__name__}")
    if keeps_shape and not spec.keeps_shape:
        raise ValueError(
            f"activation: expected one that keeps the shape of x, got {spec.name}; use fa.nn.Activation({spec.name!r})"
        )
    return spec
