"""Attention, microseconds a call, inference and forward with all gradients: the dot products alone, and a whole layer
of several heads with its projections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastact as fa
from fastact import reference

from . import timing
from .peers import Peer, offered
from .shapes import AttentionShape
from .timing import Case, Run, contenders

Array = NDArray[Any]

TOLERANCE = {"float32": 5e-5, "float64": 1e-11}  # of the largest value of each result
KINDS = ("inference", "training")


def cases(shapes: Sequence[AttentionShape], dtype: str, threads: int, peers: Sequence[Peer]) -> Iterator[Case]:
    """Of each shape: dot products, with a causal mask too, and the layer."""
    for shape in shapes:
        rng = np.random.default_rng(0)
        q, k, v, dy = rng.standard_normal((4, shape.B, shape.h, shape.T, shape.D)).astype(dtype)
        for causal in (False, True):
            layer = fa.nn.DotProductAttention(causal=causal)
            seen = reference.visible(shape.B, shape.T, shape.T, causal)
            for kind in KINDS:
                given = (q, k, v, dy if kind == "training" else None)
                runs = {"fastact": _run(layer, *given), **offered(peers, "dot_product_attention", *given, causal)}
                expected = [reference.attention(q, k, v, shape.D**-0.5, seen)[0]]
                if kind == "training":
                    expected += reference.attention_backward(dy, q, k, v, shape.D**-0.5, seen)
                name = f"dot products{', causal' if causal else ''}"
                yield _case(name, kind, shape, dtype, runs, threads, shape.flops(kind == "training"), expected)
        width = shape.h * shape.D
        x, d = rng.standard_normal((2, shape.B, shape.T, width)).astype(dtype)
        whole = fa.nn.Attention(width, shape.h, dtype=dtype, rng=rng)
        weights = whole.state_dict()
        for kind in KINDS:
            dy_or_none = d if kind == "training" else None
            others = offered(peers, "attention_layer", weights, shape.h, x, dy_or_none)
            runs = {"fastact": _layer_run(whole, x, dy_or_none), **others}
            flops = shape.flops(kind == "training", projections=True)
            yield _case("layer", kind, shape, dtype, runs, threads, flops, None)


def _run(layer: fa.nn.DotProductAttention, q: Array, k: Array, v: Array, dy: Array | None) -> Run:
    if dy is None:
        return lambda: [layer(q, k, v)]

    def run() -> list[Array]:
        y, backward = layer.forward(q, k, v)
        return [y, *backward(dy)]

    return run


def _layer_run(layer: fa.nn.Attention, x: Array, dy: Array | None) -> Run:
    if dy is None:
        return lambda: [layer(x)]
    parameters = layer.parameters()

    def run() -> list[Array]:
        layer.zero_grad()
        y, backward = layer.forward(x)
        return [y, backward(dy), *(p.grad for p in parameters.values())]

    return run


def _case(
    name: str,
    kind: str,
    shape: AttentionShape,
    dtype: str,
    runs: dict[str, Run | None],
    threads: int,
    flops: int,
    expected: list[Array] | None,
) -> Case:
    return Case(
        section="attention",
        name=f"{name} {kind}",
        shape=shape.label,
        dtype=dtype,
        contenders=contenders(runs),
        work=1,
        unit="us",
        tolerance=TOLERANCE[dtype],
        limit_ns=flops / timing.peak(dtype, threads),
        limit="FMA",
        expected=expected,
    )
