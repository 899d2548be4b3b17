"""Activations and their backward passes, nanoseconds an element; the hardware's limit is a copy of the same streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastact as fa
from fastact import reference

from . import timing
from .peers import Peer, offered
from .shapes import SOFTMAX_ROW
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


def numpy_forward(name: str, x: Array, out: Array, work: Array) -> Run | None:
    """The activation with NumPy's own functions, without temporaries; None where NumPy lacks one (erf)."""
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
        np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
        np.exp(out, out=out)
        return np.divide(out, out.sum(axis=-1, keepdims=True), out=out)

    def log_softmax() -> Array:
        np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
        np.exp(out, out=work)
        return np.subtract(out, np.log(work.sum(axis=-1, keepdims=True)), out=out)

    functions: dict[str, Run] = {
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
    }
    run = functions.get(name)
    return None if run is None else lambda: (run(), out)[1]


def numpy_backward(name: str, x: Array, y: Array, dy: Array, out: Array, work: Array) -> Run | None:
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
        np.subtract(dy, work.sum(axis=-1, keepdims=True), out=out)
        return np.multiply(out, y, out=out)

    functions: dict[str, Run] = {
        "sigmoid": sigmoid,
        "tanh": from_square,
        "relu": lambda: np.multiply(dy, y > 0, out=out),
        "silu": silu,
        "gelu_tanh": gelu_tanh,
        "softmax": softmax,
    }
    return functions.get(name)


def cases(
    names: Sequence[str], sizes: dict[str, int], dtype: str, threads: int, peers: Sequence[Peer]
) -> Iterator[Case]:
    """Forward and backward of each activation at each size, values normal with a deviation of 2."""
    for label, size in sizes.items():
        rng = np.random.default_rng(0)
        block = rng.standard_normal(min(size, 1 << 20)).astype(dtype) * 2  # repeated to fill the largest sizes
        flat = np.resize(block, size)
        flat_dy = np.resize(np.roll(block, 7), size)
        out, work = np.empty(size, dtype), np.empty(size, dtype)
        for name in names:
            activation = fa.activations[name]
            row = min(SOFTMAX_ROW, size)
            shape = (size // row, row) if activation.rowwise else (size,)
            used = shape[0] * row if activation.rowwise else size
            x, dx, w = (array[:used].reshape(shape) for array in (flat, out, work))
            sample = slice(None, None, max(1, len(x) * (row if activation.rowwise else 1) // SAMPLES))
            y = activation(x)
            o, dy = (array[: y.size].reshape(y.shape) for array in (out, flat_dy))
            yield _forward(activation, x, o, w, sample, label, threads, peers)
            yield _backward(activation, x, y, dy, dx, w, sample, label, threads, peers)


def _case(
    activation: Any, kind: str, runs: dict[str, Run | None], expected: Array, sample: slice, out: Array, label: str,
    threads: int, streams: int,
) -> Case:  # fmt: skip
    def sampled(result: Any) -> list[Array]:
        return [timing.as_arrays(result)[0][sample]]

    dtype = out.dtype.name
    return Case(
        section="activations",
        name=f"{activation.name} {kind}",
        shape=label,
        dtype=dtype,
        contenders=[Contender(name, run, sampled) for name, run in runs.items() if run is not None],
        work=out.size,
        unit="ns/element",
        tolerance=TOLERANCE[dtype],
        limit_ns=timing.copy_ns(out.size, dtype, threads) * streams / 2,
        limit="copy",
        expected=[expected],
    )


def _forward(
    activation: Any, x: Array, out: Array, work: Array, sample: slice, label: str, threads: int, peers: Sequence[Peer]
) -> Case:
    name = activation.name
    runs: dict[str, Run | None] = {
        "fastact": lambda: activation(x, out=out),
        "NumPy": numpy_forward(name, x, out, work),
    }
    runs |= offered(peers, "forward", name, x, out)
    expected = reference.activations[name].forward(x[sample])
    return _case(activation, "forward", runs, expected, sample, out, label, threads, streams=2)


def _backward(
    activation: Any, x: Array, y: Array, dy: Array, out: Array, work: Array, sample: slice, label: str, threads: int,
    peers: Sequence[Peer],
) -> Case:  # fmt: skip
    name = activation.name
    given = {"x": x} if activation.backward_from == "x" else {"y": y}
    runs: dict[str, Run | None] = {
        "fastact": lambda: activation.backward(dy, out=out, **given),
        "NumPy": numpy_backward(name, x, y, dy, out, work),
    }
    runs |= offered(peers, "backward", name, x, y, dy, out)
    twin = reference.activations[name]
    if isinstance(twin, reference.Rowwise):
        expected = twin.backward(dy[sample], *(operand[sample] for operand in given.values()))
    else:
        expected = twin.backward(dy[sample], x=x[sample])
    return _case(activation, "backward", runs, expected, sample, out, label, threads, streams=3)
