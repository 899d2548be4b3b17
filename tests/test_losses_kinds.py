"""Every loss: value against the twin, gradient against central differences, weights, reductions, threads, tails."""

from __future__ import annotations

import copy
import doctest
import importlib
import json
import math
import pickle

import numpy as np
import pytest
from gradients import assert_gradient, numeric_gradient

import fastact as fa
from fastact import losses
from fastact.losses import as_loss
from fastact.reference import losses as twin

pytestmark = pytest.mark.sanitise

SIZES = [1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97]
CLASS_WEIGHT = (0.5, 2.0, 1.0, 0.25, 3.0)


def numbers(rng, shape):
    return 2 * rng.standard_normal(shape), 2 * rng.standard_normal(shape)


def probabilities(rng, shape):
    return rng.uniform(0.02, 0.98, shape), rng.random(shape)


def logits(rng, shape):
    return 3 * rng.standard_normal(shape), rng.random(shape)


def signs(rng, shape):
    return 2 * rng.standard_normal(shape), rng.choice([-1.0, 1.0], shape)


def counts(rng, shape):
    return rng.standard_normal(shape), rng.integers(0, 9, shape).astype(float)


def rates(rng, shape):
    return rng.uniform(0.1, 4, shape), rng.integers(0, 9, shape).astype(float)


def distributions(rng, shape):
    z, t = twin.log_softmax_rows(rng.standard_normal(shape)), rng.random(shape)
    return z, np.where(t < 0.3, 0, t)


def log_distributions(rng, shape):
    return distributions(rng, shape)[0], twin.log_softmax_rows(rng.standard_normal(shape))


def labels(rng, shape):
    return 2 * rng.standard_normal(shape), rng.integers(0, shape[-1], shape[:-1])


def label_probabilities(rng, shape):
    rows = np.exp(twin.log_softmax_rows(rng.standard_normal(shape)))
    return 0.05 + 0.9 * rows, rng.integers(0, shape[-1], shape[:-1])  # away from 0 and 1, for the central differences


def label_log_probabilities(rng, shape):
    z, t = label_probabilities(rng, shape)
    return np.log(z), t


def shares(rng, shape):
    return 2 * rng.standard_normal(shape), rng.random(shape)


def share_probabilities(rng, shape):
    return label_probabilities(rng, shape)[0], rng.random(shape)


def share_log_probabilities(rng, shape):
    return np.log(label_probabilities(rng, shape)[0]), rng.random(shape)


def picked(z, t):
    return np.take_along_axis(z, t[..., None], -1)[..., 0]


L, W = losses, np.array(CLASS_WEIGHT)
ELEMENTS = {
    "mse": (L.MeanSquaredError, lambda p, t: (p - t) ** 2, numbers),
    "mae": (L.MeanAbsoluteError, twin.absolute_error, numbers),
    "huber": (lambda **k: L.Huber(0.7, **k), lambda p, t: twin.huber(p, t, 0.7), numbers),
    "smooth l1": (lambda **k: L.Huber(0.7, True, **k), lambda p, t: twin.huber(p, t, 0.7) / 0.7, numbers),
    "log-cosh": (L.LogCosh, twin.log_cosh, numbers),
    "quantile": (lambda **k: L.Quantile(0.3, **k), lambda p, t: twin.quantile(p, t, 0.3), numbers),
    "poisson": (lambda **k: L.Poisson(False, **k), lambda p, t: twin.poisson(p, t, False, False), rates),
    "poisson full": (lambda **k: L.Poisson(False, True, **k), lambda p, t: twin.poisson(p, t, False, True), rates),
    "poisson log": (L.Poisson, lambda p, t: twin.poisson(p, t, True, False), counts),
    "poisson log full": (lambda **k: L.Poisson(True, True, **k), lambda p, t: twin.poisson(p, t, True, True), counts),
    "binary": (L.BinaryCrossEntropy, twin.binary_cross_entropy, probabilities),
    "binary weighted": (
        lambda **k: L.BinaryCrossEntropy(pos_weight=2.5, **k),
        lambda p, t: twin.binary_cross_entropy(p, t, False, 2.5),
        probabilities,
    ),
    "binary logits": (
        lambda **k: L.BinaryCrossEntropy("logits", 2.5, **k),
        lambda p, t: twin.binary_cross_entropy(p, t, True, 2.5),
        logits,
    ),
    "binary focal": (L.BinaryFocal, lambda p, t: twin.binary_focal(p, t, 2.0, 0.25), logits),
    "binary focal 0.7": (
        lambda **k: L.BinaryFocal(0.7, None, **k),
        lambda p, t: twin.binary_focal(p, t, 0.7, None),
        logits,
    ),
    "hinge": (L.Hinge, lambda p, t: twin.hinge(p, t, False), signs),
    "squared hinge": (lambda **k: L.Hinge(True, 1.5, **k), lambda p, t: twin.hinge(p, t, True, 1.5), signs),
    "kl": (
        lambda reduction="mean": L.KLDivergence(False, reduction),
        lambda p, t: twin.kl_divergence(p, t, False),
        distributions,
    ),
    "kl log": (
        lambda reduction="mean": L.KLDivergence(True, reduction),
        lambda p, t: twin.kl_divergence(p, t, True),
        log_distributions,
    ),
}
ROWS = {
    "cross-entropy": (L.CrossEntropy, lambda p, t: twin.class_cross_entropy(p, t, 0, 1), labels),
    "smoothed": (
        lambda **k: L.CrossEntropy(label_smoothing=0.2, **k),
        lambda p, t: twin.class_cross_entropy(p, t, 0.2, 1),
        labels,
    ),
    "nll": (
        lambda **k: L.CrossEntropy(inputs="log_probabilities", **k),
        lambda p, t: -picked(p, t),
        label_log_probabilities,
    ),
    "nll of probabilities": (
        lambda **k: L.CrossEntropy(inputs="probabilities", **k),
        lambda p, t: -np.log(picked(p, t)),
        label_probabilities,
    ),
    "dense": (
        lambda **k: L.CategoricalCrossEntropy("logits", 0.1, **k),
        lambda p, t: twin.dense_cross_entropy(p, t, 0.1, 1),
        shares,
    ),
    "dense of probabilities": (
        lambda **k: L.CategoricalCrossEntropy("probabilities", 0.1, **k),
        lambda p, t: -((0.9 * t + 0.1 / p.shape[-1]) * np.log(p)).sum(-1),
        share_probabilities,
    ),
    "dense of log-probabilities": (
        lambda **k: L.CategoricalCrossEntropy("log_probabilities", **k),
        lambda p, t: -(t * p).sum(-1),
        share_log_probabilities,
    ),
    "focal": (L.Focal, lambda p, t: twin.focal(p, t, 2.0, np.ones(p.shape[-1])), labels),
    "focal 0.7": (lambda **k: L.Focal(0.7, **k), lambda p, t: twin.focal(p, t, 0.7, np.ones(p.shape[-1])), labels),
    "multi-class hinge": (
        L.MultiClassHinge,
        lambda p, t: twin.multi_class_hinge(p, t, False, 1.0, np.ones(p.shape[-1])),
        labels,
    ),
    "multi-class squared hinge": (
        lambda **k: L.MultiClassHinge(True, 0.5, **k),
        lambda p, t: twin.multi_class_hinge(p, t, True, 0.5, np.ones(p.shape[-1])),
        labels,
    ),
    "cosine": (L.Cosine, twin.cosine, numbers),
}
FIVE_CLASSES = {  # with weights of the classes, which some divide by
    "cross-entropy": (
        lambda **k: L.CrossEntropy(class_weight=CLASS_WEIGHT, label_smoothing=0.2, **k),
        lambda p, t: twin.class_cross_entropy(p, t, 0.2, W),
        labels,
        True,
    ),
    "nll": (
        lambda **k: L.CrossEntropy(class_weight=CLASS_WEIGHT, inputs="log_probabilities", **k),
        lambda p, t: -W[t] * picked(p, t),
        label_log_probabilities,
        True,
    ),
    "dense": (
        lambda **k: L.CategoricalCrossEntropy("logits", 0.1, class_weight=CLASS_WEIGHT, **k),
        lambda p, t: twin.dense_cross_entropy(p, t, 0.1, W),
        shares,
        False,
    ),
    "focal": (lambda **k: L.Focal(alpha=CLASS_WEIGHT, **k), lambda p, t: twin.focal(p, t, 2.0, W), labels, False),
    "hinge": (
        lambda **k: L.MultiClassHinge(class_weight=CLASS_WEIGHT, **k),
        lambda p, t: twin.multi_class_hinge(p, t, False, 1.0, W),
        labels,
        False,
    ),
}
ALL = {**ELEMENTS, **{f"rows: {name}": case for name, case in ROWS.items()}}


def data(make, shape, seed=0, dtype=np.float64):
    prediction, target = make(np.random.default_rng(seed), shape)
    target = target.astype(dtype) if target.dtype.kind == "f" else target
    return prediction.astype(dtype), target


@pytest.mark.parametrize("name", ALL)
def test_value_is_the_twins(isa, dtype, name):
    make_loss, reference, make = ALL[name]
    eps = float(np.finfo(dtype).eps)
    for size in SIZES:
        p, t = data(make, (3, size), size, dtype)
        expected = reference(p.astype(float), t.astype(float) if t.dtype.kind == "f" else t)
        each, _ = make_loss(reduction="none").forward(p, t)
        assert each.shape == expected.shape
        assert each.dtype == dtype
        np.testing.assert_allclose(each, expected, rtol=30 * eps, atol=30 * eps, err_msg=str(size))
        loss, _ = make_loss().forward(p, t)
        assert loss == pytest.approx(expected.mean(), rel=30 * eps, abs=30 * eps)
        assert make_loss(reduction="sum").forward(p, t)[0] == pytest.approx(expected.sum(), rel=30 * eps, abs=90 * eps)
        gradient = np.full_like(p, np.nan)
        measure = make_loss().measure(p, t, gradient)
        assert measure.mean == make_loss().measure(p, t).mean == loss
        assert measure.size == expected.size


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3, 7)])
def test_gradient_is_the_derivative(isa, name, shape):
    make_loss, _, make = ALL[name]
    p, t = data(make, shape, 1)
    for weight in (None, np.arange(float(shape[0])), np.random.default_rng(2).integers(0, 3, shape[:-1]) + 0.5):
        for reduction in ("mean", "sum"):
            loss = make_loss(reduction=reduction)
            _, backward = loss.forward(p, t, weight)
            numeric = numeric_gradient(lambda: loss.forward(p, t, weight)[0], p)  # noqa: B023
            assert_gradient(name, backward(), numeric)
    loss = make_loss(reduction="none")
    each, backward = loss.forward(p, t)
    factors = np.random.default_rng(3).standard_normal(each.shape)
    numeric = numeric_gradient(lambda: np.sum(loss.forward(p, t)[0] * factors), p)
    assert_gradient(name, backward(factors), numeric)


@pytest.mark.parametrize("name", FIVE_CLASSES)
def test_class_weights(isa, name):
    make_loss, reference, make, divides = FIVE_CLASSES[name]
    p, t = data(make, (4, 3, 5), 4)
    weight = np.random.default_rng(5).random((4, 3))
    expected = reference(p, t)
    np.testing.assert_allclose(make_loss(reduction="none").forward(p, t)[0], expected, rtol=1e-13)
    size = (weight * W[t]).sum() if divides else weight.sum()
    loss, backward = make_loss().forward(p, t, weight)
    assert loss == pytest.approx((weight * expected).sum() / size, rel=1e-13)
    assert make_loss().measure(p, t, None, weight).size == pytest.approx(size)
    assert_gradient(name, backward(), numeric_gradient(lambda: make_loss().forward(p, t, weight)[0], p))


@pytest.mark.parametrize("name", ALL)
def test_weights(isa, dtype, name):
    make_loss, reference, make = ALL[name]
    eps = float(np.finfo(dtype).eps)
    p, t = data(make, (4, 6, 5), 6, dtype)
    rng = np.random.default_rng(7)
    shapes = [(4,), (4, 6)] + ([(4, 6, 5)] if name in ELEMENTS else [])
    expected = reference(p.astype(float), t.astype(float) if t.dtype.kind == "f" else t)
    for shape in shapes:
        weight = rng.integers(0, 4, shape).astype(dtype)
        full = np.broadcast_to(weight.reshape(shape + (1,) * (expected.ndim - len(shape))), expected.shape)
        measure = make_loss().measure(p, t, None, weight)
        assert measure.mean == pytest.approx(np.average(expected, weights=full), rel=40 * eps, abs=40 * eps)
        assert measure.size == full.sum()
        each, _ = make_loss(reduction="none").forward(p, t, weight)
        np.testing.assert_allclose(each, full * expected, rtol=30 * eps, atol=90 * eps)
        ones, backward = make_loss().forward(p, t, np.ones(shape))
        plain, backward_plain = make_loss().forward(p, t)
        assert ones == pytest.approx(plain, rel=4 * eps)
        np.testing.assert_array_equal(backward(), backward_plain())


@pytest.mark.parametrize("name", ALL)
def test_a_mask_hides_anything(isa, name):
    make_loss, _, make = ALL[name]
    p, t = data(make, (6, 5), 8)
    mask = np.array([1.0, 0, 1, 1, 0, 0])
    kept, backward_kept = make_loss().forward(p[mask > 0], t[mask > 0])
    p[mask == 0] = np.nan
    t[mask == 0] = np.nan if t.dtype.kind == "f" else -100
    loss, backward = make_loss().forward(p, t, mask)
    gradient = backward()
    assert loss == pytest.approx(kept, rel=1e-14)
    np.testing.assert_allclose(gradient[mask > 0], backward_kept(), rtol=1e-14)
    assert (gradient[mask == 0] == 0).all()
    nothing = make_loss().measure(p, t, gradient, np.zeros(6))
    assert nothing[:2] == (0, 0)
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_same_bits_for_any_number_of_threads(dtype, name, n_threads):
    make_loss, _, make = ALL[name]
    p, t = data(make, (3001, 33), 9, dtype)
    weight = np.random.default_rng(10).random(3001).astype(dtype)
    with fa.num_threads(1):
        alone, backward_alone = make_loss().forward(p, t, weight)
    loss, backward = make_loss().forward(p, t, weight)
    assert loss == alone
    np.testing.assert_array_equal(backward(), backward_alone())


@pytest.mark.parametrize("name", ELEMENTS)
def test_elements_have_the_same_bits_on_every_instruction_set(every_isa, dtype, name):
    make_loss, _, make = ELEMENTS[name]
    p, t = data(make, (5, 97), 11, dtype)
    found = set()
    for _ in every_isa:
        loss, backward = make_loss().forward(p, t)
        found.add((loss, backward().tobytes()))
    assert len(found) == 1


# ---- tails, held against mpmath ----


def tail_cases():
    mpmath = pytest.importorskip("mpmath")
    exp, log = mpmath.exp, mpmath.log

    def softplus(x):
        return mpmath.log1p(exp(x))

    def sigmoid(x):
        return 1 / (1 + exp(-x))

    for z in (-800.0, -90.0, -20.0, -1e-5, 0.0, 1e-5, 20.0, 90.0, 800.0):
        x = mpmath.mpf(z)
        for t in (0.0, 1.0):
            value = softplus(-x) if t else softplus(x)
            slope = -sigmoid(-x) if t else sigmoid(x)
            yield L.BinaryCrossEntropy("logits"), z, t, value, slope
            p_true = sigmoid(x) if t else sigmoid(-x)
            rest = sigmoid(-x) if t else sigmoid(x)
            focal = rest**2 * value
            sign = -1 if t else 1
            if abs(z) <= 90:  # beyond, gamma log(1 - p) has lost digits as an argument of exp
                yield L.BinaryFocal(2.0, None), z, t, focal, sign * rest**2 * (2 * p_true * value + rest)
    for p in (1e-30, 1e-12, 1e-7, 0.3, 0.5, 0.75, 1 - 2**-20):
        for t in (0.0, 1.0):
            x = mpmath.mpf(p)
            yield L.BinaryCrossEntropy(), p, t, -log(x) if t else -mpmath.log1p(-x), None
    for d in (1e-30, 1e-9, 1e-3, 0.3, 0.87, 0.88, 1.0, 5.0, 50.0, 1e5):
        x = mpmath.mpf(d)
        yield L.LogCosh(), d, 0.0, log(mpmath.cosh(x)), mpmath.tanh(x)
    for z in (-90.0, -3.0, 0.0, 5.0, 80.0):
        yield L.Poisson(), z, 3.0, exp(mpmath.mpf(z)) - 3 * mpmath.mpf(z), exp(mpmath.mpf(z)) - 3


@pytest.mark.parametrize("kind", [np.float32, np.float64], ids=["f32", "f64"])
def test_tails(isa, kind):
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 1200  # 1 + exp(-2 1e5) would need more: log cosh is then d - log 2 to all digits that count
    eps = float(np.finfo(kind).eps)
    tiny = 4 * float(np.finfo(kind).smallest_subnormal)
    checked = 0
    for loss, p, t, value, slope in tail_cases():
        if float(kind(p)) != p:  # the expected values are those of numbers that the type has
            if kind is np.float64:
                raise AssertionError(p)
            continue
        if not abs(value) < float(np.finfo(kind).max):
            continue
        got, backward = loss.forward(np.array([p], kind), np.array([t], kind))
        # what comes in by exp(-gamma cost) is the rounding of its argument, at most 180 here
        relative = 400 * eps if isinstance(loss, L.BinaryFocal) else 6 * eps
        assert abs(got - value) <= relative * abs(value) + tiny, (loss, p, t, got, value)
        if slope is not None:
            assert abs(backward()[0] - slope) <= relative * abs(slope) + tiny, (loss, p, t, slope)
        checked += 1
    assert checked > 30


def test_logs_of_0_are_bounded():
    loss, backward = L.BinaryCrossEntropy().forward(np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    assert loss == 100
    np.testing.assert_array_equal(backward(), [-0.5e12, 0.5e12])
    assert L.BinaryCrossEntropy().forward(np.array([0.0, 1.0]), np.array([0.0, 1.0]))[0] == 0
    assert L.CrossEntropy(inputs="probabilities").forward(np.array([[0.0, 1.0]]), [0])[0] == 100
    assert L.CategoricalCrossEntropy("probabilities").forward(np.array([[0.0, 1.0]]), np.array([[1.0, 0]]))[0] == 100


def test_focal_of_a_sure_class_keeps_its_digits(isa):
    z = np.array([[40.0, 0.0, 1.0]])
    rest = (1 + math.e) * math.exp(-40)
    loss, backward = L.Focal(1.0).forward(z, [0])
    assert loss == pytest.approx(rest**2, rel=1e-13)  # (1 - p) (-log p), both equal to `rest`
    assert backward()[0, 0] == pytest.approx(-2 * rest**2, rel=1e-13)
    for gamma in (0.0, 0.5, 2.0):
        loss, backward = L.Focal(gamma).forward(np.array([[2000.0, 0.0]]), [0])
        assert loss == 0
        assert np.isfinite(backward()).all()


def test_squares_of_float32_neither_overflow_nor_vanish(isa):
    for d in (1e30, 1e-30):
        p = np.full(5, d, np.float32)
        expected = float(np.float32(d)) ** 2
        assert L.MeanSquaredError().measure(p, np.zeros(5)).mean == pytest.approx(expected, rel=1e-6)
        assert L.Hinge(True, 0.0).measure(-p, np.ones(5)).mean == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_nan_is_not_hidden(isa, dtype, name):
    make_loss, _, make = ALL[name]
    p, t = data(make, (3, 40), 12, dtype)
    p[1] = np.nan
    with np.errstate(all="raise"):
        assert math.isnan(make_loss().forward(p, t)[0])


# ---- several quantiles, columns of weights ----


def test_several_quantiles(isa):
    rng = np.random.default_rng(0)
    p, t = rng.standard_normal((4, 6, 3)), rng.standard_normal((4, 6))
    q = [0.1, 0.5, 0.9]
    loss = L.Quantile(q)
    expected = twin.quantile(p, t[..., None], q)
    value, backward = loss.forward(p, t)
    assert value == pytest.approx(expected.mean(), rel=1e-13)
    assert_gradient("prediction", backward(), numeric_gradient(lambda: loss.forward(p, t)[0], p))
    weight = rng.random((4, 6))
    assert loss.forward(p, t, weight)[0] == pytest.approx(np.average(expected.mean(-1), weights=weight), rel=1e-13)
    with pytest.raises(ValueError, match="3 estimates on the last axis"):
        loss.forward(p[..., :2], t)
    with pytest.raises(ValueError, match=r"\(4, 6\), got \(4, 6, 3\)"):
        loss.forward(p, p)


def test_positives_weigh_by_column(isa):
    rng = np.random.default_rng(0)
    for inputs, (p, t) in (("logits", logits(rng, (9, 5))), ("probabilities", probabilities(rng, (9, 5)))):
        loss = L.BinaryCrossEntropy(inputs, CLASS_WEIGHT)
        expected = twin.binary_cross_entropy(p, t, inputs == "logits", W)
        assert loss.forward(p, t)[0] == pytest.approx(expected.mean(), rel=1e-13)
        _, backward = loss.forward(p, t)
        assert_gradient(inputs, backward(), numeric_gradient(lambda: loss.forward(p, t)[0], p))  # noqa: B023


def test_batchmean_is_the_divergence():
    p, t = distributions(np.random.default_rng(0), (4, 7))
    loss, backward = L.KLDivergence().forward(p, t)
    assert loss == pytest.approx(twin.kl_divergence(p, t, False).sum() / 4, rel=1e-13)
    np.testing.assert_allclose(backward(), -t / 4)


def test_hinge_takes_0_for_minus_1():
    p = np.random.default_rng(0).standard_normal(9)
    t = np.arange(9) % 2
    assert L.Hinge().forward(p, t)[0] == L.Hinge().forward(p, 2 * t - 1)[0]


def test_accuracy_is_weighted():
    z = np.eye(3)[[0, 1, 1, 2]]
    for loss, target in (
        (L.CrossEntropy(), [0, 1, 2, 2]),
        (L.CategoricalCrossEntropy(), np.eye(3)[[0, 1, 2, 2]]),
        (L.CategoricalCrossEntropy("probabilities"), np.eye(3)[[0, 1, 2, 2]]),
        (L.CrossEntropy(inputs="probabilities"), [0, 1, 2, 2]),
        (L.CrossEntropy(inputs="log_probabilities"), [0, 1, 2, 2]),
    ):
        assert loss.measure(z, target)[1:] == (4, 3)
        assert loss.measure(z, target, None, [1.0, 0.0, 2.0, 0.5])[1:] == (3.5, 1.5)
    weighted = L.CrossEntropy(class_weight=[1.0, 2.0, 4.0])
    assert weighted.measure(z, [0, 1, 2, 2])[1:] == (11, 7)


# ---- against PyTorch ----


def test_elements_against_pytorch(dtype):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    eps = float(np.finfo(dtype).eps)
    cases = {
        "mse": functional.mse_loss,
        "mae": functional.l1_loss,
        "huber": lambda p, t: functional.huber_loss(p, t, delta=0.7),
        "smooth l1": lambda p, t: functional.smooth_l1_loss(p, t, beta=0.7),
        "poisson full": lambda p, t: functional.poisson_nll_loss(p, t, log_input=False, full=True),
        "poisson log full": lambda p, t: functional.poisson_nll_loss(p, t, full=True),
        "binary": functional.binary_cross_entropy,
        "binary logits": lambda p, t: functional.binary_cross_entropy_with_logits(
            p, t, pos_weight=torch.tensor(2.5, dtype=p.dtype)
        ),
        "kl": lambda p, t: functional.kl_div(p, t, reduction="batchmean"),
        "kl log": lambda p, t: functional.kl_div(p, t, reduction="batchmean", log_target=True),
    }
    for name, peer in cases.items():
        make_loss, _, make = ELEMENTS[name]
        p, t = data(make, (9, 31), 13, dtype)
        tensor = torch.tensor(p, requires_grad=True)
        value = peer(tensor, torch.tensor(t))
        value.backward()
        loss, backward = (make_loss(reduction="batchmean") if "kl" in name else make_loss()).forward(p, t)
        assert loss == pytest.approx(float(value.detach()), rel=40 * eps), name
        np.testing.assert_allclose(backward(), tensor.grad.numpy(), rtol=40 * eps, atol=eps, err_msg=name)


def test_rows_against_pytorch(dtype):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    eps = float(np.finfo(dtype).eps)
    weight = torch.tensor(np.array(CLASS_WEIGHT, dtype))

    def against(name, loss, make, peer):
        p, t = data(make, (9, 5), 14, dtype)
        tensor = torch.tensor(p, requires_grad=True)
        value = peer(tensor, torch.tensor(t))
        value.backward()
        got, backward = loss.forward(p, t)
        assert got == pytest.approx(float(value.detach()), rel=40 * eps), name
        np.testing.assert_allclose(backward(), tensor.grad.numpy(), rtol=40 * eps, atol=4 * eps, err_msg=name)

    against(
        "cross-entropy",
        L.CrossEntropy(class_weight=CLASS_WEIGHT, label_smoothing=0.2),
        labels,
        lambda p, t: functional.cross_entropy(p, t, weight, label_smoothing=0.2),
    )
    against(
        "dense",
        L.CategoricalCrossEntropy(class_weight=CLASS_WEIGHT, label_smoothing=0.2),
        shares,
        lambda p, t: functional.cross_entropy(p, t, weight, label_smoothing=0.2),
    )
    against(
        "nll",
        L.CrossEntropy(class_weight=CLASS_WEIGHT, inputs="log_probabilities"),
        label_log_probabilities,
        lambda p, t: functional.nll_loss(p, t, weight),
    )
    for squared in (False, True):
        against(
            "margin",
            L.MultiClassHinge(squared, 0.8, CLASS_WEIGHT),
            labels,
            lambda p, t, power=1 + squared: functional.multi_margin_loss(p, t, power, 0.8, weight),
        )
    against("cosine", L.Cosine(), numbers, lambda p, t: (1 - functional.cosine_similarity(p, t)).mean())


# ---- names, settings, messages ----


@pytest.mark.parametrize("module", ["base", "binary", "classes", "ctc", "distributions", "regression"])
def test_examples_run(module):
    found = doctest.testmod(importlib.import_module(f"fastact.losses.{module}"))
    assert found.attempted > 2
    assert found.failed == 0


def test_by_name_and_settings():
    for name in losses._BY_NAME:
        loss = as_loss(name)
        again = type(loss)(**json.loads(json.dumps(loss.config())))
        assert repr(again) == repr(loss)
        assert pickle.loads(pickle.dumps(loss)).config() == copy.deepcopy(loss).config() == loss.config()
    full = L.CrossEntropy(-1, label_smoothing=0.1, class_weight=np.array([1.0, 2.0]), reduction="sum")
    assert full.config() == {
        "ignore_index": -1,
        "label_smoothing": 0.1,
        "class_weight": (1.0, 2.0),
        "reduction": "sum",
    }
    assert repr(L.Quantile([0.1, 0.9])) == "Quantile(quantiles=(0.1, 0.9))"
    assert repr(L.KLDivergence(reduction="mean")) == "KLDivergence(reduction='mean')"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: L.MeanSquaredError(reduction="avg"), ValueError, ["reduction", "'none'", "'avg'"]),
        (lambda: L.Huber(0.0), ValueError, ["delta", "0 < delta"]),
        (lambda: L.Quantile(1.0), ValueError, ["quantiles"]),
        (lambda: L.Quantile([]), ValueError, ["quantiles", "at least one"]),
        (lambda: L.BinaryFocal(alpha=1.5), ValueError, ["alpha"]),
        (lambda: L.BinaryCrossEntropy("logit"), ValueError, ["inputs", "'logits'"]),
        (lambda: L.CrossEntropy(inputs="logit"), ValueError, ["inputs", "'log_probabilities'"]),
        (
            lambda: L.CrossEntropy(inputs="probabilities", label_smoothing=0.1),
            ValueError,
            ["label_smoothing", "logits"],
        ),
        (lambda: L.CrossEntropy(label_smoothing=1.5), ValueError, ["label_smoothing"]),
        (lambda: L.CrossEntropy(class_weight=[1.0, -1.0]), ValueError, ["class_weight"]),
        (lambda: L.CrossEntropy(class_weight=3.0), TypeError, ["class_weight", "sequence"]),
        (
            lambda: L.CategoricalCrossEntropy("probabilities", class_weight=[1.0]),
            ValueError,
            ["class_weight", "logits"],
        ),
        (
            lambda: L.CrossEntropy(class_weight=[1.0]).forward(np.zeros((2, 3)), [0, 1]),
            ValueError,
            ["class_weight", "3 numbers", "got 1"],
        ),
        (
            lambda: L.BinaryCrossEntropy().forward(np.array([[0.5, 1.5]]), np.zeros((1, 2))),
            ValueError,
            ["prediction", "probabilities", "1.5 at position (0, 1)"],
        ),
        (
            lambda: L.BinaryCrossEntropy().forward(np.array([0.5, 0.5]), np.array([0.0, 2.0])),
            ValueError,
            ["target", "got 2 at position 1"],
        ),
        (lambda: L.BinaryFocal().check((), np.array([0.0, -1.0])), ValueError, ["target", "-1 at position 1"]),
        (lambda: L.Hinge().forward(np.zeros(2), np.array([2.0, 1.0])), ValueError, ["target", "-1 or 0"]),
        (lambda: L.Poisson().forward(np.zeros(2), np.array([2.0, -1.0])), ValueError, ["counts", "position 1"]),
        (lambda: L.Poisson(False).forward(np.array([-1.0]), np.ones(1)), ValueError, ["prediction", "rates"]),
        (lambda: L.KLDivergence().forward(np.zeros((1, 2)), np.array([[0.0, -1.0]])), ValueError, ["target"]),
        (
            lambda: L.CrossEntropy(inputs="probabilities").forward(np.array([[0.5, 1.5]]), [1]),
            ValueError,
            ["prediction", "probabilities", "1.5"],
        ),
        (
            lambda: L.CategoricalCrossEntropy().forward(np.zeros((2, 3)), [0, 1]),
            ValueError,
            ["target", "(2, 3)", "(2,)", "np.eye"],
        ),
        (lambda: L.Cosine().forward(np.zeros((2, 3)), np.zeros(6)), ValueError, ["target", "reshape((2, 3))"]),
        (lambda: L.MeanSquaredError(reduction="none").measure(np.zeros(2), np.zeros(2)), ValueError, ["reduction"]),
        (
            lambda: L.MeanSquaredError().forward(np.zeros((2, 3)), np.zeros((2, 3)), np.ones(3)),
            ValueError,
            ["weight", "(2, 3)", "(3,)"],
        ),
        (
            lambda: L.MeanSquaredError().forward(np.zeros(2), np.zeros(2), [1.0, -1.0]),
            ValueError,
            ["weight", "negative"],
        ),
        (lambda: L.MeanSquaredError().forward(np.zeros(2), np.zeros(2), [1.0, np.nan]), ValueError, ["weight", "NaN"]),
        (lambda: L.CrossEntropy().forward(np.zeros((2, 3)), [0, 1], [1.0, np.inf]), ValueError, ["weight", "infinity"]),
        (lambda: L.CrossEntropy().forward(np.zeros((2, 3)), [0, 1], ["a", "b"]), TypeError, ["weight", "real numbers"]),
        (lambda: L.CrossEntropy().forward(np.zeros((2, 3)), [0, 7], [1.0, 1.0]), ValueError, ["got 7 at position 1"]),
    ],
)
def test_refuses(call, error, words):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
