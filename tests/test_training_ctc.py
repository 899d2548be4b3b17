"""Sequences whose targets have lengths of their own (CTC) through a Trainer, and predictions for ragged lists."""

from __future__ import annotations

import numpy as np
import pytest

import fastact as fa
from fastact.training.data import as_data

LABELS = 4  # and the blank, class 0


def spoken(count, seed=0):
    """Labels of which each is heard for 2 to 4 noisy steps, in lists of different lengths; the last has no label."""
    rng = np.random.default_rng(seed)
    x, y = [], []
    for i in range(count):
        labels = rng.integers(1, LABELS + 1, 0 if i == count - 1 else rng.integers(1, 6))
        heard = np.concatenate([np.repeat(labels, rng.integers(2, 5, len(labels))), np.zeros(1, np.int64)])
        x.append((np.eye(LABELS + 1)[heard] + 0.3 * rng.standard_normal((len(heard), LABELS + 1))).astype(np.float32))
        y.append(labels)
    return x, y


def net(seed=0, units=24, dtype=np.float32):
    rng = np.random.default_rng(seed)
    gru = fa.nn.GRU(LABELS + 1, units, bidirectional=True, dtype=dtype, rng=rng)
    return fa.nn.Sequential(gru, fa.nn.Dense(2 * units, LABELS + 1, dtype=dtype, rng=rng))


def read(logits):
    """The likeliest class of each step, repetitions merged and blanks dropped."""
    best = logits.argmax(-1)
    return [int(c) for c, before in zip(best, [0, *best[:-1]], strict=True) if c not in (0, before)]


def test_a_net_learns_to_read_sequences():
    x, y = spoken(400)
    trainer = fa.Trainer(net(), "ctc", fa.optim.Adam(1e-2), seed=0)
    history = trainer.fit(x, y, epochs=10, batch_size=16, validation=0.1)
    assert history["val_loss"][-1] < 0.3 < history["val_loss"][0]
    new_x, new_y = spoken(100, seed=1)
    right = [read(logits) == labels.tolist() for logits, labels in zip(trainer.predict(new_x), new_y, strict=True)]
    assert np.mean(right) > 0.8
    assert trainer.evaluate(new_x, new_y)["loss"] < 0.4


@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_is_its_sequences_one_by_one(weighted):
    """Padding is no step, labels have their own lengths, weights are those of sequences: loss and gradient."""
    x, y = spoken(6)
    weight = np.linspace(0.5, 2.0, 6) if weighted else None
    trainer = fa.Trainer(net(dtype=np.float64), "ctc")
    (batch,) = as_data(x, y, trainer.model, trainer.loss, sample_weight=weight).batches(None)
    prediction, backward = trainer.model.forward(batch.x, lengths=batch.lengths)
    loss, loss_backward = trainer.loss.forward(prediction, batch.y, batch.weight)
    trainer.model.zero_grad()
    backward(loss_backward())
    found, expected = trainer.model.flat_gradients.copy(), 0.0
    trainer.model.zero_grad()
    shares = np.full(6, 1 / 6) if weight is None else weight / weight.sum()
    for sequence, labels, share in zip(x, y, shares, strict=True):
        prediction, backward = trainer.model.forward(sequence[None])
        one, loss_backward = trainer.loss.forward(prediction, labels[None])
        backward(share * loss_backward())
        expected += share * one
    assert loss == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(found, trainer.model.flat_gradients, rtol=0, atol=1e-13)


def test_labels_as_many_as_steps_are_no_targets_of_steps():
    x = [np.ones((n, LABELS + 1), np.float32) for n in (3, 4)]
    data = as_data(x, [[1, 2, 1], [3, 1, 2, 4]], net(), fa.losses.CTC())
    (batch,) = data.batches(None)
    np.testing.assert_array_equal(batch.y, [[1, 2, 1, -1], [3, 1, 2, 4]])
    np.testing.assert_array_equal(batch.weight, [[1, 1, 1, 0], [1, 1, 1, 1]])


def test_sequences_of_one_length_with_labels_of_several():
    x = np.random.default_rng(0).standard_normal((5, 8, LABELS + 1)).astype(np.float32)
    y = [[1], [2, 3], [], [1, 4, 1], [2]]
    trainer = fa.Trainer(net(), "ctc")
    trainer.fit(x, y, 2, batch_size=2, sample_weight=[1, 1, 1, 2, 1])
    assert trainer.evaluate(x, y, 2)["loss"] == pytest.approx(trainer.evaluate(x, y, None)["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("y", "settings", "error", "words"),
    [
        ([[1], [9]], {}, ValueError, r"y: expected classes 0 <= class < 5 other than the blank 0, got 9"),
        ([[1], [0.5]], {}, TypeError, r"y\[1\]: expected integers"),
        ([[1]], {}, ValueError, "y: expected one target for each of the 2 sequences of x, got 1"),
        ([[1], [2]], {"class_weight": {1: 2.0}}, ValueError, "class_weight: expected None with CTC"),
        ([[1], [2]], {"sample_weight": [[1, 1], [1, 1]]}, ValueError, "sample_weight: expected one number"),
    ],
)
def test_refuses(y, settings, error, words):
    trainer = fa.Trainer(net(), "ctc")
    with pytest.raises(error, match=words):
        trainer.fit([np.ones((n, LABELS + 1)) for n in (3, 4)], y, **settings)
    assert trainer.steps == 0


# ---- predict ----


@pytest.mark.parametrize("batch_size", [None, 1, 3, 100])
def test_predictions_of_sequences_come_in_their_order(batch_size):
    x = spoken(30)[0]
    trainer = fa.Trainer(net(dtype=np.float64), "ctc")
    found = trainer.predict(x, batch_size)
    assert [y.shape for y in found] == [(len(sequence), LABELS + 1) for sequence in x]
    for y, sequence in zip(found, x, strict=True):
        np.testing.assert_allclose(y, trainer.model(sequence[None].astype(np.float64))[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("classes", [3, 4, 5])  # as many as a sequence has steps
def test_one_prediction_a_sequence_is_a_row(classes):
    x = [np.random.default_rng(n).standard_normal((n, 2)) for n in (4, 3, 5, 3)]
    rng = np.random.default_rng(0)
    model = fa.nn.Sequential(
        fa.nn.LSTM(2, 6, return_sequences=False, dtype=np.float64, rng=rng),
        fa.nn.Dense(6, classes, dtype=np.float64, rng=rng),
    )
    found = fa.Trainer(model).predict(x)
    assert found.shape == (4, classes)
    np.testing.assert_allclose(found, np.concatenate([model(one[None]) for one in x]), rtol=0, atol=1e-13)


def test_predict_refuses():
    trainer = fa.Trainer(net())
    with pytest.raises(ValueError, match=r"x\[1\]: expected steps as in x\[0\]"):
        trainer.predict([np.ones((3, 5)), np.ones((4, 6))])
    with pytest.raises(ValueError, match="batch_size"):
        trainer.predict([np.ones((3, 5)), np.ones((4, 5))], 0)
    with pytest.raises(TypeError, match=r"x: expected an array of numbers.*pad rows"):  # Dense takes no lengths
        fa.Trainer(fa.nn.Sequential(fa.nn.Dense(5, 2))).predict([np.ones((3, 5)), np.ones((4, 5))])
