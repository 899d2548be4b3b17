"""Losses, microseconds a call: the loss alone, as in an evaluation, and with its gradient, as in a training step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastact as fa

from . import timing
from .peers import Peer, offered
from .shapes import CTCShape, NormShape
from .timing import Case, Run, contenders

Array = NDArray[Any]

ELEMENTS = ("mse", "mae", "huber", "smooth_l1", "binary_cross_entropy", "binary_cross_entropy_with_logits")
# Of the largest value; PyTorch's CTC in float32 is 1e-4 off, as its probabilities are sums of logarithms.
TOLERANCE = {"float32": 2e-5, "float64": 1e-11}
CTC_TOLERANCE = {"float32": 1e-3, "float64": 1e-9}


def cases(shapes: Sequence[NormShape | CTCShape], dtype: str, threads: int, peers: Sequence[Peer]) -> Iterator[Case]:
    """Of each shape the losses that go with it: R rows of N numbers or classes, or CTC."""
    for shape in shapes:
        rng = np.random.default_rng(0)
        if isinstance(shape, CTCShape):
            logits = rng.standard_normal((shape.B, shape.T, shape.C)).astype(dtype)
            labels = rng.integers(1, shape.C, (shape.B, shape.S))
            label = f"B={shape.B} T={shape.T} C={shape.C} S={shape.S}"
            yield from _both("ctc", label, logits, labels, threads, peers)
            continue
        label = f"R={shape.R} N={shape.N}"
        logits = rng.standard_normal((shape.R, shape.N)).astype(dtype)
        yield from _both("cross_entropy", label, logits, rng.integers(0, shape.N, shape.R), threads, peers)
        for name in ELEMENTS:
            p = fa.sigmoid(logits) if name == "binary_cross_entropy" else logits
            target = rng.uniform(0, 1, p.shape).astype(dtype)
            yield from _both(name, label, p, target, threads, peers)


def _both(
    name: str, label: str, prediction: Array, target: Array, threads: int, peers: Sequence[Peer]
) -> Iterator[Case]:
    loss = fa.losses.as_loss(name)
    gradient = np.empty_like(prediction)
    dtype = prediction.dtype.name

    def both() -> list[Any]:
        return [loss.measure(prediction, target, gradient).mean, gradient]

    runs: dict[str, Run] = {"alone": lambda: [loss.measure(prediction, target).mean], "with gradient": both}
    for kind, run in runs.items():
        streams = 1 if name in ("cross_entropy", "ctc") else 2
        streams += kind == "with gradient"
        yield Case(
            section="losses",
            name=f"{name} {kind}",
            shape=label,
            dtype=dtype,
            contenders=contenders({"fastact": run, **offered(peers, "loss", name, prediction, target, run is both)}),
            work=1,
            unit="us",
            tolerance=(CTC_TOLERANCE if name == "ctc" else TOLERANCE)[dtype],
            limit_ns=timing.copy_ns(prediction.size, dtype, threads) * streams / 2,
            limit="copy",
        )
