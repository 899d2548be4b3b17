"""The benchmarks: the pure-NumPy yardstick is right; each benchmark runs, agrees with its peers, reports as documented."""

from __future__ import annotations

import numpy as np
import pytest
from fastact.bench import numpy_lstm


def language_model(rng, V=7, E=3, H=5, layers=2):
    """Random weights, large enough to tell every gate apart."""
    shapes = {"0.weight": (V, E)}
    for layer in range(layers):
        shapes |= {
            f"1.weight_ih_l{layer}": (4 * H, H if layer else E),
            f"1.weight_hh_l{layer}": (4 * H, H),
            f"1.bias_ih_l{layer}": (4 * H,),
            f"1.bias_hh_l{layer}": (4 * H,),
        }
    shapes |= {"2.weight": (V, H), "2.bias": (V,)}
    return {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}


def test_language_model_gradients_are_those_of_its_loss():
    rng = np.random.default_rng(1)
    B, T, H, V = 2, 6, 5, 7
    parameters = language_model(rng, V=V, H=H)
    x, y = rng.integers(0, V, (2, B, T))
    state = rng.normal(size=(2, 2, B, H))
    buffers = numpy_lstm.Buffers()

    def loss():
        return numpy_lstm.language_model_gradients(parameters, x, y, state, buffers)[0]

    _, gradients, _ = numpy_lstm.language_model_gradients(parameters, x, y, state, buffers)
    gradients = {name: gradient.copy() for name, gradient in gradients.items()}
    for name, value in parameters.items():
        for index in zip(*(rng.integers(0, n, 5) for n in value.shape), strict=True):
            kept, step = value[index], 1e-6
            value[index] = kept + step
            above = loss()
            value[index] = kept - step
            below = loss()
            value[index] = kept
            assert gradients[name][index] == pytest.approx((above - below) / (2 * step), abs=1e-8), (name, index)


@pytest.mark.parametrize("steps", [1, 70])
def test_layer_gradients_of_input_and_initial_state(steps):
    rng = np.random.default_rng(2)
    B, inputs, H = 3, 4, 5
    layer = numpy_lstm.LSTMLayer(*(rng.normal(0, 0.5, s) for s in [(4 * H, inputs), (4 * H, H), 4 * H, 4 * H]))
    x, h0, c0 = rng.normal(size=(steps, B, inputs)), rng.normal(size=(B, H)), rng.normal(size=(B, H))
    dy, dh, dc = rng.normal(size=(steps, B, H)), rng.normal(size=(B, H)), rng.normal(size=(B, H))

    def value():
        y, (h, c) = layer.run(x, (h0, c0))
        return np.sum(y * dy) + np.sum(h * dh) + np.sum(c * dc)

    y, _, backward = layer.forward(x, (h0, c0))
    gradients = backward(dy, (dh, dc))
    gradients = {name: gradient.copy() for name, gradient in gradients.items()}
    np.testing.assert_allclose(y, layer.run(x, (h0, c0))[0], rtol=1e-12)
    for name, array in [("x", x), ("h0", h0), ("c0", c0)]:
        for index in zip(*(rng.integers(0, n, 6) for n in array.shape), strict=True):
            kept, step = array[index], 1e-6
            array[index] = kept + step
            above = value()
            array[index] = kept - step
            below = value()
            array[index] = kept
            assert gradients[name][index] == pytest.approx((above - below) / (2 * step), abs=2e-8), (name, index)
