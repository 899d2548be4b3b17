"""Layer normalisation inside the recurrent cells: what it promises, its statistics, PyTorch's autograd, bad arguments.

Values and gradients against the reference, alone and with every other option: ``test_recurrent_options.py``.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
from recurrent_twin import arrays, check, check_numerically, close, expected, randomize

import fastact as fa

pytestmark = pytest.mark.sanitise

CELLS = [fa.nn.LSTM, fa.nn.GRU, fa.nn.RNN]


@pytest.mark.parametrize("cell", CELLS)
def test_parameters(cell):
    """Gains begin as ones and shifts as zeros; the other weights are those of the layer without."""
    bare, layer = cell(3, 5, 2, bidirectional=True, rng=1), cell(3, 5, 2, bidirectional=True, rng=1, layer_norm=True)
    more = layer.state_dict()
    for name, value in bare.state_dict().items():
        assert np.array_equal(more.pop(name), value)
    rows = bare.weight_ih_l0.shape[0]
    sizes = {"weight_norm_ih": rows, "weight_norm_hh": rows}
    if cell is fa.nn.LSTM:
        sizes |= {"weight_norm_c": 5, "bias_norm_c": 5}
    ends = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
    assert {name: value.shape for name, value in more.items()} == {k + e: (n,) for k, n in sizes.items() for e in ends}
    assert all((value == name.startswith("weight")).all() for name, value in more.items())
    assert layer.config()["layer_norm"] is True
    assert copy.deepcopy(layer).config() == layer.config()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("hidden", [1, 2, 16, 33, 130])
@pytest.mark.parametrize("batch", [1, 9, 40])
def test_sizes(isa, cell, hidden, batch):
    """One unit, whose deviation is 0, groups that are full and that are not, more rows than go through a step together.

    With an eps that keeps 1 / sqrt(var + eps) of one or two units from enlarging what is rounded.
    """
    layer = randomize(cell(6, hidden, dtype=np.float64, layer_norm=True, layer_norm_eps=0.1))
    check(layer, 5, batch)
    check(layer, 5, batch, lengths=np.random.default_rng(hidden).integers(1, 6, batch).tolist())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("T", "lengths"), [(1, None), (4, None), (4, [2, 4, 1])])
def test_gradients(isa, cell, T, lengths):
    layer = randomize(cell(3, [4, 3], layer_norm=True, dtype=np.float64))
    check_numerically(layer, T, 3, lengths)


def test_padding_that_grows():
    """What fills up the last group has a c of its own, which grows without bound here; no statistic may see it."""
    options = {"forget_gate": False, "candidate_activation": "softplus", "cell_activation": "linear"}
    layer = randomize(fa.nn.LSTM(3, 5, layer_norm=True, dtype=np.float64, **options))
    check(layer, 40, 3)


@pytest.mark.parametrize("cell", CELLS)
def test_far_from_zero(isa, cell):
    """Rows whose mean is 4000 deviations from zero: E[v^2] - E[v]^2 would have no digit left in float32."""
    layer = randomize(cell(6, 37, layer_norm=True))
    weight = 0.25 * layer.weight_ih_l0.value
    weight[:, 0] += 1024
    layer.weight_ih_l0.value = weight
    x, *_ = arrays(layer, 3, 5)
    x[..., 0] = 1
    want = expected(layer, x)[0]
    assert np.abs(layer(x) - want).max() < 2e-3  # the products themselves are rounded to 1024 eps
    assert np.abs(layer.forward(x)[0] - want).max() < 2e-3


@pytest.mark.parametrize("cell", CELLS)
def test_scale_of_the_weights(cell):
    """Twice the weights of a product change nothing but the part of eps; twice the gain does. A gradient across them is
    nothing: the weights' own direction is flat."""
    layer = randomize(cell(4, 9, layer_norm=True, layer_norm_eps=1e-12, dtype=np.float64))
    x, dy, *_ = arrays(layer, 5, 3)
    y, backward = layer.forward(x)
    layer.zero_grad()
    backward(dy)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        p = getattr(layer, name)
        assert abs(np.sum(p.value * p.grad)) < 1e-8 * np.sum(np.abs(p.value * p.grad))
        kept = p.value.copy()
        p.value = 2 * kept
        np.testing.assert_allclose(layer(x), y, atol=1e-9)
        p.value = kept
    for name in ("weight_norm_ih_l0", "weight_norm_hh_l0"):
        p = getattr(layer, name)
        kept = p.value.copy()
        p.value = 2 * kept
        assert np.abs(layer(x) - y).max() > 1e-2
        p.value = kept


def test_cells_and_gates():
    layer = randomize(fa.nn.LSTM(3, 21, layer_norm=True, layer_norm_eps=0.01, dtype=np.float64))
    x, _, state, _ = arrays(layer, 4, 5)
    result = layer.run(x, state, all_cells=True, gates=True)
    c = result.cells[0]
    before = np.concatenate([state[1][0][:, None], c[:, :-1]], axis=1)
    i, f, g, o = (result.gates[k][0] for k in "ifgo")
    np.testing.assert_allclose(f * before + i * g, c, atol=1e-14)
    xhat = (c - c.mean(-1, keepdims=True)) / np.sqrt(c.var(-1, keepdims=True) + 0.01)
    seen = layer.weight_norm_c_l0.value * xhat + layer.bias_norm_c_l0.value
    np.testing.assert_allclose(o * np.tanh(seen), result.y, atol=1e-14)


def test_removed_gates_take_their_rows_from_a_whole_state():
    """Gains have rows of the gates, as the weights have; what has units alone is taken as it is, whatever its size."""
    whole = randomize(fa.nn.LSTM(3, 4, layer_norm=True, projection_size=4))
    state = whole.state_dict()
    layer = fa.nn.LSTM(3, 4, layer_norm=True, projection_size=4, coupled_gates=True)
    layer.load_state_dict(state)
    gains = state["weight_norm_hh_l0"].reshape(4, 4)
    assert np.array_equal(layer.weight_norm_hh_l0.value, gains[[0, 2, 3]].ravel())
    for name in ("weight_norm_c_l0", "bias_norm_c_l0", "weight_hr_l0"):
        assert np.array_equal(getattr(layer, name).value, state[name])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer_norm_eps": 0.0}, ValueError, "layer_norm_eps: expected 0 < layer_norm_eps"),
        ({"layer_norm_eps": -1e-5}, ValueError, "layer_norm_eps: expected 0 < layer_norm_eps"),
        ({"layer_norm_eps": np.inf}, ValueError, "layer_norm_eps: expected 0 < layer_norm_eps"),
        ({"layer_norm_eps": "small"}, TypeError, "layer_norm_eps: expected"),
    ],
)
def test_bad_eps(cell, options, error, message):
    with pytest.raises(error, match=message):
        cell(2, 3, layer_norm=True, **options)


def test_not_before_the_reset_gate():
    with pytest.raises(ValueError, match=r"^layer_norm: expected reset_after=True, got False: .*; leave reset_after"):
        fa.nn.GRU(2, 3, layer_norm=True, reset_after=False)


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def torch_step(torch, layer, w, x, state):
    """The cell once more out of ``torch.nn.functional.layer_norm``: the new state, h first."""
    F, eps = torch.nn.functional, layer.layer_norm_eps
    rows = [len(w["weight_ih"])]
    of_x = F.layer_norm(x @ w["weight_ih"].T, rows, w["weight_norm_ih"], None, eps)
    of_h = F.layer_norm(state[0] @ w["weight_hh"].T, rows, w["weight_norm_hh"], None, eps)
    if isinstance(layer, fa.nn.RNN):
        return (torch.tanh(of_x + of_h + w["bias_ih"] + w["bias_hh"]),)
    if isinstance(layer, fa.nn.GRU):
        (x_r, x_z, x_n), (h_r, h_z, h_n) = (of_x + w["bias_ih"]).chunk(3, -1), (of_h + w["bias_hh"]).chunk(3, -1)
        z = torch.sigmoid(x_z + h_z)
        return ((1 - z) * torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n) + z * state[0],)
    i, f, g, o = (of_x + of_h + w["bias_ih"] + w["bias_hh"]).chunk(4, -1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    seen = F.layer_norm(c, [c.shape[1]], w["weight_norm_c"], w["bias_norm_c"], eps)
    return torch.sigmoid(o) * torch.tanh(seen), c


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("T", "B", "I", "H"), [(5, 1, 3, 4), (7, 13, 32, 128), (6, 3, 20, 97)])
def test_autograd(cell, T, B, I, H, dtype):  # noqa: E741
    torch = pytest.importorskip("torch")
    layer = randomize(cell(I, H, layer_norm=True, time_major=True, dtype=dtype))
    x, dy, state, dstate = arrays(layer, T, B)
    states, dstates = (a if isinstance(a, tuple) else (a,) for a in (state, dstate))
    w = {name.removesuffix("_l0"): torch.tensor(p.value, requires_grad=True) for name, p in layer.parameters().items()}
    tx, initial = torch.tensor(x, requires_grad=True), [torch.tensor(a, requires_grad=True) for a in states]
    now, outputs = [a[0] for a in initial], []
    for t in range(T):
        now = torch_step(torch, layer, w, tx[t], now)
        outputs.append(now[0])
    ty = torch.stack(outputs)
    torch.autograd.backward((ty, *now), [torch.tensor(dy), *(torch.tensor(a[0]) for a in dstates)])

    y, backward = layer.forward(x, state=state)
    dx = backward(dy, dstate=dstate)
    got = backward.dstate if isinstance(state, tuple) else (backward.dstate,)
    pairs = {"y": (y, ty.detach()), "inference": (layer(x, state=state), ty.detach()), "dx": (dx, tx.grad)}
    pairs |= {f"initial {n}": (a, b.grad) for n, (a, b) in enumerate(zip(got, initial, strict=True))}
    pairs |= {name: (p.grad, w[name.removesuffix("_l0")].grad) for name, p in layer.parameters().items()}
    for name, (a, b) in pairs.items():
        close(name, a, b.numpy(), dtype, 8 * T)
