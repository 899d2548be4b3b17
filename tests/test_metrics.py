"""Metrics: against scikit-learn and by hand; batch by batch as all at once; weights as repetition; messages."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest

import fastact as fa
from fastact import metrics
from fastact.metrics import F1, ROCAUC, Accuracy, Perplexity, Precision, Recall, TopKAccuracy, as_metric

CLASSES = [
    Accuracy(),
    TopKAccuracy(2),
    Precision("macro"),
    Precision("micro"),
    Recall("macro"),
    Recall("micro"),
    F1("macro"),
    F1("micro"),
    Perplexity(),
]
BINARY = [Accuracy(), Precision(), Recall(), F1(), F1("macro"), ROCAUC()]
NUMBERS = [metrics.MeanAbsoluteError(), metrics.MeanSquaredError(), metrics.R2()]


def name(metric):
    return metric.name


def class_data(rows=57, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((rows, classes)).astype(np.float32)
    target = rng.integers(0, classes - 1, rows)  # the last class never occurs
    scores[np.arange(rows), target] += 0.8
    return scores, target


def binary_data(rows=57, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, rows)
    return np.round(np.clip(0.3 * rng.standard_normal(rows) + 0.3 + 0.3 * target, 0, 1), 1), target  # with ties


def number_data(rows=57, outputs=3, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.standard_normal((rows, outputs)) + 100
    return target + 0.3 * rng.standard_normal((rows, outputs)), target


def data_of(metric):
    return class_data() if metric in CLASSES else binary_data() if metric in BINARY else number_data()


def value(metric, prediction, target, weight=None, batches=1):
    metric.reset()
    for part in np.array_split(np.arange(len(prediction)), batches):
        metric.update(prediction[part], target[part], None if weight is None else weight[part])
    return metric.result()


@pytest.mark.parametrize("metric", CLASSES + BINARY + NUMBERS, ids=name)
@pytest.mark.parametrize("weighted", [False, True])
def test_batch_by_batch_as_all_at_once(metric, weighted):
    prediction, target = data_of(metric)
    weight = np.random.default_rng(1).random(len(target)) if weighted else None
    whole = value(metric, prediction, target, weight)
    assert math.isfinite(whole)
    for batches in (2, 9, len(target)):
        assert value(metric, prediction, target, weight, batches) == pytest.approx(whole, rel=1e-6, abs=1e-9)
    metric.reset()
    assert math.isnan(metric.result())


@pytest.mark.parametrize("metric", CLASSES + BINARY + NUMBERS, ids=name)
def test_a_weight_is_a_number_of_repetitions(metric):
    prediction, target = data_of(metric)
    weight = np.random.default_rng(2).integers(0, 4, len(target))
    repeated = value(metric, np.repeat(prediction, weight, 0), np.repeat(target, weight, 0))
    spoilt = np.where((weight == 0).reshape(-1, *[1] * (prediction.ndim - 1)), np.nan, prediction)
    labels = np.where((weight == 0).reshape(-1, *[1] * (target.ndim - 1)), -7, target)
    assert value(metric, spoilt, labels, weight, 3) == pytest.approx(repeated, rel=1e-6)


def test_classes_against_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, target = class_data()
    weight = np.random.default_rng(3).random(len(target))
    found = scores.argmax(-1)
    for w in (None, weight):
        assert value(Accuracy(), scores, target, w) == pytest.approx(
            sklearn.accuracy_score(target, found, sample_weight=w)
        )
        for k in (1, 2, 4):
            expected = sklearn.top_k_accuracy_score(target, scores, k=k, labels=np.arange(5), sample_weight=w)
            assert value(TopKAccuracy(k), scores, target, w) == pytest.approx(expected)
        for average in ("macro", "micro"):
            for kind, peer in (
                (Precision, sklearn.precision_score),
                (Recall, sklearn.recall_score),
                (F1, sklearn.f1_score),
            ):
                expected = peer(target, found, average=average, sample_weight=w, zero_division=0)
                assert value(kind(average), scores, target, w, 4) == pytest.approx(expected), (kind, average)


def test_two_classes_against_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, target = binary_data()
    weight = np.random.default_rng(3).random(len(target))
    for w in (None, weight):
        for kind, peer in (
            (Precision, sklearn.precision_score),
            (Recall, sklearn.recall_score),
            (F1, sklearn.f1_score),
        ):
            assert value(kind(), scores, target, w) == pytest.approx(peer(target, scores > 0.5, sample_weight=w))
        assert value(ROCAUC(), scores, target, w, 5) == pytest.approx(
            sklearn.roc_auc_score(target, scores, sample_weight=w), rel=1e-12
        )


def test_numbers_against_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    prediction, target = number_data()
    weight = np.random.default_rng(3).random(len(target))
    for w in (None, weight):
        assert value(metrics.R2(), prediction, target, w, 5) == pytest.approx(
            sklearn.r2_score(target, prediction, sample_weight=w), rel=1e-12
        )
        assert value(metrics.MeanAbsoluteError(), prediction, target, w) == pytest.approx(
            sklearn.mean_absolute_error(target, prediction, sample_weight=w)
        )
        assert value(metrics.MeanSquaredError(), prediction, target, w) == pytest.approx(
            sklearn.mean_squared_error(target, prediction, sample_weight=w)
        )


def test_by_hand():
    assert value(Accuracy(), np.array([[2.0, 1], [0, 1], [5, 4]]), np.array([0, 0, 1])) == pytest.approx(1 / 3)
    assert value(Accuracy(), np.array([[2.0, 1], [0, 1]]), np.eye(2)) == 1.0  # one-hot
    assert value(Accuracy(0.0), np.array([[-1.0], [2.0]]), np.array([0, 1])) == 1.0  # one logit a row
    assert value(Accuracy(), np.array([0.2, 0.7]), np.array([[1], [1]])) == 0.5
    assert value(Accuracy(ignore_index=-100), np.zeros((2, 3)), np.array([0, -100])) == 1.0
    assert value(TopKAccuracy(1), np.array([[1.0, 1.0]]), np.array([1])) == 0.0  # as argmax: the first of equals
    assert value(ROCAUC(), np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 1, 0, 1])) == 0.5
    assert value(ROCAUC(), np.array([[3.0, 1], [1, 2], [0, 9]]), np.array([0, 1, 1])) == 1.0
    assert math.isnan(value(ROCAUC(), np.array([0.1, 0.2]), np.array([1, 1])))
    assert value(Precision(), np.array([0.1, 0.2]), np.array([1, 1])) == 0.0
    assert value(Perplexity(ignore_index=0), np.zeros((4, 6)), np.array([0, 1, 2, 3])) == pytest.approx(6)
    assert value(Perplexity(), np.array([[-1e4, 1e4]]), np.array([0])) == math.inf
    assert value(metrics.R2(), np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 1.0
    assert value(metrics.R2(), np.array([1.0, 2.0]), np.array([1.0, 1.0])) == 0.0


def test_positions_in_time_and_their_weights():
    scores, target = class_data(60)
    scores, target = scores.reshape(10, 6, 5), target.reshape(10, 6)
    mask = np.arange(6) < np.arange(1, 11)[:, None] % 7
    expected = (scores.argmax(-1) == target)[mask].mean()
    assert value(Accuracy(), scores, target, mask.astype(np.float32)) == pytest.approx(expected)
    rows = np.arange(10.0)
    expected = np.average((scores.argmax(-1) == target).mean(1), weights=rows)
    assert value(Accuracy(), scores, target, rows) == pytest.approx(expected)


def test_r2_of_a_large_mean_loses_nothing():
    prediction, target = number_data()
    shifted = value(metrics.R2(), prediction + 1e6, target + 1e6, batches=8)
    assert shifted == pytest.approx(value(metrics.R2(), prediction, target), rel=1e-8)


def test_by_name_and_as_functions():
    for known in metrics._BY_NAME:
        metric = as_metric(known)
        assert isinstance(metric, metrics.Metric)
        assert metric.name in metrics._BY_NAME
    own = F1()
    assert as_metric(own) is own

    def largest(prediction, target, weight=None):
        return np.abs(prediction - target).max() if weight is None else weight.sum()

    metric = as_metric(largest)
    assert metric.name == "largest"
    prediction, target = number_data()
    assert value(metric, prediction, target, batches=3) == np.abs(prediction - target).max()
    assert value(metric, prediction, target, np.full(57, 2.0), batches=3) == 114
    with pytest.raises(ValueError, match="every batch or with none"):
        metric.update(prediction, target)
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        as_metric("acuracy")
    with pytest.raises(TypeError, match=r"write F1\(\)"):
        as_metric(F1)
    with pytest.raises(TypeError, match="function"):
        as_metric(3)


@pytest.mark.parametrize(
    ("metric", "prediction", "target", "weight", "error", "words"),
    [
        (Accuracy(), np.zeros((2, 3)), [0, 3], None, ValueError, ["0 <= class < 3", "got 3 at position 1"]),
        (Accuracy(), np.zeros((2, 3)), [0.5, 1], None, ValueError, ["got 0.5 at position 0"]),
        (Accuracy(), np.zeros((2, 3)), [0, 1, 2], None, ValueError, ["(2,)", "(3,)"]),
        (Accuracy(), np.zeros((0, 3)), [], None, ValueError, ["at least one element"]),
        (Accuracy(), np.zeros((2, 3)), [0, 1], [1.0], ValueError, ["weight", "(2,)", "(1,)"]),
        (Accuracy(), np.zeros((2, 3)), [0, 1], [1.0, -1], ValueError, ["weight", "negative"]),
        (Accuracy(), [["a"]], [0], None, TypeError, ["prediction", "real numbers"]),
        (Precision(), np.zeros((2, 3)), [0, 1], None, ValueError, ["average", "macro", "3 classes"]),
        (TopKAccuracy(), np.zeros(3), [0, 1, 1], None, ValueError, ["two or more classes"]),
        (ROCAUC(), np.zeros((2, 3)), [0, 1], None, ValueError, ["two classes", "3 classes"]),
        (ROCAUC(), [np.nan, 0], [0, 1], None, ValueError, ["NaN"]),
        (metrics.R2(), np.zeros((3, 1)), np.zeros(3), None, ValueError, ["(3, 1)", "reshape((3, 1))"]),
    ],
)
def test_refuses(metric, prediction, target, weight, error, words):
    metric.reset()
    with pytest.raises(error) as caught:
        metric.update(prediction, target, weight)
    for word in words:
        assert word in str(caught.value)


# -- thresholds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [np.float32, np.float64, int])
def test_precision_and_recall_against_scikit_learn(weighted, kind):
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, target = binary_data(200)
    scores = (scores * (9 if kind is int else 1)).astype(kind)
    weight = np.random.default_rng(2).integers(0, 3, len(target)) / 2 if weighted else None
    found = metrics.precision_recall_curve(scores, target, weight)
    counted = slice(None) if weight is None else weight > 0  # scikit-learn keeps thresholds that nothing counts at
    kept = None if weight is None else weight[counted]
    expected = sklearn.precision_recall_curve(target[counted], scores[counted], sample_weight=kept)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_threshold_is_the_best_of_all(beta, weighted, kind, seed):
    scores, target = binary_data(40, seed)
    scores = scores.astype(kind)
    weight = np.random.default_rng(seed).random(len(target)) if weighted else None

    def score(threshold):
        precision, recall = (value(m(threshold=threshold), scores, target, weight) for m in (Precision, Recall))
        return (1 + beta**2) * precision * recall / max(beta**2 * precision + recall, 1e-300), precision, recall

    found = metrics.best_threshold(scores, target, beta, weight)
    assert found[1:] == pytest.approx(score(found.threshold), rel=1e-12)
    assert found.score == pytest.approx(max(score(t)[0] for t in [-1.0, *scores.tolist()]), rel=1e-12)
    if found.threshold > scores.min():
        assert np.min(np.abs(scores - found.threshold)) > 0.04  # between two of the scores, which are 0.1 apart


def test_thresholds_at_the_edges():
    best = metrics.best_threshold
    assert best([0.5, 0.5], [1, 0]).threshold < 0.5  # the lowest score: all is class 1
    tiny = np.float32([1.0, np.nextafter(np.float32(1), np.float32(2))])
    found = best(tiny, [0, 1])
    assert found.score == 1
    assert (tiny > found.threshold).tolist() == [False, True]
    assert best([-np.inf, 0.0, np.inf], [0, 1, 1]).score == 1
    assert best([0.2, 0.9, 0.9], [1, 1, 1], weight=[0, 1, 1]).recall == 1
    assert best([[0.0, 3.0], [2.0, 0.0]], [1, 0])[:2] == (0.5, 1.0)
    with pytest.raises(ValueError, match="target: expected class 1 at some position that counts"):
        best([0.1, 0.2], [0, 0])
    with pytest.raises(ValueError, match="target: expected class 1"):
        best([0.1, 0.2], [0, 1], weight=[1, 0])
    with pytest.raises(ValueError, match="weight: expected a weight above 0 somewhere"):
        metrics.precision_recall_curve([0.1], [1], [0.0])
    with pytest.raises(ValueError, match="beta: expected 0 < beta"):
        best([0.1, 0.2], [0, 1], beta=0.0)
    precision, recall, thresholds = metrics.precision_recall_curve([0.1, 0.3], [0, 0])
    assert (precision.tolist(), recall.tolist(), thresholds.tolist()) == ([0, 0, 1], [1, 1, 0], [0.1, 0.3])


def test_examples_run():
    found = [
        doctest.testmod(module) for module in (metrics, metrics.base, metrics.classes, metrics.numbers, metrics.ranking)
    ]
    assert sum(each.attempted for each in found) > 30
    assert not any(each.failed for each in found)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="average: expected 'binary'"):
        F1("weighted")
    with pytest.raises(ValueError, match="k: expected an integer"):
        TopKAccuracy(0)
    metric = F1("macro")
    metric.update(np.zeros((2, 3)), [0, 1])
    with pytest.raises(ValueError, match="expected 3 classes"):
        metric.update(np.zeros((2, 4)), [0, 1])
    with pytest.raises(NotImplementedError, match="reset"):
        metrics.Metric()
    assert fa.metrics is metrics
