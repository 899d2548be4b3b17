"""Directions, merging, sizes, unequal lengths, dropout between layers: the stack around the cell."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrent_twin import arrays, by_letter, check, check_numerically, draw_case, expected, randomize, swap

import fastact as fa
from fastact._core import recurrent

pytestmark = pytest.mark.sanitise

OPTIONS = [
    {"bidirectional": True},
    {"bidirectional": True, "merge": "sum"},
    {"bidirectional": True, "merge": "mean", "return_sequences": False},
    {"bidirectional": True, "merge": "none"},
    {"bidirectional": True, "merge": "none", "return_sequences": False},
    {"bidirectional": True, "return_sequences": False},
    {"bidirectional": True, "merge": "sum", "return_sequences": False},
    {"reverse": True},
    {"reverse": True, "return_sequences": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(f"{v}" for v in o.values()))
@pytest.mark.parametrize("hidden", [5, [9, 17, 4]], ids=["one", "three"])
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("lengths", [None, [4, 6, 1, 6, 3]], ids=["equal", "ragged"])
def test_options(isa, options, hidden, time_major, lengths):
    layer = randomize(fa.nn.LSTM(7, hidden, time_major=time_major, dtype=np.float64, **options))
    check(layer, 6, 5, lengths=lengths)
    check(layer, 6, 5, with_state=False, lengths=lengths)
    check(layer, 1, 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_combination(data):
    """Every option with every other, float32 and float64."""
    check(**draw_case(data.draw, fa.nn.LSTM, 33))


@pytest.mark.parametrize(
    ("options", "T", "B", "lengths"),
    [
        ({"bidirectional": True}, 1, 1, None),
        ({"bidirectional": True, "merge": "mean"}, 3, 2, [3, 1]),
        ({"bidirectional": True, "merge": "none", "return_sequences": False}, 3, 2, [1, 3]),
        ({"reverse": True}, 3, 2, [2, 3]),
        ({"reverse": True, "time_major": True}, 3, 1, None),
        ({"return_sequences": False}, 4, 3, [4, 1, 2]),
    ],
)
@pytest.mark.parametrize("hidden", [4, [3, 2]])
def test_gradients_numerically(options, T, B, lengths, hidden):
    check_numerically(randomize(fa.nn.LSTM(2, hidden, dtype=np.float64, **options)), T, B, lengths)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}])
@pytest.mark.parametrize("lengths", [None, [3, 1]])
def test_dropout_gradients_numerically(options, lengths):
    layer = randomize(fa.nn.LSTM(2, [3, 4, 2], dropout=0.4, dtype=np.float64, **options))

    def same_masks():
        layer.rng = np.random.default_rng(3)

    check_numerically(layer, 3, 2, lengths, same_masks)


def test_dropout():
    """In forward alone, between layers alone, at the rate asked for, the rest scaled up."""
    layer = randomize(fa.nn.LSTM(4, 300, 2, dropout=0.3, rng=5))
    x, *_ = arrays(layer, 8, 4)
    plain = fa.nn.LSTM(4, 300, 2)
    plain.load_state_dict(layer.state_dict())
    assert np.array_equal(layer(x), plain(x))
    first, again = layer.forward(x)[0], layer.forward(x)[0]
    assert not np.array_equal(first, again)
    mask = layer._drawn((8, 4, 300), 0.3, 1 / 0.7)
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs(mask.mean() - 1) < 0.03
    layer.weight_ih_l1.value = 0 * layer.weight_ih_l1.value  # nothing passes from layer to layer
    assert np.array_equal(layer.forward(x)[0], layer.forward(x)[0])
    fa.seed(1)
    shared = fa.nn.LSTM(4, 6, 2, dropout=0.5)
    y = shared.forward(x)[0]
    fa.seed(1)
    assert np.array_equal(fa.nn.LSTM(4, 6, 2, dropout=0.5).forward(x)[0], y)


@pytest.mark.parametrize("batch", [3, 40])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}])
def test_same_bits_for_any_number_of_threads(isa, dtype, batch, options):
    """Unequal lengths included, where the batch shrinks to a single row."""
    layer = randomize(fa.nn.LSTM(20, 70, dtype=dtype, **options))
    x, dy, state, dstate = arrays(layer, 30, batch)
    lengths = np.random.default_rng(1).integers(1, 31, batch)
    results = []
    try:
        for threads, by_rows in ((1, True), (2, True), (2, False), (3, False), (5, False)):
            recurrent.force_plan(threads, by_rows)
            for n in (None, lengths):
                layer.zero_grad()
                y, backward = layer.forward(x, state=state, lengths=n)
                dx = backward(dy, dstate=dstate)
                parts = [layer(x, state=state, lengths=n), y, dx, *backward.state, *backward.dstate]
                results.append([a.tobytes() for a in (*parts, *(p.grad for p in layer.parameters().values()))])
    finally:
        recurrent.force_plan()
    assert all(found == results[i % 2] for i, found in enumerate(results))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"reverse": True}])
def test_sequences_do_not_see_each_other(options):
    """Each sequence of a batch gives what it gives alone, whatever stands beyond its length."""
    layer = randomize(fa.nn.LSTM(3, 9, 2, dtype=np.float64, **options))
    x, *_ = arrays(layer, 7, 4)
    lengths = [3, 7, 1, 5]
    for b, n in enumerate(lengths):
        x[b, n:] = np.nan
    y, backward = layer.forward(x, lengths=lengths)
    whole = layer.run(x, lengths=lengths)
    for b, n in enumerate(lengths):
        alone = layer.run(x[b : b + 1, :n])
        for got in (y, whole.y):
            np.testing.assert_allclose(got[b, :n], alone.y[0], rtol=0, atol=1e-14)
            assert not got[b, n:].any()
        for got, want in zip(whole.state, alone.state, strict=True):
            np.testing.assert_allclose(got[:, b], want[:, 0], atol=1e-14)
    dy = np.full_like(y, 0.1)
    for b, n in enumerate(lengths):
        dy[b, n:] = np.nan
    dx = backward(dy)
    assert np.isfinite(dx).all()
    assert all(not dx[b, n:].any() for b, n in enumerate(lengths))
    assert all(np.isfinite(p.grad).all() for p in layer.parameters().values())


def test_rows_taken(dtype, n_threads):
    """Any distance between rows, zeros where there is none, on as many threads as there are."""
    rng = np.random.default_rng(0)
    for n, m, width in ((7, 5, 3), (1, 1, 1), (3, 0, 2), (400, 3000, 130)):
        source, out = rng.normal(size=(n, 2 * width)).astype(dtype), np.full((m, width + 1), 9, dtype)
        index = rng.integers(-1, n, m)
        recurrent.take_rows(source[:, width:], index, out[:, :width])
        np.testing.assert_array_equal(out[:, :width], np.where(index[:, None] < 0, 0, source[index, width:]))
        assert (out[:, width] == 9).all()


def test_rows_that_do_not_fit():
    a, index = np.ones((4, 6)), np.arange(3)
    for source, out in ((a, np.ones((3, 5))), (a, np.ones((4, 6))), (a.astype("f"), np.ones((3, 6))),
                        (a[:, ::2], np.ones((3, 3))), (a, np.ones(3))):  # fmt: skip
        with pytest.raises(ValueError, match="expected"):
            recurrent.take_rows(source, index, out)
    with pytest.raises(IndexError, match="expected less than N = 2, got 2"):
        recurrent.take_rows(a[:2], index, np.ones((3, 6)))


def test_full_lengths_are_no_lengths():
    layer = randomize(fa.nn.LSTM(3, 9, bidirectional=True))
    x, *_ = arrays(layer, 5, 4)
    assert np.array_equal(layer(x, lengths=[5, 5, 5, 5]), layer(x))


def test_cells_and_gates():
    """c and the gates of every layer, direction and step, as the reference has them."""
    for hidden in (5, [4, 6]):
        for options in ({}, {"bidirectional": True, "time_major": True}, {"reverse": True}):
            layer = randomize(fa.nn.LSTM(3, hidden, dtype=np.float64, **options))
            for lengths in (None, [4, 2]):
                x, _, state, _ = arrays(layer, 4, 2)
                result = layer.run(x, state, lengths, all_cells=True, gates=True)
                plain = layer.run(x, state, lengths)
                assert np.array_equal(result.y, plain.y)
                assert plain.cells is None
                assert plain.gates is None
                cells, gates = by_cell(layer, result.cells), {k: by_cell(layer, g) for k, g in result.gates.items()}
                assert [*gates] == ["i", "f", "g", "o"]
                for n, layers in enumerate(cells):
                    for d, c in enumerate(layers):
                        c = swap(layer, c)
                        i, f, g = (swap(layer, gates[k][n][d]) for k in "ifg")
                        begin = by_letter(layer, state)[1][n][d]
                        backwards = layer.reverse or d == 1
                        for b in range(2):
                            steps = 4 if lengths is None else lengths[b]
                            path = c[:steps, b][::-1] if backwards else c[:steps, b]
                            before = np.concatenate([begin[None, b], path[:-1]])
                            before = before[::-1] if backwards else before
                            want = f[:steps, b] * before + i[:steps, b] * g[:steps, b]
                            np.testing.assert_allclose(c[:steps, b], want, atol=1e-15)
                            assert not c[steps:, b].any()
                            final = by_letter(layer, result.state)[1][n][d][b]
                            assert np.array_equal(path[-1], final)
                o = swap(layer, gates["o"][-1][0])
                want = o * np.tanh(swap(layer, cells[-1][0]))
                np.testing.assert_allclose(swap(layer, result.y)[..., : want.shape[-1]], want, atol=1e-15)


def by_cell(layer, traced):
    """A traced array by layer and direction."""
    D = 2 if layer.bidirectional else 1
    return [*traced] if isinstance(traced, tuple) else [traced[n * D : n * D + D] for n in range(layer.num_layers)]


def test_every_direction_counts():
    """Swapped directions, a mirrored input or a lost direction change results by far more than any tolerance."""
    layer = randomize(fa.nn.LSTM(3, 6, bidirectional=True, dtype=np.float64))
    x, dy, state, dstate = arrays(layer, 4, 2)
    want, _, gradients = expected(layer, x, state, dy, dstate)
    ahead = {n: p for n, p in layer.parameters().items() if "reverse" not in n}
    for name, p in ahead.items():
        kept, back = p.value.copy(), getattr(layer, name + "_reverse")
        back_kept = back.value.copy()
        p.value, back.value = back_kept, kept
        y, backward = layer.forward(x, state=state)
        assert np.abs(y - want).max() > 1e-3
        assert np.abs(backward(dy, dstate=dstate) - gradients["x"]).max() > 1e-3
        p.value, back.value = kept, back_kept
    assert np.abs(layer(x[:, ::-1], state=state) - want).max() > 1e-3
    lengths = [3, 2]
    assert np.abs(layer(x, state=state, lengths=lengths)[:, :2] - want[:, :2]).max() > 1e-3


def test_names_and_copies():
    layer = fa.nn.LSTM(3, 4, 2, bidirectional=True)
    assert [*layer.parameters()] == [
        f"{kind}_l{n}{way}"
        for n in (0, 1)
        for way in ("", "_reverse")
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    assert layer.weight_ih_l1_reverse.shape == (16, 8)
    sizes = randomize(fa.nn.LSTM(3, [4, 6], dropout=0.2, bidirectional=True, merge="sum", rng=3))
    x, *_ = arrays(sizes, 4, 2)
    assert sizes.weight_ih_l1.shape == (24, 4)
    for other in (copy.deepcopy(sizes), pickle.loads(pickle.dumps(sizes)), fa.nn.LSTM(**sizes.config())):
        other.load_state_dict(sizes.state_dict())
        assert np.array_equal(other(x), sizes(x))
        assert other.config() == sizes.config()


def test_saved_and_loaded(tmp_path):
    model = fa.nn.Sequential(fa.nn.LSTM(3, [4, 6], bidirectional=True, return_sequences=False), fa.nn.Dense(12, 2))
    fa.save(model, tmp_path / "m.safetensors")
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    assert np.array_equal(fa.load(tmp_path / "m.safetensors")(x), model(x))


def test_single_bias_loads_two_both_ways():
    two = randomize(fa.nn.LSTM(3, 4, 2, bidirectional=True))
    one = fa.nn.LSTM(3, 4, 2, bidirectional=True, double_bias=False)
    one.load_state_dict(two.state_dict())
    x, *_ = arrays(two, 5, 2)
    np.testing.assert_allclose(one(x), two(x), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fa.nn.LSTM(3, 4, bidirectional=True, reverse=True), ValueError, "reverse: expected False for a bidir"),
        (
            lambda: fa.nn.LSTM(3, 4, merge="max"),
            ValueError,
            "merge: expected one of concat, sum, mean, none, got 'max'",
        ),
        (lambda: fa.nn.LSTM(3, 4, dropout=0.5), ValueError, "dropout: expected 0 for a single layer, got 0.5"),
        (lambda: fa.nn.LSTM(3, 4, 2, dropout=1), ValueError, "dropout: expected 0 <= dropout < 1"),
        (lambda: fa.nn.LSTM(3, [4, 0]), ValueError, r"hidden_size\[1\]: expected an integer of at least 1"),
        (lambda: fa.nn.LSTM(3, []), ValueError, "hidden_size: expected one size for each"),
        (
            lambda: fa.nn.LSTM(3, [4, 5], 3),
            ValueError,
            "hidden_size: expected one size for each of the 3 layers, got 2",
        ),
        (lambda: fa.nn.LSTM(3, 4, merges="sum"), TypeError, "merges"),
    ],
)
def test_bad_options(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1, 2, 3], ValueError, r"lengths: expected one for each of the 2 sequences, shape \(2,\), got \(3,\)"),
        (3, ValueError, "lengths: expected one for each of the 2 sequences"),
        ([0, 3], ValueError, "lengths: expected each from 1 to T = 5, got 0 for sequence 0; leave out"),
        ([3, 6], ValueError, "lengths: expected each from 1 to T = 5, got 6 for sequence 1"),
        ([-1, 3], ValueError, "lengths: .*got -1"),
        ([2**64 - 1, 3], (ValueError, TypeError), "lengths: "),
        ([1.0, 2.0], TypeError, "lengths: expected integers, got float64"),
        ("ab", TypeError, "lengths: "),
        ([True, True], TypeError, "lengths: expected integers, got bool"),
    ],
)
def test_bad_lengths(lengths, error, message):
    layer, x = fa.nn.LSTM(3, 4), np.ones((2, 5, 3), np.float32)
    for call in (layer, layer.run, layer.forward):
        with pytest.raises(error, match=message):
            call(x, lengths=lengths)


def test_bad_states():
    x = np.ones((2, 5, 3), np.float32)
    layer = fa.nn.LSTM(3, [4, 6], bidirectional=True)
    good = tuple((np.zeros((2, 2, 4)), np.zeros((2, 2, 6))) for _ in "hc")
    layer(x, state=good)
    with pytest.raises(TypeError, match="state: expected h as a tuple of 2 arrays, one for each layer"):
        layer(x, state=(np.zeros((4, 2, 4)), good[1]))
    with pytest.raises(ValueError, match=r"state: expected c\[1\] of shape \(directions, B, H\) = \(2, 2, 6\), got"):
        layer(x, state=(good[0], (good[1][0], np.zeros((2, 2, 4)))))
    both = fa.nn.LSTM(3, 4, bidirectional=True)
    with pytest.raises(ValueError, match=r"expected h of shape \(num_layers x 2 directions, B, H\) = \(2, 2, 4\), got"):
        both(x, state=(np.zeros((1, 2, 4)),) * 2)


def test_empty():
    layer = randomize(fa.nn.LSTM(3, 5, bidirectional=True, merge="none"))
    for shape in ((0, 4, 3), (2, 0, 3)):
        y, backward = layer.forward(np.zeros(shape, np.float32))
        assert y.shape == (*shape[:2], 2, 5)
        assert backward(y).shape == shape
    assert layer(np.zeros((0, 4, 3), np.float32), lengths=[]).shape == (0, 4, 2, 5)
