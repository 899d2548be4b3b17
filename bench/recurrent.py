"""Recurrent layers over whole sequences, inference and forward with all gradients; two layers, and both ways; variants;
rounded weights; and one step of a stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastact as fa
from fastact import reference

from . import timing
from .numpy_lstm import LSTMLayer
from .peers import Peer, layers_of, offered
from .shapes import GATES, STACKS, RecurrentShape
from .timing import CHECKED_CALLS, Case, Contender, Run, contenders

Array = NDArray[Any]

TOLERANCE = {"float32": 2e-5, "float64": 1e-11}  # of the largest value of each result
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
KINDS = ("inference", "training")
REFERENCE_FLOPS = 2e9  # up to here results are held against the reference (a second or two), above against fastact's
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM peepholes": ("LSTM", {"peepholes": True}),
    "LSTM coupled": ("LSTM", {"coupled_gates": True}),
    "LSTM hard gates": ("LSTM", {"gate_activation": "hard_sigmoid"}),
    "LSTM full gates": ("LSTM", {"full_gate_recurrence": True}),
    "LSTM zoneout": ("LSTM", {"zoneout": 0.1, "cell_zoneout": 0.1}),
    "LSTM layer norm": ("LSTM", {"layer_norm": True}),
    "GRU reset before": ("GRU", {"reset_after": False}),
    "GRU layer norm": ("GRU", {"layer_norm": True}),
    "RNN layer norm": ("RNN", {"layer_norm": True}),
}
PRECISIONS = ("bfloat16", "int8")
PLAIN_TURN = 0.02  # seconds for the plain cell, or float32 weights


def random_weights(
    cell: str, inputs: int, hidden: int, dtype: str, rng: np.random.Generator, layers: int = 1, ways: int = 1
) -> dict[str, Array]:
    """PyTorch's initial weights, uniform within 1/sqrt(H), by its names: layer by layer, there before back."""
    rows = GATES[cell] * hidden
    bound = 1 / np.sqrt(hidden)
    weights = {}
    for layer in range(layers):
        sizes = [(rows, ways * hidden if layer else inputs), (rows, hidden), (rows,), (rows,)]
        for suffix in ("", "_reverse")[:ways]:
            for name, size in zip(NAMES, sizes, strict=True):
                weights[f"{name[:-1]}{layer}{suffix}"] = rng.uniform(-bound, bound, size).astype(dtype)
    return weights


def cases(
    section: str,
    cells: Sequence[str],
    shapes: Sequence[RecurrentShape],
    dtype: str,
    threads: int,
    peers: Sequence[Peer],
    only: Sequence[str] = (),
) -> Iterator[Case]:
    """Each kind at each shape of each cell; sequences time-major, initial state zero. ``only``: texts, one of which
    must be in a row's name and shape. The section "lstm" has NumPy beside it and in float64 as the expected result;
    "stacks" has layers one above the other and both ways, of whose gradients the first layer's are compared."""
    stacks = STACKS if section == "stacks" else {"": (1, 1)}
    for cell, shape, (stack, (layers, ways)), kind in itertools.product(cells, shapes, stacks.items(), KINDS):
        name, label = f"{cell} {kind}", f"T={shape.T} B={shape.B} I={shape.I} H={shape.H}"
        if stack:
            name, label = f"{cell} {stack} {kind}", f"({shape.T},{shape.B},{shape.I},{shape.H})"  # short: long names
        if only and not any(text in f"{name} {label}" for text in only):
            continue
        training = kind == "training"
        flops = shape.flops(training, cell, layers, ways)
        rng = np.random.default_rng(0)
        weights = random_weights(cell, shape.I, shape.H, dtype, rng, layers, ways)
        x = rng.standard_normal((shape.T, shape.B, shape.I)).astype(dtype)
        dy = rng.standard_normal((shape.T, shape.B, ways * shape.H)).astype(dtype)
        runs: dict[str, Run | None] = {"fastact": _fastact(cell, weights, x, dy, training)}
        expected: Sequence[Array] | None = None
        if section == "lstm":
            runs["NumPy"] = _numpy(weights, x, dy, training)
            expected = _numpy({n: w.astype("f8") for n, w in weights.items()}, x.astype("f8"), dy, training)()
        elif not stack and flops <= REFERENCE_FLOPS:
            expected = _expected(cell, weights, x, dy, training)
        arguments = (cell, weights, x, dy) if training else (cell, weights, x)
        runs |= offered(peers, f"recurrent_{kind}", *arguments)
        yield Case(
            section=section,
            name=name,
            shape=label,
            dtype=dtype,
            contenders=contenders(runs),
            work=1,
            unit="ms",
            tolerance=TOLERANCE[dtype],
            limit_ns=flops / timing.peak(dtype, threads),
            limit="FMA",
            expected=expected,
        )


def variant_cases(shapes: Sequence[RecurrentShape], dtype: str, only: Sequence[str] = ()) -> Iterator[Case]:
    """Each variant at each shape; the limit is the time of the plain cell."""
    for shape in shapes:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((shape.T, shape.B, shape.I)).astype(dtype)
        dy = rng.standard_normal((shape.T, shape.B, shape.H)).astype(dtype)
        for name, (cell, options) in VARIANTS.items():
            for kind in KINDS:
                label = f"({shape.T},{shape.B},{shape.I},{shape.H})"  # short: the names are long
                if only and not any(text in f"{name} {kind} {label}" for text in only):
                    continue
                usual = {"time_major": True, "dtype": dtype, "rng": 0}
                plain, variant = (
                    _run(getattr(fa.nn, cell)(shape.I, shape.H, **usual, **more), x, dy, kind) for more in ({}, options)
                )
                yield Case(
                    section="variants",
                    name=f"{name} {kind}",
                    shape=label,
                    dtype=dtype,
                    contenders=[Contender("fastact", variant)],
                    work=1,
                    unit="ms",
                    tolerance=0,
                    limit_ns=min(timing.shortest(plain, PLAIN_TURN) for _ in range(3)),
                    limit="the plain cell",
                )


def rounded_cases(
    cells: Sequence[str], shapes: Sequence[RecurrentShape], dtype: str, only: Sequence[str] = ()
) -> Iterator[Case]:
    """Weights rounded for inference, over a sequence and T steps of a stream; the limit is float32 weights' time."""
    if dtype != "float32":
        return
    for cell in cells:
        for shape in shapes:
            label = f"T={shape.T} B={shape.B} I={shape.I} H={shape.H}"
            x = np.random.default_rng(0).standard_normal((shape.B, shape.T, shape.I)).astype(dtype)
            for precision in PRECISIONS:
                layers = [getattr(fa.nn, cell)(shape.I, shape.H, rng=0, inference_weights=p) for p in (None, precision)]
                for kind, runner in (("inference", _run_sequence), ("steps", _run_steps)):
                    name = f"{cell} {precision} {kind}"
                    if only and not any(text in f"{name} {label}" for text in only):
                        continue
                    full, rounded = (runner(layer, x) for layer in layers)
                    yield Case(
                        section="rounded",
                        name=name,
                        shape=label,
                        dtype=dtype,
                        contenders=[Contender("fastact", rounded)],
                        work=1,
                        unit="ms",
                        tolerance=0,
                        limit_ns=min(timing.shortest(full, PLAIN_TURN) for _ in range(3)),
                        limit="float32 weights",
                    )


def _run_sequence(layer: Any, x: Array) -> Run:
    return lambda: layer(x)


def _run_steps(layer: Any, x: Array) -> Run:
    step = layer.stream(len(x)).step

    def run() -> Array:
        for t in range(x.shape[1]):
            h = step(x[:, t])
        return h

    return run


def _layer(cell: str, weights: dict[str, Array]) -> Any:
    (_, inputs), (_, hidden) = weights["weight_ih_l0"].shape, weights["weight_hh_l0"].shape
    layers, ways = layers_of(weights)
    layer = getattr(fa.nn, cell)(
        inputs, hidden, layers, bidirectional=ways == 2, time_major=True, dtype=weights["weight_ih_l0"].dtype
    )
    layer.load_state_dict(weights)
    return layer


def _fastact(cell: str, weights: dict[str, Array], x: Array, dy: Array, training: bool) -> Run:
    return _run(_layer(cell, weights), x, dy, "training" if training else "inference")


def _run(layer: Any, x: Array, dy: Array, kind: str) -> Run:
    if kind == "inference":
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


def _expected(cell: str, weights: dict[str, Array], x: Array, dy: Array, training: bool) -> list[Array]:
    """The reference's results."""
    named: dict[str, Any] = {name.removesuffix("_l0"): w.astype("f8") for name, w in weights.items()}
    if cell != "GRU":
        named["bias"] = named.pop("bias_ih") + named.pop("bias_hh")
    trace = getattr(reference, f"{cell.lower()}_forward")(x, named)
    if not training:
        return [trace.y]
    d = getattr(reference, f"{cell.lower()}_backward")(trace, dy)
    return [trace.y, d["x"], d["weight_ih"], d["weight_hh"], d["bias_ih" if cell == "GRU" else "bias"]]


def stream_cases(
    cells: Sequence[str],
    shapes: Sequence[RecurrentShape],
    dtype: str,
    threads: int,
    peers: Sequence[Peer],
    only: Sequence[str] = (),
) -> Iterator[Case]:
    """One step of a stream with its state carried on, from Python; the first steps are compared."""
    for cell in cells:
        for shape in shapes:
            label = f"B={shape.B} I={shape.I} H={shape.H}"
            if only and not any(text in f"{cell} step {label}" for text in only):
                continue
            rng = np.random.default_rng(0)
            weights = random_weights(cell, shape.I, shape.H, dtype, rng)
            x = rng.standard_normal((shape.B, shape.I)).astype(dtype)
            step = _layer(cell, weights).stream(shape.B).step
            runs: dict[str, Run | None] = {"fastact": lambda step=step, x=x: step(x)}
            runs |= offered(peers, "recurrent_step", cell, weights, x)
            sequence = np.broadcast_to(x, (CHECKED_CALLS, *x.shape))
            yield Case(
                section="streams",
                name=f"{cell} step",
                shape=label,
                dtype=dtype,
                contenders=contenders(runs, in_turn=True),
                work=1,
                unit="us",
                tolerance=TOLERANCE[dtype],
                limit_ns=shape.flops(False, cell) / timing.peak(dtype, threads),
                limit="FMA",
                expected=[*_expected(cell, weights, sequence, x, False)[0]],
            )
