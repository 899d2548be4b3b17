"""Kernels around the layers: embedding rows, norms, updates; per instruction set, dtype and thread count."""

from __future__ import annotations

import numpy as np
import pytest

import fastact as fa
from fastact import reference
from fastact._core import training as core

pytestmark = pytest.mark.sanitise

SIZES = [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97]
LONG = [1023, 1024, 1025, 4095, 4096, 4097, 300_001]  # around the blocks, and beyond the threads' threshold


def eps(dtype):
    return float(np.finfo(dtype).eps)


# ---- embedding ----


@pytest.mark.parametrize("width", SIZES)
def test_embedding_rows(isa, dtype, width):
    rng = np.random.default_rng(width)
    weight = rng.standard_normal((9, width)).astype(dtype)
    indices = rng.integers(0, 9, 33)
    out = np.full((33, width), np.nan, dtype)
    core.embedding_forward(weight, indices, out)
    np.testing.assert_array_equal(out, weight[indices])

    gradient = np.ones((9, width), dtype)
    core.embedding_backward(indices, out, gradient)
    expected = 1 + reference.embedding_backward(indices, out, 9)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=34 * 33 * eps(dtype))


def test_embedding_writes_its_rows_only(isa, dtype):
    guard = np.full((6, 5), 7, dtype)
    core.embedding_forward(np.ones((2, 5), dtype), np.array([0, 1]), guard[2:4])
    assert (guard[:2] == 7).all()
    assert (guard[4:] == 7).all()
    assert (guard[2:4] == 1).all()


def test_embedding_backward_same_bits_for_any_number_of_threads(dtype):
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 20, 30_000)
    dy = rng.standard_normal((30_000, 40)).astype(dtype)
    results = []
    for n in (1, 2, 3):
        gradient = np.zeros((20, 40), dtype)
        with fa.num_threads(n):
            core.embedding_backward(indices, dy, gradient)
        results.append(gradient)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    expected = reference.embedding_backward(indices, dy, 20)
    np.testing.assert_allclose(results[0], expected, rtol=0, atol=2000 * 200 * eps(dtype))


@pytest.mark.parametrize("bad", [-1, 9, 2**40, -(2**63)])
def test_embedding_refuses_an_index_before_writing(bad):
    indices = np.array([0, 8, bad, -5])
    out = np.full((4, 3), 7.0)
    with pytest.raises(IndexError, match=rf"0 <= index < 9, got {bad} at position 2"):
        core.embedding_forward(np.zeros((9, 3)), indices, out)
    with pytest.raises(IndexError, match="at position 2"):
        core.embedding_backward(indices, np.ones((4, 3)), gradient := np.zeros((9, 3)))
    assert (out == 7).all()
    assert (gradient == 0).all()


@pytest.mark.parametrize(
    "arrays",
    [
        (np.zeros((9, 3), np.float32), np.zeros(4, np.int64), np.zeros((4, 3))),  # another type
        (np.zeros((9, 3)), np.zeros(4, np.int32), np.zeros((4, 3))),
        (np.zeros((9, 3)), np.zeros(4, np.int64), np.zeros((5, 3))),  # another shape
        (np.zeros((9, 6))[:, ::2], np.zeros(4, np.int64), np.zeros((4, 3))),  # not dense
        (np.zeros((9, 3), ">f8"), np.zeros(4, np.int64), np.zeros((4, 3))),  # other byte order
    ],
)
def test_embedding_refuses_arrays_that_do_not_fit(arrays):
    with pytest.raises((ValueError, TypeError)):
        core.embedding_forward(*arrays)


def test_embedding_refuses_a_read_only_output():
    out = np.zeros((1, 3))
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        core.embedding_forward(np.zeros((9, 3)), np.zeros(1, np.int64), out)


# ---- sums ----


@pytest.mark.parametrize("n", SIZES + LONG)
def test_sum_squares(isa, dtype, n):
    x = np.random.default_rng(n).standard_normal(n).astype(dtype)
    assert core.sum_squares(x) == pytest.approx(float((x.astype(np.float64) ** 2).sum()), rel=1e-14)


def test_sum_squares_neither_overflows_nor_vanishes(isa):
    assert core.sum_squares(np.full(100, 1e30, np.float32)) == pytest.approx(1e62, rel=1e-6)
    assert core.sum_squares(np.full(100, 1e-40, np.float32)) == pytest.approx(1e-78, rel=1e-4)


def test_sums_have_the_same_bits_on_every_instruction_set_and_thread_count(every_isa, dtype):
    x = np.random.default_rng(0).standard_normal(300_001).astype(dtype)
    found = set()
    for _ in every_isa:
        for n in (1, 2, 3):
            with fa.num_threads(n):
                found.add(core.sum_squares(x))
    assert len(found) == 1


# ---- updates ----


def state(n, dtype, seed=0):
    rng = np.random.default_rng(seed)
    w, g, m = (rng.standard_normal(n).astype(dtype) for _ in range(3))
    return w, g, m, rng.random(n).astype(dtype)


ADAM = {"rate": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "root_scale": 1.5}
NUMBERS = {**ADAM, "rate_now": 0.001, "low": 1e-6, "high": 50.0}  # for any rule


def update(rule, w, g, *state, steps=None, **numbers):
    """One step of a rule by name; ``state`` has the arrays that the rule has."""
    index, arrays = core.RULES[rule], iter(state)
    of_rule = tuple([next(arrays) if has else None for has in core.states(index)])
    core.update(index, w, g, of_rule, np.array(0) if steps is None else steps, **numbers)


def state_of(rule, m, v, u):
    return [array for array, has in zip((m, v, u), core.states(core.RULES[rule]), strict=True) if has]


@pytest.mark.parametrize("n", [*SIZES, 1024, 1025])
@pytest.mark.parametrize("rule", ["sgd", "sgd_momentum", "sgd_nesterov"])
def test_sgd(isa, dtype, n, rule):
    w, g, v, _ = state(n, dtype)
    steps, momentum = np.array(4), 0.0 if rule == "sgd" else 0.9
    expected_w, expected_v = reference.sgd(
        w, 0.5 * g.astype(float), v, 0.1, momentum, rule == "sgd_nesterov", weight_decay=0.01
    )
    gradient, numbers = g.copy(), {"gradient_scale": 0.5, "rate": 0.1, "decay": 0.01, "beta1": momentum}
    update(rule, w, gradient, *state_of(rule, v, None, None), steps=steps, **numbers)
    np.testing.assert_allclose(w, expected_w, rtol=0, atol=8 * eps(dtype) * 4)
    if momentum:
        np.testing.assert_allclose(v, expected_v, rtol=0, atol=8 * eps(dtype) * 4)
    np.testing.assert_array_equal(gradient, g)
    assert steps == 5


@pytest.mark.parametrize("n", [*SIZES, 1024, 1025])
@pytest.mark.parametrize("t", [1, 2, 1000])
def test_adam(isa, dtype, n, t):
    w, g, m, v = state(n, dtype)
    expected = reference.adam(w, 0.5 * g.astype(float), m, v, t, 0.01, (0.8, 0.99), 1e-6, 0.01)
    numbers = {"beta1": 0.8, "beta2": 0.99, "eps": 1e-6, "decay": 0.01, "gradient_scale": 0.5}
    numbers |= {"rate": 0.01 / (1 - 0.8**t), "root_scale": (1 - 0.99**t) ** -0.5}
    update("adam", w, g, m, v, **numbers)
    for got, want in zip((w, m, v), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=8 * eps(dtype), atol=8 * eps(dtype))


@pytest.mark.parametrize("rule", core.RULES)
def test_updates_leave_padding_of_zeros_alone(isa, dtype, rule):
    w, g, m, v, u = np.zeros((5, 40), dtype)
    update(rule, w, g, *state_of(rule, m, v, u), **NUMBERS, decay=0.1, shrink=0.9)
    assert not np.stack((w, g, m, v)).any()
    assert rule == "rprop" or not u.any()  # its steps are at least `low`


@pytest.mark.parametrize("rule", core.RULES)
def test_updates_have_the_same_bits_for_any_number_of_threads_and_instruction_set(every_isa, dtype, rule):
    found = set()
    for _ in every_isa:
        for n in (1, 2, 3):
            w, g, m, v = state(300_001 if rule == "adam" else 20_001, dtype)
            u = v[::-1].copy()
            with fa.num_threads(n):
                update(rule, w, g, *state_of(rule, m, v, u), **NUMBERS, decay=0.1, gradient_scale=0.3, shrink=0.99)
            found.add((w.tobytes(), m.tobytes(), v.tobytes(), u.tobytes()))
    assert len(found) == 1


@pytest.mark.parametrize("n", SIZES)
def test_updates_write_their_elements_only(isa, dtype, n):
    guards = np.full((5, n + 16), 7, dtype)  # w, gradient, m, v, u, each with 16 elements that are not theirs
    w, g, m, v, u = guards[:, :n]
    for rule in core.RULES:
        update(rule, w, g, *state_of(rule, m, v, u), **NUMBERS)
    assert (guards[:, n:] == 7).all()
    assert n == 0 or (guards[[0, 3, 4], :n] != 7).all()  # the last rule keeps the gradient, 7, as m


@pytest.mark.parametrize("n", [*SIZES, 300_001])
def test_zero(isa, dtype, n):
    guard = np.ones(n + 2, dtype)
    core.zero(guard[1:-1])
    assert guard.sum() == 2
    assert (guard[0], guard[-1]) == (1, 1)


def test_updates_refuse_arrays_that_do_not_fit():
    w = np.zeros(8)
    with pytest.raises(ValueError, match="expected 8 elements"):
        update("adam", w, np.zeros(8), np.zeros(8), np.zeros(9), **ADAM)
    with pytest.raises(TypeError, match="expected an array, got None"):
        update("adam", w, np.zeros(8), np.zeros(8), None, **ADAM)
    with pytest.raises(ValueError, match="gradients"):
        update("sgd", w, np.zeros(8, np.float32))
    with pytest.raises(ValueError, match="steps"):
        update("sgd", w, np.zeros(8), steps=np.array(0.0))
    with pytest.raises(ValueError, match="rule"):
        core.update(len(core.RULES), w, np.zeros(8), (None, None, None), np.array(0))
