"""What is measured: the sizes and shapes of every table.

Letters: B batch, T time steps, I inputs, H units, E embedding width, V classes; a product is (M, K) @ (K, N).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}  # blocks of H rows in the weights of each cell


class RecurrentShape(NamedTuple):
    T: int
    B: int
    I: int  # noqa: E741  the field's letter for the number of inputs
    H: int

    def flops(self, training: bool, cell: str = "LSTM", layers: int = 1, ways: int = 1) -> int:
        """Operations of the matrix products; the backward pass has twice those of the forward pass."""
        columns = layers * self.H + self.I + (layers - 1) * ways * self.H
        return ways * self.T * self.B * 2 * GATES[cell] * self.H * columns * (3 if training else 1)


class ProductShape(NamedTuple):
    M: int
    K: int
    N: int
    layout: str = "NN"  # N row-major, T the transpose of a row-major array; left operand first


class LanguageModelShape(NamedTuple):
    V: int
    E: int
    H: int
    B: int
    T: int

    @property
    def label(self) -> str:
        return f"V={self.V} E={self.E} H={self.H} B={self.B} T={self.T}"

    def flops(self) -> int:
        recurrent = RecurrentShape(self.T, self.B, self.E, self.H).flops(training=True)
        return recurrent + 6 * self.T * self.B * self.H * self.V


class NormShape(NamedTuple):
    R: int
    N: int


class MLPShape(NamedTuple):
    widths: tuple[int, ...]
    B: int

    @property
    def label(self) -> str:
        return f"{'-'.join(map(str, self.widths))} B={self.B}"

    def flops(self, training: bool = True) -> int:
        """Forward and, in training, weight gradients and gradients of every layer's input but the first's."""
        layers = [2 * self.B * a * b for a, b in zip(self.widths, self.widths[1:], strict=False)]
        return 3 * sum(layers) - layers[0] if training else sum(layers)


class CTCShape(NamedTuple):
    B: int
    T: int
    C: int
    S: int  # labels of a sequence


class AttentionShape(NamedTuple):
    B: int
    h: int  # heads
    T: int  # queries, and as many keys
    D: int  # features of a head

    @property
    def label(self) -> str:
        return f"B={self.B} h={self.h} T={self.T} D={self.D}"

    def flops(self, training: bool, projections: bool = False) -> int:
        """Of q k' and p v, in training of their four gradients (the scores made again are not counted), and of the
        four projections; a causal mask could do with half."""
        count = 4 * self.B * self.h * self.T * self.T * self.D
        if projections:
            count += 8 * self.B * self.T * (self.h * self.D) ** 2
        return count * (3 if training else 1)


class DigitsRun(NamedTuple):
    """A perceptron on scikit-learn's digits."""

    net: MLPShape
    epochs: int


class TextRun(NamedTuple):
    """The first steps of `fastact train`, with other settings than its defaults if need be."""

    steps: int
    every: int  # steps between two looks at the loss; a divisor of `steps`
    files: int | None = None  # of the standard library; None: all
    settings: tuple[tuple[str, int], ...] = ()


# 16K elements live in L1 and L2, 1M in L3, 32M in memory.
ACTIVATION_SIZES = {"16K": 1 << 14, "1M": 1 << 20, "32M": 1 << 25}
SOFTMAX_ROW = 1024


class RowsShape(NamedTuple):
    length: int
    axis: int = -1
    total: int = 1 << 20

    @property
    def label(self) -> str:
        return f"rows of {self.length}" + (f", axis {self.axis}" if self.axis != -1 else "")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows along the last axis, or one row a column."""
        rows = max(1, self.total // self.length)
        return (rows, self.length) if self.axis == -1 else (self.length, rows)


ROWS_SHAPES = [RowsShape(8), RowsShape(128), RowsShape(1024), RowsShape(50_000), RowsShape(1024, axis=0)]
CALL_SIZE = 16  # elements
VALUES_SIZE = 1 << 14

# Latency-bound, bandwidth-bound and compute-bound cells, from a single stream to a large batch.
LSTM_SHAPES = [
    RecurrentShape(100, 1, 32, 32),
    RecurrentShape(100, 1, 64, 128),
    RecurrentShape(100, 1, 128, 256),
    RecurrentShape(100, 8, 64, 128),
    RecurrentShape(50, 32, 128, 128),
    RecurrentShape(100, 32, 64, 256),
    RecurrentShape(100, 64, 256, 512),
    RecurrentShape(500, 16, 16, 64),
]

# All shapes: each letter's values with every other's, at as many inputs as units, a quarter and four times as many; but
# no training call of more than 2e11 operations, which is a second. And some for every day.
GRID_T, GRID_B, GRID_H = (1, 20, 100, 500), (1, 4, 8, 16, 32, 64, 128), (16, 32, 64, 128, 256, 512, 1024)
GRID_FLOPS = 2e11
RECURRENT_GRID = [
    shape
    for T in GRID_T
    for B in GRID_B
    for H in GRID_H
    for inputs in (H // 4, H, 4 * H)
    if 16 <= inputs <= 1024 and (shape := RecurrentShape(T, B, inputs, H)).flops(True) <= GRID_FLOPS
]
RECURRENT_SHAPES = [RecurrentShape(T, B, H, H) for T in (20, 100) for B in (1, 8, 32) for H in (32, 128, 256)]
STACKS = {"2 layers": (2, 1), "both ways": (1, 2)}  # layers, directions
STACK_SHAPES = [RecurrentShape(100, 1, 64, 128), RecurrentShape(100, 8, 64, 128), RecurrentShape(100, 32, 64, 256)]
VARIANT_SHAPES = [RecurrentShape(100, 1, 32, 32), RecurrentShape(100, 8, 64, 128), RecurrentShape(100, 32, 64, 256)]
ROUNDED_SHAPES = [RecurrentShape(100, 1, H, H) for H in (256, 512, 1024)]
STREAM_SHAPES = [RecurrentShape(1, B, inputs, H) for B in (1, 8) for inputs, H in ((32, 32), (64, 128), (128, 256))]

MLP_SHAPES = [
    *(MLPShape((784, 512, 256, 10), B) for B in (32, 128, 1024)),
    MLPShape((1024, 1024, 1024, 10), 256),
    MLPShape((64, 100, 10), 200),
    MLPShape((64, 32, 10), 32),
]

NORM_SHAPES = [NormShape(4096, 256), NormShape(32, 1024), NormShape(32, 64)]

LANGUAGE_MODEL = LanguageModelShape(V=128, E=32, H=256, B=32, T=100)

LOSS_SHAPES = [NormShape(32, 10), NormShape(1600, 128), NormShape(256, 10_000), CTCShape(16, 100, 32, 20)]
ATTENTION_SHAPES = [AttentionShape(1, 4, 32, 16), AttentionShape(8, 8, 128, 64), AttentionShape(2, 8, 512, 64)]

TRAINING_RUNS = [DigitsRun(MLPShape((64, 100, 10), 32), 20), TextRun(300, 15)]

SQUARES = [ProductShape(n, n, n) for n in (64, 128, 256, 512, 1024, 2048)]
LAYOUTS = [ProductShape(1024, 1024, 1024, layout) for layout in ("NT", "TN", "TT")]
SKINNY = [ProductShape(1, 512, 512), ProductShape(8, 128, 512), ProductShape(32, 128, 512), ProductShape(64, 512, 2048)]
FEW_BY_LARGE = [  # where reading the large operand is what takes the time
    ProductShape(8, 2048, 2048),
    ProductShape(20, 2048, 2048),
    ProductShape(32, 784, 512),
    ProductShape(1000, 1000, 12),
]
LARGE_RESULT = [ProductShape(2000, 8, 2000), ProductShape(2048, 32, 2048)]  # where writing it is


def sampled_products(count: int, seed: int = 0) -> list[ProductShape]:
    """Products whose sides are drawn log-uniformly from 1 to 2048."""
    sides = np.exp2(np.random.default_rng(seed).uniform(0, 11, (count, 3))).round().astype(int)
    return [ProductShape(int(M), int(K), int(N)) for M, K, N in sides]


# The smallest of each kind, for --quick and for the tests of the benchmarks themselves.
QUICK_ACTIVATION_SIZES = {"1M": 1 << 20}
QUICK_LSTM_SHAPES = [LSTM_SHAPES[0], LSTM_SHAPES[3], LSTM_SHAPES[4], LSTM_SHAPES[7]]
QUICK_RECURRENT_SHAPES = [RecurrentShape(20, 1, 32, 32), RecurrentShape(20, 32, 128, 128)]
QUICK_PRODUCTS = [SQUARES[2], SQUARES[4], SKINNY[0], SKINNY[2]]
TINY_ACTIVATION_SIZES = {"100": 100}
TINY_ROWS_SHAPES = [RowsShape(6, total=48), RowsShape(4, axis=0, total=12)]
TINY_LSTM_SHAPES = [RecurrentShape(5, 2, 3, 4)]
TINY_PRODUCTS = [ProductShape(7, 5, 9), ProductShape(4, 3, 2, "TT")]
TINY_NORM_SHAPES = [NormShape(5, 7)]
TINY_MLP_SHAPES = [MLPShape((6, 5, 3), 4)]
TINY_LANGUAGE_MODEL = LanguageModelShape(V=7, E=3, H=5, B=2, T=6)
TINY_LOSS_SHAPES = [NormShape(5, 7), CTCShape(3, 6, 4, 2)]
TINY_ATTENTION_SHAPES = [AttentionShape(2, 2, 5, 3)]
_TINY_SETTINGS = (("hidden", 8), ("embedding", 4), ("batch_size", 2), ("window", 6))
TINY_TRAINING_RUNS = [DigitsRun(MLPShape((64, 8, 10), 64), 2), TextRun(40, 20, 3, _TINY_SETTINGS)]
