"""Normalisation layers, microseconds a call: inference, and forward and backward with the gradient of the gain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastact as fa
from fastact import reference

from . import timing
from .peers import Peer, offered
from .shapes import NormShape
from .timing import Case, Run, contenders

Array = NDArray[Any]

KINDS = ("LayerNorm", "RMSNorm", "BatchNorm")
EPS = 1e-5
STREAMS = {"inference": 2, "training": 5}  # through memory: x and y; and then x, dy and dx
TOLERANCE = {"float32": 2e-5, "float64": 1e-11}


def numpy_inference(kind: str, x: Array, gain: Array, bias: Array) -> Array:
    """y; BatchNorm's from statistics of mean 0 and variance 1."""
    if kind == "BatchNorm":
        return x * (gain / np.sqrt(x.dtype.type(1 + EPS))) + bias
    centred = x if kind == "RMSNorm" else x - x.mean(-1, keepdims=True)
    y = centred * (gain / np.sqrt(np.square(centred).mean(-1, keepdims=True) + x.dtype.type(EPS)))
    return y if kind == "RMSNorm" else y + bias


def numpy_training(kind: str, x: Array, gain: Array, bias: Array, dy: Array) -> list[Array]:
    """y, dx and the gradient of gain."""
    axis = 0 if kind == "BatchNorm" else -1
    centred = x if kind == "RMSNorm" else x - x.mean(axis, keepdims=True)
    scale = 1 / np.sqrt(np.square(centred).mean(axis, keepdims=True) + x.dtype.type(EPS))
    xhat, a = centred * scale, dy * gain
    dx = a - xhat * (a * xhat).mean(axis, keepdims=True)
    if kind != "RMSNorm":
        dx -= a.mean(axis, keepdims=True)
    return [xhat * gain if kind == "RMSNorm" else xhat * gain + bias, dx * scale, (dy * xhat).sum(0)]


def cases(shapes: Sequence[NormShape], dtype: str, threads: int, peers: Sequence[Peer]) -> Iterator[Case]:
    """Of each kind and shape: inference and training."""
    for shape in shapes:
        for kind in KINDS:
            rng = np.random.default_rng(0)
            x, dy = rng.standard_normal((2, shape.R, shape.N)).astype(dtype)
            gain, bias = rng.uniform(0.5, 1.5, (2, shape.N)).astype(dtype)
            yield _case(kind, shape, "inference", x, gain, bias, None, threads, peers)
            yield _case(kind, shape, "training", x, gain, bias, dy, threads, peers)


def _case(
    kind: str,
    shape: NormShape,
    mode: str,
    x: Array,
    gain: Array,
    bias: Array,
    dy: Array | None,
    threads: int,
    peers: Sequence[Peer],
) -> Case:
    dtype = x.dtype.name
    layer = getattr(fa.nn, kind)(shape.N, eps=EPS, dtype=dtype)
    layer.weight.value = gain
    if layer.bias is not None:
        layer.bias.value = bias

    def train() -> list[Array]:
        layer.zero_grad()
        y, backward = layer.forward(x)
        return [y, backward(dy), layer.weight.grad]

    ours: Run = train if dy is not None else lambda: layer(x)
    name = {"LayerNorm": "layer_norm", "RMSNorm": "rms_norm", "BatchNorm": "batch_norm"}[kind]
    parameters = (gain,) if kind == "RMSNorm" else (gain, bias)
    if dy is None:
        numpy: Run = lambda: numpy_inference(kind, x, gain, bias)  # noqa: E731
        expected = [numpy_inference(kind, x.astype(np.float64), gain, bias)]
    else:
        numpy = lambda: numpy_training(kind, x, gain, bias, dy)  # noqa: E731
        y = getattr(reference, name)(x, *parameters, eps=EPS)
        expected = [y, *getattr(reference, name + "_backward")(dy, x, gain, eps=EPS)[:2]]
    others = offered(peers, "normalization", kind, x, gain, bias, dy, EPS)
    runs = {"fastact": ours, "NumPy": numpy, **others}
    return Case(
        section="normalization",
        name=f"{kind} {mode}",
        shape=f"R={shape.R} N={shape.N}",
        dtype=dtype,
        contenders=contenders(runs),
        work=1,
        unit="us",
        tolerance=TOLERANCE[dtype],
        limit_ns=timing.copy_ns(x.size, dtype, threads) * STREAMS[mode] / 2,
        limit="copy",
        expected=expected,
    )
