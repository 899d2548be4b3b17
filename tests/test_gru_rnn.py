"""GRU and RNN: values and gradients against the reference, numerically, on every instruction set and thread count."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrent_twin import arrays, check, check_activation, check_numerically, draw_case, expected, randomize

import fastact as fa
from fastact._core import recurrent

pytestmark = pytest.mark.sanitise
CELLS = [fa.nn.GRU, fa.nn.RNN]
EDGES = [1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 97]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("hidden", EDGES)
def test_hidden_sizes(isa, dtype, cell, hidden):
    check(randomize(cell(5, hidden, dtype=dtype)), 4, 3)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 33])
def test_batch_sizes(isa, dtype, cell, batch):
    check(randomize(cell(6, 18, dtype=dtype)), 3, batch)
    check(randomize(cell(19, 70, dtype=dtype)), 3, batch, with_state=False)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_long_sequences(batch, isa, cell):
    """Past the chunks of the hoisted input product and of the weight gradients."""
    layer = randomize(cell(3, 8, dtype=np.float64))
    layer.weight_hh_l0.value = 0.5 * layer.weight_hh_l0.value
    check(layer, 560 // batch, batch)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_combination(data):
    """With bounded functions, and gates from 0 to 1: one outside, or 1 - z above 1, multiplies errors at every step."""
    cell = data.draw(st.sampled_from(CELLS))
    bounded = ["sigmoid", "tanh", "softsign", "hard_sigmoid"]
    gates = {"gate_activation": ["sigmoid", "hard_sigmoid"], "candidate_activation": bounded}
    check(**draw_case(data.draw, cell, 20, gates if cell is fa.nn.GRU else {"activation": bounded}))


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        (fa.nn.GRU, {}),
        (fa.nn.GRU, {"gate_activation": "softsign", "candidate_activation": "mish"}),
        (fa.nn.GRU, {"bidirectional": True}),
        (fa.nn.GRU, {"double_bias": False, "return_sequences": False}),
        (fa.nn.RNN, {}),
        (fa.nn.RNN, {"activation": "gelu"}),
        (fa.nn.RNN, {"bidirectional": True, "merge": "sum"}),
        (fa.nn.RNN, {"bias": False, "reverse": True}),
    ],
)
@pytest.mark.parametrize(("T", "B", "lengths"), [(1, 1, None), (3, 2, None), (3, 2, [1, 3])])
@pytest.mark.parametrize("hidden", [4, [3, 2]])
def test_gradients_numerically(cell, options, T, B, lengths, hidden):
    check_numerically(randomize(cell(2, hidden, dtype=np.float64, **options)), T, B, lengths)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", fa.activations)
def test_every_activation(cell, name):
    options = ["gate_activation", "candidate_activation"] if cell is fa.nn.GRU else ["activation"]
    check_activation(cell, options, name)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("batch", [1, 13])
def test_same_bits_for_any_number_of_threads(isa, dtype, cell, batch):
    layer = randomize(cell(20, 150, dtype=dtype))
    x, dy, state, dstate = arrays(layer, 20, batch)
    lengths = np.random.default_rng(1).integers(1, 21, batch)
    results = []
    try:
        for threads, by_rows in ((1, True), (2, True), (2, False), (3, False)):
            recurrent.force_plan(threads, by_rows)
            for n in (None, lengths):
                layer.zero_grad()
                y, backward = layer.forward(x, state=state, lengths=n)
                dx = backward(dy, dstate=dstate)
                parts = [layer(x, state=state, lengths=n), y, dx, backward.state, backward.dstate]
                results.append([a.tobytes() for a in (*parts, *(p.grad for p in layer.parameters().values()))])
    finally:
        recurrent.force_plan()
    assert all(found == results[i % 2] for i, found in enumerate(results))


@pytest.mark.parametrize("cell", CELLS)
def test_every_part_counts(cell):
    """Gates that change places, a lost matrix, bias or sign change results by far more than any tolerance here."""
    layer = randomize(cell(5, 8, dtype=np.float64))
    x, dy, state, dstate = arrays(layer, 4, 3)
    want, _, gradients = expected(layer, x, state, dy, dstate)
    for name, p in layer.parameters().items():
        kept = p.value.copy()
        changes = [0 * kept, -kept, kept[::-1]]
        if cell is fa.nn.GRU:
            changes += [kept.reshape(3, 8, -1)[list(order)].reshape(kept.shape) for order in ((1, 0, 2), (0, 2, 1))]
        for changed in changes:
            p.value = changed
            y, backward = layer.forward(x, state=state)
            assert np.abs(y - want).max() > 1e-3, name
            assert np.abs(backward(dy, dstate=dstate) - gradients["x"]).max() > 1e-3, name
        p.value = kept
    if cell is fa.nn.GRU:  # the bias of n within the reset gate is not that outside of it
        layer.bias_ih_l0.value, layer.bias_hh_l0.value = layer.bias_hh_l0.value.copy(), layer.bias_ih_l0.value.copy()
        assert np.abs(layer(x, state=state) - want).max() > 1e-3


@pytest.mark.parametrize("cell", CELLS)
def test_linear_chain_is_exact(cell):
    """Long chains of exact arithmetic: an RNN that adds up, a GRU that holds."""
    if cell is fa.nn.RNN:
        layer = cell(1, 3, activation="linear", bias=False)
        layer.weight_ih_l0.value = np.ones((3, 1))
        layer.weight_hh_l0.value = np.eye(3)
        x = np.ones((2, 1000, 1), np.float32)
        y, backward = layer.forward(x)
        assert np.array_equal(y[..., 0], np.broadcast_to(np.arange(1, 1001), (2, 1000)))
        dx = backward(np.ones_like(y))
        assert np.array_equal(dx[0, :, 0], 3 * np.arange(1000, 0, -1))
        return
    layer = cell(1, 3, gate_activation="hard_sigmoid")
    layer.load_state_dict({n: 0 * p.value for n, p in layer.parameters().items()})
    layer.bias_ih_l0.value = np.repeat([0, 5, 1], 3)  # z = 1: the state stays
    h = np.random.default_rng(0).normal(size=(1, 2, 3)).astype(np.float32)
    y, backward = layer.forward(np.zeros((2, 500, 1), np.float32), state=h)
    assert np.array_equal(y[:, -1], h[0])
    backward(np.ones_like(y))
    assert np.array_equal(backward.dstate, np.full((1, 2, 3), 500))


def test_gates():
    layer = randomize(fa.nn.GRU(3, 5, candidate_activation="mish", dtype=np.float64))
    x, _, state, _ = arrays(layer, 4, 2)
    result = layer.run(x, state, gates=True)
    assert [*result.gates] == ["r", "z", "n"]
    r, z, n = (g[0] for g in result.gates.values())
    before = np.concatenate([state[0][:, None], result.y[:, :-1]], axis=1)
    np.testing.assert_allclose((1 - z) * n + z * before, result.y, atol=1e-15)
    assert ((r > 0) & (r < 1)).all()
    with pytest.raises(ValueError, match="all_cells: expected False, as GRU has no cell state"):
        layer.run(x, all_cells=True)
    with pytest.raises(ValueError, match="gates: expected False, as RNN has no gates"):
        fa.nn.RNN(3, 5).run(x, gates=True)


@pytest.mark.parametrize("cell", CELLS)
def test_copies_files_and_models(cell, tmp_path):
    layer = randomize(cell(3, 4, 2, bidirectional=True))
    x, *_ = arrays(layer, 5, 2)
    model = fa.nn.Sequential(layer, fa.nn.Dense(8, 2))
    fa.save(model, tmp_path / "m.safetensors")
    want = model(x)
    assert np.array_equal(fa.load(tmp_path / "m.safetensors")(x), want)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), cell(**layer.config())):
        other.load_state_dict(layer.state_dict())
        assert np.array_equal(other(x), layer(x))
    y, backward = model.forward(x)
    assert isinstance(backward.state[0], np.ndarray)
    first = model.run(x[:, :3])
    np.testing.assert_allclose(backward(np.ones_like(y)).shape, x.shape)
    assert model.run(x[:, 3:], state=first.state).y.shape == (2, 2, 2)
    trainer = fa.Trainer(model, loss="mse", optimizer=fa.optim.Adam(1e-2), seed=0)
    losses = [float(trainer.step(x, want + 1)) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


def test_bad_input():
    x = np.ones((2, 5, 3), np.float32)
    layer = fa.nn.GRU(3, 4)
    with pytest.raises(
        ValueError, match=r"state: expected h of shape \(num_layers, B, H\) = \(1, 2, 4\), got \(2, 4\)"
    ):
        layer(x, state=np.zeros((2, 4)))
    with pytest.raises(ValueError, match="dy: expected the shape of y"):
        layer.forward(x)[1](np.zeros((2, 5, 3)))
    for options in ({"peepholes": True}, {"reset_before": True}, {"nonlinearity": "relu"}):
        with pytest.raises(TypeError, match=next(iter(options))):
            fa.nn.GRU(3, 4, **options)
    two = fa.nn.GRU(3, 4)
    with pytest.raises(ValueError, match="unexpected 'bias_hh_l0'"):  # whose biases do not add up
        fa.nn.GRU(3, 4, double_bias=False).load_state_dict(two.state_dict())
    for shape in ((0, 4, 3), (2, 0, 3)):
        y, backward = layer.forward(np.zeros(shape, np.float32))
        assert y.shape == (*shape[:2], 4)
        assert backward(y).shape == shape
