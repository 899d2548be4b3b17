"""Memory in the steady state: calls take what they return, training steps next to nothing, inference keeps no gates."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import fastact as fa
from fastact._core import workspace

CELLS = [fa.nn.LSTM, fa.nn.GRU, fa.nn.RNN]
SMALL = 8 << 10  # objects that come and go: tuples, closures, views


def taken(run, times=5):
    """Most bytes of Python and NumPy at one time within a call, and workspaces that had to be made, after two calls."""
    run()
    run()
    made = workspace.made()
    tracemalloc.start()
    try:
        run()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(times):
            run()
        return tracemalloc.get_traced_memory()[1] - before, workspace.made() - made
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("T", "B", "hidden"), [(1, 1, 16), (20, 3, 50), (30, 8, [40, 24]), (100, 32, 128), (60, 64, [96, 128])]
)
@pytest.mark.parametrize("ways", [{}, {"bidirectional": True}], ids=["one", "both"])
def test_a_call_takes_what_it_returns(cell, T, B, hidden, ways):
    layer, x = cell(12, hidden, **ways), np.ones((B, T, 12), np.float32)
    peak, made = taken(lambda: layer(x))
    returned = layer(x).nbytes
    assert peak <= returned + SMALL
    assert made == 0
    assert taken(lambda: layer.run(x))[1] == 0


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("T", "B", "hidden"), [(20, 3, 50), (100, 32, 128), (60, 64, [96, 128])])
def test_a_training_pass_takes_what_it_returns(cell, T, B, hidden):
    layer, x = cell(12, hidden), np.ones((B, T, 12), np.float32)
    dy = np.ones_like(layer(x))

    def run():
        y, backward = layer.forward(x)
        return y, backward(dy), backward.state, backward.dstate

    y, dx, *states = run()
    letters = 2 if cell is fa.nn.LSTM else 1
    state = 2 * letters * B * sum(layer.hidden_sizes) * 4
    peak, made = taken(run)
    assert peak <= y.nbytes + dx.nbytes + state + SMALL
    assert made == 0
    assert len(states) == 2


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("T", "B", "H"), [(20, 8, 64), (50, 32, 128)])
def test_a_training_step_takes_next_to_nothing(cell, T, B, H):
    model = fa.nn.Sequential(fa.nn.Embedding(40, 24), cell(24, H), fa.nn.Dense(H, 40))
    trainer = fa.Trainer(model, loss="cross_entropy", optimizer=fa.optim.Adam(1e-3), seed=0, clip_norm=1.0)
    x, y = np.random.default_rng(0).integers(0, 40, (2, B, T))
    peak, made = taken(lambda: trainer.step(x, y))
    assert peak <= 64 << 10
    assert made == 0


def test_a_training_step_of_a_perceptron_takes_next_to_nothing():
    layers = [fa.nn.Dense(300, 512, "relu"), fa.nn.Dense(512, 512, "gelu"), fa.nn.Activation("mish")]
    model = fa.nn.Sequential(*layers, fa.nn.Dense(512, 300), fa.nn.Activation("softmax"), fa.nn.Dense(300, 10))
    trainer = fa.Trainer(model, loss="cross_entropy", optimizer=fa.optim.Adam(1e-3), seed=0)
    x, y = np.ones((128, 300), np.float32), np.zeros(128, np.int64)
    peak, made = taken(lambda: trainer.step(x, y))
    assert peak <= 64 << 10
    assert made == 0


@pytest.mark.parametrize("cell", CELLS)
def test_inference_keeps_no_gates(cell):
    T, B, H = 200, 64, 128
    layer, x = cell(8, H), np.ones((B, T, 8), np.float32)
    layer(x)
    workspace.clear_pool()
    y = layer(x)  # is a workspace itself while it lives
    state = B * H * 4
    assert workspace.pool_bytes() < 6 * state + (1 << 16)
    assert y.nbytes == T * state
    one = np.ones((1, 2000, 8), np.float32)
    workspace.clear_pool()
    layer(one)
    assert workspace.pool_bytes() - 2000 * H * 4 < 300 * 4 * H * 4  # the input product of 256 rows at a time


def test_training_keeps_gates_and_states_once():
    T, B, H = 50, 16, 128
    layer, x = fa.nn.LSTM(8, H), np.ones((B, T, 8), np.float32)
    dy = np.ones((B, T, H), np.float32)
    layer.forward(x)[1](dy)
    workspace.clear_pool()
    layer.forward(x)[1](dy)
    kept = T * B * H * 4 * 6  # four gates, h, c
    assert workspace.pool_bytes() < 1.35 * kept
