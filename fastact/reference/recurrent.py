"""Recurrent layers, one layer and direction.

Time-major: x (T, B, I), y (T, B, H), h and c (B, H); weights as in torch.nn, gates in the order i, f, g, o.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fastact.reference.catalogue import Array, _f64, sigmoid


@dataclass
class LSTMTrace:
    """What ``lstm_forward`` computes; h and c begin with the initial state: (T + 1, B, H)."""

    x: Array
    h: Array
    c: Array
    gates: Array  # (T, 4, B, H)

    @property
    def y(self) -> Array:
        return self.h[1:]


def lstm_forward(
    x: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias: ArrayLike,
    h0: ArrayLike | None = None,
    c0: ArrayLike | None = None,
) -> LSTMTrace:
    """One LSTM layer; ``bias`` (4H,) is the sum of both biases."""
    x, weight_ih, weight_hh, bias = _f64(x), _f64(weight_ih), _f64(weight_hh), _f64(bias)
    steps, batch, hidden = x.shape[0], x.shape[1], weight_hh.shape[1]
    h, c = np.zeros((steps + 1, batch, hidden)), np.zeros((steps + 1, batch, hidden))
    h[0] = 0 if h0 is None else h0
    c[0] = 0 if c0 is None else c0
    gates = np.zeros((steps, 4, batch, hidden))
    for t in range(steps):
        z = x[t] @ weight_ih.T + h[t] @ weight_hh.T + bias
        z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
        c[t + 1] = f * c[t] + i * g
        h[t + 1] = o * np.tanh(c[t + 1])
        gates[t] = i, f, g, o
    return LSTMTrace(x, h, c, gates)


def lstm_backward(
    trace: LSTMTrace,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    dy: ArrayLike,
    dh: ArrayLike | None = None,
    dc: ArrayLike | None = None,
) -> dict[str, Array]:
    """Gradients "x", "weight_ih", "weight_hh", "bias", "h0", "c0"; dh and dc are those of the final state."""
    weight_ih, weight_hh, dy = _f64(weight_ih), _f64(weight_hh), _f64(dy)
    x, h, c = trace.x, trace.h, trace.c
    d_ih, d_hh, d_bias = np.zeros_like(weight_ih), np.zeros_like(weight_hh), np.zeros(len(weight_hh))
    dx = np.zeros_like(x)
    d_h = np.zeros_like(h[0]) if dh is None else _f64(dh)
    d_c = np.zeros_like(c[0]) if dc is None else _f64(dc)
    for t in reversed(range(len(x))):
        i, f, g, o = trace.gates[t]
        d_h = d_h + dy[t]
        tanh_c = np.tanh(c[t + 1])
        d_c = d_c + d_h * o * (1 - tanh_c**2)
        dz = np.concatenate(
            [
                d_c * g * i * (1 - i),
                d_c * c[t] * f * (1 - f),
                d_c * i * (1 - g**2),
                d_h * tanh_c * o * (1 - o),
            ],
            axis=1,
        )
        d_ih += dz.T @ x[t]
        d_hh += dz.T @ h[t]
        d_bias += dz.sum(0)
        dx[t] = dz @ weight_ih
        d_h = dz @ weight_hh
        d_c = d_c * f
    return {"x": dx, "weight_ih": d_ih, "weight_hh": d_hh, "bias": d_bias, "h0": d_h, "c0": d_c}
