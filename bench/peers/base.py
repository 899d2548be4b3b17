"""What a peer may offer: ``Peer``, a library that offers nothing.

Each method sets a piece of work up and returns a function that does it once, or None where the library has no such
thing. Arrays written through `out` are shared with the caller. Weights have PyTorch's names, shapes and gate order
(i, f, g, o); sequences are time-major.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..shapes import LanguageModelShape, MLPShape
from ..timing import Run

Array = NDArray[Any]
Weights = Mapping[str, Array]
UNIT_SLOPE = float(np.sqrt(np.pi) / 2)  # of erf in the catalogue


def layers_of(weights: Weights) -> tuple[int, int]:
    """How many layers these are, and in how many directions."""
    ways = 2 if any(name.endswith("_reverse") for name in weights) else 1
    return len(weights) // (4 * ways), ways


# The methods by which a library takes part in a section.
METHODS = {
    "activations": ("forward", "backward"),
    "calls": ("forward", "backward"),
    "values": (),
    "product": ("product",),
    "normalization": ("normalization",),
    "losses": ("loss",),
    "attention": ("dot_product_attention", "attention_layer"),
    "lstm": ("recurrent_inference", "recurrent_training"),
    "recurrent": ("recurrent_inference", "recurrent_training"),
    "stacks": ("recurrent_inference", "recurrent_training"),
    "variants": (),
    "rounded": (),
    "streams": ("recurrent_step",),
    "convergence": ("mlp", "language_model"),
    "training": ("mlp_step", "mlp_inference", "language_model_step"),
}


class Learner(NamedTuple):
    """A net in training, whose steps go on from each other.

    Attributes
    ----------
    prepare : callable
        What a batch is for the library; not timed.
    step : callable
        An update from what ``prepare`` returned; returns the loss.
    weights : callable
        A copy of the weights.
    """

    prepare: Callable[..., tuple[Any, ...]]
    step: Callable[..., Any]
    weights: Callable[[], dict[str, Array]]


class Peer:
    """Base: a library that offers nothing. Subclasses import it in `__init__`; an ImportError means: not here."""

    name = ""

    def __init__(self, threads: int) -> None:
        self.version = ""

    @classmethod
    def offers(cls, section: str) -> bool:
        """Whether it takes part in any row of that section."""
        return any(cls.has(method) for method in METHODS[section])

    @classmethod
    def has(cls, method: str) -> bool:
        """Whether it defines that method."""
        return getattr(cls, method) is not getattr(Peer, method)

    def forward(self, activation: str, x: Array, out: Array, axis: int = -1) -> Run | None:
        """The activation of x into out, over rows along the axis."""
        return None

    def backward(self, activation: str, x: Array, y: Array, dy: Array, out: Array, axis: int = -1) -> Run | None:
        """Gradient of the input, from dy and x or y, into out."""
        return None

    def product(self, a: Array, b: Array, out: Array) -> Run | None:
        """A (M, K) times B (K, N) into out (M, N)."""
        return None

    def normalization(self, kind: str, x: Array, gain: Array, bias: Array, dy: Array | None, eps: float) -> Run | None:
        """LayerNorm, RMSNorm or BatchNorm of x (R, N): y, or with dy y and the gradients of x and gain."""
        return None

    def loss(self, name: str, prediction: Array, target: Array, gradient: bool) -> Run | None:
        """The loss of that name in fastact, mean over all terms, and its gradient by the prediction if wanted."""
        return None

    def dot_product_attention(self, q: Array, k: Array, v: Array, dy: Array | None, causal: bool) -> Run | None:
        """softmax(q k' / sqrt(D)) v of arrays (B, h, T, D): y, or with dy y and the gradients of q, k and v."""
        return None

    def attention_layer(self, weights: Weights, heads: int, x: Array, dy: Array | None) -> Run | None:
        """Self-attention of x (B, T, E): y, or with dy y and the gradients of x and of the weights in their order."""
        return None

    def recurrent_inference(self, cell: str, weights: Weights, x: Array) -> Run | None:
        """x (T, B, I) to y (T, B, H) from a zero state; returns y. The cell is "LSTM", "GRU" or "RNN"."""
        return None

    def recurrent_training(self, cell: str, weights: Weights, x: Array, dy: Array) -> Run | None:
        """Forward and backward; returns y and the gradients of x, weight_ih, weight_hh and bias_ih."""
        return None

    def recurrent_step(self, cell: str, weights: Weights, x: Array) -> Run | None:
        """Each call is the next step, for x (B, I); returns h. The first begins from zeros."""
        return None

    def mlp(self, shape: MLPShape, weights: Weights, rate: float) -> Learner:
        """Cross-entropy and Adam; a batch is (x, y)."""
        raise NotImplementedError

    def language_model(
        self, shape: LanguageModelShape, weights: Weights, rate: float, clip: float, betas: tuple[float, float]
    ) -> Learner:
        """Embedding, LSTM, dense, cross-entropy, clipping by global norm, Adam; a batch is (x, y, first, rate) with x
        and y (B, T), whose state goes on from the batch before unless it is the first of an epoch."""
        raise NotImplementedError

    def mlp_step(self, shape: MLPShape, weights: Weights, x: Array, y: Array, rate: float) -> Run | None:
        """Forward, cross-entropy, backward, Adam; returns the loss."""
        return None

    def mlp_inference(self, shape: MLPShape, weights: Weights, x: Array) -> Run | None:
        """Class probabilities of x (B, I)."""
        return None

    def language_model_step(
        self, shape: LanguageModelShape, weights: Weights, x: Array, y: Array, rate: float, clip: float
    ) -> Run | None:
        """Embedding, LSTM, dense, cross-entropy, backward, clipping by global norm, Adam; returns the loss."""
        return None
