"""Kernels of the losses, called as the package calls them; per instruction set, dtype and thread count."""

from __future__ import annotations

import numpy as np
import pytest

import fastact as fa
from fastact import reference
from fastact._core import losses as core

pytestmark = pytest.mark.sanitise

SIZES = [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97]
LONG = [1023, 1024, 1025, 4095, 4096, 4097, 300_001]  # around the blocks, and beyond the threads' threshold


def eps(dtype):
    return float(np.finfo(dtype).eps)


def cross_entropy(logits, target, gradient=None, ignored=None, count=False):
    """``(mean, size, correct, bad)``."""
    number = core.ROW["cross_entropy"]
    return core.rows(number, logits, target, None, gradient, None, None, True, count, ignored)


def squared_error(prediction, target, gradient=None):
    return core.elements(core.ELEMENT["squared_error"], prediction, target, gradient, None, None, True)[0]


@pytest.mark.parametrize("n", [*SIZES, 4097])
def test_first_outside(n):
    indices = np.arange(n) % 5
    assert core.first_outside(indices, 5) == -1
    if n < 3:
        return
    wrong = indices.copy()
    wrong[n // 2] = -100
    wrong[-1] = 5
    assert core.first_outside(wrong, 5) == n // 2
    assert core.first_outside(wrong, 5, -100) == n - 1
    assert core.first_outside(wrong, 6, -100) == -1


@pytest.mark.parametrize("classes", [n for n in SIZES if n] + [1000, 1025, 3000])
def test_cross_entropy(isa, dtype, classes):
    rng = np.random.default_rng(classes)
    for rows in (1, 15, 16, 17, 40):
        logits = (4 * rng.standard_normal((rows, classes))).astype(dtype)
        target = rng.integers(0, classes, rows)
        gradient = np.full_like(logits, np.nan)
        mean, counted, correct, bad = cross_entropy(logits, target, gradient, None, True)
        expected, expected_gradient = reference.cross_entropy(logits, target)
        # Each exponential is within 4 ULP; a sum of up to 64 vectors adds 64 roundings of half an ULP at worst.
        tolerance = 40 * eps(dtype)
        assert mean == pytest.approx(expected, rel=tolerance, abs=tolerance)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=tolerance / rows)
        assert (counted, bad) == (rows, -1)
        assert correct == (logits.argmax(-1) == target).sum()
        assert cross_entropy(logits, target)[0] == mean


def test_cross_entropy_far_logits(isa, dtype):
    top = 0.5 * np.finfo(dtype).max
    logits = np.array([[top, 0, -top], [-top, -top, -top], [0, 200, 1000]], dtype)
    gradient = np.empty_like(logits)
    mean, *_ = cross_entropy(logits, np.array([0, 1, 2]), gradient)
    assert mean == pytest.approx(np.log(3) / 3, rel=8 * eps(dtype))
    np.testing.assert_allclose(3 * gradient, [[0, 0, 0], [1 / 3, -2 / 3, 1 / 3], [0, 0, 0]], atol=4 * eps(dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_cross_entropy_of_nan_is_nan(isa, dtype, value):
    logits = np.zeros((20, 33), dtype)
    logits[3, 32] = value
    assert np.isnan(cross_entropy(logits, np.zeros(20, np.int64))[0])


def test_cross_entropy_counts_as_argmax_does(isa, dtype):
    logits = np.array([[1, 5, 5], [5, 5, 1], [2, 2, 2]], dtype)
    for target in ([1, 0, 0], [2, 1, 1], [0, 0, 2]):
        found = cross_entropy(logits, np.array(target), None, None, True)[2]
        assert found == (logits.argmax(-1) == target).sum()


def test_cross_entropy_ignores(isa, dtype):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((50, 7)).astype(dtype)
    target = rng.integers(0, 7, 50)
    target[::3] = -100
    gradient = np.full_like(logits, np.nan)
    mean, counted, correct, _ = cross_entropy(logits, target, gradient, -100, True)
    keep = target >= 0
    expected, inner = reference.cross_entropy(logits[keep], target[keep])
    assert mean == pytest.approx(expected, rel=20 * eps(dtype))
    assert counted == keep.sum()
    assert correct == (logits.argmax(-1) == target).sum()
    np.testing.assert_allclose(gradient[keep], inner, rtol=0, atol=eps(dtype))
    assert (gradient[~keep] == 0).all()
    assert cross_entropy(logits, np.full(50, -100), gradient, -100)[:2] == (0.0, 0)
    assert (gradient == 0).all()


@pytest.mark.parametrize("n", SIZES[1:] + LONG)
def test_squared_error(isa, dtype, n):
    rng = np.random.default_rng(n)
    prediction, target = rng.standard_normal((2, n)).astype(dtype)
    gradient = np.full_like(prediction, np.nan)
    mean = squared_error(prediction, target, gradient)
    expected, expected_gradient = reference.squared_error(prediction, target)
    assert mean == pytest.approx(expected, rel=2 * eps(dtype))  # the difference is rounded once, before squaring
    np.testing.assert_allclose(gradient, expected_gradient, rtol=3 * eps(dtype), atol=2 * eps(dtype) / n)
    assert squared_error(prediction, target) == mean


def test_losses_have_the_same_bits_for_any_number_of_threads(isa, dtype):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4001, 50)).astype(dtype)
    target = rng.integers(0, 50, 4001)
    results = []
    for n in (1, 2, 3):
        gradient = np.empty_like(logits)
        with fa.num_threads(n):
            results.append((cross_entropy(logits, target, gradient, None, True), gradient.tobytes()))
    assert results[0] == results[1] == results[2]


def test_no_flag_and_no_flush_to_zero_reaches_or_leaves_a_kernel(isa):
    with np.errstate(all="raise"):
        logits = np.array([[0, -200, -90]], np.float32)
        assert cross_entropy(logits, np.array([1]), np.empty_like(logits))[0] == pytest.approx(200)
        np.add(np.ones(3), 1)
