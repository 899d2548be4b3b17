"""Row activations: softmax and its kin, where an output depends on a whole row of inputs, along any axis.

The kernels (``src_c/rows.inl``) see rows alone. Here: what each function is, axes, masks, float16, and the arrays of
other libraries.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from fastact import _protocol
from fastact._activations import Activation, _run, activations, check_result, check_where
from fastact._blocks import float_dtype
from fastact.init import Rng, generator


class RowActivation(Activation):
    """An activation over the rows of an array, which lie along ``axis``; every call takes ``axis=-1``.

    ``where`` is a mask: entries where it is False, and those that a masked array hides, count as -inf. Of a row of
    nothing else softmax, softmin, hardmax and sparsemax make zeros, log_softmax and logsumexp -inf. The output tells
    the backward pass what was masked. standardize and normalize leave them out and make zeros of them; their backward
    takes the same mask.
    """

    # What stands for a masked entry of each operand.
    _hidden: dict[str, float] = {"x": -math.inf, "dy": 0.0, "y": 0.0}  # noqa: RUF012 (never written to)

    def _call(self, x: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]) -> Any:
        return self._run_rows(self.name, "forward", {"x": x}, out, where, dtype, axis, params)

    def _backward(
        self, dy: Any, x: Any, y: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]
    ) -> Any:
        name = f"{self.name}.backward"
        operand = x if self.backward_from == "x" else y
        if operand is None:
            self._no_operand(name, y)
        inputs = {"dy": dy, self.backward_from: operand}
        return self._run_rows(name, f"backward_{self.backward_from}", inputs, out, where, dtype, axis, params)

    def _derivative(self, x: Any, order: Any, out: Any, where: Any, dtype: Any, params: dict[str, Any]) -> NoReturn:
        raise TypeError(
            f"{self.name}.derivative: the derivative of a row is a matrix; "
            f"use {self.name}.backward(dy, {self.backward_from}={self.backward_from})"
        )

    def _arguments(self, params: dict[str, Any]) -> dict[str, Any]:
        arguments = super()._arguments(params)
        for name, value in arguments.items():
            if not _protocol.is_foreign(value):
                self._check_value(name, value)
        return arguments

    def _check_value(self, name: str, value: Any) -> None:
        if not np.all((np.asarray(value) >= 1e-30) & (np.asarray(value) <= 1e30)):
            raise ValueError(f"{name}: expected a finite number above 0, got {value!r}")

    def _unknown_parameter(self, name: str) -> NoReturn:
        if name == "mask":
            raise TypeError(f"{self.name}: expected the mask as where=, True where an entry takes part, got mask=")
        super()._unknown_parameter(name)

    def _run_rows(
        self, function: str, kind: str, inputs: dict[str, Any], out: Any, where: Any, dtype: Any, axis: Any,
        params: dict[str, Any],
    ) -> Any:  # fmt: skip
        """The gufunc of this kind over the rows of the inputs, masked entries out of the way."""
        arguments = self._arguments(params)
        row = inputs[next(name for name in inputs if name != "dy" or "backward_y" in kind)]
        axis = as_axis(-1 if axis is None else axis, row)
        inputs, hidden = hide(function, inputs, where, self._hidden)
        arrays = list(inputs.values())
        options: dict[str, Any] = {"axis": axis}
        if out is not None:
            options["out"] = out
        elif self.keeps_shape and (result := _result_dtype(arrays, dtype)) is not None:
            if all(type(a) is np.ndarray and a.shape == np.shape(row) for a in arrays):
                # In the layout of x: NumPy would have elements of a row adjoin, and the way back meet two layouts.
                options["out"] = np.empty_like(arrays[0], result)
            elif result not in (np.float32, np.float64):
                options["out"] = np.empty(np.broadcast_shapes(*map(np.shape, arrays)), result)
        if dtype is not None:
            options["dtype"] = dtype
        kind, arguments = self._operands(kind, arguments, where is not True or hidden is not None)
        for name, value in arguments.items():
            if type(value) is float:
                if (common := _protocol.common_dtype(arrays)) is not None and common.kind == "f":
                    value = np.result_type(common, np.float32).type(value)  # pandas makes float64 arrays of floats
                elif common is not None and common.kind in "iub" and dtype is None:
                    options["dtype"] = np.result_type(common, np.float32 if common.itemsize < 4 else np.float64)
            inputs[name] = value
        result = _run(function, self.ufuncs[kind], inputs, options)
        return result if hidden is None else np.ma.array(result, mask=hidden, copy=False)

    def _operands(self, kind: str, arguments: dict[str, Any], masked: bool) -> tuple[str, dict[str, Any]]:
        """The kernel's name, and what it takes besides arrays: of a temperature of 1 nothing."""
        given = {name: value for name, value in arguments.items() if type(value) is not float or value != 1}
        return kind + "_scaled" * len(given), given


class Softmin(RowActivation):
    """softmax of -x: what is masked counts as +inf."""

    _hidden = {"x": math.inf, "dy": 0.0, "y": 0.0}  # noqa: RUF012


class LogSoftmax(RowActivation):
    """The logarithm of softmax: what is masked gives -inf."""

    _hidden = {"x": -math.inf, "dy": 0.0, "y": -math.inf}  # noqa: RUF012


class Normalize(RowActivation):
    """A row over its p-norm: what is masked counts as 0."""

    _hidden = {"x": 0.0, "dy": 0.0}  # noqa: RUF012

    def _operands(self, kind: str, arguments: dict[str, Any], masked: bool) -> tuple[str, dict[str, Any]]:
        return kind, arguments

    def _check_value(self, name: str, value: Any) -> None:
        number = type(value) is float  # of which NumPy takes 30 us to say as much
        if name == "p" and not (value in (1, 2, math.inf) if number else np.all(np.isin(value, (1, 2, math.inf)))):
            raise ValueError(f"p: expected 1, 2 or infinity, got {value!r}")
        if name == "epsilon" and not (
            0 <= value <= 1e30 if number else np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1e30))
        ):
            raise ValueError(f"epsilon: expected a finite number of at least 0, got {value!r}")


class Standardize(Normalize):
    """A row less its mean over its deviation: -inf stands for what is masked, and an infinite x for NaN then."""

    _hidden = {"x": -math.inf, "dy": 0.0}  # noqa: RUF012

    def _run_rows(
        self, function: str, kind: str, inputs: dict[str, Any], out: Any, where: Any, dtype: Any, axis: Any,
        params: dict[str, Any],
    ) -> Any:  # fmt: skip
        if where is not True or any(isinstance(value, np.ma.MaskedArray) for value in inputs.values()):
            x = inputs["x"]
            x = x if _protocol.is_foreign(x) else as_array(x)
            common = _protocol.common_dtype([x])
            if common is not None and (common.kind == "f" or _protocol.is_bfloat16(x)):
                with np.errstate(invalid="ignore"):
                    inputs = inputs | {"x": x + x * common.type(0)}  # as it makes the row NaN without a mask
        return super()._run_rows(function, kind, inputs, out, where, dtype, axis, params)

    def _operands(self, kind: str, arguments: dict[str, Any], masked: bool) -> tuple[str, dict[str, Any]]:
        return kind, arguments | {"hidden": -math.inf if masked else math.nan}


class RowReduction(RowActivation):
    """A function that makes one number of a row; ``keepdims=True`` leaves the axis, of length 1."""

    def __call__(
        self, x: Any, out: Any = None, *, where: Any = True, dtype: Any = None, axis: Any = -1, keepdims: bool = False,
        **params: Any,
    ) -> Any:  # fmt: skip
        self._arguments(params)
        if where is True and dtype is None and (y := self.reduce_rows(x, None, out, axis, 0, keepdims)) is not None:
            return y
        return self._reduced(x, out, where, dtype, axis, keepdims)

    def backward(
        self, dy: Any, x: Any = None, y: Any = None, out: Any = None, *, where: Any = True, dtype: Any = None,
        axis: Any = -1, keepdims: bool = False, **params: Any,
    ) -> Any:  # fmt: skip
        """dy times the derivative, from x; dy of the shape of y."""
        self._arguments(params)
        if x is None:
            self._no_operand(f"{self.name}.backward", y)
        if where is True and dtype is None and dy is not None:
            dx = self.reduce_rows(x, dy, out, axis, 0, keepdims)
            if dx is not None:
                return dx
        return self._reduced_backward(dy, x, out, where, dtype, axis, keepdims)

    # What the direct path declines.

    def _reduced(self, x: Any, out: Any, where: Any, dtype: Any, axis: Any, keepdims: bool) -> Any:
        axis = as_axis(axis, x)
        inputs, hidden = hide(self.name, {"x": x}, where, self._hidden)
        x = inputs["x"]
        options: dict[str, Any] = {"axis": axis} | ({"keepdims": True} if keepdims else {})
        if out is not None:
            options["out"] = out
        if dtype is not None:
            options["dtype"] = dtype
        y = _run(self.name, self.ufunc, {"x": x}, options)
        if out is None and (result := _result_dtype([x], dtype)) is not None and y.dtype != result:
            y = y.astype(result)
        return y if hidden is None else np.ma.array(y, mask=hidden.all(axis=axis, keepdims=keepdims))

    def _reduced_backward(self, dy: Any, x: Any, out: Any, where: Any, dtype: Any, axis: Any, keepdims: bool) -> Any:
        name = f"{self.name}.backward"
        axis = as_axis(axis, x)
        if keepdims:
            dy = dy.squeeze(axis) if hasattr(dy, "squeeze") else np.squeeze(dy, axis)
        if isinstance(dy, np.ma.MaskedArray):
            dy = dy.filled(0)
        if out is not None and not _protocol.is_foreign(x):
            check_result(name, out, dtype, np.shape(x))
        inputs, hidden = hide(name, {"x": x}, where, self._hidden)
        options = {"axis": axis} | {k: v for k, v in (("out", out), ("dtype", dtype)) if v is not None}
        if out is None and (result := _result_dtype([dy, inputs["x"]], dtype)) is not None:
            options["out"] = np.empty_like(inputs["x"], result)
        dx = _run(name, self.ufuncs["backward_x"], {"dy": dy, **inputs}, options)
        return dx if hidden is None else np.ma.array(dx, mask=hidden, copy=False)


class Maxout(RowReduction):
    """The greatest of every ``pieces`` neighbours along an axis: a row of the gufunc is one group of pieces."""

    def __call__(
        self, x: Any, out: Any = None, *, where: Any = True, dtype: Any = None, axis: Any = -1, keepdims: bool = False,
        **params: Any,
    ) -> Any:  # fmt: skip
        pieces = self._pieces(keepdims, params)
        if where is True and dtype is None and (y := self.reduce_rows(x, None, out, axis, pieces, True)) is not None:
            return y
        groups, place = self._groups(x, axis, pieces)
        if where is not True:
            where = self._groups(self._mask(where, x), axis, pieces)[0]
        return self._reduced(groups, out, where, dtype, place, False)

    def backward(
        self, dy: Any, x: Any = None, y: Any = None, out: Any = None, *, where: Any = True, dtype: Any = None,
        axis: Any = -1, keepdims: bool = False, **params: Any,
    ) -> Any:  # fmt: skip
        """dy at the first of the greatest of each group, else 0, from x; dy of the shape of y."""
        pieces = self._pieces(keepdims, params)
        if x is None:
            self._no_operand(f"{self.name}.backward", y)
        if where is True and dtype is None and dy is not None:
            dx = self.reduce_rows(x, dy, out, axis, pieces, True)
            if dx is not None:
                return dx
        groups, place = self._groups(x, axis, pieces)
        if where is not True:
            where = self._groups(self._mask(where, x), axis, pieces)[0]
        if out is not None:
            check_result(f"{self.name}.backward", out, dtype, np.shape(x))
            out = self._groups(out, axis, pieces)[0]
        dx = self._reduced_backward(dy, groups, out, where, dtype, place, False)
        return dx.reshape(np.shape(x))

    def _mask(self, where: Any, x: Any) -> Any:
        """The mask in the shape of x."""
        check_where(self.name, where)
        try:
            return np.broadcast_to(where, np.shape(x))
        except ValueError:
            got = f"got {np.shape(where)}"
            raise ValueError(f"where: expected a shape that broadcasts to x {np.shape(x)}, {got}") from None

    def _pieces(self, keepdims: bool, params: dict[str, Any]) -> int:
        """Elements of a group."""
        for name in params.keys() - {"pieces"} or ({"keepdims"} if keepdims else ()):
            self._unknown_parameter(name)
        pieces = params.get("pieces", self.parameters["pieces"])
        self._check_value("pieces", pieces)
        return int(pieces)

    def _groups(self, x: Any, axis: Any, pieces: int) -> tuple[Any, int]:
        """x with its axis split into (groups, pieces), a view, and the place of the pieces."""
        if _protocol.is_foreign(x) and not hasattr(x, "reshape"):
            raise TypeError(
                f"{self.name}: x: expected an array that can be reshaped, got {type(x).__name__}; give x.to_numpy()"
            )
        x = x if _protocol.is_foreign(x) else as_array(x)
        axis = as_axis(axis, x) % x.ndim
        if x.shape[axis] % pieces:
            raise ValueError(f"x: expected a multiple of {pieces}, the pieces, along axis {axis}, got shape {x.shape}")
        return x.reshape(*x.shape[:axis], x.shape[axis] // pieces, pieces, *x.shape[axis + 1 :]), axis + 1

    def _check_value(self, name: str, value: Any) -> None:
        if isinstance(value, bool) or not hasattr(value, "__int__") or int(value) != value or value < 1:
            raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")


class GumbelSoftmax(RowActivation):
    """softmax of x and Gumbel noise: a sample of a softmax distribution that can be differentiated."""

    def __call__(
        self, x: Any, out: Any = None, *, where: Any = True, dtype: Any = None, axis: Any = -1, hard: bool = False,
        rng: Rng = None, **params: Any,
    ) -> Any:  # fmt: skip
        z = self._noisy(x, dtype, rng)
        self._arguments(params)
        params = {**self.parameters, **params}
        if hard:
            return activations["hardmax"](z, out, where=where, dtype=dtype, axis=axis)
        return activations["softmax"](z, out, where=where, dtype=dtype, axis=axis, **params)

    def forward(
        self, x: Any, *, where: Any = True, dtype: Any = None, axis: Any = -1, hard: bool = False, rng: Rng = None,
        **params: Any,
    ) -> tuple[Any, Callable[[Any], Any]]:  # fmt: skip
        """A sample and its backward, dx = f(dy): with ``hard`` a one-hot sample, and the slope of the soft one."""
        z = self._noisy(x, dtype, rng)
        self._arguments(params)
        params = {**self.parameters, **params}
        soft = activations["softmax"](z, where=where, dtype=dtype, axis=axis, **params)
        y = activations["hardmax"](z, where=where, dtype=dtype, axis=axis) if hard else soft
        return y, lambda dy: activations["softmax"].backward(dy, y=soft, axis=axis, **params)

    def _backward(
        self, dy: Any, x: Any, y: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]
    ) -> Any:
        if y is None:
            self._no_operand(f"{self.name}.backward", y)
        params = {**self.parameters, **params}
        return activations["softmax"].backward(dy, y=y, out=out, where=where, dtype=dtype, axis=axis, **params)

    def _noisy(self, x: Any, dtype: Any, rng: Rng) -> Any:
        """x - log of exponential numbers, drawn in float64; masked entries stay so."""
        x = x if hasattr(x, "dtype") else as_array(x)
        if not isinstance(x, np.ndarray):
            raise TypeError(f"{self.name}: x: expected a NumPy array, got {type(x).__name__}; noise is drawn for those")
        if x.dtype.kind not in "fiub" and not _protocol.is_bfloat16(x):
            raise TypeError(f"{self.name}: x: expected real numbers, got dtype {x.dtype}; use astype(np.float64)")
        noise = np.log(np.maximum(generator(rng).standard_exponential(x.shape), np.finfo(np.float64).tiny))
        z = np.subtract(np.asarray(x), noise, out=noise, casting="same_kind")
        z = z if x.dtype.kind in "iub" else z.astype(x.dtype)
        return np.ma.array(z, mask=x.mask) if isinstance(x, np.ma.MaskedArray) else z


# ---------------------------------------------------------------------------------------------------------------------
# Masks, axes, types
# ---------------------------------------------------------------------------------------------------------------------


def hide(
    function: str, inputs: dict[str, Any], where: Any, hidden_values: dict[str, float]
) -> tuple[dict[str, Any], Any]:
    """The inputs with what stands for a masked entry, and the mask of the result where some are masked arrays."""
    hidden = None
    for value in inputs.values():
        if isinstance(value, np.ma.MaskedArray):
            mask = np.ma.getmaskarray(value)
            hidden = mask if hidden is None else hidden | mask
    if hidden is not None:
        where = ~hidden & where
    if where is True:
        return dict(inputs), None
    check_where(function, where)
    shown = {}
    for name, value in inputs.items():
        plain = value.data if isinstance(value, np.ma.MaskedArray) else value
        shown[name] = _protocol.fill_hidden(plain, where, hidden_values[name])
    return shown, hidden


def _result_dtype(arrays: list[Any], dtype: Any) -> np.dtype[Any] | None:
    """``dtype``, or that of NumPy's functions; row ufuncs, which have no loop for float16 and bfloat16, give float32.

    None for other than NumPy's arrays, and where the ufunc is to say what is wrong.
    """
    if not all(isinstance(a, np.ndarray) for a in arrays):
        return None
    try:
        result = float_dtype(*arrays) if dtype is None else np.dtype(dtype)
    except TypeError:  # no common type
        return None
    return result if result in (np.float16, np.float32, np.float64) or result.name == "bfloat16" else None


def as_array(x: Any) -> Any:
    """x as an array, of whatever dtype and subclass."""
    try:
        return np.asanyarray(x)
    except ValueError:
        raise ValueError("x: expected an array, got a ragged sequence") from None


def as_axis(axis: Any, x: Any) -> Any:
    """The axis as an int, or the name of a dimension of an xarray object."""
    if _protocol.is_xarray(x):
        if isinstance(axis, str):
            if axis not in x.dims:
                raise ValueError(f"axis: expected one of the dimensions {tuple(x.dims)}, got {axis!r}")
            return axis
        if not hasattr(x, "ndim"):
            raise TypeError("axis: a Dataset has no order of dimensions; give the name of one, axis='time'")
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise TypeError(f"axis: expected an integer, got {axis!r}")
    axis = axis.__index__()
    if not _protocol.is_foreign(x) or hasattr(x, "ndim"):
        ndim = x.ndim if hasattr(x, "ndim") else as_array(x).ndim
        if ndim == 0:
            raise ValueError(f"x: expected at least one dimension, got a scalar ({type(x).__name__})")
        if not -ndim <= axis < ndim:
            raise ValueError(f"axis: expected {-ndim} to {ndim - 1} for x of shape {np.shape(x)}, got {axis}")
    return axis


# ---------------------------------------------------------------------------------------------------------------------
# The functions
# ---------------------------------------------------------------------------------------------------------------------

_TEMPERATURE = {
    "parameters": {"temperature": 1.0},
    "parameter_docs": {
        "temperature": "What x is divided by, above 0; below 1 the greatest stand out more. An array has one a row:\n"
        "    the shape of x without the axis."
    },
}
_EXAMPLE = "\nExamples\n--------\n>>> import numpy as np, fastact as fa\n"


def _text(facts: dict[str, Any], arguments: str, returns: str, example: str) -> str:
    """A numpydoc text of a function with arguments of its own."""
    return (
        f"{facts['name']}(x) = {facts['formula']}\n\nParameters\n----------\nx : array_like\n    At least 1-d.\n"
        "axis : int, default -1\n    The axis that the rows lie along.\n"
        f"{arguments}out, where, dtype : optional\n    ``where`` is a mask: where it is False, -inf stands for x.\n\n"
        f"Returns\n-------\ny : ndarray\n    {returns}\n\nNotes\n-----\n{textwrap.fill(facts['note'], 100)}\n"
        f"{facts.get('more', '')}"
        f"{_EXAMPLE}{example}\n"
    )


_FAMILY: list[tuple[type[RowActivation], dict[str, Any]]] = [
    (
        RowActivation,
        {
            "name": "softmax",
            "formula": "exp(x_i / temperature) / sum_j exp(x_j / temperature)",
            "range": (0.0, 1.0),
            "note": "A row that is masked whole gives zeros. PyTorch has no default axis and warns, ONNX took "
            "axis 1 on for a row before opset 13; all others mean the last. thinc has a temperature, JAX a mask.",
            **_TEMPERATURE,
        },
    ),
    (
        LogSoftmax,
        {
            "name": "log_softmax",
            "formula": "x_i / temperature - log(sum_j exp(x_j / temperature))",
            "range": (-math.inf, 0.0),
            "note": "A masked entry gives -inf, also throughout a row that is masked whole.",
            **_TEMPERATURE,
        },
    ),
    (
        Softmin,
        {
            "name": "softmin",
            "formula": "exp(-x_i / temperature) / sum_j exp(-x_j / temperature)",
            "range": (0.0, 1.0),
            "note": "A row that is masked whole gives zeros. A masked entry counts as +inf.",
            **_TEMPERATURE,
        },
    ),
    (
        RowReduction,
        {
            "name": "logsumexp",
            "formula": "log(sum_j exp(x_j))",
            "range": (-math.inf, math.inf),
            "backward_from": "x",
            "keeps_shape": False,
            "keywords": {"keepdims": False},
            "note": "-inf for a row that is masked whole, or empty.",
            "own": (
                "keepdims : bool, default False\n    Leave the axis in y, of length 1; ``backward`` takes it too.\n",
                "The shape of x without the axis.",
                ">>> fa.logsumexp(np.array([[1000.0, 1000.0], [0.0, -np.inf]])).tolist()\n[1000.6931471805599, 0.0]",
            ),
        },
    ),
    (
        RowActivation,
        {
            "name": "hardmax",
            "formula": "1 at the first of the greatest x, else 0",
            "range": (0.0, 1.0),
            "note": "As ONNX has it. A NaN makes its whole row NaN. The derivative is 0.",
        },
    ),
    (
        RowActivation,
        {
            "name": "sparsemax",
            "formula": "max(x_i - tau, 0), tau such that the row's sum is 1",
            "range": (0.0, 1.0),
            "note": "The nearest point of the probability simplex (Martins & Astudillo 2016).",
        },
    ),
    (
        Standardize,
        {
            "name": "standardize",
            "formula": "(x - mean(x)) / sqrt(variance(x) + epsilon)",
            "range": (-math.inf, math.inf),
            "backward_from": "x",
            "parameters": {"epsilon": 1e-5},
            "parameter_docs": {"epsilon": "Added to the variance, at least 0. An array has one a row."},
            "masked": "False entries, and masked ones, have no part in mean and variance, and give 0.",
            "operands": "; of x, epsilon, and what stands for a masked entry (NaN: none is masked).",
            "example": f"{_EXAMPLE}>>> fa.standardize(np.array([1.0, 3.0]), epsilon=0).tolist()\n[-1.0, 1.0]\n",
            "note": "As in JAX; the variance is the biased one. LayerNorm is this with a gain and a bias. Sums are "
            "compensated: a mean far from 0 costs no digits. A row of equal numbers gives zeros.",
        },
    ),
    (
        Normalize,
        {
            "name": "normalize",
            "formula": "x / max(norm(x, p), epsilon)",
            "range": (-1.0, 1.0),
            "backward_from": "x",
            "parameters": {"p": 2.0, "epsilon": 1e-12},
            "parameter_docs": {
                "p": "Of the norm: 1, 2 or infinity. An array has one a row.",
                "epsilon": "The least that x is divided by, at least 0. An array has one a row.",
            },
            "masked": "False entries, and masked ones, count as 0.",
            "operands": "; of x, p and epsilon.",
            "example": f"{_EXAMPLE}>>> fa.normalize(np.array([3.0, 4.0])).tolist()\n[0.6, 0.8]\n",
            "note": "The defaults are those of PyTorch, whose axis is 1; Keras has an epsilon of 1e-7, and calls p "
            "order; ONNX's LpNormalization has none. No norm overflows or vanishes on the way; a row of zeros gives "
            "zeros. With p = infinity the greatest share the gradient, as in PyTorch.",
        },
    ),
    (
        Maxout,
        {
            "name": "maxout",
            "formula": "the greatest of each group of `pieces` neighbours along the axis",
            "range": (-math.inf, math.inf),
            "backward_from": "x",
            "keeps_shape": False,
            "parameters": {"pieces": 2.0},
            "note": "Goodfellow et al. 2013; thinc's has 3 pieces by default. NaN where a group has one. The gradient "
            "goes to the first of the greatest.",
            "own": (
                "pieces : int, default 2\n    Length of a group, a divisor of the axis. thinc's nP, Paddle's groups.\n",
                "The shape of x, the axis divided by ``pieces``.",
                ">>> fa.maxout(np.array([1.0, 5.0, 2.0, -1.0]), pieces=2).tolist()\n[5.0, 2.0]",
            ),
        },
    ),
    (
        GumbelSoftmax,
        {
            "name": "gumbel_softmax",
            "formula": "softmax((x + g) / temperature), g ~ -log(-log(uniform(0, 1)))",
            "range": (0.0, 1.0),
            "keywords": {"hard": False, "rng": None},
            "parameters": {"temperature": 1.0},
            "note": "Jang et al. 2017, as in PyTorch, which calls the temperature tau.",
            "more": "``backward(dy, y=y)`` takes the soft sample; for hard ones with the slope of\n"
            "the soft (straight through) there is ``y, backward = fa.gumbel_softmax.forward(x, hard=True)``.\n",
            "own": (
                "temperature : float, default 1\n    Above 0.\nhard : bool, default False\n    One-hot samples.\n"
                "rng : numpy.random.Generator, int or None\n    Where the noise comes from; None: see ``fa.seed``.\n",
                "The shape of x: samples, one a row.",
                ">>> fa.gumbel_softmax(np.zeros(3), hard=True, rng=0).tolist()\n[0.0, 0.0, 1.0]",
            ),
        },
    ),
]  # fmt: skip

for _kind, _facts in _FAMILY:
    if "own" in _facts:
        _facts["doc"] = _text(_facts, *_facts["own"])
    _defaults = {"index": -1, "rowwise": True, "parameters": {}, "backward_from": "y", "ulp": {}}
    activations.add(_kind.from_facts(_defaults | _facts), listed=_kind is not GumbelSoftmax)

gumbel_softmax = activations.named("gumbel_softmax")  # random: no entry of the catalogue
