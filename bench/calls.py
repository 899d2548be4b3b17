"""What a call on 16 elements costs, nanoseconds: the ufunc beside a NumPy ufunc of as many inputs, and the callable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import fastact as fa

from .peers import Peer, offered
from .shapes import CALL_SIZE
from .timing import Case, Contender

_CLIP = getattr(np, "_core", None) or np.core
NUMPY_UFUNCS = {1: np.square, 2: np.multiply, 3: _CLIP.umath.clip}  # by number of inputs: NumPy has none of four


def cases(names: Sequence[str], dtype: str, peers: Sequence[Peer]) -> Iterator[Case]:
    """Of each elementwise function: its ufunc, the call, and backward; results are not compared, as NumPy's differ."""
    for name in names:
        if not fa.activations[name].rowwise:
            yield from _of(fa.activations[name], dtype, peers)


def _of(f: fa.Activation, dtype: str, peers: Sequence[Peer]) -> Iterator[Case]:
    x = np.random.default_rng(0).standard_normal(CALL_SIZE).astype(dtype)
    y, out, parameters = f(x), np.empty_like(x), list(f.parameters.values())
    ufunc, theirs = f.ufunc, parameters[:2]
    numpy = NUMPY_UFUNCS[1 + len(theirs)]
    given = {"x": x} if f.backward_from == "x" else {"y": y}
    yield _case(f"{f.name}.ufunc(x)", dtype, lambda: ufunc(x, *parameters), lambda: numpy(x, *theirs), {})
    others = offered(peers, "forward", f.name, x, out)
    yield _case(f"{f.name}(x)", dtype, lambda: f(x), lambda: np.square(x), others)
    others = offered(peers, "backward", f.name, x, y, x, out)
    yield _case(f"{f.name}.backward", dtype, lambda: f.backward(x, **given), lambda: np.multiply(x, x), others)


def _case(name: str, dtype: str, ours: Any, numpy: Any, others: dict[str, Any]) -> Case:
    runs = {"fastact": ours, "NumPy": numpy, **others}
    return Case(
        section="calls",
        name=name,
        shape=f"{CALL_SIZE} elements",
        dtype=dtype,
        contenders=[Contender(key, run, lambda result: []) for key, run in runs.items() if run is not None],
        work=1,
        unit="ns/call",
        tolerance=0,
        expected=[],
    )
