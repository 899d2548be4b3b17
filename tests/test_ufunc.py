"""The ufunc loop: any layout, overlap, float16, threads; an element's bits never depend on where it stands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import bit_patterns

import fastact as fa
from fastact._core import runtime

NAMES = [name for name in fa.activations if not fa.activations[name].rowwise]
SIZES = [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97]
VIEWS = [np.s_[:, ::2], np.s_[::-1], np.s_[:, ::-1], np.s_[::3, ::-5], np.s_[5:6], np.s_[:, 3], np.s_[1:, 1:]]
VIEWS += [np.s_[:0], np.s_[2, 3]]
PARALLEL = 1_000_003  # elements: well above the threshold for threads, and a prime


def samples(shape, dtype, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 3).astype(dtype)


def one_by_one(f, x, *rest):
    """f through calls of a single element: what every layout has to equal bit for bit."""
    rest = [np.broadcast_to(r, x.shape) for r in rest]
    flat = [f(x[i : i + 1], *[r[i : i + 1] for r in rest])[0] for i in range(x.size)]
    return np.array(flat, x.dtype)


def test_the_parallel_tests_are_parallel(n_threads):
    if runtime.has_openmp():
        assert runtime.threads_for_work(2.0 * PARALLEL / 16, 4096) == n_threads


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_lane_edges(name, n, isa, dtype):
    f = fa.activations[name]
    x = samples(n, dtype)
    guarded = np.full(n + 40, 7, dtype)
    out = guarded[20 : 20 + n]
    assert f(x, out=out) is out
    assert (guarded[:20] == 7).all()
    assert (guarded[20 + n :] == 7).all()
    np.testing.assert_array_equal(out, one_by_one(f, x))
    np.testing.assert_array_equal(f.backward(x, x=x), one_by_one(lambda a, b: f.backward(a, x=b), x, x))
    np.testing.assert_array_equal(f.derivative(x, order=2), one_by_one(lambda a: f.derivative(a, order=2), x))


@pytest.mark.parametrize("name", NAMES)
def test_layouts(name, isa, dtype):
    f = fa.activations[name]
    base = samples((33, 40), dtype)
    want = f(base)
    slopes = f.backward(base, x=base)
    for view in VIEWS:
        np.testing.assert_array_equal(f(base[view]), want[view])
        np.testing.assert_array_equal(f.backward(base[view], x=base[view].copy()), slopes[view])
        out = np.zeros_like(base)[view]
        if out.ndim:
            f(base[view].copy(), out=out)
            np.testing.assert_array_equal(out, want[view])
    fortran = np.asfortranarray(base)
    assert f(fortran).flags.f_contiguous
    np.testing.assert_array_equal(f(fortran), want)
    np.testing.assert_array_equal(f(base.T), want.T)
    np.testing.assert_array_equal(f(np.broadcast_to(base[0], (5, 40))), np.broadcast_to(want[0], (5, 40)))
    np.testing.assert_array_equal(f(np.broadcast_to(base[0, 0], 300)), np.full(300, want[0, 0]))
    base.flags.writeable = False
    np.testing.assert_array_equal(f(base), want)


@pytest.mark.parametrize("name", NAMES)
def test_unaligned(name, isa, dtype):
    f = fa.activations[name]
    x = samples(333, dtype)
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
    odd = raw.view(dtype) if raw.ctypes.data % x.itemsize == 0 else np.frombuffer(raw, dtype)
    odd[:] = x
    assert not odd.flags.aligned
    np.testing.assert_array_equal(f(odd), f(x))
    f(x, out=odd)
    np.testing.assert_array_equal(odd, f(x))


@pytest.mark.parametrize("name", NAMES)
def test_same_bits_at_any_offset_and_thread_count(name, n_threads, dtype):
    f = fa.activations[name]
    x = np.resize(bit_patterns(dtype, (2**32 if dtype == np.float32 else 2**64) // 5_003), PARALLEL)
    with fa.num_threads(1):
        want = [f(x), f.derivative(x, order=2), f.backward(x[::-1].copy(), x=x)]
    for offset in (0, 1, 5):
        part = x[offset:]
        found = [f(part), f.derivative(part, order=2), f.backward(x[::-1][offset:], x=part)]
        for a, b in zip(found, want, strict=True):
            np.testing.assert_array_equal(a, b[offset:])
    np.testing.assert_array_equal(f(x[::-1]), want[0][::-1])
    np.testing.assert_array_equal(f(x, out=x.copy()), want[0])


@pytest.mark.parametrize("n", [50, 700, PARALLEL])
def test_overlapping_operands(n, n_threads, dtype):
    """The result is that of operands apart, however they lie in memory, and with as many threads as there are."""
    f = fa.tanh
    x = samples(n, dtype)
    want = f(x)
    for shift in (1, 2, 17, 64, 300):
        if shift >= n:
            continue
        a = x.copy()
        f(a[shift:], out=a[:-shift])
        np.testing.assert_array_equal(a[:-shift], want[shift:])
        np.testing.assert_array_equal(a[-shift:], x[-shift:])
        a = x.copy()
        f(a[:-shift], out=a[shift:])
        np.testing.assert_array_equal(a[shift:], want[:-shift])
        a = x.copy()
        f.backward(a[shift:], x=a[:-shift], out=a[:-shift])
        np.testing.assert_array_equal(a[:-shift], f.backward(x[shift:], x=x[:-shift]))
    a = x.copy()
    f(a[::-1], out=a)
    np.testing.assert_array_equal(a, want[::-1])
    a = x.copy()
    half = n // 2
    f(a[: 2 * half : 2], out=a[:half])
    np.testing.assert_array_equal(a[:half], want[: 2 * half : 2])
    a = x.copy()
    f(a[:half], out=a[: 2 * half : 2])
    np.testing.assert_array_equal(a[: 2 * half : 2], want[:half])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_two_views_of_one_buffer(data):
    """Random starts, steps and lengths for input and output in one piece of memory."""
    buffer = samples(200, data.draw(st.sampled_from([np.float16, np.float32, np.float64])))
    n = data.draw(st.integers(1, 40))

    def view():
        step = data.draw(st.sampled_from([-4, -3, -2, -1, 1, 2, 3, 4]))
        start = data.draw(st.integers(max(0, -step * (n - 1)), min(199, 199 - step * (n - 1))))
        return slice(start, None if step < 0 and start + step * n < 0 else start + step * n, step)

    first, second, target = view(), view(), view()
    a = buffer.copy()
    want = fa.tanh.backward(a[first].copy(), x=a[second].copy())
    out = a[target]
    fa.tanh.backward(a[first], x=a[second], out=out)
    np.testing.assert_array_equal(out, want)


def test_accumulate_follows_the_order_of_elements(dtype):
    """NumPy's accumulate hands the loop its own output as an input, one element behind."""
    ufunc, scale = fa.leaky_relu.ufunc, np.full(400, 0.5, dtype)
    scale[0] = -1
    np.testing.assert_array_equal(ufunc.accumulate(scale)[:20], -np.exp2(-np.arange(20)).astype(dtype))
    assert ufunc.reduce(scale[:10]) == dtype.type(-(0.5**9))
    np.testing.assert_array_equal(ufunc.outer(scale[:3], scale[:2]), ufunc(scale[:3, None], scale[None, :2]))


def test_float16_is_rounded_from_float32():
    """All 65536 values, in a layout that is contiguous and one that is not."""
    x = bit_patterns(np.float16, 1)
    for f in (fa.tanh, fa.sigmoid):
        for view in (x, x[::-3]):
            with np.errstate(all="ignore"):
                want = f(view.astype(np.float32)).astype(np.float16)
                want_dx = f.backward(view.astype(np.float32), x=view.astype(np.float32)).astype(np.float16)
            np.testing.assert_array_equal(f(view), want)
            np.testing.assert_array_equal(f.backward(view, x=view), want_dx)
    np.testing.assert_array_equal(fa.linear(x).view(np.uint16)[~np.isnan(x)], x.view(np.uint16)[~np.isnan(x)])
    assert np.isnan(fa.linear(x)[np.isnan(x)]).all()


@pytest.mark.parametrize("alpha", [0.5, 1.5, 3.0, 1 / 3, 2.0**-14, 65504.0])
def test_float16_rounds_to_even(alpha):
    """A product of two float16 is exact in float32 and often a tie in float16; subnormals, and 65520, which is inf."""
    x = bit_patterns(np.float16, 1)
    with np.errstate(all="ignore"):
        product = (x.astype(np.float32) * np.float32(np.float16(alpha))).astype(np.float16)
    with np.errstate(all="raise"):
        got = fa.leaky_relu(x, alpha=alpha)
    np.testing.assert_array_equal(got, np.where(x > 0, x, product))
    np.testing.assert_array_equal(np.signbit(got[x < 0]), True)


def test_callers_floating_point_state_is_left_alone():
    """Flags raised before a call are still there after it, and none is added."""
    x = np.array([-745.0, 1e300, -1e300] * 11)
    with np.errstate(all="raise"):
        for f in (fa.sigmoid, fa.tanh):
            f(x)
            f(x[::2])
            f.backward(x, x=x)
        with pytest.raises(FloatingPointError):
            np.exp(x)


def test_calls_from_many_threads_at_once():
    x = samples(PARALLEL // 4, np.float32)
    want = fa.tanh(x)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: np.array_equal(fa.tanh(x), want), range(20)))
