"""Gated linear units: one half of an axis times an activation of the other half, (2n) -> (n).

One body for all: which activation, and which half it takes, is all that tells them apart. The order of the halves
differs between libraries; ``gate_first=`` reaches both.
"""

from __future__ import annotations

import math
import sys
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from fastact import _protocol
from fastact._activations import Activation, activations, check_result, real_array
from fastact._blocks import float_dtype, work_dtype
from fastact._core import gated as _core
from fastact._rows import as_axis


def _scalars(gate: Activation) -> tuple[float, ...] | None:
    """Parameters of the gate, None where one is an array."""
    values = tuple(gate.parameters.values())
    return None if any(np.ndim(value) for value in values) else values


def _cut(a: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """A dense array with the two halves of each of its rows side by side, (rows, 2, n): a view."""
    shape = a.shape
    return a.reshape(math.prod(shape[:axis]), 2, shape[axis] // 2 * math.prod(shape[axis + 1 :]))


def _dense(x: npt.NDArray[Any], axis: int, work: np.dtype[Any]) -> npt.NDArray[Any]:
    return _cut(np.require(x, work, ["C", "A"]), axis)


def _direct(out: npt.NDArray[Any], work: np.dtype[Any], *inputs: npt.NDArray[Any]) -> bool:
    """Whether a kernel may write there: dense, of the dtype it works in, apart from what it reads."""
    flags = out.flags
    dense = flags.c_contiguous and flags.aligned and out.dtype == work
    return dense and not any(np.may_share_memory(out, a) for a in inputs)


def _result(y: npt.NDArray[Any], out: npt.NDArray[Any] | None, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if out is None:
        return y.astype(dtype, copy=False)
    if out is not y:
        np.copyto(out, y, casting="same_kind")
    return out


class Gated(Activation):
    """An activation of one half of an axis times the other half; every call takes ``axis=-1`` and ``gate_first=``."""

    @property
    def gate(self) -> Activation:
        """The activation of the half that gates, with the parameters of this one."""
        gate = activations[self._facts["gate"]]
        return gate.with_params(**self.parameters) if self.parameters else gate

    @cached_property
    def _kernel(self) -> tuple[int, tuple[float, ...] | None]:
        """What the kernel is told of the gate."""
        return self.gate.index, _scalars(self.gate)

    def __call__(
        self, x: Any, out: Any = None, *, where: Any = True, dtype: Any = None, axis: Any = -1,
        gate_first: bool | None = None, **params: Any,
    ) -> Any:  # fmt: skip
        if where is True and dtype is None and not params:
            y = _core.direct(*self._kernel, x, None, out, axis, self._first(gate_first))
            if y is not None:
                return y
        self._check(where, params)
        gate = self.gate.with_params(**params) if params else self.gate
        if _protocol.is_xarray(x):
            return self._call_xarray(x, axis, gate_first, params)
        x = self._array(self.name, "x", x)
        axis, gated, value = self._halves(x, axis, gate_first)
        if type(x) is not np.ndarray:
            if out is not None or dtype is not None:
                raise TypeError(f"{self.name}: out=, dtype=: expected a plain array as x, got {type(x).__name__}")
            return value * gate(gated)
        check_result(self.name, out, dtype, gated.shape)
        result = float_dtype(x) if dtype is None else np.dtype(dtype)
        work, parameters = work_dtype(result), _scalars(gate)
        if parameters is None:  # one for each element
            return _result(value * gate(gated), out, result)
        y = out
        if y is None or not _direct(y, work, x):
            y = np.empty(gated.shape, work)
        _core.forward(gate.index, parameters, _dense(x, axis, work), y, self._first(gate_first))
        return _result(y, out, result)

    def backward(
        self, dy: Any, x: Any = None, y: Any = None, out: Any = None, *, where: Any = True, dtype: Any = None,
        axis: Any = -1, gate_first: bool | None = None, **params: Any,
    ) -> Any:  # fmt: skip
        """The gradient of x, of its shape, from x; dy of the shape of y."""
        if where is True and dtype is None and dy is not None and not params:
            dx = _core.direct(*self._kernel, x, dy, out, axis, self._first(gate_first))
            if dx is not None:
                return dx
        name = f"{self.name}.backward"
        self._check(where, params)
        gate = self.gate.with_params(**params) if params else self.gate
        if x is None:
            self._no_operand(name, y)
        x, dy = self._array(name, "x", x), self._array(name, "dy", dy)
        axis, gated, value = self._halves(x, axis, gate_first)
        if dy.shape != gated.shape:
            raise ValueError(f"{name}: dy: expected the shape of y {gated.shape}, got {dy.shape}")
        parameters = _scalars(gate)
        if not isinstance(x, np.ndarray) or parameters is None:
            if out is not None or dtype is not None:
                raise TypeError(f"{name}: out=, dtype=: expected a plain array as x and numbers as parameters")
            parts = [gate.backward(dy * value, x=gated), gate(gated) * dy]
            return np.concatenate(parts if self._first(gate_first) else parts[::-1], axis=axis)
        check_result(name, out, dtype, x.shape)
        result = float_dtype(x, dy) if dtype is None else np.dtype(dtype)
        work = work_dtype(result)
        dx = out
        if dx is None or not _direct(dx, work, x, dy):
            dx = np.empty(x.shape, work)
        dy = np.require(dy, work, ["C", "A"])
        _core.backward(gate.index, parameters, dy, _dense(x, axis, work), _cut(dx, axis), self._first(gate_first))
        return _result(dx, out, result)

    def derivative(self, x: Any, order: int = 1, out: Any = None, **params: Any) -> NoReturn:
        """Refused: an output has two inputs."""
        raise TypeError(f"{self.name}.derivative: an output has two inputs; use {self.name}.backward(dy, x=x)")

    def _check(self, where: Any, params: dict[str, Any]) -> None:
        if where is not True:
            raise TypeError(f"{self.name}: takes no where=; give out= and choose afterwards")
        for name in params:
            if name not in self.parameters:
                self._unknown_parameter(name)

    def _array(self, function: str, name: str, x: Any) -> Any:
        if _protocol.is_foreign(x):
            if not hasattr(x, "shape") or not hasattr(x, "__array_function__"):
                kind = type(x).__name__
                raise TypeError(f"{function}: {name}: expected an array, got {kind}; give {name}.to_numpy()")
            return x
        return real_array(f"{function}: {name}", x)

    def _first(self, gate_first: bool | None) -> bool:
        return self._facts["gate_first"] if gate_first is None else bool(gate_first)

    def _halves(self, x: Any, axis: Any, gate_first: bool | None) -> tuple[int, Any, Any]:
        """The axis, the half that gates and the other one, as views."""
        axis = as_axis(axis, x) % x.ndim
        if x.shape[axis] % 2:
            raise ValueError(f"{self.name}: x: expected an even length along axis {axis}, got shape {x.shape}")
        before, half = (slice(None),) * axis, x.shape[axis] // 2
        first, second = (*before, slice(None, half)), (*before, slice(half, None))
        halves = x[first], x[second]
        gated, value = halves if self._first(gate_first) else halves[::-1]
        return axis, gated, value

    def _call_xarray(self, x: Any, axis: Any, gate_first: bool | None, params: dict[str, Any]) -> Any:
        axis = as_axis(axis, x)
        name = axis if isinstance(axis, str) else tuple(x.dims)[axis]
        y = sys.modules["xarray"].apply_ufunc(
            lambda a: self(a, gate_first=gate_first, **params), x, input_core_dims=[[name]], output_core_dims=[[name]],
            exclude_dims={name}, dask="allowed", keep_attrs=True,
        )  # fmt: skip
        return y.transpose(*x.dims)


# Name, gate, whether the gate is the first half, who has it.
_GATED = [
    ("glu", "sigmoid", False, "As PyTorch, Keras and JAX (Dauphin et al. 2017)."),
    ("swiglu", "silu", True, "The gate comes first, as in ONNX, LLaMA and FlashAttention (Shazeer 2020)."),
    ("geglu", "gelu", False, "As in Diffusers (Shazeer 2020); GELU in its erf form."),
    ("geglu_tanh", "gelu_tanh", False, "geglu with GELU in its tanh form."),
    ("reglu", "relu", False, "As in the paper (Shazeer 2020)."),
]
_TEXT = """\
{name}(x) = {formula}, the halves a, b of x along the axis

Parameters
----------
x : array_like
    Of an even length along the axis.
axis : int, default -1
    The axis that is halved.
gate_first : bool, default {gate_first}
    Whether {gate} takes the first half.
out, dtype : optional
    As for any NumPy ufunc.

Returns
-------
y : ndarray
    The shape of x, the axis halved.

Notes
-----
{note} ``backward(dy, x=x)`` gives the gradient of x.
"""

for _name, _gate, _first, _note in _GATED:
    _formula = f"{_gate}(a) * b" if _first else f"a * {_gate}(b)"
    activations.add(
        Gated.from_facts(
            {
                "name": _name,
                "index": -1,
                "rowwise": True,
                "formula": _formula,
                "parameters": dict(activations[_gate].parameters),
                "keywords": {"axis": -1, "gate_first": _first},
                "backward_from": "x",
                "keeps_shape": False,
                "range": (-np.inf, np.inf),
                "gate": _gate,
                "note": _note,
                "gate_first": _first,
                "doc": _TEXT.format(name=_name, formula=_formula, gate_first=_first, gate=_gate, note=_note),
            }
        )
    )
