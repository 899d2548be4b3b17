"""LSTM: values and gradients against the reference, numerically, on every instruction set and number of threads."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gradients import check_gradients
from recurrent_twin import arrays, check, expected, randomize

import fastact as fa
from fastact._core import recurrent, runtime, workspace
from fastact.errors import BackwardError

pytestmark = pytest.mark.sanitise

EDGES = [1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 97]


@pytest.mark.parametrize("hidden", EDGES)
def test_hidden_sizes(isa, dtype, hidden):
    check(randomize(fa.nn.LSTM(5, hidden, dtype=dtype)), 4, 3)


@pytest.mark.parametrize("inputs", EDGES)
def test_input_sizes(isa, dtype, inputs):
    check(randomize(fa.nn.LSTM(inputs, 20, dtype=dtype)), 4, 9)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 33])
def test_batch_sizes(isa, dtype, batch):
    check(randomize(fa.nn.LSTM(6, 18, dtype=dtype)), 3, batch)


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_options(isa, dtype, time_major, return_sequences, layers):
    layer = fa.nn.LSTM(7, 19, layers, time_major=time_major, return_sequences=return_sequences, dtype=dtype)
    check(randomize(layer), 6, 4)
    check(layer, 6, 10, with_state=False)
    check(layer, 1, 1)


@pytest.mark.parametrize("bias", [{"bias": False}, {"double_bias": False}])
def test_biases(bias, dtype):
    layer = randomize(fa.nn.LSTM(4, 9, 2, dtype=dtype, **bias))
    assert ("bias_ih_l0" in layer.parameters()) == bias.get("bias", True)
    assert "bias_hh_l1" not in layer.parameters()
    check(layer, 5, 4)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_long_sequences(batch, isa):
    """Past the chunks of the hoisted input product and of the weight gradients."""
    check(randomize(fa.nn.LSTM(3, 8, dtype=np.float64)), 560 // batch, batch)


@pytest.mark.parametrize(
    ("T", "B", "layers", "with_state"),
    [(1, 1, 1, True), (1, 2, 2, True), (4, 1, 1, False), (3, 2, 1, True), (3, 9, 2, True)],
)
@pytest.mark.parametrize("time_major", [False, True])
def test_gradients_numerically(T, B, layers, with_state, time_major):
    layer = randomize(fa.nn.LSTM(3, 5, layers, time_major=time_major, dtype=np.float64))
    x, _, state, _ = arrays(layer, T, B)
    check_gradients(layer, x, state=state if with_state else None)


def test_gradient_of_last_output():
    layer = randomize(fa.nn.LSTM(3, 4, 2, return_sequences=False, dtype=np.float64))
    x, _, state, _ = arrays(layer, 3, 2)
    check_gradients(layer, x, state=state)


def bits(layer, T, B):
    x, dy, state, dstate = arrays(layer, T, B)
    layer.zero_grad()
    y, backward = layer.forward(x, state=state)
    dx = backward(dy, dstate=dstate)
    parts = [layer(x, state=state), y, *backward.state, dx, *backward.dstate]
    return b"".join(a.tobytes() for a in [*parts, *(p.grad for p in layer.parameters().values())])


@pytest.fixture
def plan():
    yield recurrent.force_plan
    recurrent.force_plan()


@pytest.mark.parametrize(
    ("T", "B", "I", "H"),
    [(60, 1, 64, 128), (40, 2, 100, 200), (40, 5, 30, 130), (30, 8, 40, 96), (20, 9, 40, 97), (12, 33, 64, 160)],
)
def test_same_bits_for_any_number_of_threads(plan, isa, dtype, T, B, I, H):  # noqa: E741
    layer = randomize(fa.nn.LSTM(I, H, dtype=dtype))
    plan(1)
    want = bits(layer, T, B)
    for threads in (2, 3, 5):
        for by_rows in (True, False):
            plan(threads, by_rows)
            assert bits(layer, T, B) == want, (threads, by_rows)


def test_number_of_threads(n_threads):
    """The rule itself: rows, units, or one thread for steps too short for a barrier; never more than the limit."""
    small, units, rows = (2000, 1, 16, 16), (3000, 1, 64, 128), (100, 64, 128, 256)
    assert recurrent.plan(np.float32, *small) == (1, True)
    threads = n_threads if runtime.has_openmp() else 1
    assert recurrent.plan(np.float32, *rows) == (threads, True)
    assert recurrent.plan(np.float32, *units)[0] <= threads
    if threads == 2:
        assert recurrent.plan(np.float32, *units) == (2, False)
        # Weights of 2 MB: for 4 and 8 rows a thread more than its L2 has, for 32 hidden behind them; of 0.5 MB never.
        assert recurrent.plan(np.float32, 20, 8, 256, 256) == (2, False)
        assert recurrent.plan(np.float32, 20, 16, 256, 256) == (2, False)
        assert recurrent.plan(np.float32, 20, 64, 256, 256) == (2, True)
        assert recurrent.plan(np.float32, 100, 8, 128, 128) == (2, True)
        # 5 blocks of units do not halve.
        assert recurrent.plan(np.float32, 20, 8, 320, 320, passes=2) == (2, True)


def test_large_weights():
    """More than 16 MB: the input product of a batch stands before the steps, in streams as well."""
    layer = randomize(fa.nn.LSTM(1024, 1024, dtype=np.float32))
    x = arrays(layer, 3, 8)[0]
    y = layer(x)
    stream = layer.stream(8)
    assert all(np.array_equal(stream.step(np.ascontiguousarray(x[:, t])), y[:, t]) for t in range(3))
    weights = {name: value.astype(np.float64) for name, value in layer.state_dict().items()}
    wide = fa.nn.LSTM(1024, 1024, dtype=np.float64)
    wide.load_state_dict(weights)
    np.testing.assert_allclose(y, wide(x.astype(np.float64)), atol=2e-4)


@pytest.mark.parametrize("far", [50.0, 300.0, np.inf, np.nan])
def test_same_bits_beside_far_gates(far, isa, dtype):
    """One sequence drives its gates to where exp(-|z|) is a subnormal or 0. Its own result is right, and those which
    share rows of a tile with it do not notice."""
    layer = randomize(fa.nn.LSTM(3, 20, time_major=True, dtype=dtype))
    weight_ih = layer.parameters()["weight_ih_l0"]
    weight = weight_ih.value.copy()
    weight[:, 2] = 1
    weight_ih.value = weight
    x = np.random.default_rng(3).normal(size=(4, 26, 3)).astype(dtype)
    x[:, :, 2] = 0
    calm = layer(x)
    for row, sign in ((17, 1), (5, -1), (0, 1), (25, -1)):
        moved = x.copy()
        moved[2, row, 2] = sign * far
        y = layer(moved)
        others = np.arange(26) != row
        np.testing.assert_array_equal(y[:, others], calm[:, others])
        assert not np.array_equal(y[2:, row], calm[2:, row])
        with np.errstate(all="ignore"):
            wanted = expected(layer, moved)[0]
        np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)
        np.testing.assert_array_equal(layer.forward(moved)[0], y)


@pytest.mark.parametrize("batch", [1, 9])
def test_any_layout_of_x_and_dy(batch):
    layer = randomize(fa.nn.LSTM(6, 10, dtype=np.float32))
    x, dy, _, _ = arrays(layer, 7, batch)

    def results(x, dy):
        layer.zero_grad()
        y, backward = layer.forward(x)
        dx = backward(dy)
        return [layer(x), y, dx, layer.weight_ih_l0.grad.copy()]

    want = results(x, dy)
    wide = np.zeros((batch, 14, 12), np.float32)
    wide[:, ::2, ::2] = x
    padded = np.zeros((batch, 9, 8), np.float32)
    padded[:, 1:8, 1:7] = x
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    layouts = [
        np.asfortranarray(x),
        x[::-1].copy()[::-1],
        x[:, ::-1].copy()[:, ::-1],
        wide[:, ::2, ::2],
        padded[:, 1:8, 1:7],
        unaligned,
    ]
    layouts.append(np.swapaxes(np.ascontiguousarray(np.swapaxes(x, 0, 1)), 0, 1))
    frozen = x.copy()
    frozen.flags.writeable = False
    layouts.append(frozen)
    for other in layouts:
        for a, b in zip(results(other, np.asfortranarray(dy)), want, strict=True):
            assert np.array_equal(a, b)


def test_broadcast_x():
    layer = randomize(fa.nn.LSTM(4, 6))
    x = np.broadcast_to(np.float32([1, 2, 3, 4]), (3, 5, 4))
    assert np.array_equal(layer(x), layer(np.array(x)))
    assert np.array_equal(layer(x.tolist()), layer(np.array(x)))


@pytest.mark.parametrize(("T", "B"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_empty(T, B, return_sequences):
    layer = randomize(fa.nn.LSTM(3, 5, 2, return_sequences=return_sequences))
    x, dy, state, dstate = arrays(layer, T, B)
    y, backward = layer.forward(x, state=state)
    assert y.shape == dy.shape == layer(x).shape
    dx = backward(dy, dstate=dstate)
    assert dx.shape == x.shape
    assert all(not p.grad.any() for p in layer.parameters().values())
    if T == 0:
        assert np.array_equal(backward.state, state)
        if return_sequences:
            assert np.array_equal(backward.dstate, dstate)


def test_state_continues_a_sequence():
    layer = randomize(fa.nn.LSTM(3, 20, 2))
    x, _, state, _ = arrays(layer, 9, 4)
    whole = layer.run(x, state=state)
    first = layer.run(x[:, :4], state=state)
    second = layer.run(x[:, 4:], state=first.state)
    np.testing.assert_allclose(np.concatenate([first.y, second.y], 1), whole.y, atol=1e-6)
    np.testing.assert_allclose(second.state, whole.state, atol=1e-6)
    assert np.array_equal(whole.y, layer(x, state=state))


def test_gradients_add_up_and_calls_do_not_mix():
    layer = randomize(fa.nn.LSTM(3, 8))
    x, dy, state, dstate = arrays(layer, 5, 3)
    _, backward = layer.forward(x, state=state)
    backward(dy, dstate=dstate)
    once = {n: p.grad.copy() for n, p in layer.parameters().items()}
    first, second = layer.forward(x, state=state)[1], layer.forward(2 * x)[1]  # two open calls
    first(dy, dstate=dstate)
    for n, p in layer.parameters().items():
        np.testing.assert_allclose(p.grad, 2 * once[n], rtol=1e-6)
    second(dy)


def test_backward_uses_the_weights_of_its_forward():
    layer = randomize(fa.nn.LSTM(3, 8))
    x, dy, _, _ = arrays(layer, 5, 3)
    want = layer.forward(x)[1](dy)
    _, backward = layer.forward(x)
    layer.weight_hh_l0.value = layer.weight_hh_l0.value * 3
    layer(x)
    assert np.array_equal(backward(dy), want)


def test_backward_parts():
    layer = randomize(fa.nn.LSTM(3, 8, 2))
    x, dy, _, dstate = arrays(layer, 5, 3)
    assert layer.forward(x)[1](dy, input_gradient=False) is None
    got, want = layer.forward(x)[1](None, dstate=dstate), layer.forward(x)[1](0 * dy, dstate=dstate)
    assert np.array_equal(got, want)
    assert got.any()


def test_new_weights_are_seen():
    layer = randomize(fa.nn.LSTM(3, 8))
    x, _, _, _ = arrays(layer, 5, 3)
    before = layer(x)
    layer.weight_ih_l0[0, 0] = 5
    after = layer(x)
    assert not np.array_equal(after, before)
    layer.flat_parameters = np.zeros(layer.flat_parameters.size)
    assert not layer(x).any()


def test_parameters_of_another_layer():
    """Shared ones serve under any name, however often; ones that do not fit are refused instead of read."""
    first, second = randomize(fa.nn.LSTM(4, 4, num_layers=2)), randomize(fa.nn.LSTM(4, 4), seed=5)
    second.weight_ih_l0 = first.weight_ih_l1
    x, dy, *_ = arrays(second, 3, 2)
    twin = fa.nn.LSTM(4, 4)
    twin.load_state_dict(second.state_dict())
    for layer in (second, twin):
        for _ in range(2):
            y, backward = layer.forward(x)
            assert np.array_equal(layer(x), y)
            backward(dy)
    assert np.array_equal(first.weight_ih_l1.grad, twin.weight_ih_l0.grad)

    fitting = second.weight_hh_l0
    _, backward = second.forward(x)
    for wrong in (np.zeros((16, 5), np.float32), np.zeros((15, 4), np.float32), np.zeros((16, 4)), None):
        second.weight_hh_l0 = wrong if wrong is None else fa.nn.Parameter(wrong)
        for call in (second, second.forward):
            with pytest.raises(ValueError, match=r"weight_hh_l0: expected a Parameter of shape \(16, 4\) and float32"):
                call(x)
    backward(dy)
    assert np.array_equal(fitting.grad, twin.weight_hh_l0.grad / 2 * 3)


def test_every_part_counts():
    """A permutation of gates, a lost matrix, bias or sign changes the result by far more than any tolerance here."""
    layer = randomize(fa.nn.LSTM(5, 8, dtype=np.float64))
    x, dy, state, dstate = arrays(layer, 4, 3)
    want, _, gradients = expected(layer, x, state, dy, dstate)
    H = 8
    for name, p in layer.parameters().items():
        kept = p.value.copy()
        changes = [0 * kept, -kept] + [
            np.concatenate([kept.reshape(4, H, -1)[list(order)].reshape(kept.shape)])
            for order in ((1, 0, 2, 3), (0, 1, 3, 2), (0, 2, 1, 3), (3, 1, 2, 0))
        ]
        for changed in changes:
            p.value = changed
            y, backward = layer.forward(x, state=state)
            dx = backward(dy, dstate=dstate)
            assert np.abs(y - want).max() > 1e-3, name
            assert np.abs(dx - gradients["x"]).max() > 1e-3, name
        p.value = kept
    check(layer, 4, 3)


def test_second_backward():
    layer = fa.nn.LSTM(3, 4)
    y, backward = layer.forward(np.ones((2, 3, 3), np.float32))
    with pytest.raises(ValueError, match=r"dy: expected the shape of y, \(2, 3, 4\), got \(2, 3, 5\)"):
        backward(np.ones((2, 3, 5), np.float32))
    backward(y)
    with pytest.raises(BackwardError, match="call forward again"):
        backward(y)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: m(x[0]), ValueError, r"x: expected shape \(B, T, I\) with I = 3, got \(5, 3\).*x\[None\]"),
        (lambda m, x: m(x[:, :, :2]), ValueError, r"x: .*I = 3, got \(2, 5, 2\)"),
        (lambda m, x: m(x + 0j), TypeError, "x: expected an array of real numbers, got dtype complex"),
        (lambda m, x: m("text"), TypeError, "x: "),
        (
            lambda m, x: m(x, state=np.zeros((2, 4))),
            ValueError,
            r"state: expected h of shape .* = \(1, 2, 4\), got \(4,\)",
        ),
        (lambda m, x: m(x, state=np.zeros((3, 4))), TypeError, r"state: expected a pair \(h, c\).*shape \(3, 4\)"),
        (lambda m, x: m(x, state=5), TypeError, r"state: expected a pair \(h, c\).*got int"),
        (lambda m, x: m(x, state=(np.zeros((2, 4)),) * 2), ValueError, r"state: .*got \(2, 4\); .*h\[None\]"),
        (
            lambda m, x: m.forward(x, state=(np.zeros((1, 2, 4)), np.zeros((1, 3, 4)))),
            ValueError,
            "state: expected c of",
        ),
        (lambda m, x: m.forward(x)[1](np.zeros((2, 5, 4)), dstate=(0, 0)), ValueError, "dstate: expected h of"),
        (lambda m, x: fa.nn.LSTM(0, 4), ValueError, "input_size: expected an integer of at least 1, got 0"),
        (lambda m, x: fa.nn.LSTM(3, 4.5), TypeError, "hidden_size: expected an integer, got 4.5"),
        (lambda m, x: fa.nn.LSTM(3, 4, num_layers=0), ValueError, "num_layers"),
        (lambda m, x: fa.nn.LSTM(3, 4, dtype=np.float16), TypeError, "dtype: expected float32 or float64"),
        (lambda m, x: fa.nn.LSTM(3, 4, forget_bias=np.nan), ValueError, "forget_bias: expected a finite number"),
        (lambda m, x: fa.nn.LSTM(3, 4, forget_bias="1"), TypeError, "forget_bias: expected a finite number"),
        (lambda m, x: fa.nn.LSTM(3, 4, forget_bias=np.ones(4)), TypeError, "forget_bias: expected a finite number"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(fa.nn.LSTM(3, 4), np.ones((2, 5, 3), np.float32))


@pytest.mark.parametrize("shape", [(1, 2**60, 1), (2**56, 17, 1)])
def test_more_steps_than_memory(shape):
    """An array of stride 0: the sizes of its workspaces are beyond 2^64, and must not wrap around to small ones."""
    layer = fa.nn.LSTM(1, 3, return_sequences=False)
    with pytest.raises((MemoryError, ValueError), match=r"memory for its workspace|too big|Unable to allocate"):
        layer.forward(np.broadcast_to(np.float32(1), shape))


@pytest.mark.parametrize("cell", [fa.nn.LSTM, fa.nn.GRU, fa.nn.RNN])
def test_no_sequences_of_more_steps_than_time(cell):
    """A batch of none may have 2^60 steps, of which none is gone through."""
    layer = cell(1, 3, return_sequences=False)
    x = np.broadcast_to(np.float32(1), (0, 2**60, 1))
    y, tape = layer.forward(x)
    assert y.shape == (0, 3)
    dx = tape(np.zeros((0, 3), np.float32))
    assert dx.shape == x.shape
    assert all(np.all(p.grad == 0) for p in layer.parameters().values())


def test_initial_weights():
    layer = fa.nn.LSTM(30, 100, 2, rng=0)
    for p in layer.parameters().values():
        forget = p.value[100:200]
        rest = np.delete(p.value, np.s_[100:200], axis=0)
        assert 0.095 < np.abs(rest).max() <= 0.1
        assert abs(rest.mean()) < 0.02
        if p.value.ndim == 1:
            assert np.all(forget == (1 if "ih" in p.name else 0))
    assert np.array_equal(fa.nn.LSTM(30, 100, 2, rng=0).weight_hh_l1.value, layer.weight_hh_l1.value)
    drawn = fa.nn.LSTM(30, 100, forget_bias=None, rng=0).bias_ih_l0.value
    assert np.abs(drawn).max() <= 0.1
    fa.seed(3)
    first = fa.nn.LSTM(3, 4).weight_ih_l0.value
    fa.seed(3)
    assert np.array_equal(fa.nn.LSTM(3, 4).weight_ih_l0.value, first)


def test_single_bias_loads_two():
    two, one = randomize(fa.nn.LSTM(3, 4, 2)), fa.nn.LSTM(3, 4, 2, double_bias=False)
    one.load_state_dict(two.state_dict())
    x, *_ = arrays(two, 5, 2)
    np.testing.assert_allclose(one(x), two(x), atol=1e-6)
    one.load_state_dict(one.state_dict())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies(clone):
    layer = randomize(fa.nn.LSTM(3, 4, time_major=True, dtype=np.float64))
    x, *_ = arrays(layer, 5, 2)
    want = layer(x)
    other = clone(layer)
    assert np.array_equal(other(x), want)
    other.weight_hh_l0.value = 0 * other.weight_hh_l0.value
    assert not np.array_equal(other(x), want)
    assert np.array_equal(layer(x), want)
    assert other.config() == layer.config()
    rebuilt = fa.nn.LSTM(**layer.config())
    rebuilt.load_state_dict(layer.state_dict())
    assert np.array_equal(rebuilt(x), want)


def test_inference_from_many_threads():
    layer = randomize(fa.nn.LSTM(20, 70))
    inputs = [arrays(layer, 30, b, seed=b)[0] for b in (1, 2, 7, 8, 20, 33)]
    want = [layer(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda k: np.array_equal(layer(inputs[k]), want[k]), 120 * [*range(len(inputs))]))


def child(queue, layer, x):
    queue.put(layer(x))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("batch", [1, 32])
def test_forked_child(batch):
    layer = randomize(fa.nn.LSTM(64, 128))
    x = arrays(layer, 50, batch)[0]
    with fa.num_threads(2):
        want = layer(x)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue, layer, x))
    process.start()
    try:
        assert np.array_equal(queue.get(timeout=60), want)
        process.join(20)
        assert process.exitcode == 0
    finally:
        process.kill()


def test_workspaces_return_to_the_pool_and_results_stay():
    layer = randomize(fa.nn.LSTM(8, 32))
    x, dy, _, _ = arrays(layer, 20, 4)
    workspace.clear_pool()
    y, backward = layer.forward(x)
    kept, held = y.copy(), workspace.pool_bytes()
    del backward
    gc.collect()
    assert workspace.pool_bytes() > held  # collected without a call
    dx = layer.forward(x)[1](dy)
    kept_dx, settled = dx.copy(), workspace.pool_bytes()
    for _ in range(5):
        layer.forward(3 * x)[1](-dy)
        layer(5 * x)
    assert np.array_equal(y, kept)
    assert np.array_equal(dx, kept_dx)
    assert workspace.pool_bytes() <= 2 * settled


def test_large_results_keep_their_memory():
    """Large y and dx live in workspaces: not handed out again while an array or a view is alive."""
    layer = randomize(fa.nn.LSTM(4, 64))
    x, *_ = arrays(layer, 300, 16)
    y = layer(x)
    kept, view = y.copy(), y[3, 5:7]
    del y
    others = [layer(k * x) for k in (2, 3)]
    assert np.array_equal(view, kept[3, 5:7])
    assert not np.array_equal(others[0], others[1])
    again = layer(x)
    again += 1  # writable, and nobody else's
    assert np.array_equal(layer(x), kept)
    del view, others, again
    assert workspace.pool_bytes() > kept.nbytes


def test_floating_point_state(dtype):
    """No warning under any errstate, saturated gates and NaN included; NaN stays in its own sequence."""
    layer = randomize(fa.nn.LSTM(3, 9, dtype=dtype))
    x, dy, _, _ = arrays(layer, 4, 9)
    x[1] *= 1e30 if dtype == np.float32 else 1e300
    x[2, 1, 0] = np.nan
    with np.errstate(all="raise"):
        y, backward = layer.forward(x)
        backward(dy)
    assert np.isfinite(np.delete(y, 2, axis=0)).all()
    assert np.isfinite(y[2, 0]).all()
    assert np.isnan(y[2, 1:]).all()
