"""Arrays of other libraries: what row functions need beyond NumPy's ufunc protocol.

An elementwise ufunc is all that Dask, xarray, pandas and masked arrays ask for. A function of whole rows needs more:
the rows of an xarray object lie along a named dimension, a Dask array may have cut them into chunks, and a masked entry
must not count in its row. No library is imported here: an object of one can only come from a module already loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np


def is_foreign(x: Any) -> bool:
    """Whether another library's array decides what a ufunc does with it."""
    return hasattr(x, "__array_ufunc__") and not isinstance(x, (np.ndarray, np.generic))


def is_xarray(x: Any) -> bool:
    """Whether x is a DataArray, Dataset or Variable."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(x, (xarray.DataArray, xarray.Dataset, xarray.Variable))


def core_dimensions(ufunc: np.ufunc) -> list[bool]:
    """For each input, then the output: whether it has the row's dimension (a ufunc that is no gufunc has none)."""
    signature = ufunc.signature or ",".join(["()"] * ufunc.nin) + "->()"
    return ["n" in core for core in signature.replace("->", ",").split(",")]


def call_rows(ufunc: np.ufunc, inputs: list[Any], axis: Any, options: dict[str, Any]) -> Any:
    """ufunc(*inputs, axis=axis, **options) for operands of any library; xarray's take a dimension's name as axis."""
    has_row = core_dimensions(ufunc)
    leading = next((x for x in inputs if is_xarray(x)), None)
    if leading is None:
        _check_chunks(inputs, has_row, axis)
        return ufunc(*inputs, axis=axis, **options)
    name = axis if isinstance(axis, str) else tuple(leading.dims)[axis]
    core = [[name] if row else [] for row in has_row]
    y = sys.modules["xarray"].apply_ufunc(
        ufunc, *inputs, input_core_dims=core[:-1], output_core_dims=core[-1:], kwargs=options, dask="allowed",
        keep_attrs=True,
    )  # fmt: skip
    return y.transpose(*(dim for dim in leading.dims if dim in y.dims))


def _check_chunks(inputs: list[Any], has_row: list[bool], axis: int) -> None:
    """A row function needs each row in one chunk: say so in the user's terms, not in those of the ufunc's signature."""
    for x, row in zip(inputs, has_row, strict=False):
        chunks = getattr(x, "chunks", None)
        if row and isinstance(chunks, tuple) and -len(chunks) <= axis < len(chunks) and len(chunks[axis]) > 1:
            raise ValueError(
                f"x: expected whole rows in one chunk, got chunks {chunks[axis]} along axis {axis}; "
                f"use x.rechunk({{{axis % len(chunks)}: -1}})"
            )


def common_dtype(arrays: Iterable[Any]) -> np.dtype[Any] | None:
    """The NumPy dtype that the arrays (or the columns of a table) share; None where some have none, as a list has."""
    dtypes = [dtype for a in arrays for dtype in _dtypes(a)]
    if not dtypes or not all(isinstance(dtype, np.dtype) for dtype in dtypes):
        return None
    try:
        return np.result_type(*dtypes)
    except TypeError:  # dates, say, beside numbers
        return None


def _dtypes(x: Any) -> list[Any]:
    return [x.dtype] if hasattr(x, "dtype") else list(getattr(x, "dtypes", ())) or [None]


def is_bfloat16(x: Any) -> bool:
    """Whether x is an array of ml_dtypes.bfloat16."""
    dtype = getattr(x, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind == "V" and dtype.name == "bfloat16"


def fill_hidden(x: Any, shown: Any, value: float) -> Any:
    """A copy of x, of the same kind of array, with ``value`` wherever ``shown`` is False; integers become floats."""
    if hasattr(x, "where") and not isinstance(x, np.ndarray):  # xarray, pandas
        return x.where(shown, value)
    if is_foreign(x):
        return np.where(shown, x, np.asarray(value, x.dtype if x.dtype.kind == "f" else np.float64))
    x = np.asanyarray(x)
    if x.dtype.kind in "iub":
        x = x.astype(np.result_type(x.dtype, np.float16))
    filled = x.copy()
    try:
        np.copyto(filled, value, where=np.logical_not(shown))
    except ValueError:
        raise ValueError(f"where: expected a shape that broadcasts to x {x.shape}, got {np.shape(shown)}") from None
    return filled
