"""Weights of inference in bfloat16 and int8: what they compute, and that nothing else changes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from recurrent_twin import EPS, arrays, randomize

import fastact as fa
from fastact._core import recurrent

pytestmark = pytest.mark.sanitise

CELLS = [fa.nn.LSTM, fa.nn.GRU, fa.nn.RNN]
PRECISIONS = ["bfloat16", "int8"]
BYTES = {"bfloat16": 2, "int8": 1}
OPTIONS = [
    (fa.nn.LSTM, {"num_layers": 2, "gate_activation": "hard_sigmoid", "cell_activation": "softsign"}),
    (fa.nn.LSTM, {"bidirectional": True, "merge": "sum", "num_layers": 2}),
    (fa.nn.LSTM, {"peepholes": True, "coupled_gates": True, "bias": False}),
    (fa.nn.LSTM, {"output_gate": False, "clip": 1.5, "reverse": True}),
    (fa.nn.LSTM, {"projection_size": 9, "cell_clip": 0.5}),
    (fa.nn.LSTM, {"full_gate_recurrence": True}),
    (fa.nn.LSTM, {"full_gate_recurrence": True, "projection_size": 7, "layer_norm": True}),
    (fa.nn.LSTM, {"zoneout": 0.3, "cell_zoneout": 0.2, "time_major": True}),
    (fa.nn.LSTM, {"layer_norm": True, "return_sequences": False}),
    (fa.nn.GRU, {"reset_after": False, "zoneout": 0.2}),
    (fa.nn.GRU, {"layer_norm": True}),
    (fa.nn.RNN, {"layer_norm": True, "activation": "gelu"}),
]


@pytest.fixture(params=PRECISIONS)
def precision(request):
    return request.param


def bfloat16(weight):
    """The nearest of float32's upper halves, ties to even."""
    bits = weight.view(np.uint32).astype(np.uint64)
    return (bits + 0x7FFF + (bits >> 16 & 1) >> 16 << 16).astype(np.uint32).view(np.float32)


def int8(weight):
    """Whole multiples of a 127th of each row's largest."""
    scale = abs(weight).max(axis=1, keepdims=True) / np.float32(127)
    return np.rint(weight / scale) * scale


def rounded(layer, precision):
    """A layer that has rounded weights to begin with."""
    twin = copy.deepcopy(layer)
    twin.inference_weights = None
    state = twin.state_dict()
    matrices = [name for name, value in state.items() if value.ndim == 2 and "peephole" not in name]
    for name in matrices:
        if name.startswith("weight_gates"):
            continue
        beside = name.replace("weight_hh", "weight_gates")
        weight, P = state[name], state[name].shape[1]
        if beside != name and beside in matrices:  # one row of h and gates has one scale; the candidate sees no gates
            blocks, gates = np.split(weight, 4), np.split(state[beside], 3)
            rows = [np.hstack(pair) for pair in zip([blocks[k] for k in (0, 1, 3)], gates, strict=True)]
            i, f, o = (globals()[precision](each) for each in rows)
            g = globals()[precision](blocks[2])
            state[name] = np.vstack([i[:, :P], f[:, :P], g, o[:, :P]])
            state[beside] = np.vstack([each[:, P:] for each in (i, f, o)])
        else:
            state[name] = globals()[precision](weight)
    twin.load_state_dict(state)
    return twin


def tolerance(layer, precision):
    """Sums in another order; those of int8 hold 1.5 for each weight beside it, until they are done."""
    terms = layer.input_size + max(layer.hidden_sizes) * (4 if layer._letters == "hcifo" else 1)
    return EPS[layer.dtype] * (2 if precision == "bfloat16" else 12) * (terms + 8)


def check(layer, precision, T, B, lengths=None):
    x, _, state, _ = arrays(layer, T, B)
    full, twin = layer.run(x, state, lengths), rounded(layer, precision).run(x, state, lengths)
    layer.inference_weights = precision
    got, most = layer.run(x, state, lengths), tolerance(layer, precision)
    assert abs(got.y - twin.y).max() <= most
    assert abs(got.y - full.y).max() > 4 * most  # which tells one from the other
    for a, b in zip(flat(got.state), flat(twin.state), strict=True):
        assert abs(a - b).max() <= 4 * most


def flat(state):
    return [state] if isinstance(state, np.ndarray) else [a for part in state for a in flat(part)]


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 9, 13])
@pytest.mark.parametrize("cell", CELLS)
def test_as_with_rounded_weights(isa, precision, cell, batch):
    for inputs, hidden in [(3, 5), (18, 33), (17, [9, 34, 6])]:
        check(randomize(cell(inputs, hidden)), precision, 7, batch)
        check(randomize(cell(inputs, hidden)), precision, 7, batch, np.resize([2, 7, 1], batch))


@pytest.mark.parametrize(("cell", "options"), OPTIONS)
def test_options(isa, precision, cell, options):
    for batch in (1, 9):
        check(randomize(cell(6, 18, **options)), precision, 5, batch)


@pytest.mark.parametrize("options", [{}, {"full_gate_recurrence": True}, {"projection_size": 33}])
@pytest.mark.parametrize("batch", [1, 2, 5, 9])
def test_bits(isa, precision, batch, options):
    """Of a sequence in one piece, in two, step by step, and on any number of threads."""
    layer = randomize(fa.nn.LSTM(30, [65, 40], inference_weights=precision, **options))
    x, _, state, _ = arrays(layer, 9, batch)
    want = layer(x, state)
    first = layer.run(x[:, :4], state)
    assert (np.hstack([first.y, layer(x[:, 4:], first.state)]) == want).all()
    try:
        for threads in (1, 2, 3):
            for by_rows in (True, False):
                recurrent.force_plan(threads, by_rows)
                stream = layer.stream(batch, state)
                assert (np.stack([stream.step(x[:, t]).copy() for t in range(9)], 1) == want).all()
                assert (layer(x, state) == want).all()
    finally:
        recurrent.force_plan()


@pytest.mark.parametrize("cell", CELLS)
def test_training_has_all_of_the_weights(precision, cell):
    plain, layer = (randomize(cell(5, 20, 2, inference_weights=p)) for p in (None, precision))
    x, dy, state, dstate = arrays(layer, 6, 3)
    assert not (plain(x, state) == layer(x, state)).all()
    results = []
    for each in (plain, layer):
        y, backward = each.forward(x, state)
        results.append([y, backward(dy, dstate), *(p.grad for p in each.parameters().values())])
    assert all((a == b).all() for a, b in zip(*results, strict=True))


def test_what_inside_a_call_shows(precision):
    layer = randomize(fa.nn.LSTM(5, 20, inference_weights=precision))
    x, _, state, _ = arrays(layer, 6, 3)
    result = layer.run(x, state, all_cells=True, gates=True)
    assert (result.y == layer(x, state)).all()
    twin = rounded(layer, precision).run(x, state, all_cells=True, gates=True)
    for letter in "ifgo":
        assert abs(result.gates[letter] - twin.gates[letter]).max() <= tolerance(layer, precision)


def one_layer(weight, precision):
    """y of a single step is one column of this matrix."""
    layer = fa.nn.RNN(weight.shape[1], len(weight), bias=False, activation="linear", inference_weights=precision)
    layer.load_state_dict({"weight_ih_l0": weight, "weight_hh_l0": np.zeros((len(weight),) * 2, np.float32)})
    return layer


def columns(layer):
    one = np.eye(layer.input_size, dtype=np.float32)
    return np.hstack([layer(one[k][None, None])[0].T for k in range(layer.input_size)])


def test_rounding_to_bfloat16(isa):
    eps = 2.0**-8  # half a unit of the last place of 1
    weight = np.array([[1 + eps, 1 + 3 * eps, 1 + eps * 1.01, 1 + eps * 0.99, -1 - eps, 3e-39, 0.0]], np.float32)
    want = np.array([[1, 1 + 4 * eps, 1 + 2 * eps, 1, -1, bfloat16(weight)[0, 5], 0]], np.float32)
    assert (columns(one_layer(weight, "bfloat16")) == want).all()
    special = np.array([[np.inf, 1.0], [np.nan, 1.0], [3.4e38, 1.0]], np.float32)
    got = columns(one_layer(special, "bfloat16"))[:, 0]
    assert (got[[0, 2]] == np.inf).all()
    assert np.isnan(got[1])


def test_rounding_to_int8(isa):
    weight = np.array([[127, 0.5, 1.5, 2.5, -3.5, -127], [0, 0, 0, 0, 0, 0], [1e-3, 0, 0, 0, 0, -1e-3]], np.float32)
    weight[2, 1:5] = weight[0, 1:5] * 1e-3 / 127
    got = columns(one_layer(weight, "int8"))
    assert (got[0] == [127, 0, 2, 2, -4, -127]).all()
    assert (got[1] == 0).all()
    assert np.allclose(got[2], int8(weight[2:])[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_row_of_int8_that_is_not_finite(isa, bad):
    weight = np.ones((4, 5), np.float32)
    weight[2, 1] = bad
    y = one_layer(weight, "int8")(np.ones((1, 1, 5), np.float32))[0, 0]
    assert np.isnan(y[2])
    assert (y[[0, 1, 3]] == 5).all()


def test_the_setting_can_change(precision):
    layer = randomize(fa.nn.LSTM(5, 20))
    x, _, _, _ = arrays(layer, 3, 1)
    full, stream = layer(x), layer.stream()
    first = stream.step(x[:, 0]).copy()
    layer.inference_weights = precision
    rounded_y = layer(x)
    assert not (rounded_y == full).any()
    later = layer(x[:, 1:], stream.state)
    assert (stream.step(x[:, 1]) == later[:, 0]).all()  # from the next step on
    assert (first == full[:, 0]).all()
    layer.inference_weights = None
    assert (layer(x) == full).all()


def test_new_weights_are_rounded_anew(precision):
    layer = randomize(fa.nn.GRU(5, 20, inference_weights=precision))
    other = randomize(fa.nn.GRU(5, 20, inference_weights=precision), seed=3)
    x, _, _, _ = arrays(layer, 3, 2)
    stream = layer.stream(2)
    before = layer(x)
    layer.load_state_dict(other.state_dict())
    assert not (layer(x) == before).any()
    assert (layer(x) == other(x)).all()
    assert (stream.step(x[:, 0]) == other(x)[:, 0]).all()


@pytest.mark.parametrize("cell", CELLS)
def test_copies_and_files(tmp_path, precision, cell):
    layer = randomize(cell(5, 20, inference_weights=precision))
    x, _, _, _ = arrays(layer, 3, 1)
    want = layer(x)
    assert layer.config()["inference_weights"] == precision
    fa.save(layer, tmp_path / "layer.safetensors")
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fa.load(tmp_path / "layer.safetensors")]
    for each in copies:
        assert each.inference_weights == precision
        assert (each(x) == want).all()
        assert (each.weight_hh_l0.value == layer.weight_hh_l0.value).all()


def test_memory(precision):
    """Inference packs rounded weights alone, and of those a quarter or half of the bytes."""
    full, layer = fa.nn.LSTM(128, 128), fa.nn.LSTM(128, 128, inference_weights=precision)
    x = np.ones((1, 4, 128), np.float32)
    full(x)
    layer(x)
    assert layer._packed is None
    scales = 2 * 4 * 128 * 4
    extra = full._packed.cells[0][0].nbytes - 4 * 4 * 128 * 256  # biases and what else there is
    assert layer._rounded.cells[0][0].nbytes <= BYTES[precision] * 4 * 128 * 256 + extra + scales
    layer.inference_weights = None
    assert layer._rounded is None


@pytest.mark.parametrize("cell", CELLS)
def test_bad_settings(cell):
    with pytest.raises(ValueError, match="inference_weights: expected bfloat16, int8 or None, got 'float16'"):
        cell(3, 4, inference_weights="float16")
    with pytest.raises(ValueError, match=r"inference_weights: expected None for a layer of float64, got 'int8'"):
        cell(3, 4, inference_weights="int8", dtype=np.float64)
    layer = cell(3, 4, inference_weights="int8")
    with pytest.raises(ValueError, match="inference_weights"):
        layer.inference_weights = 8
    with pytest.raises(ValueError, match="inference_weights"):
        layer.inference_weights = ["int8"]
    assert layer.inference_weights == "int8"
