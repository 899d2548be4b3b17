"""Streams: the bits of the whole sequence, state, memory, threads, changing weights, bad input."""

from __future__ import annotations

import copy
import pickle
import threading
import tracemalloc
from itertools import repeat

import numpy as np
import pytest
from recurrent_twin import arrays, randomize

import fastact as fa
from fastact._core import recurrent, workspace
from fastact.nn.lstm import VARIANTS

pytestmark = pytest.mark.sanitise

CELLS = [fa.nn.LSTM, fa.nn.GRU, fa.nn.RNN]


def streamed(layer, x, state=None):
    """y of the whole sequence, step by step; x (B, T, I)."""
    stream = layer.stream(len(x), state)
    y = np.full((*x.shape[:2], layer.output_sizes[-1]), np.nan, layer.dtype)
    for t in range(x.shape[1]):
        assert stream.step(x[:, t], out=y[:, t]).base is y
    return y, stream.state


def flat(state):
    """All arrays of a state in the form of the layer."""
    return [state] if isinstance(state, np.ndarray) else [a for part in state for a in flat(part)]


def check_bits(layer, B, T=7):
    x, _, state, _ = arrays(layer, T, B)
    for initial in (None, state):
        want = layer.run(x, state=initial)
        y, final = streamed(layer, x, initial)
        assert (y == want.y).all()
        assert all((a == b).all() for a, b in zip(flat(final), flat(want.state), strict=True))


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("cell", CELLS)
def test_bits_of_the_whole_sequence(isa, dtype, cell, batch):
    for inputs, hidden in [(3, 5), (33, 40), (17, [9, 33, 4])]:
        check_bits(randomize(cell(inputs, hidden, dtype=dtype)), batch)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(isa, name):
    check_bits(randomize(fa.nn.LSTM.variant(name, 6, 18)), 3)
    check_bits(randomize(fa.nn.LSTM.variant(name, 6, 18, 2, dtype=np.float64)), 8)


@pytest.mark.parametrize(
    "layer",
    [
        fa.nn.LSTM(4, 20, gate_activation="hard_sigmoid", cell_activation="softsign"),
        fa.nn.LSTM(4, 20, 2, bias=False, dropout=0.5),
        fa.nn.LSTM(4, 20, double_bias=False, peepholes=True),
        fa.nn.GRU(4, 20, gate_activation="hard_sigmoid", candidate_activation="mish", bias=False),
        fa.nn.RNN(4, 20, 3, activation="gelu"),
        fa.nn.LSTM(4, 20, 2, projection_size=9, clip=1.5, cell_clip=0.5),
        fa.nn.LSTM(4, 20, 2, full_gate_recurrence=True, projection_size=17),
        fa.nn.LSTM(4, 20, zoneout=0.3, cell_zoneout=0.2, recurrent_dropout=0.4),
        fa.nn.GRU(4, 20, 2, reset_after=False, zoneout=0.2),
        fa.nn.LSTM(4, 20, 2, layer_norm=True),
        fa.nn.LSTM(4, 20, layer_norm=True, full_gate_recurrence=True, projection_size=17, zoneout=0.2),
        fa.nn.GRU(4, 20, 2, layer_norm=True),
        fa.nn.RNN(4, 20, layer_norm=True),
    ],
)
def test_options(layer):
    randomize(layer)
    check_bits(layer, 1)
    check_bits(layer, 9)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("batch", [1, 2, 3, 7, 8])
def test_sequences_in_pieces(isa, dtype, cell, batch):
    """Also without a stream: where a sequence is cut makes no difference to the bits."""
    layer = randomize(cell(20, 18, dtype=dtype))
    x, _, state, _ = arrays(layer, 260 // batch + 9, batch)
    want = layer(x, state=state)
    begin = 0
    for steps in (1, 2, 3, 1, x.shape[1] - 7):
        result = layer.run(x[:, begin : begin + steps], state=state)
        assert (result.y == want[:, begin : begin + steps]).all(), steps
        begin, state = begin + steps, result.state


def test_number_of_threads(isa, dtype):
    layer = randomize(fa.nn.LSTM(30, [130, 70], dtype=dtype))
    for batch in (2, 9):
        x, _, state, _ = arrays(layer, 5, batch)
        want = layer(x, state=state)
        try:
            for threads in (2, 3):
                for by_rows in (True, False):
                    recurrent.force_plan(threads, by_rows)
                    assert (streamed(layer, x, state)[0] == want).all()
        finally:
            recurrent.force_plan()


def test_result_is_overwritten_by_the_next_step():
    stream = fa.nn.LSTM(3, 4).stream(batch_size=2)
    x = np.ones((2, 3), np.float32)
    first = stream.step(x)
    kept = first.copy()
    assert stream.step(x) is first
    assert not (first == kept).any()
    assert first.shape == (2, 4)
    assert stream.batch_size == 2


@pytest.mark.parametrize("batch", [1, 3, 9])
def test_output_as_the_next_input(batch):
    """x in the stream's own array, and out over x."""
    layer = randomize(fa.nn.LSTM(40, 40))
    own, apart, over = (layer.stream(batch) for _ in range(3))
    h = np.ones((batch, 40), np.float32)
    a = both = h.copy()
    for _ in range(4):
        a = own.step(a)
        h = apart.step(h.copy()).copy()
        assert over.step(both, out=both) is both
        assert (a == h).all()
        assert (both == h).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_input_of_any_rows(dtype):
    layer = randomize(fa.nn.GRU(6, 8, dtype=dtype))
    x = np.random.default_rng(0).normal(size=(5, 3, 6)).astype(dtype)
    x.flags.writeable = False
    want = [layer.stream(3).step(np.ascontiguousarray(a)) for a in (x[2], x[1, ::-1], x[0, :1].repeat(3, 0))]
    got = [layer.stream(3).step(a) for a in (x[2], x[1, ::-1], np.broadcast_to(x[0, :1], (3, 6)))]
    assert (np.stack(want) == np.stack(got)).all()
    one = randomize(fa.nn.RNN(1, 1, dtype=dtype)).stream(5)
    assert (one.step(x[:, 1, 2:3]).copy() == one._layer(x[:, 1:2, 2:3])[:, 0]).all()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("hidden", [7, [5, 9]], ids=["one", "two"])
def test_state(cell, hidden):
    layer = randomize(cell(3, hidden))
    x, _, state, _ = arrays(layer, 3, 2)
    stream = layer.stream(2)
    assert all((a == 0).all() for a in flat(stream.state))
    stream.step(x[:, 0])
    before = stream.state
    y = stream.step(x[:, 1]).copy()
    assert not all((a == b).all() for a, b in zip(flat(before), flat(stream.state), strict=True))  # a copy
    stream.state = before
    assert (stream.step(x[:, 1]) == y).all()
    stream.state = state
    assert all((a == b).all() for a, b in zip(flat(stream.state), flat(state), strict=True))
    assert (stream.step(x[:, 2]) == layer(x[:, 2:], state=state)[:, 0]).all()
    stream.reset()
    assert (stream.step(x[:, 2]) == layer(x[:, 2:])[:, 0]).all()
    stream.state = None
    assert all((a == 0).all() for a in flat(stream.state))


@pytest.mark.parametrize("size", [16, 128])
@pytest.mark.parametrize("cell", CELLS)
def test_steps_take_no_memory(cell, size):
    layer = cell(8, [size, size])
    x, out = np.ones((2, 8), np.float32), np.empty((2, size), np.float32)
    stream = layer.stream(batch_size=2)
    step, reset = stream.step, stream.reset
    workspace.clear_pool()
    tracemalloc.start()
    try:
        step(x)
        step(x, out)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in repeat(None, 500):
            step(x)
            step(x, out)
            reset()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - before < 256  # an iterator; no array
    assert workspace.pool_bytes() == 0  # where any workspace of the core would have come to


def test_weights_that_change_are_seen(every_isa):
    layer = randomize(fa.nn.LSTM(5, [12, 7]))
    x, _, state, _ = arrays(layer, 1, 2)
    stream = layer.stream(2, state)

    def check():
        before = stream.state
        assert (stream.step(x[:, 0]) == layer(x, state=before)[:, 0]).all()

    check()
    layer.bias_ih_l1[3] = 0.5
    check()
    layer.load_state_dict({k: 0.9 * v for k, v in layer.state_dict().items()})
    check()
    layer.weight_hh_l0 = fa.nn.Parameter(0.5 * layer.weight_hh_l0.value, "weight_hh_l0")
    check()
    layer.flat_parameters = 1.1 * layer.flat_parameters
    check()
    before = stream.state
    for _ in every_isa:  # whose layouts differ
        stream.state = before
        check()


def test_weights_that_do_not_fit():
    layer = fa.nn.LSTM(5, 4)
    stream = layer.stream()
    x = np.ones((1, 5), np.float32)
    h = stream.step(x).copy()
    right, layer.weight_hh_l0 = layer.weight_hh_l0, fa.nn.Parameter(np.zeros((3, 3), np.float32))
    with pytest.raises(ValueError, match="weight_hh_l0: expected a Parameter of shape"):
        stream.step(x)
    layer.weight_hh_l0 = right
    assert (stream.state[0][0] == h).all()
    assert (stream.step(x) != h).any()


@pytest.mark.parametrize("hidden", [8, 160])
def test_streams_of_one_layer_in_several_threads(hidden):
    layer = randomize(fa.nn.LSTM(6, hidden))
    x = np.random.default_rng(0).normal(size=(4, 1, 300, 6)).astype(np.float32)
    got = [None] * 4

    def work(n):
        got[n] = streamed(layer, x[n])[0]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(4):
        assert (got[n] == layer(x[n])).all()


def test_one_stream_in_two_threads_is_refused():
    stream = fa.nn.LSTM(256, 256).stream(batch_size=64)  # steps long enough to meet in
    x = np.ones((64, 256), np.float32)
    errors, stop = [], threading.Event()

    def work():
        while not stop.is_set():
            try:
                stream.step(x)
            except RuntimeError as error:
                errors.append(error)
                stop.set()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    met = stop.wait(60)
    stop.set()
    for thread in threads:
        thread.join()
    assert met
    assert "make a stream for each" in str(errors[0])
    stream.step(x)


BAD = [
    (np.ones((2, 3), np.float32), {}, TypeError, r"x: expected float64, the layer's dtype, got float32"),
    (np.ones((2, 4)), {}, ValueError, r"x: expected shape \(B, I\) = \(2, 3\), got \(2, 4\)"),
    (np.ones((1, 3)), {}, ValueError, r"x: expected shape \(B, I\) = \(2, 3\), got \(1, 3\)"),
    (np.ones(3), {}, ValueError, r"got \(3,\)"),
    (np.ones((2, 1, 3)), {}, ValueError, r"got \(2, 1, 3\)"),
    (np.ones((3, 2)).T, {}, ValueError, r"contiguous last axis.*np.ascontiguousarray\(x\)"),
    (np.ones((2, 3)).astype(">f8"), {}, TypeError, "x: expected float64"),
    (np.ones(49, np.uint8)[1:].view(np.float64).reshape(2, 3), {}, ValueError, "aligned"),
    ([[1.0, 2.0, 3.0]] * 2, {}, TypeError, "x: expected a NumPy array of shape .* got list"),
    (np.ma.ones((2, 3)), {}, TypeError, "MaskedArray"),
    (None, {}, TypeError, "got NoneType"),
    (np.ones((2, 3), complex), {}, TypeError, "got complex128"),
    (np.ones((2, 3)), {"out": np.ones((2, 4))}, ValueError, r"out: expected shape \(B, H\) = \(2, 5\)"),
    (np.ones((2, 3)), {"out": np.ones((2, 5), np.float32)}, TypeError, "out: expected float64"),
    (np.ones((2, 3)), {"out": np.broadcast_to(1.0, (2, 5))}, ValueError, "out: expected"),
    (np.ones((2, 3)), {"out": [1]}, TypeError, "out: expected a NumPy array"),
]


@pytest.mark.parametrize(("x", "options", "error", "message"), BAD)
def test_bad_input(x, options, error, message):
    layer = randomize(fa.nn.LSTM(3, 5, dtype=np.float64))
    stream = layer.stream(2)
    good = np.ones((2, 3))
    stream.step(good)
    before = stream.state
    with pytest.raises(error, match=message):
        stream.step(x, **options)
    assert all((a == b).all() for a, b in zip(flat(before), flat(stream.state), strict=True))
    stream.step(good)


def test_read_only_out():
    out = np.ones((1, 5), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out: expected a writable array"):
        fa.nn.RNN(3, 5).stream().step(np.ones((1, 3), np.float32), out)


def test_batch_axis_hint():
    with pytest.raises(ValueError, match=r"x\[None\] adds the batch axis"):
        fa.nn.RNN(3, 5).stream().step(np.ones(3, np.float32))


def test_refused():
    for option in ("bidirectional", "reverse"):
        with pytest.raises(ValueError, match=rf"{option}: expected False for a stream.*begins at the last step"):
            fa.nn.LSTM(3, 4, **{option: True}).stream()
    for size in (0, -1, True):
        with pytest.raises(ValueError, match="batch_size: expected an integer of at least 1"):
            fa.nn.LSTM(3, 4).stream(size)
    with pytest.raises(TypeError, match="batch_size"):
        fa.nn.LSTM(3, 4).stream(1.5)
    stream = fa.nn.LSTM(3, 4).stream(2)
    before = stream.state
    with pytest.raises(ValueError, match=r"state: expected h of shape .* = \(1, 2, 4\), got \(1, 1, 4\)"):
        stream.state = (np.zeros((1, 1, 4)), np.zeros((1, 2, 4)))
    with pytest.raises(TypeError, match="state: expected a pair"):
        stream.state = np.zeros((1, 2, 4))
    with pytest.raises(ValueError, match="state: expected h of shape"):
        fa.nn.GRU(3, 4).stream(2, np.zeros((1, 1, 4)))
    assert all((a == b).all() for a, b in zip(flat(before), flat(stream.state), strict=True))
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"keep the layer and stream\.state"):
            copied(stream)
    assert "LSTM" in repr(stream)


def test_an_array_larger_than_memory():
    with pytest.raises(MemoryError):
        fa.nn.RNN(1, 1).stream(1 << 60)


# -- models ------------------------------------------------------------------------------------------------------------


def model_of(*more):
    model = fa.nn.Sequential(fa.nn.Embedding(9, 6, rng=0), fa.nn.LSTM(6, 20, rng=1), fa.nn.GRU(20, 5, rng=2), *more)
    return model, np.random.default_rng(0).integers(0, 9, (3, 8))


def test_model(isa):
    model, x = model_of()
    stream = model.stream(batch_size=3)
    want = model(x)
    for t in range(8):
        assert (stream.step(x[:, t]) == want[:, t]).all()
    stream.reset()
    assert (stream.step(x[:, 0]) == want[:, 0]).all()


def test_model_with_layers_of_all_kinds():
    more = [
        fa.nn.Dense(5, 7, "gelu", rng=3),
        fa.nn.Activation("softmax"),
        fa.nn.Sequential(fa.nn.Dense(7, 4, bias=False, rng=4), fa.nn.RNN(4, 2, rng=5)),
    ]
    model, x = model_of(*more)
    stream, out = model.stream(3), np.empty((3, 2), np.float32)
    want = model(x)
    first = stream.step(x[:, 0])
    np.testing.assert_allclose(first, want[:, 0], rtol=0, atol=1e-6)
    assert stream.step(x[:, 1]) is first
    np.testing.assert_allclose(first, want[:, 1], rtol=0, atol=1e-6)
    assert stream.step(x[:, 2], out=out) is out
    np.testing.assert_allclose(out, want[:, 2], rtol=0, atol=1e-6)
    state = stream.state
    assert len(state) == 3
    last = stream.step(x[:, 3]).copy()
    stream.state = state
    assert (stream.step(x[:, 3]) == last).all()
    assert (model.stream(3, state).step(x[:, 3]) == last).all()
    stream.state = None
    np.testing.assert_allclose(stream.step(x[:, 0]), want[:, 0], rtol=0, atol=1e-6)


def test_model_of_the_last_output():
    model = fa.nn.Sequential(fa.nn.LSTM(3, 6, return_sequences=False), fa.nn.Dense(6, 2))
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    stream = model.stream(2)
    for t in range(5):
        np.testing.assert_allclose(stream.step(x[:, t]), model(x[:, : t + 1]), rtol=0, atol=1e-6)


def test_model_sees_weights_that_change():
    model = fa.nn.Sequential(fa.nn.RNN(3, 6), fa.nn.Dense(6, 2))
    stream, x = model.stream(2), np.ones((2, 3), np.float32)
    stream.step(x)
    for parameter in model.parameters().values():
        parameter.value = np.zeros(parameter.shape)
    assert (stream.step(x) == 0).all()


def test_model_takes_no_memory_for_arrays():
    model, x = model_of(fa.nn.Dense(5, 4096), fa.nn.Activation("tanh"))
    stream, column = model.stream(3), np.ascontiguousarray(x[:, 0])
    tracemalloc.start()
    try:
        stream.step(column)
        stream.step(column)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in repeat(None, 100):
            stream.step(column)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - before < 4096  # views and shapes, where one result has 48 KB


def test_model_refused():
    class Twice(fa.nn.Layer):
        def forward(self, x):
            return 2 * x, lambda dy: 2 * dy

    with pytest.raises(TypeError, match=r"in layer 1, .*Twice: expected a layer that works step by step"):
        fa.nn.Sequential(fa.nn.RNN(2, 2), Twice()).stream()
    with pytest.raises(ValueError, match=r"in layer 0, .*bidirectional: expected False"):
        fa.nn.Sequential(fa.nn.RNN(2, 2, bidirectional=True)).stream()
    with pytest.raises(ValueError, match="one layer or more"):
        fa.nn.Sequential().stream()
    with pytest.raises(ValueError, match="state: expected a tuple of 1"):
        fa.nn.Sequential(fa.nn.RNN(2, 2)).stream(1, (None, None))
    stream = fa.nn.Sequential(fa.nn.Dense(2, 2), fa.nn.RNN(2, 2)).stream(3)
    with pytest.raises(ValueError, match=r"in layer 0, .*x: expected B = 3 rows"):
        stream.step(np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match=r"in layer 0, .*x: expected shape"):
        stream.step(np.ones((3, 1, 2), np.float32))
    with pytest.raises(ValueError, match=r"in layer 1, .*out: expected shape"):
        stream.step(np.ones((3, 2), np.float32), np.ones((3, 3), np.float32))
    with pytest.raises(ValueError, match="state: expected a tuple of 1"):
        stream.state = np.zeros((1, 3, 2))
    two = fa.nn.Sequential(fa.nn.RNN(2, 2), fa.nn.RNN(2, 2)).stream()
    two.step(np.ones((1, 2), np.float32))
    before = two.state
    with pytest.raises(ValueError, match="state: expected h of shape"):
        two.state = (np.ones((1, 1, 2)), np.ones((1, 1, 3)))
    assert all((a == b).all() for a, b in zip(two.state, before, strict=True))


def test_layer_of_ones_own():
    class Half(fa.nn.Layer):
        def forward(self, x):
            return x / 2, lambda dy: dy / 2

        def stream(self, batch_size=1):
            return HalfStream()

    class HalfStream:
        def step(self, x, out=None):
            return np.divide(x, 2, out=out)

        def reset(self):
            pass

    model = fa.nn.Sequential(fa.nn.RNN(2, 3), Half())
    x = np.ones((1, 4, 2), np.float32)
    stream = model.stream()
    got = [stream.step(x[:, t]).copy() for t in range(4)]
    assert (np.stack(got, 1) == model(x)).all()
