"""Matrix products, GF/s; the limit is the multiply-add peak."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastact as fa

from . import timing
from .peers import Peer, offered
from .shapes import ProductShape
from .timing import Case, Run, contenders

TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


def operand(rng: np.random.Generator, rows: int, columns: int, layout: str, dtype: str) -> NDArray[Any]:
    """Random (rows, columns), row-major for "N", the transpose of a row-major array for "T"."""
    if layout == "T":
        return operand(rng, columns, rows, "N", dtype).T
    return rng.standard_normal((rows, columns)).astype(dtype)


def cases(shapes: Sequence[ProductShape], dtype: str, threads: int, peers: Sequence[Peer]) -> Iterator[Case]:
    """A (M, K) @ B (K, N) into an array that is there."""
    for shape in shapes:
        rng = np.random.default_rng(0)
        a = operand(rng, shape.M, shape.K, shape.layout[0], dtype)
        b = operand(rng, shape.K, shape.N, shape.layout[1], dtype)
        out = np.empty((shape.M, shape.N), dtype)
        runs: dict[str, Run | None] = {
            "fastact": partial(fa.matmul, a, b, out=out),
            "NumPy": partial(np.matmul, a, b, out=out),
        }
        runs |= offered(peers, "product", a, b, out)
        operations = 2 * shape.M * shape.K * shape.N
        yield Case(
            section="product",
            name="product" if shape.layout == "NN" else f"product {shape.layout}",
            shape=f"{shape.M}x{shape.K}x{shape.N}",
            dtype=dtype,
            contenders=contenders(runs),
            work=operations,
            unit="GF/s",
            tolerance=TOLERANCE[dtype],
            limit_ns=operations / timing.peak(dtype, threads),
            limit="FMA",
            expected=[a.astype("f8") @ b.astype("f8")],
        )
