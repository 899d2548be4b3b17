"""Arguments of public calls, checked and converted; an error names the argument, what was expected and what came."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Entry = TypeVar("Entry")

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


def as_entry(name: str, table: Mapping[str, Entry], argument: str) -> Entry:
    """``table[name]``; a ValueError for an unknown name lists the known ones and tells the nearest."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name.lower(), table, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{argument}: expected one of {', '.join(table)}, got {name!r}{hint}")


def as_object(
    spec: Any, kind: type[Entry], table: Mapping[str, Callable[[], Entry]], argument: str, base: str
) -> Entry:
    """``spec`` itself if it is of this kind, or what the table makes for its name; ``base`` is for the message."""
    if isinstance(spec, kind):
        return spec
    if isinstance(spec, str):
        return as_entry(spec, table, argument)()
    if isinstance(spec, type) and issubclass(spec, kind):
        raise TypeError(f"{argument}: expected a name or an object, got the class; write {spec.__name__}()")
    raise TypeError(
        f"{argument}: expected one of {', '.join(table)}, or an object derived from {base}, got {type(spec).__name__}"
    )


def as_number(value: Any, name: str, low: float, high: float = math.inf, *, above: bool = False) -> float:
    """``value`` as a finite float with low <= value < high (low < value with ``above``)."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, np.number)):
        raise TypeError(f"{name}: expected a number, got {value!r} of type {type(value).__name__}")
    number = float(value)
    if not (low < number < high if above else low <= number < high):
        bounds = f"{low:g} {'<' if above else '<='} {name}" + (f" < {high:g}" if high < math.inf else ", finite")
        raise ValueError(f"{name}: expected {bounds}, got {value!r}")
    return number


def as_floats(value: Any, dtype: np.dtype[Any], name: str) -> Array:
    """``value`` as an array of ``dtype``; real numbers of any type are converted, ``as_real`` refuses anything else."""
    return as_real(value, name).astype(dtype, copy=False)


def as_signal(value: Any, name: str = "x") -> Array:
    """``value`` as an array of float32 or float64: of these two as it is, shorter types as float32, others as float64.

    For layers that have no parameters and so no type of their own.
    """
    if value.__class__ is np.ndarray and value.dtype in DTYPES and value.dtype.isnative:
        return value
    array = as_real(value, name)
    return array.astype(np.result_type(array.dtype, np.float32), copy=False)


def as_real(value: Any, name: str) -> Array:
    """``value`` as an array of real numbers, of whatever type they are.

    Raises
    ------
    TypeError
        For complex numbers, strings, objects, ragged lists, and masked arrays: nothing here heeds a mask.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a plain array, got a masked one; fill it first: {name}.filled(0)")
    try:
        array = np.asarray(value)
    except Exception as error:  # whatever a foreign __array__ raises
        ragged = isinstance(error, ValueError) and isinstance(value, (list, tuple))
        raise TypeError(
            f"{name}: expected an array of numbers, got {type(value).__name__} that NumPy cannot read: {error}"
            + ("; pad rows of different shapes to one" if ragged else "")
        ) from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {array.dtype} ({type(value).__name__})")
    return array


def place_of(index: Iterable[Any]) -> int | tuple[int, ...]:
    """A position for a message: a number in one dimension, else a tuple."""
    where = tuple([int(i) for i in index])
    return where[0] if len(where) == 1 else where


def over_leading(array: Array, ndim: int) -> Array:
    """An array over the leading axes of one of ``ndim`` axes, so that it broadcasts with that one."""
    return array.reshape(array.shape + (1,) * (ndim - array.ndim))
