"""Whether special values take longer than ordinary ones: subnormal, saturated, infinite, NaN; ns an element."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import fastact as fa

from . import timing
from .shapes import VALUES_SIZE
from .timing import Case, Contender

TURN = 0.005  # seconds for the ordinary values, each time


def cases(names: Sequence[str], dtype: str, threads: int) -> Iterator[Case]:
    """Of each elementwise function, forward and backward from x; the limit is the time of ordinary values."""
    rng = np.random.default_rng(0)
    ordinary = rng.standard_normal(VALUES_SIZE).astype(dtype) * 2
    signs = np.sign(ordinary)
    tiny = np.finfo(dtype).smallest_subnormal
    special = {
        "subnormal": (signs * tiny * rng.integers(1, 1 << 20, VALUES_SIZE)).astype(dtype),
        "saturated": (signs * rng.uniform(20, 2000, VALUES_SIZE)).astype(dtype),
        "infinite": (signs * np.inf).astype(dtype),
        "NaN": np.full(VALUES_SIZE, np.nan, dtype),
    }
    out = np.empty_like(ordinary)
    for name in names:
        f = fa.activations[name]
        if f.rowwise:
            continue
        calls: dict[str, Callable[[Any], Any]] = {
            "forward": lambda x, f=f: f(x, out=out),  # type: ignore[misc]
            "backward": lambda x, f=f: f.backward(ordinary, x=x, out=out),  # type: ignore[misc]
        }
        for kind, call in calls.items():
            usual = min(timing.shortest(lambda: call(ordinary), TURN) for _ in range(3))  # noqa: B023 (run here)
            for label, x in special.items():
                yield Case(
                    section="values",
                    name=f"{name} {kind}",
                    shape=label,
                    dtype=dtype,
                    contenders=[Contender("fastact", lambda call=call, x=x: call(x))],  # type: ignore[misc]
                    work=VALUES_SIZE,
                    unit="ns/element",
                    tolerance=0,
                    limit_ns=usual,
                    limit="ordinary values",
                )
