"""The recurrent reference itself: its gradients against central differences, one option at a time and in pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from gradients import assert_gradient, numeric_gradient

from fastact import reference
from fastact.reference import LSTMVariant

T, B, I, H = 3, 2, 3, 4  # noqa: E741
LENGTHS = np.array([3, 2])
gate = {name: reference.activations[name] for name in ("sigmoid", "tanh", "softsign", "gelu", "linear", "mish")}


def weights_of(rng, sizes):
    return {name: rng.uniform(-0.8, 0.8, size) for name, size in sizes.items()}


def check(forward, backward, weights, x, states, rng):
    """Every gradient of sum(y p) + sum(final states q) for random p and q."""
    trace = forward(x, weights, *states)
    letters = "hcifo"[: len(states)]
    finals = [getattr(trace, letter)[-1] for letter in letters]
    weight_y = rng.uniform(0.5, 1.5, trace.y.shape)
    of_finals = [rng.uniform(0.5, 1.5, a.shape) for a in finals]

    def total():
        trace = forward(x, weights, *states)
        finals = [getattr(trace, letter)[-1] for letter in letters]
        return np.sum(trace.y * weight_y) + sum(np.sum(a * b) for a, b in zip(finals, of_finals, strict=True))

    got = backward(trace, weight_y, *of_finals)
    inputs = weights | {"x": x} | dict(zip((letter + "0" for letter in letters), states, strict=True))
    assert set(inputs) == set(got)
    for name, array in inputs.items():
        assert_gradient(name, got[name], numeric_gradient(total, array))


NORM_EPS = 0.05  # keeps the few units' 1 / sqrt(var + eps) as smooth as the differences need it


def norm_sizes(rows):
    return {"weight_norm_ih": rows, "weight_norm_hh": rows}


VARIANTS = {
    "input gate": {"input_gate": gate["softsign"]},
    "forget gate": {"forget_gate": gate["tanh"]},
    "output gate": {"output_gate": gate["tanh"]},
    "candidate": {"candidate": gate["gelu"]},
    "cell": {"cell": gate["mish"]},
    "no input gate": {"input_gate": None},
    "no forget gate": {"forget_gate": None},
    "no output gate": {"output_gate": None},
    "coupled": {"coupled": True},
    "clip": {"cell_clip": 0.4},
}
OPTIONS = ("layer norm", "peepholes", "projection", "full gates", "recurrent mask", "zoneout", "lengths")


@pytest.mark.parametrize("names", [*[(n,) for n in (*VARIANTS, *OPTIONS)], *combinations((*VARIANTS, *OPTIONS), 2)])
def test_lstm(names):
    given = {}
    for name in names:
        given |= VARIANTS.get(name, {})
    if given.get("coupled") and not given.get("input_gate", True):
        pytest.skip("nothing to couple to")
    variant = LSTMVariant(**given)
    if "full gates" in names and variant.rows != "ifgo":
        pytest.skip("each gate sees them all")
    rng = np.random.default_rng(1)
    rows, width = len(variant.rows) * H, 2 if "projection" in names else H
    sizes = {"weight_ih": (rows, I), "weight_hh": (rows, width), "bias": rows}
    if "projection" in names:
        sizes["weight_hr"] = (width, H)
    if "full gates" in names:
        sizes["weight_gates"] = (3 * H, 3 * H)
    if "peepholes" in names:
        sizes["weight_peephole"] = (len(variant.rows) - 1, H)
    if "layer norm" in names:
        sizes |= norm_sizes(rows) | {"weight_norm_c": H, "bias_norm_c": H}
    options = {"lengths": LENGTHS} if "lengths" in names else {}
    if "layer norm" in names:
        options["layer_norm_eps"] = NORM_EPS
    if "recurrent mask" in names:
        options["recurrent_mask"] = rng.choice([0, 2.0], (B, width))
    if "zoneout" in names:
        options["zoneout_h"], options["zoneout_c"] = rng.uniform(0, 1, (T, B, width)), rng.choice([0, 1.0], (T, B, H))

    def forward(x, weights, *states):
        return reference.lstm_forward(x, weights, *states, variant=variant, **options)

    states = [rng.normal(size=(B, width)), 0.2 * rng.normal(size=(B, H))]
    if "full gates" in names:
        states += [*rng.uniform(0, 1, (3, B, H))]
    check(forward, reference.lstm_backward, weights_of(rng, sizes), rng.normal(size=(T, B, I)), states, rng)


def masks_of(rng, masked):
    if not masked:
        return {}
    return {"recurrent_mask": rng.choice([0, 2.0], (B, H)), "zoneout_h": rng.uniform(0, 1, (T, B, H))}


def test_clipped():
    """The bound acts on what goes into the function, and stops its derivative."""
    f, x = reference.clipped(gate["gelu"], 0.5), np.array([-2, -0.3, 0.2, 0.6])
    np.testing.assert_array_equal(f.forward(x), gate["gelu"].forward(np.array([-0.5, -0.3, 0.2, 0.5])))
    np.testing.assert_array_equal(f.derivative1(x), gate["gelu"].derivative1(x) * [0, 1, 1, 0])


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize(("reset_after", "normalized"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("functions", [{}, {"gate": gate["softsign"], "candidate": gate["gelu"]}])
def test_gru(lengths, reset_after, normalized, masked, functions):
    rng = np.random.default_rng(1)
    options = functions | masks_of(rng, masked)
    norm = norm_sizes(3 * H) if normalized else {}
    options["layer_norm_eps"] = NORM_EPS

    def forward(x, weights, h0):
        return reference.gru_forward(x, weights, h0, lengths, reset_after=reset_after, **options)

    sizes = {"weight_ih": (3 * H, I), "weight_hh": (3 * H, H), "bias_ih": 3 * H, "bias_hh": 3 * H}
    weights = weights_of(rng, sizes | norm)
    states = (rng.normal(size=(B, H)),)
    check(forward, reference.gru_backward, weights, rng.normal(size=(T, B, I)), states, rng)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", gate)
def test_rnn(lengths, masked, normalized, name):
    rng = np.random.default_rng(1)
    options = masks_of(rng, masked)

    def forward(x, weights, h0):
        return reference.rnn_forward(x, weights, h0, lengths, gate[name], layer_norm_eps=NORM_EPS, **options)

    norm = norm_sizes(H) if normalized else {}
    weights = weights_of(rng, {"weight_ih": (H, I), "weight_hh": (H, H), "bias": H} | norm)
    check(forward, reference.rnn_backward, weights, rng.normal(size=(T, B, I)), (rng.normal(size=(B, H)),), rng)


def test_lengths_cut_sequences():
    """A batch of unequal sequences is as good as each of them alone."""
    rng = np.random.default_rng(2)
    weights = weights_of(rng, {"weight_ih": (4 * H, I), "weight_hh": (4 * H, H), "bias": 4 * H})
    x = rng.normal(size=(T, B, I))
    whole = reference.lstm_forward(x, weights, lengths=LENGTHS)
    for b, n in enumerate(LENGTHS):
        alone = reference.lstm_forward(x[:n, b : b + 1], weights)
        np.testing.assert_allclose(whole.y[:n, b], alone.y[:, 0], rtol=1e-14)
        np.testing.assert_allclose(whole.h[-1, b], alone.h[-1, 0], rtol=1e-14)
        np.testing.assert_allclose(whole.c[-1, b], alone.c[-1, 0], rtol=1e-14)
        assert not whole.y[n:, b].any()
