"""The matrix product: within the rounding of its sums, on every layout, instruction set and number of threads."""

from __future__ import annotations

import copy
import doctest
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastact as fa
from fastact import reference
from fastact._core import product, runtime

pytestmark = pytest.mark.sanitise

EDGES = (0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97)
LAYOUTS = ("row", "column", "strided", "reversed", "window")


def laid_out(values, layout):
    """The same matrix, lying in memory in one of five ways; what surrounds it is NaN."""
    rows, cols = values.shape
    if layout == "row":
        return np.array(values, order="C")
    if layout == "column":
        return np.array(values, order="F")
    if layout == "strided":
        view = np.full((2 * rows, 3 * cols), np.nan, values.dtype)[::2, ::3]
    elif layout == "reversed":
        view = np.full((rows, cols), np.nan, values.dtype)[::-1, ::-1]
    else:
        view = np.full((rows + 2, cols + 3), np.nan, values.dtype)[1:-1, 2:-1]
    view[...] = values
    return view


def operands(M, N, K, dtype, rng):
    return rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((K, N)).astype(dtype)


def check(result, a, b, bias=None, start=None):
    """Within the bound for a sum of K products in any order, gamma_(K+3) sum |a||b| (twice it, as the reference may
    round likewise)."""
    a64, b64 = np.asarray(a, np.float64), np.asarray(b, np.float64)
    wide = np.longdouble if result.dtype == np.float64 else np.float64
    expected = np.asarray(a64.astype(wide) @ b64.astype(wide))
    size = np.abs(a64) @ np.abs(b64)
    for extra in (bias, start):
        if extra is not None:
            expected = expected + np.asarray(extra, wide)
            size = size + np.abs(np.asarray(extra, np.float64))
    unit = np.finfo(result.dtype).eps / 2
    terms = a64.shape[-1] + 3
    assert result.shape == expected.shape
    assert np.all(np.abs(result - expected) <= 2 * terms * unit / (1 - terms * unit) * size)


@pytest.mark.parametrize("layout_out", ["row", "column", "strided"])
@pytest.mark.parametrize("layout_b", LAYOUTS)
@pytest.mark.parametrize("layout_a", LAYOUTS)
def test_layouts(isa, dtype, layout_a, layout_b, layout_out):
    rng = np.random.default_rng(1)
    for M, N, K in (
        (1, 70, 33),
        (70, 1, 33),
        (3, 5, 1),
        (5, 3, 80),
        (13, 67, 19),
        (67, 13, 19),
        (49, 81, 97),
        (21, 261, 1),
        (11, 530, 7),
    ):
        a, b = operands(M, N, K, dtype, rng)
        bias = rng.standard_normal(N).astype(dtype)
        start = rng.standard_normal((M, N)).astype(dtype)
        a_laid, b_laid = laid_out(a, layout_a), laid_out(b, layout_b)
        out = laid_out(np.full((M, N), np.nan, dtype), layout_out)
        assert fa.matmul(a_laid, b_laid, out=out) is out
        check(out, a, b)
        check(fa.matmul(a_laid, b_laid, bias=bias), a, b, bias)
        out[...] = start
        product.matmul(a_laid, b_laid, out=out, accumulate=True)
        check(out, a, b, start=start)
        product.matmul(a_laid, fa.pack(b_laid), out=out, bias=bias)
        check(out, a, b, bias)


def test_lane_edges(isa, dtype):
    rng = np.random.default_rng(2)
    shapes = list(itertools.product(EDGES, repeat=3))
    for i in rng.choice(len(shapes), 250, replace=False):
        M, N, K = shapes[i]
        a, b = operands(M, N, K, dtype, rng)
        check(fa.matmul(a, b), a, b)
        check(fa.matmul(a, b.T.copy().T), a, b)
        check(fa.matmul(a, fa.pack(b)), a, b)


@pytest.mark.parametrize(
    "shape",
    [
        (150, 700, 1100),
        (1100, 40, 700),
        (2, 2000, 600),
        (600, 3, 2100),
        (97, 193, 4100),
        (3, 1700, 1300),  # B beyond L3
        (5, 1100, 1000),  # B beyond L2
        (14, 300, 700),  # few rows by a B beyond L2
        (1450, 1500, 5),  # C beyond L2, rows of it one after the other
    ],
)
def test_blocks(isa, dtype, shape):
    """Several blocks of k, of panels, of rows; every element beside its neighbours in C is left alone."""
    M, N, K = shape
    if isa == "scalar":
        M, K = M // 3 + 1, K // 3
    rng = np.random.default_rng(3)
    a, b = operands(M, N, K, dtype, rng)
    frame = np.full((M + 2, N + 2), 7, dtype)
    for transposed in (False, True):
        out = (frame if not transposed else frame.reshape(N + 2, M + 2).T)[1:-1, 1:-1]
        fa.matmul(a, b, out=out)
        if dtype == np.float32:
            check(out, a, b)
        else:
            assert np.allclose(out, a @ b, rtol=1e-10, atol=1e-11 * K)
        out[...] = 7
        assert (frame == 7).all()


@pytest.mark.parametrize("layout_out", ["row", "column", "strided"])
@pytest.mark.parametrize("layout_a", ["row", "column", "reversed"])
@pytest.mark.parametrize("shape", [(2, 3001, 70), (5, 331, 701), (20, 50, 4502), (64, 203, 1103)])
def test_few_rows_by_a_large_matrix(isa, dtype, shape, layout_a, layout_out):
    M, N, K = shape
    rng = np.random.default_rng(14)
    a, b = operands(M, N, K, dtype, rng)
    bias = rng.standard_normal(N).astype(dtype)
    start = rng.standard_normal((M, N)).astype(dtype)
    out = laid_out(start, layout_out)
    a_laid = laid_out(a, layout_a)
    product.matmul(a_laid, b, out=out, accumulate=True)
    check(out, a, b, start=start)
    product.matmul(a_laid, b, out=out, bias=bias)
    check(out, a, b, bias)
    activated = laid_out(start, layout_out)
    product.matmul(a_laid, b, out=activated, bias=bias, activation=fa.tanh)
    assert np.array_equal(activated, fa.tanh(out))
    turned = laid_out(start.T, layout_out)
    product.matmul(b.T, a_laid.T, out=turned, accumulate=True)
    check(turned.T, a, b, start=start)


@pytest.mark.parametrize("layouts", list(itertools.product(("row", "column"), repeat=2)))
def test_same_bits_for_any_threads(isa, dtype, layouts):
    rng = np.random.default_rng(4)
    for M, N, K in (
        (130, 257, 193),
        (7, 1500, 300),
        (1500, 7, 300),
        (1, 1000, 1000),
        (400, 100, 70),
        (3, 64, 4000),
        (33, 700, 300),
        (12, 2000, 64),
    ):
        a, b = operands(M, N, K, dtype, rng)
        a, b = laid_out(a, layouts[0]), laid_out(b, layouts[1])
        packed = fa.pack(b)
        results = []
        for n in (1, 2, 3, 4):
            with fa.num_threads(n):
                results.append((fa.matmul(a, b).tobytes(), fa.matmul(a, packed).tobytes()))
        assert len(set(results)) == 1
        assert fa.matmul(a, b).tobytes() == results[0][0]


def test_several_threads_are_used(n_threads, dtype):
    rng = np.random.default_rng(5)
    a, b = operands(301, 299, 297, dtype, rng)
    check(fa.matmul(a, b), a, b)


def test_calls_from_many_threads():
    rng = np.random.default_rng(6)
    a, b = operands(60, 200, 300, np.float32, rng)
    expected = fa.matmul(a, b)
    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(lambda _: np.array_equal(fa.matmul(a, b), expected), range(360)))


def test_k_zero_gives_the_bias(isa, dtype):
    a, b = np.empty((3, 0), dtype), np.empty((0, 5), dtype)
    bias = np.arange(5, dtype=dtype)
    assert np.array_equal(fa.matmul(a, b), np.zeros((3, 5)))
    assert np.array_equal(fa.matmul(a, b, bias=bias), np.tile(bias, (3, 1)))
    assert np.array_equal(fa.matmul(a, fa.pack(b), bias=bias), np.tile(bias, (3, 1)))
    out = np.ones((3, 5), dtype)
    product.matmul(a, b, out=out, accumulate=True)
    assert np.array_equal(out, np.ones((3, 5)))
    assert fa.matmul(np.empty((0, 4), dtype), np.empty((4, 5), dtype)).shape == (0, 5)
    assert fa.matmul(np.empty((4, 4), dtype), np.empty((4, 0), dtype)).shape == (4, 0)


def test_special_values_stay_in_their_row_and_column(isa, dtype):
    """Padding and masked lanes multiply nothing: an infinity or NaN touches its own row or column and no other."""
    rng = np.random.default_rng(7)
    for M, N, K in ((1, 5, 3), (7, 9, 5), (50, 70, 33), (3, 4, 100)):
        for layouts in itertools.product(("row", "column"), repeat=2):
            a, b = operands(M, N, K, dtype, rng)
            a[M - 1, K - 1] = np.inf
            b[K - 1, N - 1] = np.nan
            result = fa.matmul(laid_out(a, layouts[0]), laid_out(b, layouts[1]))
            assert np.isfinite(result[:-1, :-1]).all()
            assert np.isnan(result[:, -1]).all()
            assert np.array_equal(result[-1, :-1], np.copysign(np.inf, b[-1, :-1]))


def test_overlapping_out(isa, dtype):
    rng = np.random.default_rng(8)
    for n in (5, 40, 100):
        a, b = operands(n, n, n, dtype, rng)
        expected = fa.matmul(a, b)
        for target in ("a", "b", "a reversed", "bias"):
            x, y, bias = a.copy(), b.copy(), None
            out = {"a": x, "b": y, "a reversed": x[::-1], "bias": np.zeros((n, n), dtype)}[target]
            if target == "bias":
                bias = out[n - 1]
            fa.matmul(x, y, out=out, bias=bias)
            assert np.array_equal(out, expected)


def test_a_stack_written_over_its_own_bias(dtype):
    """Every product of the stack takes the bias that was given, not what the first one has made of it."""
    rng = np.random.default_rng(19)
    a, b = rng.standard_normal((2, 3, 5)).astype(dtype), rng.standard_normal((2, 5, 4)).astype(dtype)
    for y in (b, b[0], fa.pack(b[0])):
        out = rng.standard_normal((2, 3, 4)).astype(dtype)
        expected = fa.matmul(a, y, bias=out[0, 0].copy())
        fa.matmul(a, y, bias=out[0, 0], out=out)
        assert np.array_equal(out, expected)


@pytest.mark.parametrize("name", sorted(name for name, f in fa.activations.items() if f.keeps_shape))
def test_activation(isa, dtype, name):
    """The same bits as the activation applied to the finished sums."""
    rng = np.random.default_rng(16)
    for M, N, K in ((1, 200, 5), (3, 130, 9), (200, 1, 40), (70, 90, 600), (0, 3, 2), (4, 5, 0)):
        a, b = operands(M, N, K, dtype, rng)
        bias = rng.standard_normal(N).astype(dtype)
        for extra in (None, bias):
            sums = fa.matmul(a, b, bias=extra)
            assert np.array_equal(fa.matmul(a, b, bias=extra, activation=name), fa.activations[name](sums))
        out = laid_out(np.full((M, N), np.nan, dtype), "column")
        fa.matmul(a, b, bias=bias, activation=fa.activations[name], out=out)
        assert np.array_equal(out, fa.activations[name](fa.matmul(a, b, bias=bias, out=out.copy(order="K"))))


def test_activation_with_parameters(isa, dtype):
    rng = np.random.default_rng(17)
    a, b = operands(30, 70, 20, dtype, rng)
    for steep in (fa.leaky_relu.with_params(alpha=0.25), fa.scaled_tanh.with_params(amplitude=2.0, slope=0.5)):
        assert np.array_equal(fa.matmul(a, b, activation=steep), steep(fa.matmul(a, b)))
    stack = np.stack([a, a[::-1]])
    assert np.array_equal(fa.matmul(stack, b, activation="relu"), fa.relu(fa.matmul(stack, b)))


def test_reference(dtype):
    rng = np.random.default_rng(18)
    a, b = operands(13, 17, 19, dtype, rng)
    bias, start = rng.standard_normal(17).astype(dtype), rng.standard_normal((13, 17)).astype(dtype)
    expected = reference.matmul(a, b, bias, np.tanh, start)
    out = start.copy()
    product.matmul(a, b, out=out, bias=bias, activation="tanh", accumulate=True)
    assert np.allclose(out, expected, rtol=0, atol=200 * np.finfo(dtype).eps)


def test_out_of_another_kind(dtype):
    rng = np.random.default_rng(9)
    a, b = operands(6, 7, 8, dtype, rng)
    expected = fa.matmul(a, b)
    for out in (np.empty((6, 7), np.float64), np.empty((6, 7), np.float32), np.empty((6, 7), dtype.newbyteorder())):
        assert fa.matmul(a, b, out=out) is out
        assert np.array_equal(out, expected.astype(out.dtype))
    room = np.zeros(6 * 7 * dtype.itemsize + 1, np.uint8)
    out = room[1:].view(dtype).reshape(6, 7)
    fa.matmul(a, b, out=out)
    assert np.array_equal(out, expected)


def test_other_operands(dtype):
    rng = np.random.default_rng(10)
    a, b = operands(6, 7, 8, dtype, rng)
    expected = fa.matmul(a, b)
    room = np.zeros(a.nbytes + 1, np.uint8)
    unaligned = room[1:].view(dtype).reshape(a.shape)
    unaligned[...] = a
    frozen = a.copy()
    frozen.flags.writeable = False
    for x in (unaligned, frozen, a.astype(dtype.newbyteorder()), a.tolist() if dtype == np.float64 else a):
        assert np.array_equal(fa.matmul(x, b), expected)
    assert np.array_equal(fa.matmul(a, b.view(np.recarray)), expected)


def test_promotion():
    rng = np.random.default_rng(11)
    a, b = operands(4, 5, 6, np.float64, rng)
    assert fa.matmul(a.astype(np.float32), b).dtype == np.float64
    assert fa.matmul(a.astype(np.float32), b.astype(np.float16)).dtype == np.float32
    half = fa.matmul(a.astype(np.float16), b.astype(np.float16))
    exact = a.astype(np.float16).astype(np.float64) @ b.astype(np.float16).astype(np.float64)
    assert half.dtype == np.float16
    assert np.all(np.abs(half - exact) <= np.finfo(np.float16).eps * np.maximum(np.abs(exact), 1e-3))
    whole = fa.matmul(np.arange(6).reshape(2, 3), np.ones((3, 2), bool))
    assert whole.dtype == np.float64
    assert np.array_equal(whole, [[3, 3], [12, 12]])


def test_vectors_and_stacks(dtype):
    rng = np.random.default_rng(12)
    shapes = [
        ((6,), (6,)), ((6,), (6, 4)), ((5, 6), (6,)), ((2, 5, 6), (6,)), ((6,), (3, 6, 4)), ((2, 3, 5, 6), (6, 4)),
        ((3, 5, 6), (3, 6, 4)), ((2, 1, 5, 6), (3, 6, 4)), ((5, 6), (3, 6, 4)), ((0, 5, 6), (6, 4)),
        ((2, 0, 6), (6, 4)),
    ]  # fmt: skip
    for shape_a, shape_b in shapes:
        a, b = rng.standard_normal(shape_a).astype(dtype), rng.standard_normal(shape_b).astype(dtype)
        expected = np.matmul(a, b)
        result = fa.matmul(a, b)
        assert np.shape(result) == np.shape(expected)
        assert np.allclose(result, expected, rtol=1e-4, atol=1e-4)
        if expected.ndim:
            for out in (np.empty_like(expected), np.empty(expected.shape[::-1], dtype).T):
                assert fa.matmul(a, b, out=out) is out
                assert np.allclose(out, result, rtol=1e-4, atol=1e-4)
        if b.ndim == 2:
            assert np.allclose(fa.matmul(a, fa.pack(b), bias=b[0]), expected + b[0], rtol=1e-4, atol=1e-4)


def test_stack_with_gaps(dtype):
    """Leading dimensions that do not run through memory as one."""
    rng = np.random.default_rng(13)
    a = rng.standard_normal((3, 4, 8)).astype(dtype).transpose(1, 0, 2)
    b = rng.standard_normal((8, 5)).astype(dtype)
    out = np.zeros((4, 3, 5), dtype)
    product.matmul(a, b, out=out, accumulate=True)
    product.matmul(a, b, out=out, accumulate=True)
    assert np.allclose(out, 2 * np.matmul(a, b), rtol=1e-4, atol=1e-4)


def test_pack(dtype, isa):
    rng = np.random.default_rng(14)
    for K, N in ((1, 1), (5, 130), (70, 16), (33, 65)):
        b = rng.standard_normal((K, N)).astype(dtype)
        packed = fa.pack(b)
        assert packed.shape == (K, N)
        assert packed.dtype == dtype
        assert np.array_equal(np.asarray(packed), b)
        for twin in (pickle.loads(pickle.dumps(packed)), copy.deepcopy(packed)):
            assert np.array_equal(np.asarray(twin), b)
        kept = b.copy()
        b[...] = 0
        a = rng.standard_normal((4, K)).astype(dtype)
        check(fa.matmul(a, packed), a, kept)


def test_pack_of_what_is_larger_than_memory():
    """Arrays of stride 0 or of no elements may have sides whose product, padded, is more than 2^63."""
    for shape in ((2**60, 1), (2**56, 17)):
        with pytest.raises(MemoryError, match=rf"b: no memory to pack a matrix of shape \({shape[0]}, {shape[1]}\)"):
            fa.pack(np.broadcast_to(np.float32(1), shape))
    for shape in ((0, 2**60), (2**40, 0)):
        assert np.asarray(fa.pack(np.empty(shape, np.float32))).shape == shape


def test_pack_outlives_a_change_of_instruction_set(every_isa, dtype):
    rng = np.random.default_rng(15)
    a, b = operands(9, 150, 20, dtype, rng)
    packed = fa.pack(b)
    for _ in every_isa:
        check(fa.matmul(a, packed), a, b)


def test_pack_of_another_type():
    b = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert fa.pack(b.astype(int)).dtype == np.float64
    assert fa.matmul(np.ones((2, 3)), fa.pack(b)).dtype == np.float64
    assert fa.matmul(np.ones((2, 3), np.float32), fa.pack(b.astype(np.float64))).dtype == np.float64


A, B = np.ones((2, 3)), np.ones((3, 4))


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: fa.matmul(A, A), ValueError, r"b: expected 3 rows.*\(2, 3\) and b of shape \(2, 3\)"),
        (lambda: fa.matmul(A, fa.pack(A)), ValueError, "b: expected 3 rows"),
        (lambda: fa.matmul(np.float64(1), B), ValueError, "a: expected at least one dimension"),
        (lambda: fa.matmul(A, 2.0), ValueError, "b: expected at least one dimension"),
        (lambda: fa.matmul(A.astype(complex), B), TypeError, "a: expected an array of float32.*complex128"),
        (lambda: fa.matmul(A, np.full((3, 4), None)), TypeError, "b: expected an array.*object"),
        (lambda: fa.matmul(A, B.astype(np.longdouble)), TypeError, "b: expected an array"),
        (lambda: fa.matmul(A, B, bias=np.ones(3)), ValueError, r"bias: expected shape \(4,\).*\(3,\)"),
        (lambda: fa.matmul(A, B, bias=np.ones((1, 4))), ValueError, r"bias: expected shape \(4,\)"),
        (lambda: fa.matmul(A, B, out=np.empty((4, 2))), ValueError, r"out: expected shape \(2, 4\), got \(4, 2\)"),
        (lambda: fa.matmul(A, B, out=np.broadcast_to(1.0, (2, 4))), ValueError, "out: expected a writeable"),
        (lambda: fa.matmul(A, B, out=np.empty((2, 4), int)), TypeError, "out: expected dtype float64"),
        (lambda: fa.matmul(A, B, out=[[0.0] * 4] * 2), TypeError, "out: expected a numpy array, got list"),
        (lambda: fa.matmul(np.ones((2, 2, 3)), np.ones((3, 3, 4))), ValueError, "stacks that broadcast"),
        (lambda: product.matmul(A, B, accumulate=True), ValueError, "out: expected an array to add to"),
        (lambda: fa.matmul(A, B, activation="tanb"), ValueError, "tanh"),
        (lambda: fa.matmul(A, B, activation=3), TypeError, "activation: expected"),
        (lambda: fa.pack(np.ones(3)), ValueError, "b: expected a matrix"),
        (lambda: fa.pack("text"), TypeError, "b: expected an array"),
    ],
)
def test_errors(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


@settings(max_examples=150, deadline=None)
@given(
    sides=st.tuples(*[st.integers(0, 140)] * 3),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 3),
    wide=st.booleans(),
    biased=st.booleans(),
    accumulate=st.booleans(),
    isa_index=st.integers(0, 9),
    seed=st.integers(0, 1 << 20),
)
def test_anything(sides, layouts, wide, biased, accumulate, isa_index, seed):
    rng = np.random.default_rng(seed)
    names = runtime.isa_available()
    before = runtime.isa_active()
    dtype = np.float64 if wide else np.float32
    M, N, K = sides
    a, b = operands(M, N, K, dtype, rng)
    start = rng.standard_normal((M, N)).astype(dtype)
    bias = rng.standard_normal(N).astype(dtype) if biased else None
    out = laid_out(start, layouts[2])
    try:
        runtime.isa_select(names[isa_index % len(names)])
        product.matmul(laid_out(a, layouts[0]), laid_out(b, layouts[1]), out=out, bias=bias, accumulate=accumulate)
    finally:
        runtime.isa_select(before)
    check(out, a, b, bias, start if accumulate else None)


@pytest.mark.parametrize("name", ["matmul", "pack"])
def test_docstring_examples(name):
    runner = doctest.DocTestRunner(verbose=False)
    parser = doctest.DocTestParser()
    runner.run(parser.get_doctest(getattr(fa, name).__doc__, {}, name, None, 0))
    assert runner.summarize(verbose=False).attempted > 0
    assert runner.failures == 0


@pytest.mark.parametrize("shape", [(1, 1), (0, 3), (3, 0), (32, 10), (7, 65), (200, 33), (1, 300), (3000, 130)])
def test_column_sums(shape, dtype, isa):
    rng = np.random.default_rng(0)
    backing = rng.normal(size=(2 * shape[0], shape[1] + 3)).astype(dtype)
    for x in (backing[: shape[0], : shape[1]], backing[::2, 3:][:, ::-1], backing[: shape[0], : shape[1]].copy("F")):
        out = rng.normal(size=shape[1]).astype(dtype)
        expected = out + x.sum(axis=0, dtype=np.float64)
        bound = np.finfo(dtype).eps * (shape[0] + 1) * (np.abs(x).sum(axis=0) + np.abs(out) + 1)
        product.add_column_sums(x, out)
        assert (np.abs(out - expected) <= bound).all()


def test_column_sums_same_bits_for_any_threads(n_threads):
    x = np.random.default_rng(0).normal(size=(5000, 700)).astype(np.float32)
    first, again = np.zeros(700, np.float32), np.zeros(700, np.float32)
    with fa.num_threads(1):
        product.add_column_sums(x, first)
    product.add_column_sums(x, again)
    np.testing.assert_array_equal(first, again)


def test_column_sums_refuse_what_does_not_fit():
    x = np.ones((2, 3))
    for out in (np.zeros(2), np.zeros(3, np.float32), np.zeros((1, 3)), np.zeros(6)[::2], np.broadcast_to(0.0, 3)):
        with pytest.raises(ValueError, match="expected"):
            product.add_column_sums(x, out)
