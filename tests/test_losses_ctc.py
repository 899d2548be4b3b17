"""CTC: against the twin, all spellings and PyTorch; gradients; lengths, repetitions, what cannot be spelt; messages."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from gradients import assert_gradient, numeric_gradient

import fastact as fa
from fastact.losses import CTC
from fastact.reference import losses as twin

pytestmark = pytest.mark.sanitise


def batch(rng, rows, steps, classes, most, dtype=np.float64, blank=0):
    """Logits, labels without blanks and with repetitions, and lengths that can be spelt."""
    z = (2 * rng.standard_normal((rows, steps, classes))).astype(dtype)
    labels = rng.integers(0, classes - 1, (rows, most))
    labels += labels >= blank
    target_lengths = rng.integers(0, most + 1, rows)
    if most > 2:
        labels[:, 2] = labels[:, 1]
    needed = [
        n + sum(a == b for a, b in itertools.pairwise(row[:n])) for row, n in zip(labels, target_lengths, strict=True)
    ]
    input_lengths = np.array([rng.integers(min(n, steps), steps + 1) for n in needed])
    return z, labels, input_lengths, target_lengths


def expected_losses(z, labels, input_lengths, target_lengths, blank=0):
    return np.array(
        [
            twin.ctc(row[:steps], label[:n], blank) if steps else (0.0 if n == 0 else math.inf)
            for row, label, steps, n in zip(z, labels, input_lengths, target_lengths, strict=True)
        ]
    )


def test_the_probabilities_of_all_spellings_add_up_to_1(isa):
    z = np.random.default_rng(0).standard_normal((1, 4, 3))
    total = 0.0
    for n in range(5):
        for labels in itertools.product((1, 2), repeat=n):
            loss, _ = CTC(reduction="none").forward(z, np.array([labels], int).reshape(1, n))
            total += math.exp(-loss[0])
    assert total == pytest.approx(1, rel=1e-12)


def test_against_all_paths(isa):
    z = np.random.default_rng(1).standard_normal((1, 5, 3))
    log_p = twin.log_softmax_rows(z[0])
    for wanted in ((), (1,), (2, 1), (1, 1), (2, 2, 1)):
        total = 0.0
        for path in itertools.product(range(3), repeat=5):
            merged = [k for k, _ in itertools.groupby(path)]
            if tuple(k for k in merged if k) == wanted:
                total += math.exp(sum(log_p[t, k] for t, k in enumerate(path)))
        loss, _ = CTC(reduction="sum").forward(z, np.array([wanted], int).reshape(1, -1))
        assert loss == pytest.approx(-math.log(total), rel=1e-12)
        assert twin.ctc(z[0], wanted) == pytest.approx(-math.log(total), rel=1e-12)


@pytest.mark.parametrize("most", [0, 1, 3, 6, 7, 14, 15, 16, 17, 31, 33])
@pytest.mark.parametrize("blank", [0, 3])
def test_losses(isa, dtype, most, blank):
    rng = np.random.default_rng(most)
    z, labels, steps, lengths = batch(rng, 6, 2 * most + 4, 5, most, dtype, blank)
    expected = expected_losses(z, labels, steps, lengths, blank)
    assert np.isfinite(expected).all()
    losses, _ = CTC(blank, reduction="none").forward(z, labels, input_lengths=steps, target_lengths=lengths)
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(losses, expected, rtol=30 * eps, atol=30 * eps)
    mean, _ = CTC(blank).forward(z, labels, input_lengths=steps, target_lengths=lengths)
    assert mean == pytest.approx((expected / np.maximum(lengths, 1)).mean(), rel=30 * eps)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_the_derivative(isa, reduction, weighted):
    rng = np.random.default_rng(2)
    z, labels, steps, lengths = batch(rng, 4, 8, 4, 3)
    lengths[0], steps[1] = 0, 8
    weight = np.array([0.5, 2.0, 0.0, 1.0]) if weighted else None
    loss = CTC(reduction=reduction)

    def forward():
        return loss.forward(z, labels, weight, input_lengths=steps, target_lengths=lengths)

    value, backward = forward()
    gradient = backward()
    assert_gradient("prediction", gradient, numeric_gradient(lambda: forward()[0], z))
    assert np.abs(gradient.sum(-1)).max() < 1e-14
    measure = loss.measure(z, labels, None, weight, input_lengths=steps, target_lengths=lengths)
    assert measure.mean == value
    assert measure.size == (3.5 if weighted else 4)
    for row, n in zip(gradient, steps, strict=True):
        assert (row[n:] == 0).all()


def test_gradient_of_single_losses():
    rng = np.random.default_rng(3)
    z, labels, steps, lengths = batch(rng, 3, 7, 4, 2)
    loss, factors = CTC(reduction="none"), np.array([0.5, -1.0, 2.0])

    def forward():
        return loss.forward(z, labels, input_lengths=steps, target_lengths=lengths)

    numeric = numeric_gradient(lambda: float((forward()[0] * factors).sum()), z)
    assert_gradient("prediction", forward()[1](factors), numeric)


def test_padding_and_masks_give_the_lengths(isa):
    rng = np.random.default_rng(4)
    z, labels, steps, lengths = batch(rng, 5, 9, 4, 3)
    steps = np.maximum(steps, 1)
    expected, backward = CTC().forward(z, labels, input_lengths=steps, target_lengths=lengths)
    gradient = backward()
    mask = (np.arange(9) < steps[:, None]).astype(float)
    z[mask == 0] = np.nan
    for filler in (0, -1):  # the blank, or no class
        filled = np.where(np.arange(3) >= lengths[:, None], filler, labels)
        loss, again = CTC().forward(z, filled, mask)
        assert loss == expected
        np.testing.assert_array_equal(again(), gradient)


def test_a_list_of_sequences_is_padded(isa):
    rng = np.random.default_rng(9)
    z, labels, _, lengths = batch(rng, 5, 9, 4, 3)
    lengths[:] = 3, 0, 2, 3, 1
    expected = CTC().measure(z, labels, target_lengths=lengths)
    sequences = [row[:n] for row, n in zip(labels, lengths, strict=True)]
    for given in (sequences, tuple(map(list, sequences)), np.array(sequences, object)):
        assert CTC().measure(z, given) == expected
        padded = CTC(2).prepare(given, z.dtype)
        assert padded.dtype == np.int64
        assert padded.shape == (5, 3)
        assert [row[row >= 0].tolist() for row in padded] == [row.tolist() for row in sequences]
    assert CTC().prepare([[], []], z.dtype).shape == (2, 0)
    assert CTC.aligned is False
    assert fa.losses.CrossEntropy.aligned is True


def test_what_cannot_be_spelt(isa, dtype):
    z = np.zeros((2, 2, 3), dtype)
    labels = np.array([[1, 1], [1, 2]])  # 1 1 needs a blank between, three steps
    loss, backward = CTC(reduction="none").forward(z, labels)
    assert loss[0] == math.inf
    assert np.isfinite(loss[1])
    gradient = backward()
    assert np.isnan(gradient[0]).all()
    assert np.isfinite(gradient[1]).all()
    loss, backward = CTC(zero_infinity=True, reduction="none").forward(z, labels)
    assert loss[0] == 0
    gradient = backward()
    assert (gradient[0] == 0).all()
    assert (gradient[1] != 0).any()


def test_impossible_classes_and_far_logits(isa, dtype):
    z = np.zeros((1, 4, 3), dtype)
    z[0, :, 2] = -np.inf
    assert CTC(reduction="sum").forward(z, [[2]])[0] == math.inf
    loss, backward = CTC(reduction="sum").forward(z, [[1]])
    assert loss == pytest.approx(-math.log(10 / 16), rel=1e-5)
    assert (backward()[0, :, 2] == 0).all()
    z[0, :, 2] = 1e4
    loss, backward = CTC(reduction="sum").forward(z, [[1]])
    assert loss == pytest.approx(4e4 - math.log(10), rel=1e-6)
    assert np.isfinite(backward()).all()
    with np.errstate(all="raise"):
        z[0, 2, 0] = np.nan
        assert math.isnan(CTC().forward(z, [[1]])[0])


def test_float32_keeps_its_digits_over_long_sequences(isa):
    rng = np.random.default_rng(5)
    z, labels, steps, lengths = batch(rng, 2, 1500, 20, 200, np.float32)
    lengths[:] = 200
    labels = 1 + np.arange(400).reshape(2, 200) % 19
    steps[:] = 1500
    exact, exact_backward = CTC(reduction="sum").forward(z.astype(float), labels)
    loss, backward = CTC(reduction="sum").forward(z, labels)
    assert loss == pytest.approx(exact, rel=1e-6)
    np.testing.assert_allclose(backward(), exact_backward(), rtol=0, atol=2e-4)


def test_same_bits_for_any_number_of_threads(dtype, n_threads):
    z, labels, steps, lengths = batch(np.random.default_rng(6), 17, 40, 9, 12, dtype)
    with fa.num_threads(1):
        alone, backward_alone = CTC().forward(z, labels, input_lengths=steps, target_lengths=lengths)
    loss, backward = CTC().forward(z, labels, input_lengths=steps, target_lengths=lengths)
    assert loss == alone
    np.testing.assert_array_equal(backward(), backward_alone())


@pytest.mark.parametrize("blank", [0, 7])
def test_against_pytorch(dtype, blank):
    torch = pytest.importorskip("torch")
    z, labels, steps, lengths = batch(np.random.default_rng(7), 9, 40, 8, 12, dtype, blank)
    for reduction in ("mean", "sum", "none"):
        tensor = torch.tensor(z, requires_grad=True)
        log_p = tensor.log_softmax(-1).transpose(0, 1)
        value = torch.nn.functional.ctc_loss(
            log_p, torch.tensor(labels), torch.tensor(steps), torch.tensor(lengths), blank, reduction
        )
        value.sum().backward()
        loss, backward = CTC(blank, reduction=reduction).forward(z, labels, input_lengths=steps, target_lengths=lengths)
        tolerance = 1e-5 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(loss, value.detach().numpy(), rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(backward(), tensor.grad.numpy(), rtol=0, atol=20 * tolerance)


def test_a_trainer_takes_it():
    fa.seed(0)
    rng = np.random.default_rng(8)
    target = 1 + rng.integers(0, 3, (16, 3))
    x = np.zeros((16, 9, 4), np.float32)
    for row, labels in zip(x, target, strict=True):
        row[np.arange(3) * 3 + 1, labels] = 1
    model = fa.nn.Sequential(fa.nn.LSTM(4, 16), fa.nn.Dense(16, 4))
    trainer = fa.Trainer(model, "ctc", fa.optim.Adam(0.02))
    history = trainer.fit(x, target, epochs=40, batch_size=8)
    assert history["loss"][-1] < 0.2 * history["loss"][0]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: CTC().forward(np.zeros((2, 3)), [[1]]), ValueError, ["prediction", "(B, T, C)", "(2, 3)"]),
        (lambda: CTC().forward(np.zeros((2, 4, 3)), [[1]]), ValueError, ["target", "B = 2", "(1, 1)"]),
        (lambda: CTC().forward(np.zeros((1, 4, 3)), [[1, 3]]), ValueError, ["class < 3", "got 3", "(0, 1)"]),
        (lambda: CTC().forward(np.zeros((1, 4, 3)), np.array([[1.5]])), TypeError, ["target:", "integers"]),
        (lambda: CTC().forward(np.zeros((2, 4, 3)), [[1], [1.5]]), TypeError, ["target[1]", "integers", "float64"]),
        (lambda: CTC().forward(np.zeros((2, 4, 3)), [1, 2]), ValueError, ["target[0]", "sequence of labels", "()"]),
        (lambda: CTC(3).forward(np.zeros((1, 4, 3)), [[1]]), ValueError, ["blank", "got 3"]),
        (lambda: CTC(-1), ValueError, ["blank"]),
        (
            lambda: CTC().forward(np.zeros((1, 4, 3)), [[1]], input_lengths=[5]),
            ValueError,
            ["input_lengths", "<= 4", "got 5"],
        ),
        (
            lambda: CTC().forward(np.zeros((1, 4, 3)), [[1, 0]], target_lengths=[2]),
            ValueError,
            ["other than the blank 0", "got 0"],
        ),
        (
            lambda: CTC().forward(np.zeros((1, 4, 3)), [[1]], [[1, 0, 1, 0]]),
            ValueError,
            ["weight", "0 from its end on"],
        ),
        (lambda: CTC().forward(np.zeros((1, 4, 3)), [[1]], [-1.0]), ValueError, ["weight", "negative"]),
        (lambda: CTC().check((4, 3), np.array([[1, 7]])), ValueError, ["got 7"]),
        (lambda: CTC().check((3,), np.array([[1]])), ValueError, ["(B, T, C)"]),
        (lambda: CTC(reduction="none").measure(np.zeros((1, 4, 3)), [[1]]), ValueError, ["reduction"]),
    ],
)
def test_refuses(call, error, words):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
