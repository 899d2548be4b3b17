"""Every variant of the LSTM cell: other activations, peepholes, coupled and removed gates, alone and in pairs."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from recurrent_twin import arrays, check, check_activation, expected, randomize

import fastact as fa
from fastact._core import recurrent
from fastact.nn.lstm import VARIANTS

pytestmark = pytest.mark.sanitise


@pytest.mark.parametrize("name", fa.activations)
def test_every_activation_in_every_place(name):
    check_activation(fa.nn.LSTM, ["gate_activation", "candidate_activation", "cell_activation"], name)


@pytest.mark.parametrize("batch", [1, 3, 9, 40])
@pytest.mark.parametrize("hidden", [7, 16, 33, 70])
def test_sizes(isa, dtype, batch, hidden):
    """Pieces of one and of several groups, of a batch that fills them and of one that does not; NaN in no padding."""
    options = {"candidate_activation": "sigmoid", "gate_activation": "softplus", "cell_activation": "softsign"}
    layer = randomize(fa.nn.LSTM(6, hidden, peepholes=True, dtype=dtype, **options))
    for p in layer.parameters().values():
        p.value = 0.3 * p.value
    check(layer, 5, batch)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("around", [{}, {"bidirectional": True}, {"reverse": True, "double_bias": False}])
def test_named_variants(name, around):
    layer = randomize(fa.nn.LSTM.variant(name, 5, [18, 7], dtype=np.float64, **around))
    check(layer, 6, 5)
    check(layer, 6, 5, lengths=[3, 6, 1, 6, 2])


def test_variants_are_the_published_ones():
    """Written out once more, from the papers."""
    H = 4
    rng = np.random.default_rng(0)
    x, h, c = rng.normal(size=(1, 1, 3)), rng.normal(size=(1, 1, H)), rng.normal(size=(1, 1, H))

    def s(z):
        return 1 / (1 + np.exp(-z))

    def parts(layer):
        w = {k.removesuffix("_l0"): p.value for k, p in layer.parameters().items()}
        z = x[0] @ w["weight_ih"].T + h[0] @ w["weight_hh"].T + w["bias_ih"] + w["bias_hh"]
        return np.split(z[0], len(z[0]) // H), w.get("weight_peephole")

    layer = randomize(fa.nn.LSTM.variant("1997", 3, H, dtype=np.float64))
    (i, g, o), _ = parts(layer)
    new = c[0, 0] + s(i) * (4 * s(g) - 2)
    np.testing.assert_allclose(layer(x, state=(h, c))[0, 0], s(o) * (2 * s(new) - 1), rtol=1e-14)
    layer = randomize(fa.nn.LSTM.variant("gang_chen", 3, H, dtype=np.float64))
    (i, f, g, o), _ = parts(layer)
    new = s(f) * c[0, 0] + s(i) * s(g)
    np.testing.assert_allclose(layer(x, state=(h, c))[0, 0], np.tanh(o) * np.tanh(new), rtol=1e-14)
    layer = randomize(fa.nn.LSTM.variant("CIFG", 3, H, dtype=np.float64))
    (i, g, o), p = parts(layer)
    i = s(i + p[0] * c[0, 0])
    new = (1 - i) * c[0, 0] + i * np.tanh(g)
    np.testing.assert_allclose(layer(x, state=(h, c))[0, 0], s(o + p[1] * new) * np.tanh(new), rtol=1e-14)
    assert fa.nn.LSTM.variant("vanilla", 3, H, peepholes=False).config() == fa.nn.LSTM(3, H).config()


def test_one_path_or_the_other(isa, dtype):
    """The plain cell and the general one agree to rounding: zero peepholes change nothing."""
    plain = randomize(fa.nn.LSTM(5, 19, dtype=dtype))
    layer = fa.nn.LSTM(5, 19, peepholes=True, dtype=dtype)
    layer.load_state_dict(plain.state_dict() | {"weight_peephole_l0": np.zeros((3, 19))})
    x, *_ = arrays(layer, 6, 9)
    assert np.array_equal(layer(x), plain(x))


@pytest.mark.parametrize("batch", [1, 13])
def test_same_bits_for_any_number_of_threads(isa, dtype, batch):
    layer = randomize(fa.nn.LSTM(9, 90, candidate_activation="mish", peepholes=True, dtype=dtype))
    x, dy, state, dstate = arrays(layer, 9, batch)
    found = set()
    try:
        for threads, by_rows in ((1, True), (2, True), (2, False), (3, False)):
            recurrent.force_plan(threads, by_rows)
            layer.zero_grad()
            y, backward = layer.forward(x, state=state)
            dx = backward(dy, dstate=dstate)
            parts = [layer(x, state=state), y, dx, *backward.dstate, *(p.grad for p in layer.parameters().values())]
            found.add(b"".join(a.tobytes() for a in parts))
    finally:
        recurrent.force_plan()
    assert len(found) == 1


def test_every_part_counts():
    """A lost or negated peephole, and gates that have changed places, change results by far more than any tolerance."""
    layer = randomize(fa.nn.LSTM(4, 6, peepholes=True, output_gate_activation="tanh", dtype=np.float64))
    x, dy, state, dstate = arrays(layer, 4, 3)
    want, _, gradients = expected(layer, x, state, dy, dstate)
    p = layer.weight_peephole_l0
    kept = p.value.copy()
    for changed in (0 * kept, -kept, kept[[1, 0, 2]], kept[[2, 1, 0]], kept[:, ::-1]):
        p.value = changed
        y, backward = layer.forward(x, state=state)
        assert np.abs(y - want).max() > 1e-3
        assert np.abs(backward(dy, dstate=dstate) - gradients["x"]).max() > 1e-3
    p.value = kept
    for place in ("input_gate_activation", "forget_gate_activation", "candidate_activation", "cell_activation"):
        other = fa.nn.LSTM(4, 6, peepholes=True, dtype=np.float64, **{place: "softsign"})
        other.load_state_dict(layer.state_dict())
        assert np.abs(other(x, state=state) - want).max() > 1e-3


def test_gates_and_cells():
    options = {"coupled_gates": True, "candidate_activation": "mish", "output_gate": False}
    layer = randomize(fa.nn.LSTM(3, 5, dtype=np.float64, **options))
    x, _, state, _ = arrays(layer, 4, 2)
    result = layer.run(x, state, all_cells=True, gates=True)
    assert sorted(result.gates) == ["f", "g", "i"]
    before = np.concatenate([state[1][0][:, None], result.cells[0][:, :-1]], axis=1)
    i, f, g = (result.gates[k][0] for k in "ifg")
    assert np.array_equal(f, 1 - i)
    np.testing.assert_allclose(f * before + i * g, result.cells[0], atol=1e-15)
    np.testing.assert_allclose(np.tanh(result.cells[0]), result.y, atol=1e-15)


def test_loading_all_gates_takes_those_that_are_there():
    rng = np.random.default_rng(0)
    whole = {n: rng.normal(size=p.shape) for n, p in fa.nn.LSTM(3, 4, peepholes=True).parameters().items()}
    layer = fa.nn.LSTM(3, 4, input_gate=False, peepholes=True, dtype=np.float64)
    layer.load_state_dict(whole)
    assert np.array_equal(layer.weight_ih_l0.value, whole["weight_ih_l0"][4:])
    assert np.array_equal(layer.bias_hh_l0.value, whole["bias_hh_l0"][4:])
    assert np.array_equal(layer.weight_peephole_l0.value, whole["weight_peephole_l0"][1:])
    layer.load_state_dict(layer.state_dict())
    assert layer.bias_ih_l0.shape == (12,)
    fresh = fa.nn.LSTM(3, 4, input_gate=False, forget_bias=2)
    assert np.array_equal(fresh.bias_ih_l0.value[:4], np.full(4, 2, np.float32))


@pytest.mark.parametrize("name", ["CIFG", "1997", "gang_chen"])
def test_copies_and_files(name, tmp_path):
    layer = randomize(fa.nn.LSTM.variant(name, 3, 4))
    x, *_ = arrays(layer, 5, 2)
    fa.save(fa.nn.Sequential(layer), tmp_path / "m.safetensors")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fa.load(tmp_path / "m.safetensors")):
        assert np.array_equal(other(x), layer(x))
    assert copy.deepcopy(layer).config() == layer.config()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fa.nn.LSTM(3, 4, gate_activation="sigmoidal"), ValueError, "activation: expected one of .*sigmoid"),
        (lambda: fa.nn.LSTM(3, 4, gate_activation=None), (TypeError, ValueError), "gate_activation"),
        (lambda: fa.nn.LSTM(3, 4, gate_activation="softmax"), ValueError, "gate_activation: expected an elementwise"),
        (
            lambda: fa.nn.LSTM(3, 4, candidate_activation=fa.tanh.scaled(input_scale=2)),
            ValueError,
            "candidate_activation: ",
        ),
        (
            lambda: fa.nn.LSTM(3, 4, coupled_gates=True, input_gate=False),
            ValueError,
            "coupled_gates: expected an input",
        ),
        (
            lambda: fa.nn.LSTM(3, 4, coupled_gates=True, forget_gate_activation="tanh"),
            ValueError,
            "forget_gate_activation",
        ),
        (
            lambda: fa.nn.LSTM(3, 4, output_gate=False, output_gate_activation="tanh"),
            ValueError,
            "output_gate_activation",
        ),
        (
            lambda: fa.nn.LSTM(3, 4, input_gate=False, forget_gate=False, output_gate=False, peepholes=True),
            ValueError,
            "peepholes: expected a gate",
        ),
        (lambda: fa.nn.LSTM.variant("FGRX", 3, 4), ValueError, "name: expected one of vanilla, 1997, .*got 'FGRX'"),
    ],
)
def test_bad_options(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("options", [{}, {"double_bias": False}, {"bidirectional": True, "num_layers": 2}])
def test_biases_of_gates(options, tmp_path):
    """Of those given, written once as that of the forget gate is; the others are drawn as without."""
    plain = fa.nn.LSTM(3, 4, rng=0, **options)
    layer = fa.nn.LSTM(3, 4, gate_bias={"i": -2, "f": 0.5}, rng=0, **options)
    for name, p in layer.parameters().items():
        expected = plain.parameters()[name].value.copy()
        if name.startswith("bias"):
            expected[:4], expected[4:8] = (-2, 0.5) if name.startswith("bias_ih") else (0, 0)
        np.testing.assert_array_equal(p.value, expected)
    closed = fa.nn.LSTM.variant("1997", 3, 4, gate_bias={"i": -2.0, "o": -1.0}, rng=0, **options)
    np.testing.assert_array_equal(closed.bias_ih_l0.value[:4], -2)
    np.testing.assert_array_equal(closed.bias_ih_l0.value[8:], -1)
    assert np.abs(closed.bias_ih_l0.value[4:8]).max() <= 0.5
    fa.save(closed, tmp_path / "m.safetensors")
    assert repr(fa.load(tmp_path / "m.safetensors")) == repr(closed)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"gate_bias": {"k": 1.0}},
            ValueError,
            r"gate_bias: expected a mapping of some of i, f, g, o.*got \{'k': 1.0\}",
        ),
        ({"gate_bias": {"f": 1.0}, "coupled_gates": True}, ValueError, "some of i, g, o"),
        ({"gate_bias": -2.0}, ValueError, "gate_bias: expected a mapping.*got -2.0"),
        ({"gate_bias": {"i": "low"}}, TypeError, r"gate_bias\['i'\]: expected a number, got 'low'"),
        ({"gate_bias": {"i": -np.inf}}, ValueError, r"gate_bias\['i'\]: expected"),
    ],
)
def test_biases_of_gates_refused(options, error, message):
    with pytest.raises(error, match=message):
        fa.nn.LSTM(3, 4, **options)
