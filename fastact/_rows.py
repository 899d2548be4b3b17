"""Row activations: softmax and its kin, where an output depends on a whole row of inputs, along any axis.

The kernels (``src_c/rows.inl``) see rows alone. Here: axes, masks, float16, and the arrays of other libraries.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from fastact import _protocol
from fastact._activations import Activation, _run


class RowActivation(Activation):
    """An activation over the rows of an array, which lie along ``axis``; every call takes ``axis=-1``.

    ``where`` is a mask: entries where it is False, and those that a masked array hides, count as -inf. A row of nothing
    but -inf gives zeros (softmax) or -inf (log_softmax). The output tells the backward pass what was masked.
    """

    def _call(self, x: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]) -> Any:
        return self._run_rows(self.name, "forward", {"x": x}, out, where, dtype, axis, params)

    def _backward(
        self, dy: Any, x: Any, y: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]
    ) -> Any:
        name = f"{self.name}.backward"
        if y is None:
            self._no_operand(name, y)
        return self._run_rows(name, "backward_y", {"dy": dy, "y": y}, out, where, dtype, axis, params)

    def _derivative(self, x: Any, order: Any, out: Any, where: Any, dtype: Any, params: dict[str, Any]) -> NoReturn:
        raise TypeError(
            f"{self.name}.derivative: the derivative of a row is a matrix; use {self.name}.backward(dy, y=y)"
        )

    def _run_rows(
        self,
        function: str,
        kind: str,
        inputs: dict[str, Any],
        out: Any,
        where: Any,
        dtype: Any,
        axis: Any,
        params: dict[str, Any],
    ) -> Any:
        self._arguments(params)
        axis = _axis(-1 if axis is None else axis, next(iter(inputs.values())))
        inputs, hidden = _hide(inputs, where)
        options: dict[str, Any] = {"axis": axis}
        if out is not None:
            options["out"] = out
        elif dtype is None and (narrow := _narrow(inputs.values())) is not None:
            options["out"] = np.empty(np.broadcast_shapes(*map(np.shape, inputs.values())), narrow)
        if dtype is not None:
            options["dtype"] = dtype
        result = _run(function, self.ufuncs[kind], inputs, options)
        return result if hidden is None else np.ma.array(result, mask=hidden, copy=False)


def _hide(inputs: dict[str, Any], where: Any) -> tuple[dict[str, Any], Any]:
    """The inputs with -inf as x, or 0 as dy, at masked places; and the mask that the result of masked arrays has."""
    hidden = None
    for value in inputs.values():
        if isinstance(value, np.ma.MaskedArray):
            mask = np.ma.getmaskarray(value)
            hidden = mask if hidden is None else hidden | mask
    if hidden is not None:
        where = ~hidden & where
    if where is True:
        return inputs, None
    shown: dict[str, Any] = {}
    for name, value in inputs.items():
        value = value.data if isinstance(value, np.ma.MaskedArray) else value
        shown[name] = _protocol.fill_hidden(value, where, -np.inf if name == "x" else 0.0) if name != "y" else value
    return shown, hidden


def _narrow(arrays: Any) -> np.dtype[Any] | None:
    """float16 or bfloat16 where NumPy's functions would give that: row ufuncs have no such loops and give float32."""
    if not all(isinstance(a, np.ndarray) for a in arrays):
        return None
    dtype = np.result_type(*arrays)
    if dtype.kind in "iub":
        dtype = np.result_type(dtype, np.float16)
    return dtype if dtype == np.float16 or dtype.name == "bfloat16" else None


def _axis(axis: Any, x: Any) -> Any:
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
        ndim = np.ndim(x)
        if ndim == 0:
            raise ValueError("x: expected at least one dimension, got a scalar")
        if not -ndim <= axis < ndim:
            raise ValueError(f"axis: expected {-ndim} to {ndim - 1} for x of shape {np.shape(x)}, got {axis}")
    return axis
