"""One LSTM layer over whole sequences, milliseconds: inference, and forward with all gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastact as fa

from . import timing
from .numpy_lstm import LSTMLayer
from .peers import Peer, Run, offered
from .shapes import LSTMShape
from .timing import Case, Contender

Array = NDArray[Any]

TOLERANCE = {"float32": 2e-5, "float64": 1e-11}  # of the largest value of each result
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def random_weights(shape: LSTMShape, dtype: str, rng: np.random.Generator) -> dict[str, Array]:
    """PyTorch's initial weights: uniform within 1/sqrt(H)."""
    H = shape.H
    bound = 1 / np.sqrt(H)
    sizes = [(4 * H, shape.I), (4 * H, H), (4 * H,), (4 * H,)]
    return {name: rng.uniform(-bound, bound, size).astype(dtype) for name, size in zip(NAMES, sizes, strict=True)}


def cases(
    shapes: Sequence[LSTMShape], dtype: str, threads: int, peers: Sequence[Peer], kinds: Sequence[str]
) -> Iterator[Case]:
    """Each kind ("inference", "training") at each shape; sequences time-major, initial state zero."""
    for shape in shapes:
        rng = np.random.default_rng(0)
        weights = random_weights(shape, dtype, rng)
        x = rng.standard_normal((shape.T, shape.B, shape.I)).astype(dtype)
        dy = rng.standard_normal((shape.T, shape.B, shape.H)).astype(dtype)
        for kind in kinds:
            training = kind == "training"
            runs: dict[str, Run | None] = {
                "fastact": _fastact(weights, x, dy, training),
                "NumPy": _numpy(weights, x, dy, training),
            }
            arguments = (weights, x, dy) if training else (weights, x)
            runs |= offered(peers, f"lstm_{kind}", *arguments)
            yield Case(
                section="lstm",
                name=f"LSTM {kind}",
                shape=f"T={shape.T} B={shape.B} I={shape.I} H={shape.H}",
                dtype=dtype,
                contenders=[Contender(name, run) for name, run in runs.items() if run is not None],
                work=1,
                unit="ms",
                tolerance=TOLERANCE[dtype],
                limit_ns=shape.flops(training) / timing.peak(dtype, threads),
                limit="FMA",
                expected=_numpy({n: w.astype("f8") for n, w in weights.items()}, x.astype("f8"), dy, training)(),
            )


def _fastact(weights: dict[str, Array], x: Array, dy: Array, training: bool) -> Run:
    layer = fa.nn.LSTM(x.shape[2], dy.shape[2], time_major=True, dtype=x.dtype)
    layer.load_state_dict(weights)
    if not training:
        return lambda: [layer(x)]
    parameters = layer.parameters()

    def run() -> list[Array]:
        layer.zero_grad()
        y, backward = layer.forward(x)
        dx = backward(dy)
        return [y, dx, *(parameters[name].grad for name in NAMES[:3])]

    return run


def _numpy(weights: dict[str, Array], x: Array, dy: Array, training: bool) -> Run:
    layer = LSTMLayer(*(weights[name] for name in NAMES))
    if not training:
        return lambda: [layer.run(x)[0]]

    def run() -> list[Array]:
        y, _, backward = layer.forward(x)
        gradients = backward(dy)
        return [y, *(gradients[name] for name in ("x", "weight_ih", "weight_hh", "bias"))]

    return run
