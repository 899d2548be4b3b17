"""Activations and their backward passes, nanoseconds an element; the hardware's limit is a copy of the same streams."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastact as fa
from fastact import reference

from . import formulas, timing
from .peers import Peer, offered
from .shapes import SOFTMAX_ROW, RowsShape
from .timing import Case, Contender

Array = NDArray[Any]
Run = Callable[[], Any]

MAIN = ("sigmoid", "tanh", "relu", "silu", "gelu", "softmax")
TOLERANCE = {"float32": 2e-6, "float64": 1e-13}  # of the largest value; peers flush tails and approximate
SAMPLES = 4096  # elements that are compared with the reference


def against_copy(activation: fa.Activation, seconds: float = 0.02) -> dict[str, tuple[float, float]]:
    """Nanoseconds an element, forward and backward, and those of a copy of as many arrays: 1M float32, one thread."""
    size, dtype = 1 << 20, "float32"
    x = np.random.default_rng(0).standard_normal((size // SOFTMAX_ROW, SOFTMAX_ROW)).astype(dtype) * 2
    with fa.num_threads(1):
        y = activation(x)
        dy, out, dx = np.roll(y, 1), np.empty_like(y), np.empty_like(x)
        given = {"x": x} if activation.backward_from == "x" else {"y": y}
        runs = {
            "forward": (lambda: activation(x, out=out), 2),
            "backward": (lambda: activation.backward(dy, out=dx, **given), 3),
        }
        copy = timing.copy_ns(size, dtype, 1)
        return {
            kind: (timing.shortest(run, seconds) / size, copy * streams / 2 / size)
            for kind, (run, streams) in runs.items()
        }


def numpy_forward(name: str, x: Array, out: Array, work: Array, axis: int = -1) -> Run | None:
    """The activation with NumPy's own functions; None where NumPy lacks one (erf)."""
    real = x.dtype.type

    def sigmoid(to: Array = out) -> Array:
        np.negative(x, out=to)
        np.exp(to, out=to)
        np.add(to, 1, out=to)
        return np.reciprocal(to, out=to)

    def silu() -> Array:
        return np.multiply(sigmoid(), x, out=out)

    def elu() -> Array:
        np.minimum(x, 0, out=work)
        np.expm1(work, out=work)
        np.maximum(x, 0, out=out)
        return np.add(out, work, out=out)

    def softplus() -> Array:
        np.abs(x, out=out)
        np.negative(out, out=out)
        np.exp(out, out=out)
        np.log1p(out, out=out)
        np.maximum(x, 0, out=work)
        return np.add(out, work, out=out)

    def gelu_tanh() -> Array:
        np.multiply(x, x, out=out)
        np.multiply(out, real(0.044715 * np.sqrt(2 / np.pi)), out=out)
        np.add(out, real(np.sqrt(2 / np.pi)), out=out)
        np.multiply(out, x, out=out)
        np.tanh(out, out=out)
        np.add(out, 1, out=out)
        np.multiply(out, x, out=out)
        return np.multiply(out, real(0.5), out=out)

    def leaky_relu() -> Array:
        np.multiply(x, real(0.01), out=out)
        return np.maximum(x, out, out=out)

    def scaled_tanh() -> Array:
        np.multiply(x, real(2 / 3), out=out)
        np.tanh(out, out=out)
        return np.multiply(out, real(1.7159), out=out)

    def softmax() -> Array:
        np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
        np.exp(out, out=out)
        return np.divide(out, out.sum(axis=axis, keepdims=True), out=out)

    def log_softmax() -> Array:
        np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
        np.exp(out, out=work)
        return np.subtract(out, np.log(work.sum(axis=axis, keepdims=True)), out=out)

    def standardize() -> Array:
        np.subtract(x, x.mean(axis=axis, keepdims=True), out=out)
        np.multiply(out, out, out=work)
        return np.divide(out, np.sqrt(work.mean(axis=axis, keepdims=True) + real(1e-5)), out=out)

    def normalize() -> Array:
        np.multiply(x, x, out=work)
        norm = np.sqrt(work.sum(axis=axis, keepdims=True))
        return np.divide(x, np.maximum(norm, real(1e-12)), out=out)

    functions: dict[str, Run] = {
        "relu6": lambda: np.clip(x, 0, 6, out=out),
        "square": lambda: np.square(x, out=out),
        "absolute": lambda: np.abs(x, out=out),
        "sign": lambda: np.sign(x, out=out),
        "exponential": lambda: np.exp(x, out=out),
        "linear": lambda: np.copyto(out, x),
        "step": lambda: np.greater(x, 0, out=out),
        "sigmoid": sigmoid,
        "tanh": lambda: np.tanh(x, out=out),
        "relu": lambda: np.maximum(x, 0, out=out),
        "leaky_relu": leaky_relu,
        "elu": elu,
        "softplus": softplus,
        "silu": silu,
        "gelu_tanh": gelu_tanh,
        "hard_tanh": lambda: np.clip(x, -1, 1, out=out),
        "scaled_tanh": scaled_tanh,
        "softmax": softmax,
        "log_softmax": log_softmax,
        "standardize": standardize,
        "normalize": normalize,
    }
    run = functions.get(name)
    return _as_written(name, 0, {"x": x}, out) if run is None else lambda: (run(), out)[1]


def numpy_backward(name: str, x: Array, y: Array, dy: Array, out: Array, work: Array, axis: int = -1) -> Run | None:
    """dy times the derivative with NumPy's own functions, from x or y as is cheapest."""
    real = x.dtype.type

    def from_square() -> Array:  # 1 - y^2
        np.multiply(y, y, out=out)
        np.subtract(1, out, out=out)
        return np.multiply(out, dy, out=out)

    def sigmoid() -> Array:
        np.subtract(1, y, out=out)
        np.multiply(out, y, out=out)
        return np.multiply(out, dy, out=out)

    def silu() -> Array:  # s (1 + x (1 - s)) = s + y (1 - s)
        np.negative(x, out=out)
        np.exp(out, out=out)
        np.add(out, 1, out=out)
        np.reciprocal(out, out=out)
        np.subtract(1, out, out=work)
        np.multiply(work, y, out=work)
        np.add(out, work, out=out)
        return np.multiply(out, dy, out=out)

    def gelu_tanh() -> Array:
        a, b = np.sqrt(2 / np.pi), 0.044715
        np.multiply(x, x, out=work)
        np.multiply(work, real(a * b), out=out)
        np.add(out, real(a), out=out)
        np.multiply(out, x, out=out)
        np.tanh(out, out=out)  # t
        np.multiply(work, real(1.5 * a * b), out=work)
        np.add(work, real(0.5 * a), out=work)
        np.multiply(work, x, out=work)  # x v'(x) / 2
        np.multiply(work, 1 - out, out=work)
        np.add(work, real(0.5), out=work)
        np.add(out, 1, out=out)
        np.multiply(out, work, out=out)  # (1 + t) (1/2 + (1 - t) x v'/2)
        return np.multiply(out, dy, out=out)

    def softmax() -> Array:
        np.multiply(dy, y, out=work)
        np.subtract(dy, work.sum(axis=axis, keepdims=True), out=out)
        return np.multiply(out, y, out=out)

    functions: dict[str, Run] = {
        "sigmoid": sigmoid,
        "tanh": from_square,
        "relu": lambda: np.multiply(dy, y > 0, out=out),
        "silu": silu,
        "gelu_tanh": gelu_tanh,
        "softmax": softmax,
    }
    return functions.get(name) or _as_written(name, 1, {"x": x, "y": y, "dy": dy}, out)


def _as_written(name: str, order: int, arrays: dict[str, Array], out: Array) -> Run | None:
    """NumPy with the catalogue's own formula, and temporaries; None for rows, and where NumPy lacks a function."""
    activation = fa.activations[name]
    if activation.rowwise:
        return None
    formula = reference.derivatives[name][0] if order else activation.formula
    translated = formulas.translated(formula, dict(activation.parameters), out.dtype)
    if translated is None:
        return None
    names = {**formulas.NUMPY, **translated[1], **arrays}
    code = compile(translated[0], name, "eval")

    def run() -> Array:
        y = eval(code, names)
        if order:
            return np.multiply(y, arrays["dy"], out=out)
        np.copyto(out, y)
        return out

    return run


def cases(
    names: Sequence[str], sizes: dict[str, int], rows: Sequence[RowsShape], dtype: str, threads: int,
    peers: Sequence[Peer],
) -> Iterator[Case]:  # fmt: skip
    """Forward and backward of each activation at each size, and of row functions at each length of a row.

    Values are normal with a deviation of 2.
    """
    for label, size in sizes.items():
        arrays = Arrays(size, dtype)
        for name in names:
            row = min(SOFTMAX_ROW, size)
            shape = (size // row, row) if fa.activations[name].rowwise else (size,)
            yield from _both(name, shape, -1, label, arrays, threads, peers)
    for rows_shape in rows:
        arrays = Arrays(math.prod(rows_shape.shape), dtype)
        for name in names:
            f = fa.activations[name]
            if f.rowwise and not hasattr(f, "gate") and rows_shape.length % f.parameters.get("pieces", 1) == 0:
                yield from _both(name, rows_shape.shape, rows_shape.axis, rows_shape.label, arrays, threads, peers)


class Arrays:
    """Buffers of one size, which all functions share."""

    def __init__(self, size: int, dtype: str) -> None:
        rng = np.random.default_rng(0)
        block = rng.standard_normal(min(size, 1 << 20)).astype(dtype) * 2  # repeated to fill the largest sizes
        self.x, self.dy = np.resize(block, size), np.resize(np.roll(block, 7), size)
        self.out, self.work = np.empty(size, dtype), np.empty(size, dtype)

    def shaped(self, name: str, shape: tuple[int, ...]) -> Array:
        flat: Array = getattr(self, name)
        return flat[: math.prod(shape)].reshape(shape)


def _both(
    name: str, shape: tuple[int, ...], axis: int, label: str, arrays: Arrays, threads: int, peers: Sequence[Peer]
) -> Iterator[Case]:
    """The forward and the backward case of one function at one shape."""
    activation, twin = fa.activations[name], reference.activations[name]
    x, dx, work = (arrays.shaped(kind, shape) for kind in ("x", "out", "work"))
    along = {"axis": axis} if activation.rowwise else {}
    y = activation(x, **along)
    out, dy = arrays.shaped("out", y.shape), arrays.shaped("dy", y.shape)
    given = {"x": x} if activation.backward_from == "x" else {"y": y}
    some = slice(None, None, max(1, x.size // SAMPLES))  # reaches further than the rows go: then the first one

    def sample(a: Array) -> Array:
        """Some elements, or some rows, which lie along the last axis then."""
        return (a if axis == -1 else a.T)[some]

    if isinstance(twin, reference.Rowwise):
        want_dx = twin.backward(sample(dy), *map(sample, given.values()))
    else:
        want_dx = twin.backward(sample(dy), x=sample(x))
    runs: dict[str, Run | None] = {
        "fastact": lambda: activation(x, out=out, **along),
        "NumPy": numpy_forward(name, x, out, work, axis),
        **offered(peers, "forward", name, x, out, axis),
    }
    yield _case(activation, "forward", runs, twin.forward(sample(x)), sample, x, label, threads, streams=2)
    runs = {
        "fastact": lambda: activation.backward(dy, out=dx, **given, **along),
        "NumPy": numpy_backward(name, x, y, dy, dx, work, axis),
        **offered(peers, "backward", name, x, y, dy, dx, axis),
    }
    yield _case(activation, "backward", runs, want_dx, sample, x, label, threads, streams=3)


def _case(
    activation: fa.Activation, kind: str, runs: dict[str, Run | None], expected: Array,
    sample: Callable[[Array], Array], x: Array, label: str, threads: int, streams: int,
) -> Case:  # fmt: skip
    dtype = x.dtype.name
    return Case(
        section="activations",
        name=f"{activation.name} {kind}",
        shape=label,
        dtype=dtype,
        contenders=[
            Contender(name, run, lambda result: [sample(timing.as_arrays(result)[0])])
            for name, run in runs.items()
            if run is not None
        ],
        work=x.size,
        unit="ns/element",
        tolerance=TOLERANCE[dtype],
        limit_ns=timing.copy_ns(x.size, dtype, threads) * streams / 2,
        limit="copy",
        expected=[expected],
    )
