"""Activations made of others: of Python functions, and a catalogue entry scaled and shifted at both ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastact import _protocol
from fastact._activations import Activation, activations, check_result, check_where, real_array, real_number
from fastact._blocks import blockwise, float_dtype, work_dtype
from fastact._core import compositions

Function = Callable[..., Any]


class FunctionActivation(Activation):
    """See ``Activation.from_functions``: the functions see arrays block by block."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._functions: tuple[Function, Function, Function | None] = self._facts["functions"]

    def _call(self, x: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]) -> Any:
        if axis is not None:
            raise TypeError(f"axis: {self.name} acts on each element and takes no axis; leave it out")
        return self._evaluate(self.name, 0, None, x, out, where, dtype, params)

    def _backward(
        self, dy: Any, x: Any, y: Any, out: Any, where: Any, dtype: Any, axis: Any, params: dict[str, Any]
    ) -> Any:
        name = f"{self.name}.backward"
        if axis is not None:
            raise TypeError(f"axis: {self.name} acts on each element and takes no axis; leave it out")
        if x is None:
            self._no_operand(name, y)
        return self._evaluate(name, 1, dy, x, out, where, dtype, params)

    def _derivative(self, x: Any, order: Any, out: Any, where: Any, dtype: Any, params: dict[str, Any]) -> Any:
        self._check_order(order)
        return self._evaluate(f"{self.name}.derivative", order, None, x, out, where, dtype, params)

    def _evaluate(
        self, name: str, order: int, dy: Any, x: Any, out: Any, where: Any, dtype: Any, params: dict[str, Any]
    ) -> Any:
        """The derivative of this order, times dy if there is one, block by block into out."""
        arguments = self._arguments(params)
        operands = {"x": x} if dy is None else {"x": x, "dy": dy}
        if any(map(_protocol.is_foreign, operands.values())) or isinstance(x, np.ma.MaskedArray):
            if out is not None or where is not True or dtype is not None:
                raise TypeError(f"{name}: out=, where=, dtype=: expected plain arrays, got {type(x).__name__}")
            y = self._plain(order, x, arguments)
            return y if dy is None else y * dy
        arrays = [real_array(f"{name}: {key}", value) for key, value in operands.items()]
        try:
            shape = np.broadcast_shapes(*(a.shape for a in arrays))
        except ValueError:
            listed = ", ".join(f"{key} {np.shape(value)}" for key, value in operands.items())
            raise ValueError(f"{name}: expected shapes that broadcast together, got {listed}") from None
        check_result(name, out, dtype, shape)
        check_where(name, where)
        result = float_dtype(*arrays) if dtype is None else np.dtype(dtype)
        given = out
        if out is None or where is not True:
            out = np.empty(shape, result)

        def step(x: Any, *rest: Any) -> None:
            rest[-1][...] = self._plain(order, x, arguments)
            if len(rest) == 2:
                np.multiply(rest[-1], rest[0], out=rest[-1])

        with np.errstate(all="ignore"):
            blockwise(step, arrays, [out], work_dtype(result))
        if where is not True:
            chosen = np.zeros(shape, result) if given is None else given
            try:
                np.copyto(chosen, out, where=where, casting="same_kind")
            except ValueError:
                got = f"got {np.shape(where)}"
                raise ValueError(f"{name}: where: expected a shape that broadcasts to {shape}, {got}") from None
            return chosen
        if given is None and type(arrays[0]) is not np.ndarray:
            return arrays[0].__array_wrap__(out)
        return out if given is not None or shape else out[()]

    def _plain(self, order: int, x: Any, params: dict[str, Any]) -> Any:
        """f, f' or f'' of a block, or of another library's array."""
        function = self._functions[order]
        if function is None:
            raise TypeError(f"{self.name}.derivative: order 2 needs d2f, which from_functions did not get")
        y = function(x, **params)
        if np.shape(y) not in (np.shape(x), ()):
            raise ValueError(
                f"{self.name}: {('f', 'df', 'd2f')[order]}: expected a result of the shape of x {np.shape(x)}, "
                f"got {np.shape(y)}"
            )
        return y

    def check(self, x: Any = None) -> None:
        """Compare df, and d2f, with central differences of f, and df, in float64.

        Parameters
        ----------
        x : array_like, optional
            Where; default 401 points of [-8, 8] that avoid round numbers, at which kinks tend to lie.

        Raises
        ------
        ValueError
            Where they differ by more than 1e-5 of 1 and the largest slope nearby.
        """
        x = np.linspace(-8, 8, 401) + 0.00317 if x is None else np.asarray(x, np.float64)
        for order in (1, 2) if self._functions[2] is not None else (1,):
            step = 1e-5 * np.maximum(1, np.abs(x))
            with np.errstate(all="ignore"):
                above, below = (self._plain(order - 1, x + h, dict(self.parameters)) for h in (step, -step))
                want = np.broadcast_to((np.asarray(above) - below) / (2 * step), x.shape)
                got = np.broadcast_to(self._plain(order, x, dict(self.parameters)), x.shape)
                wrong = ~(np.abs(got - want) <= 1e-5 * (1 + np.abs(want)))
            if wrong.any():
                at = np.flatnonzero(wrong)[0]
                given, of = ("df", "f") if order == 1 else ("d2f", "df")
                raise ValueError(
                    f"{self.name}: {given}: expected {want.flat[at]:.6g} at x = {x.flat[at]:.6g}, the slope of {of} by "
                    f"differences, got {got.flat[at]:.6g}"
                )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FunctionActivation):
            return NotImplemented
        return (self.name, self._functions, self.parameters) == (other.name, other._functions, other.parameters)

    def __hash__(self) -> int:
        return hash((self.name, self._functions, *self.parameters.values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_functions, (self.name, self._functions, dict(self._facts["parameters"]), self._bound())


def from_functions(
    f: Function, df: Function, d2f: Function | None, name: str | None, check: bool, parameters: dict[str, float]
) -> FunctionActivation:
    """``Activation.from_functions``."""
    for role, function in (("f", f), ("df", df), ("d2f", d2f)):
        if not callable(function) and (role != "d2f" or function is not None):
            raise TypeError(f"{role}: expected a function of an array, got {function!r}")
    name = getattr(f, "__name__", "custom") if name is None else name
    if name in activations:
        raise ValueError(f"name: expected one that the catalogue does not have, got {name!r}")
    facts: dict[str, Any] = {
        "name": name,
        "index": -1,
        "rowwise": False,
        "formula": "a Python function",
        "parameters": {key: real_number(key, value) for key, value in parameters.items()},
        "backward_from": "x",
        "range": (-np.inf, np.inf),
        "functions": (f, df, d2f),
        "doc": f.__doc__ or f"{name}(x): a Python function.",
    }
    activation = FunctionActivation(name, -1, False, dict(facts["parameters"]), None, None, facts)
    if check:
        activation.check()
    return activation


def _restore_functions(
    name: str, functions: tuple[Any, Any, Any], parameters: dict[str, float], bound: dict[str, float]
) -> Activation:
    return from_functions(*functions, name, False, parameters).with_params(**bound)


class Scaled(Activation):
    """output_scale * f(input_scale * x + input_shift) + output_shift for an f of the table, in one pass over memory."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ufuncs.update(compositions.scaled(self.inner.index))

    @property
    def inner(self) -> Activation:
        """The activation that is scaled."""
        return self._facts["inner"]

    @property
    def ufunc(self) -> np.ufunc:  # type: ignore[override]
        """Of x, the parameters of ``inner`` and the four of this one."""
        return self.ufuncs["forward"]

    @property
    def range(self) -> tuple[float, float]:
        scale, shift = self.parameters["output_scale"], self.parameters["output_shift"]
        ends = [scale * end + shift if scale else shift for end in self.inner.range]
        return min(ends), max(ends)

    @property
    def odd(self) -> bool:
        return self.inner.odd and self.parameters["input_shift"] == 0 == self.parameters["output_shift"]

    def _arguments(self, params: dict[str, Any]) -> dict[str, Any]:
        return {**self.inner.parameters, **super()._arguments(params)}

    def _run_ufunc(
        self, function: str, kind: str, inputs: dict[str, Any], out: Any, where: Any, dtype: Any, params: dict[str, Any]
    ) -> Any:
        if out is None and not any(map(_protocol.is_foreign, inputs.values())):
            arrays = [real_array(f"{function}: {name}", value) for name, value in inputs.items()]
            check_result(function, None, dtype, ())
            if (float_dtype(*arrays) if dtype is None else np.dtype(dtype)) == np.float16:
                # The chain has no loop of float16: NumPy converts the float32 result, block by block.
                shapes = map(np.shape, (*arrays, *self._arguments(params).values()))
                y = np.empty(np.broadcast_shapes(*shapes), np.float16)
                super()._run_ufunc(function, kind, inputs, y, where, None, params)
                return y if y.shape else y[()]
        return super()._run_ufunc(function, kind, inputs, out, where, dtype, params)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scaled):
            return NotImplemented
        return self.inner == other.inner and self.parameters == other.parameters

    def __hash__(self) -> int:
        return hash((self.inner, *self.parameters.values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return scaled, (self.inner, *self.parameters.values())

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._bound().items())
        return f"{self.inner!r}.scaled({shown})"


@dataclass(frozen=True)
class ScaledFunction:
    """The derivative of some order (0: the function) of a Python function scaled and shifted at both ends."""

    function: Function
    order: int
    parameters: tuple[tuple[str, float], ...]
    scales: tuple[float, ...]

    def __call__(self, x: Any) -> Any:
        input_scale, input_shift, output_scale, output_shift = self.scales
        y = self.function(x * input_scale + input_shift, **dict(self.parameters))
        y = y * (output_scale * input_scale**self.order)
        return y if self.order else y + output_shift


def scaled(
    inner: Activation, input_scale: float, input_shift: float, output_scale: float, output_shift: float
) -> Activation:
    """``Activation.scaled``."""
    if inner.rowwise:
        raise TypeError(f"{inner.name}.scaled: expected an activation of each element, got one of rows")
    values = (input_scale, input_shift, output_scale, output_shift)
    given = {name: real_number(name, value) for name, value in zip(_SCALES, values, strict=True)}
    if isinstance(inner, FunctionActivation):
        of, by = tuple(inner.parameters.items()), tuple(given.values())
        f, df, d2f = inner._functions
        second = None if d2f is None else ScaledFunction(d2f, 2, of, by)
        return from_functions(
            ScaledFunction(f, 0, of, by), ScaledFunction(df, 1, of, by), second, f"{inner.name}.scaled", False, {}
        )
    if isinstance(inner, Scaled):  # a (a' f(b' (b x + c) + c') + d') + d
        a, d = inner.parameters["output_scale"], inner.parameters["output_shift"]
        b, c = inner.parameters["input_scale"], inner.parameters["input_shift"]
        given["input_scale"], given["input_shift"] = b * given["input_scale"], b * given["input_shift"] + c
        given["output_shift"] += given["output_scale"] * d
        given["output_scale"] *= a
        inner = inner.inner
    facts: dict[str, Any] = {
        "name": f"{inner.name}.scaled",
        "index": -1,
        "rowwise": False,
        "formula": f"output_scale * {inner.name}(input_scale * x + input_shift) + output_shift",
        "parameters": _SCALES,
        "backward_from": "x",
        "monotonic": inner.monotonic,
        "inner": inner,
        "doc": f"{inner.name}, scaled and shifted at both ends. Each of the steps rounds once.",
    }
    return Scaled(facts["name"], -1, False, _SCALES, None, None, facts).with_params(**given)


_SCALES = {"input_scale": 1.0, "input_shift": 0.0, "output_scale": 1.0, "output_shift": 0.0}
