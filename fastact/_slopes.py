"""Leaky rectifiers whose slope is learned (prelu) or drawn at random (rrelu), over the kernels of leaky_relu."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastact._activations import Activation, activations, real_array
from fastact._arguments import DTYPES, as_number
from fastact._blocks import float_dtype
from fastact._core import slopes as _core
from fastact._core.workspace import empty
from fastact._rows import as_axis
from fastact.init import Rng, generator

_leaky_relu = activations["leaky_relu"]
_SHARED = {
    **_leaky_relu._facts,  # index, formula, ulp, landmarks, kinks, range
    "backward_from": "x",  # a slope below 0 makes y ambiguous
    "aliases": (),
}


class PReLU(Activation):
    """leaky_relu with a slope that is learned: ``gradients`` gives the slope's beside that of x."""

    def _call(self, x: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]) -> Any:
        params = self._along(x, axis, params)
        if where is True and dtype is None and params.keys() == {"alpha"}:
            y = _core.forward(x, params["alpha"], out)
            if y is not None:
                return y
        return super()._call(x, out, where, dtype, None, params)

    def backward(
        self, dy: Any, x: Any = None, y: Any = None, out: Any = None, *, where: Any = True, dtype: Any = None,
        axis: Any = None, **params: Any,
    ) -> Any:  # fmt: skip
        """dy times the derivative, from x: the gradient of x."""
        if x is None:
            self._no_operand(f"{self.name}.backward", y)
        params = self._along(x, axis, params)
        return super().backward(dy, x, None, out, where=where, dtype=dtype, **params)

    def gradients(self, dy: Any, x: Any, *, axis: Any = None, **params: Any) -> tuple[Any, Any]:
        """The gradients of x and of the slope.

        Parameters
        ----------
        dy, x : array_like
            Of one shape: the gradient of the output, and what the forward call saw.
        alpha, axis
            What that call got.

        Returns
        -------
        dx : ndarray, the shape of x
        dalpha : ndarray or number, the shape of alpha
            The sum of dy x where x is not above 0, over all elements that share a slope: in float64, in an order that
            depends on the shapes alone.

        Raises
        ------
        ValueError
            Unless dy has the shape of x, and alpha one that broadcasts to it.

        Examples
        --------
        >>> import numpy as np, fastact as fa
        >>> dx, dalpha = fa.prelu.gradients(np.ones((2, 2)), np.array([[1.0, -1.0], [-2.0, -4.0]]), alpha=[0.25, 0.5])
        >>> dx.tolist(), dalpha.tolist()
        ([[1.0, 0.5], [0.25, 0.5]], [-2.0, -5.0])
        """
        name = f"{self.name}.gradients"
        x, dy = real_array(f"{name}: x", x), real_array(f"{name}: dy", dy)
        if dy.shape != x.shape:
            raise ValueError(f"{name}: dy: expected the shape of x {x.shape}, got {dy.shape}")
        given = self._arguments(params)["alpha"]
        alpha = given if axis is None else self._arguments(self._along(x, axis, params))["alpha"]
        _check_broadcasts(name, np.shape(alpha), x.shape)
        kind = getattr(given, "dtype", None)  # a plain number has none
        result = kind if kind is not None and kind.kind == "f" else float_dtype(x, dy)
        if _is_ordinary(x) and _is_ordinary(dy) and x.dtype == dy.dtype == getattr(alpha, "dtype", x.dtype):
            dx = empty(x.shape, x.dtype)
            dalpha = _slope_gradient(dy, x, alpha, dx)
        else:
            dx = self.backward(dy, x, alpha=alpha)
            if isinstance(x, np.ma.MaskedArray):
                x = x.filled(1)  # above 0 nothing counts
            dtype = np.result_type(x, dy, np.float32)
            x, dy = (np.require(operand, dtype, ["C", "A"]) for operand in (x, dy))
            dalpha = _slope_gradient(dy, x, alpha, None)
        return dx, dalpha.reshape(np.shape(given)).astype(result)[()]

    def forward(self, x: Any, *, axis: Any = None, **params: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        """y and its backward, (dx, dalpha) = f(dy): see ``gradients``."""
        return self(x, axis=axis, **params), lambda dy: self.gradients(dy, x, axis=axis, **params)

    def _along(self, x: Any, axis: Any, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters, a 1-d alpha laid along that axis of x."""
        if axis is None:
            return params
        axis = as_axis(axis, x)
        axis = x.get_axis_num(axis) if isinstance(axis, str) else axis % np.ndim(x)
        alpha = self._arguments(params)["alpha"]
        if isinstance(alpha, float):
            return params
        if np.ndim(alpha) != 1:
            raise ValueError(f"{self.name}: alpha: expected one dimension beside axis=, got shape {np.shape(alpha)}")
        if alpha.shape[0] not in (1, np.shape(x)[axis]):
            raise ValueError(
                f"{self.name}: alpha: expected {np.shape(x)[axis]} slopes for axis {axis} of x {np.shape(x)}, "
                f"got {alpha.shape[0]}"
            )
        return {**params, "alpha": alpha.reshape(-1, *[1] * (np.ndim(x) - 1 - axis))}


def _check_broadcasts(name: str, shape: tuple[int, ...], to: tuple[int, ...]) -> None:
    try:
        fits = np.broadcast_shapes(shape, to) == to
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name}: alpha: expected a shape that broadcasts to x {to}, got {shape}")


def _is_ordinary(array: Any) -> bool:
    """Whether the kernel takes it as it is."""
    return type(array) is np.ndarray and array.dtype in DTYPES and array.flags.c_contiguous and array.flags.aligned


def _slope_gradient(dy: Any, x: Any, alpha: Any, dx: Any) -> Any:
    """The sum of dy x over x <= 0, in the shape of alpha and in float64; fills dx unless it is None.

    x, dy and dx are dense and of one type. The kernel sums rows: the axes of x before the first along which slopes
    differ, all but the last at most.
    """
    slopes = np.asarray(alpha)
    shape = (1,) * (x.ndim - slopes.ndim) + slopes.shape
    first = next((k for k in range(x.ndim - 1) if shape[k] != 1), max(x.ndim - 1, 0))
    columns = x.shape[first:]
    rows, n = math.prod(x.shape[:first]), math.prod(columns)
    spread = np.empty(columns, x.dtype)
    spread[...] = slopes.reshape(shape[first:])
    sums = np.empty((-(-rows // _core.BLOCK_ROWS), n))
    _core.backward(
        x.reshape(rows, n), dy.reshape(rows, n), spread.reshape(n), None if dx is None else dx.reshape(rows, n), sums
    )
    kept = [k - first + 1 for k in range(first, x.ndim) if shape[k] != 1]
    joined = [k for k in range(len(columns) + 1) if k not in kept]
    sums = np.ascontiguousarray(sums.reshape(len(sums), *columns).transpose(kept + joined))  # NumPy sums that in pairs
    with np.errstate(all="ignore"):
        return sums.reshape(slopes.size, sums.size // max(slopes.size, 1)).sum(axis=1).reshape(slopes.shape)


class RReLU(Activation):
    """leaky_relu with slopes from U(lower, upper) in training (``forward``), and with their mean in a plain call."""

    def _leaky(self, params: dict[str, Any]) -> tuple[Activation, float, float]:
        """leaky_relu by this name and with the mean slope; the two ends."""
        for name in params.keys() - self.parameters.keys():
            self._unknown_parameter(name)
        values = {**self.parameters, **params}
        lower, upper = (as_number(value, name, -math.inf) for name, value in values.items())
        self._check_ends(lower, upper)
        mean = {"alpha": (lower + upper) / 2}
        facts = {**_SHARED, "name": self.name, "parameters": mean}
        return Activation(self.name, _leaky_relu.index, False, mean, None, _leaky_relu, facts), lower, upper

    def _with_values(self, values: dict[str, Any]) -> Activation:
        self._check_ends(values["lower"], values["upper"])
        return super()._with_values(values)

    def _check_ends(self, lower: float, upper: float) -> None:
        if not lower <= upper:
            raise ValueError(f"{self.name}: lower, upper: expected lower <= upper, got {lower:g} and {upper:g}")

    def _call(self, x: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]) -> Any:
        return self._leaky(params)[0](x, out, where=where, dtype=dtype, axis=axis)

    def _backward(
        self, dy: Any, x: Any, y: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]
    ) -> Any:
        leaky = self._leaky(params)[0]
        if x is None:
            self._no_operand(f"{self.name}.backward", y)
        return leaky.backward(dy, x, out=out, where=where, dtype=dtype, axis=axis)

    def _derivative(self, x: Any, order: Any, out: Any, where: Any, dtype: Any, params: dict[str, Any]) -> Any:
        return self._leaky(params)[0].derivative(x, order, out, where=where, dtype=dtype)

    def forward(self, x: Any, *, rng: Rng = None, **params: Any) -> tuple[Any, Callable[[Any], Any]]:
        """y with slopes drawn at random, one an element, and its backward, dx = f(dy), with the same slopes.

        Examples
        --------
        >>> import numpy as np, fastact as fa
        >>> y, backward = fa.rrelu.forward(np.array([-1.0, 2.0]), rng=0)
        >>> bool(1 / 8 <= -y[0] <= 1 / 3), (backward(np.ones(2)) == [-y[0], 1]).tolist()
        (True, [True, True])
        """
        leaky, lower, upper = self._leaky(params)
        x = real_array(f"{self.name}: x", x)
        slopes = generator(rng).uniform(lower, upper, x.shape).astype(float_dtype(x))
        return leaky(x, alpha=slopes), lambda dy: leaky.backward(dy, x=x, alpha=slopes)


_TEXT = """\
{name}(x) = {formula}

Parameters
----------
x : array_like
    Any shape; float16, float32, float64, or integers, promoted as by numpy.sin.
{parameters}out, where, dtype : optional
    As for any NumPy ufunc.

Returns
-------
y : ndarray
    The shape of x.

Notes
-----
{notes}

Examples
--------
>>> import numpy as np, fastact as fa
{example}
"""

_PRELU_NOTE = (
    "He et al. 2015. The slope is 0.25 at first in PyTorch, 0 in Keras and 0.01 in Flax. PyTorch's slopes lie along "
    "axis 1, those of ONNX and Keras broadcast to x. f'(0) = alpha, as in PyTorch; x = 0 adds nothing to its gradient."
)
_RRELU_NOTE = (
    "Xu et al. 2015, PyTorch's; nobody else has it. A plain call is PyTorch's training=False: leaky_relu with the mean "
    "slope, 11/48. In training, each x not above 0 has a slope of its own from U(lower, upper). f'(0) is the slope."
)

prelu = PReLU.from_facts(
    {
        **_SHARED,
        "name": "prelu",
        "rowwise": False,
        "parameters": {"alpha": 0.25},
        "keywords": {"axis": None},
        "note": _PRELU_NOTE,
        "doc": _TEXT.format(
            name="prelu",
            formula=_SHARED["formula"],
            parameters="alpha : float or array_like, default 0.25\n    On the left; an array broadcasts to x.\n"
            "axis : int, optional\n    The axis of x that a 1-d alpha lies along: 1 in PyTorch. Default: the last.\n",
            notes=f"{_PRELU_NOTE}\n``backward(dy, x=x)`` gives the gradient of x, ``dx, dalpha = gradients(dy, x)`` "
            "that of the slope, too;\n``y, backward = fa.prelu.forward(x)`` makes ``dx, dalpha = backward(dy)``.",
            example=">>> fa.prelu(np.array([[-4.0, 1.0], [-4.0, -8.0]]), alpha=[0.25, 0.5]).tolist()\n"
            "[[-1.0, 1.0], [-1.0, -4.0]]",
        ),
    }
)
activations.add(prelu)

rrelu = RReLU.from_facts(
    {
        **_SHARED,
        "name": "rrelu",
        "index": -1,
        "rowwise": False,
        "formula": "x if x > 0 else (lower + upper) / 2 * x",
        "parameters": {"lower": 1 / 8, "upper": 1 / 3},
        "note": _RRELU_NOTE,
        "doc": _TEXT.format(
            name="rrelu",
            formula="x if x > 0 else (lower + upper) / 2 * x",
            parameters="lower, upper : float, default 1/8 and 1/3\n    Ends of the slope's distribution.\n",
            notes=f"{_RRELU_NOTE}\n``y, backward = fa.rrelu.forward(x, rng=0)`` is a training step's.",
            example=">>> fa.rrelu(np.array([-48.0, 1.0])).tolist()\n[-11.0, 1.0]",
        ),
    }
)
activations.add(rrelu, listed=False)  # random in training: no entry of the catalogue
