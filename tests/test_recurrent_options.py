"""Every option of the recurrent cells, and every pair of them: against the reference, and gradients numerically.

Options that exclude each other must be refused; all others must work together. There are hundreds of pairs: the
ordinary run takes a sample of them, the slow one all.
"""

from __future__ import annotations

import copy
import pickle
import random
import zlib
from itertools import combinations

import numpy as np
import pytest
from recurrent_twin import arrays, check, check_numerically, randomize

import fastact as fa
from fastact._core import recurrent

pytestmark = pytest.mark.sanitise

SHARED = {
    "two layers": {"hidden_size": [3, 4]},
    "both ways": {"bidirectional": True},
    "sum of both ways": {"bidirectional": True, "merge": "sum"},
    "reverse": {"reverse": True},
    "time-major": {"time_major": True},
    "last output": {"return_sequences": False},
    "no bias": {"bias": False},
    "one bias": {"double_bias": False},
    "lengths": {"lengths": [2, 3]},
    "recurrent dropout": {"recurrent_dropout": 0.4},
    "zoneout": {"zoneout": 0.3},
    "clip": {"clip": 0.7},
    "layer norm": {"layer_norm": True},
}
OPTIONS = {
    fa.nn.LSTM: SHARED
    | {
        "input gate's": {"input_gate_activation": "hard_sigmoid"},
        "forget gate's": {"forget_gate_activation": "softsign"},
        "output gate's": {"output_gate_activation": "tanh"},
        "all gates'": {"gate_activation": fa.scaled_tanh.with_params(amplitude=0.8, slope=0.9)},
        "candidate's": {"candidate_activation": "gelu"},
        "cell's": {"cell_activation": fa.leaky_relu.with_params(alpha=0.3)},
        "no input gate": {"input_gate": False},
        "no forget gate": {"forget_gate": False},
        "no output gate": {"output_gate": False},
        "coupled": {"coupled_gates": True},
        "peepholes": {"peepholes": True},
        "cell zoneout": {"cell_zoneout": 0.3},
        "cell clip": {"cell_clip": 0.6},
        "projection": {"projection_size": 3},
        "full gates": {"full_gate_recurrence": True},
    },
    fa.nn.GRU: SHARED
    | {"gates'": {"gate_activation": "hard_sigmoid"}, "candidate's": {"candidate_activation": "gelu"}},
    fa.nn.RNN: SHARED | {"another": {"activation": "gelu"}},
}
#: What cannot be asked for together, and the argument that the error names.
EXCLUDED = {
    ("both ways", "reverse"): "reverse",
    ("sum of both ways", "reverse"): "reverse",
    ("no input gate", "input gate's"): "input_gate_activation",
    ("no forget gate", "forget gate's"): "forget_gate_activation",
    ("no output gate", "output gate's"): "output_gate_activation",
    ("coupled", "forget gate's"): "forget_gate_activation",
    ("coupled", "no input gate"): "coupled_gates",
    ("coupled", "no forget gate"): "coupled_gates",
    ("full gates", "coupled"): "full_gate_recurrence",
    ("full gates", "no input gate"): "full_gate_recurrence",
    ("full gates", "no forget gate"): "full_gate_recurrence",
    ("full gates", "no output gate"): "full_gate_recurrence",
}
EXCLUDED |= {(b, a): argument for (a, b), argument in EXCLUDED.items()}

SINGLES = [(cell, (name,)) for cell, options in OPTIONS.items() for name in options]
PAIRS = [
    (cell, pair)
    for cell, options in OPTIONS.items()
    for pair in combinations(options, 2)
    if pair not in EXCLUDED and not set(pair) <= {"both ways", "sum of both ways"}
]
SAMPLE = random.Random(1).sample(PAIRS, 90)
#: In place of the usual seed, which puts the input of a gate within a difference's step of the clip, a kink.
SEEDS = {("clip", "coupled"): 7}


def named(cases):
    return pytest.mark.parametrize(("cell", "names"), cases, ids=[f"{c.__name__}-{'-'.join(n)}" for c, n in cases])


def layer_of(cell, names, inputs, hidden, **more):
    """A layer with these options, and the lengths of a call."""
    options = {"hidden_size": hidden} | more
    for name in names:
        options |= OPTIONS[cell][name]
    lengths = options.pop("lengths", None)
    seed = SEEDS.get(names, zlib.crc32("-".join(names).encode()))
    return randomize(cell(inputs, rng=seed, **options), seed), lengths


def check_reference(cell, names, dtype, batch=7):
    layer, lengths = layer_of(cell, names, 5, 19, dtype=dtype)
    if lengths:
        lengths = [4, 1, 3, 2, 4, 4, 1][:batch]
    check(layer, 4, batch, lengths=lengths)
    check(layer, 1, 1, with_state=False)


def check_gradients(cell, names):
    layer, lengths = layer_of(cell, names, 2, 3, dtype=np.float64)

    def same_masks():
        layer.rng = np.random.default_rng(3)

    check_numerically(layer, 3, 2, lengths, same_masks)


@named(SINGLES)
def test_options(isa, dtype, cell, names):
    check_reference(cell, names, dtype)


@named(SINGLES)
def test_gradients(cell, names):
    check_gradients(cell, names)


@named(SAMPLE)
def test_pairs(dtype, cell, names):
    check_reference(cell, names, dtype)
    check_gradients(cell, names)


@pytest.mark.slow
@named(PAIRS)
def test_all_pairs(isa, dtype, cell, names):
    check_reference(cell, names, dtype)
    check_reference(cell, names, dtype, 1)
    check_gradients(cell, names)


@pytest.mark.parametrize("names", EXCLUDED, ids="-".join)
def test_excluded_pairs(names):
    """The error names one of the two and says why."""
    with pytest.raises(ValueError, match=rf"^{EXCLUDED[names]}: expected .*(; leave|, which)"):
        layer_of(fa.nn.LSTM, names, 2, 3)


@pytest.mark.parametrize("cell", OPTIONS)
def test_zoneout_keeps_at_the_rate(cell):
    """In training each unit stays or goes; inference is the mean, not a draw."""
    layer = randomize(cell(3, 400, zoneout=0.25, rng=1))
    x, _, state, _ = arrays(layer, 1, 5)
    h = state[0] if isinstance(state, tuple) else state
    y = layer.forward(x, state=state)[0]
    assert abs((y[:, 0] == h[0]).mean() - 0.25) < 0.03
    bare = cell(3, 400)
    bare.load_state_dict(layer.state_dict())
    after = bare(x, state=state)
    gone = y[:, 0] != h[0]
    np.testing.assert_allclose(y[:, 0][gone], after[:, 0][gone], atol=1e-6)
    np.testing.assert_allclose(layer(x, state=state)[:, 0], 0.25 * h[0] + 0.75 * after[:, 0], atol=1e-6)


def test_zoneout_where_gates_are_kept():
    """What inference expects of it, too, where a pass leaves its gates and cells as one of training does."""
    for layer in (fa.nn.LSTM(3, 5, zoneout=0.25, cell_zoneout=0.5), fa.nn.GRU(3, 5, zoneout=0.25)):
        x, *_ = arrays(randomize(layer), 6, 4)
        for lengths in (None, [6, 2, 1, 5]):
            result, plain = layer.run(x, lengths=lengths, gates=True), layer.run(x, lengths=lengths)
            assert np.array_equal(result.y, plain.y)
            assert all(np.array_equal(a, b) for a, b in zip(result.state, plain.state, strict=True))


@pytest.mark.parametrize("cell", OPTIONS)
def test_recurrent_dropout_is_one_draw_a_sequence(cell):
    """Without inputs and with W_hh = 1 the recurrent product shows which units of h got through: always the same."""
    layer = cell(3, 50, recurrent_dropout=0.4, dtype=np.float64, rng=1)
    masks = []
    draw = layer._cell_masks
    layer._cell_masks = lambda *arguments: masks.append(draw(*arguments)) or masks[-1]
    x, *_ = arrays(layer, 6, 40)
    layer.forward(x)
    layer(x)
    ((drop, take_h, take_c),) = masks  # none in inference
    assert take_h is None
    assert take_c is None
    assert drop.shape == (40, 50)
    assert set(np.unique(drop)) == {0, 1 / 0.6}
    assert abs(drop.mean() - 1) < 0.05


WIDE = [
    (fa.nn.LSTM, {"projection_size": 33}),
    (fa.nn.LSTM, {"full_gate_recurrence": True, "peepholes": True}),
    (fa.nn.LSTM, {"full_gate_recurrence": True, "projection_size": 9, "zoneout": 0.2}),
    (fa.nn.GRU, {"reset_after": False}),
    (fa.nn.RNN, {"recurrent_dropout": 0.3, "zoneout": 0.2}),
    (fa.nn.LSTM, {"layer_norm": True}),
    (fa.nn.LSTM, {"layer_norm": True, "projection_size": 9, "full_gate_recurrence": True, "cell_zoneout": 0.2}),
    (fa.nn.GRU, {"layer_norm": True}),
    (fa.nn.RNN, {"layer_norm": True, "zoneout": 0.2}),
]


@pytest.mark.parametrize(("cell", "options"), WIDE)
@pytest.mark.parametrize("batch", [1, 8, 13])
@pytest.mark.parametrize("hidden", [7, 70])
def test_sizes(isa, dtype, cell, options, batch, hidden):
    check(randomize(cell(6, hidden, dtype=dtype, rng=1, **options)), 5, batch)


@pytest.mark.parametrize(("cell", "options"), WIDE)
@pytest.mark.parametrize("batch", [1, 13])
def test_same_bits_for_any_number_of_threads(isa, dtype, cell, options, batch):
    layer = randomize(cell(20, 90, dtype=dtype, **options))
    x, dy, state, dstate = arrays(layer, 9, batch)
    lengths = np.random.default_rng(1).integers(1, 10, batch)
    found = [set(), set()]
    try:
        for threads, by_rows in ((1, True), (2, True), (2, False), (3, False)):
            recurrent.force_plan(threads, by_rows)
            for n, seen in zip((None, lengths), found, strict=True):
                layer.rng = np.random.default_rng(3)
                layer.zero_grad()
                y, backward = layer.forward(x, state=state, lengths=n)
                parts = [layer(x, state=state, lengths=n), y, backward(dy, dstate=dstate)]
                for each in (backward.state, backward.dstate):
                    parts += each if isinstance(each, tuple) else [each]
                parts += [p.grad for p in layer.parameters().values()]
                seen.add(b"".join(a.tobytes() for a in parts))
    finally:
        recurrent.force_plan()
    assert [len(seen) for seen in found] == [1, 1]


@pytest.mark.parametrize(("cell", "options"), WIDE)
def test_copies_files_and_pieces(cell, options, tmp_path):
    """Copies give the same; a sequence in two pieces, with the state between them, is the sequence in one."""
    layer = randomize(cell(3, 10, 2, **options))
    x, _, state, _ = arrays(layer, 6, 2)
    y = layer(x, state=state)
    fa.save(fa.nn.Sequential(layer), tmp_path / "m.safetensors")
    loaded = fa.load(tmp_path / "m.safetensors").layers[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert np.array_equal(other.run(x, state=state).y, y)
    first = layer.run(x[:, :2], state=state)
    np.testing.assert_allclose(layer(x[:, 2:], state=first.state), y[:, 2:], atol=1e-6)


def test_every_new_weight_counts():
    """A lost or negated projection or gate matrix, or one with its blocks exchanged, changes results."""
    for options, name in (
        ({"projection_size": 4}, "weight_hr_l0"),
        ({"full_gate_recurrence": True}, "weight_gates_l0"),
    ):
        layer = randomize(fa.nn.LSTM(4, 6, dtype=np.float64, **options))
        x, dy, state, _ = arrays(layer, 4, 3)
        y, backward = layer.forward(x, state=state)
        dx, p = backward(dy), getattr(layer, name)
        kept = p.value.copy()
        for changed in (0 * kept, -kept, kept[::-1], kept[:, ::-1]):
            p.value = changed
            again, backward = layer.forward(x, state=state)
            assert np.abs(again - y).max() > 1e-3
            assert np.abs(backward(dy) - dx).max() > 1e-3
    before, after = (fa.nn.GRU(4, 6, reset_after=flag, rng=1) for flag in (False, True))
    assert np.abs(before(x.astype(np.float32)) - after(x.astype(np.float32))).max() > 1e-3


def test_clips_bound():
    """Whatever the input, sigmoid and tanh are not beyond those of the bound, nor c beyond its own."""
    layer = randomize(fa.nn.LSTM(3, 20, clip=0.5, cell_clip=0.25, dtype=np.float64))
    result = layer.run(100 * arrays(layer, 30, 4)[0], all_cells=True, gates=True)
    assert np.abs(result.cells).max() == 0.25
    assert result.gates["f"].max() == fa.sigmoid(0.5)
    assert np.abs(result.gates["g"]).max() == fa.tanh(0.5)


@pytest.mark.parametrize("cell", OPTIONS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zoneout": 1.0}, "zoneout: expected 0 <= zoneout < 1"),
        ({"zoneout": -0.1}, "zoneout: expected 0 <= zoneout < 1"),
        ({"recurrent_dropout": 1}, "recurrent_dropout: expected 0 <= recurrent_dropout < 1"),
        ({"clip": 0.0}, "clip: expected 0 < clip, finite"),
        ({"clip": np.inf}, "clip: expected 0 < clip, finite"),
    ],
)
def test_bad_options(cell, options, message):
    with pytest.raises(ValueError, match=message):
        cell(2, 3, **options)


@pytest.mark.parametrize(("cell", "options"), [*WIDE, (fa.nn.LSTM, {"num_layers": 2, "bidirectional": True})])
@pytest.mark.parametrize(("B", "T"), [(0, 4), (3, 0), (0, 0)])
def test_nothing_to_do(cell, options, B, T):
    """Empty results of the right shapes; without a step the state, and its gradient, go through."""
    layer = cell(3, 5, **options)
    x, dy, state, dstate = arrays(layer, T, B)
    y, backward = layer.forward(x, state=state)
    assert layer(x).shape == y.shape == dy.shape
    assert backward(dy, dstate=dstate).shape == x.shape
    for got, want in ((backward.state, state), (backward.dstate, dstate)):
        for a, b in zip(got, want, strict=True):
            assert a.shape == b.shape
            assert T > 0 or np.array_equal(a, b)
    assert not any(p.grad.any() for p in layer.parameters().values())


def test_weights_that_are_not_finite():
    layer = fa.nn.GRU(3, 4)
    before = layer.state_dict()
    bad = before | {"weight_hh_l0": before["weight_hh_l0"].copy(), "bias_ih_l0": before["bias_ih_l0"].copy()}
    bad["weight_hh_l0"][5, 2], bad["bias_ih_l0"][3] = np.nan, -np.inf
    message = r"'weight_hh_l0': expected finite numbers, got nan at \(5, 2\); 'bias_ih_l0': .* got -inf at \(3,\)"
    with pytest.raises(ValueError, match=message):
        layer.load_state_dict(bad, finite=True)
    assert all(np.array_equal(layer.state_dict()[name], value) for name, value in before.items())
    layer.load_state_dict(before, finite=True)
    layer.load_state_dict(bad)
    assert np.isnan(layer.weight_hh_l0.value[5, 2])
