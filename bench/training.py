"""Whole training steps, milliseconds, from a batch to updated weights: perceptrons, their inference beside it, and an
LSTM language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastact as fa

from . import timing
from .numpy_lstm import adam_state, adam_update, cross_entropy, language_model_step
from .peers import Peer, offered
from .recurrent import random_weights
from .shapes import LanguageModelShape, MLPShape
from .timing import Case, Run, contenders, first_results

Array = NDArray[Any]

RATE = 1e-3
CLIP = 1.0
TOLERANCE = {"float32": 5e-4, "float64": 1e-6}  # scikit-learn adds Adam's eps elsewhere: 2e-8, 2.3e-4 at 1024 wide
INFERENCE_TOLERANCE = {"float32": 2e-5, "float64": 1e-12}  # of a probability


def mlp_weights(shape: MLPShape, dtype: str, rng: np.random.Generator) -> dict[str, Array]:
    """ "0.weight" (out, in), "0.bias" and so on, uniform within 1/sqrt(in)."""
    weights = {}
    for layer, (a, b) in enumerate(zip(shape.widths, shape.widths[1:], strict=False)):
        weights[f"{layer}.weight"] = rng.uniform(-1, 1, (b, a)).astype(dtype) / np.sqrt(a).astype(dtype)
        weights[f"{layer}.bias"] = rng.uniform(-1, 1, b).astype(dtype) / np.sqrt(a).astype(dtype)
    return weights


def numpy_mlp_step(weights: dict[str, Array], x: Array, y: Array) -> Run:
    """Dense layers with relu between them, cross-entropy, backward, Adam, in pure NumPy."""
    weights = {name: value.copy() for name, value in weights.items()}
    count = len(weights) // 2
    adam = adam_state(weights)
    buffer = adam["buffers"]

    def run() -> float:
        activations = [x]
        for layer in range(count):
            weight = weights[f"{layer}.weight"]
            z = buffer(f"z{layer}", (len(x), len(weight)), x.dtype)
            np.dot(activations[-1], weight.T, out=z)
            z += weights[f"{layer}.bias"]
            if layer < count - 1:
                np.maximum(z, 0, out=z)
            activations.append(z)
        loss, d = cross_entropy(activations[-1], y)
        gradients = {}
        for layer in reversed(range(count)):
            weight = weights[f"{layer}.weight"]
            gradient = buffer(f"d{layer}", weight.shape, x.dtype)
            gradients[f"{layer}.weight"] = np.dot(d.T, activations[layer], out=gradient)
            gradients[f"{layer}.bias"] = d.sum(axis=0)
            if layer:
                below = buffer(f"below{layer}", activations[layer].shape, x.dtype)
                np.dot(d, weight, out=below)
                np.multiply(below, activations[layer] > 0, out=below)
                d = below
        adam_update(weights, gradients, adam, RATE)
        return loss

    return run


def numpy_mlp_inference(weights: dict[str, Array], x: Array) -> Run:
    """Class probabilities, in pure NumPy."""
    layers = [(weights[f"{layer}.weight"].T, weights[f"{layer}.bias"]) for layer in range(len(weights) // 2)]

    def run() -> Array:
        z = x
        for layer, (weight, bias) in enumerate(layers):
            z = np.dot(z, weight)
            z += bias
            if layer < len(layers) - 1:
                np.maximum(z, 0, out=z)
        z -= z.max(axis=1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=1, keepdims=True)
        return z

    return run


def fastact_mlp(shape: MLPShape, weights: dict[str, Array], last: str | None) -> fa.nn.Sequential:
    """Dense layers with relu between them; ``last`` is the activation of the last one."""
    functions = ["relu"] * (len(shape.widths) - 2) + [last]
    dtype = weights["0.weight"].dtype
    sizes = zip(shape.widths, shape.widths[1:], functions, strict=False)
    model = fa.nn.Sequential(*(fa.nn.Dense(a, b, activation=function, dtype=dtype) for a, b, function in sizes))
    model.load_state_dict(weights)
    return model


def _fastact_mlp_step(shape: MLPShape, weights: dict[str, Array], x: Array, y: Array) -> Run:
    model = fastact_mlp(shape, weights, None)
    trainer = fa.Trainer(model, loss="cross_entropy", optimizer=fa.optim.Adam(RATE))
    return lambda: trainer.step(x, y)


def _fastact_mlp_inference(shape: MLPShape, weights: dict[str, Array], x: Array) -> Run:
    model = fastact_mlp(shape, weights, "softmax")
    return lambda: model(x)


def language_model_weights(shape: LanguageModelShape, dtype: str, rng: np.random.Generator) -> dict[str, Array]:
    """The state dict of Sequential(Embedding, LSTM, Dense)."""
    lstm = random_weights("LSTM", shape.E, shape.H, dtype, rng)
    bound = 1 / np.sqrt(shape.H)
    return {
        "0.weight": rng.standard_normal((shape.V, shape.E)).astype(dtype),
        **{f"1.{name}": value for name, value in lstm.items()},
        "2.weight": rng.uniform(-bound, bound, (shape.V, shape.H)).astype(dtype),
        "2.bias": rng.uniform(-bound, bound, shape.V).astype(dtype),
    }


def fastact_language_model(shape: LanguageModelShape, weights: dict[str, Array]) -> fa.nn.Sequential:
    """Embedding, LSTM and dense layer with these weights."""
    dtype = weights["0.weight"].dtype
    model = fa.nn.Sequential(
        fa.nn.Embedding(shape.V, shape.E, dtype=dtype),
        fa.nn.LSTM(shape.E, shape.H, dtype=dtype),
        fa.nn.Dense(shape.H, shape.V, dtype=dtype),
    )
    model.load_state_dict(weights)
    return model


def _fastact_language_model_step(shape: LanguageModelShape, weights: dict[str, Array], x: Array, y: Array) -> Run:
    model = fastact_language_model(shape, weights)
    trainer = fa.Trainer(model, loss="cross_entropy", optimizer=fa.optim.Adam(RATE), clip_norm=CLIP)
    return lambda: trainer.step(x, y)


def _numpy_language_model_step(weights: dict[str, Array], x: Array, y: Array) -> Run:
    weights = {name: value.copy() for name, value in weights.items()}
    adam = adam_state(weights)
    return lambda: language_model_step(weights, x, y, None, adam, RATE, CLIP)[0]


def _case(
    name: str, shape: str, dtype: str, runs: dict[str, Run | None], expected: Run, flops: int, threads: int
) -> Case:
    return Case(
        section="training",
        name=name,
        shape=shape,
        dtype=dtype,
        contenders=contenders(runs, in_turn=True),
        work=1,
        unit="ms",
        tolerance=TOLERANCE[dtype],
        limit_ns=flops / timing.peak(dtype, threads),
        limit="FMA",
        expected=first_results(expected)(expected()),
    )


def cases(
    mlp_shapes: Sequence[MLPShape],
    language_models: Sequence[LanguageModelShape],
    dtype: str,
    threads: int,
    peers: Sequence[Peer],
) -> Iterator[Case]:
    """A step and an inference of each perceptron, and a step of each language model, on one batch over and over."""
    for shape in mlp_shapes:
        rng = np.random.default_rng(0)
        weights = mlp_weights(shape, dtype, rng)
        x = rng.standard_normal((shape.B, shape.widths[0])).astype(dtype)
        y = rng.integers(0, shape.widths[-1], shape.B)
        runs: dict[str, Run | None] = {
            "fastact": _fastact_mlp_step(shape, weights, x, y),
            "NumPy": numpy_mlp_step(weights, x, y),
        }
        runs |= offered(peers, "mlp_step", shape, weights, x, y, RATE)
        expected = numpy_mlp_step({n: w.astype("f8") for n, w in weights.items()}, x.astype("f8"), y)
        yield _case("MLP step", shape.label, dtype, runs, expected, shape.flops(), threads)
        runs = {
            "fastact": _fastact_mlp_inference(shape, weights, x),
            "NumPy": numpy_mlp_inference(weights, x),
        }
        runs |= offered(peers, "mlp_inference", shape, weights, x)
        yield Case(
            section="training",
            name="MLP inference",
            shape=shape.label,
            dtype=dtype,
            contenders=contenders(runs),
            work=1,
            unit="ms",
            tolerance=INFERENCE_TOLERANCE[dtype],
            limit_ns=shape.flops(training=False) / timing.peak(dtype, threads),
            limit="FMA",
            expected=[numpy_mlp_inference({n: w.astype("f8") for n, w in weights.items()}, x.astype("f8"))()],
        )
    for model in language_models:
        rng = np.random.default_rng(0)
        weights = language_model_weights(model, dtype, rng)
        x, y = rng.integers(0, model.V, (2, model.B, model.T))
        runs = {
            "fastact": _fastact_language_model_step(model, weights, x, y),
            "NumPy": _numpy_language_model_step(weights, x, y),
        }
        runs |= offered(peers, "language_model_step", model, weights, x, y, RATE, CLIP)
        expected = _numpy_language_model_step({n: w.astype("f8") for n, w in weights.items()}, x, y)
        yield _case("language model step", model.label, dtype, runs, expected, model.flops(), threads)
