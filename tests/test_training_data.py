"""What a Trainer takes as data: mapped files, iterables of batches, sequences of different lengths, weights."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

import fastact as fa
from fastact.training.batches import ArrayData, is_mapped, shuffled
from fastact.training.ragged import RaggedData
from fastact.training.weights import as_class_weights

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 3)).astype(np.float32)
Y = RNG.integers(0, 4, 50)


class Weighted(fa.losses.Loss):
    """Half the squared error against the last axis, or a one-hot class: the mean over positions by weight."""

    def measure(self, prediction, target, gradient=None, weight=None):
        target = np.asarray(target)
        if target.shape != prediction.shape:
            target = np.eye(prediction.shape[-1], dtype=prediction.dtype)[target]
        positions = prediction.shape[:-1]
        w = np.ones(positions) if weight is None else np.asarray(weight, np.float64)
        w = np.broadcast_to(w.reshape(w.shape + (1,) * (len(positions) - w.ndim)), positions)
        d = (prediction - target).astype(np.float64)
        size = float(w.sum())
        if gradient is not None:
            gradient[...] = d * w[..., None] / (size or 1)
        return fa.losses.Measure(float((0.5 * d**2).sum(-1).ravel() @ w.ravel()) / (size or 1), size)


def mlp(dtype=np.float32):
    rng = np.random.default_rng(2)
    return fa.nn.Sequential(fa.nn.Dense(3, 8, "tanh", dtype=dtype, rng=rng), fa.nn.Dense(8, 4, dtype=dtype, rng=rng))


def trainer(loss="cross_entropy", model=None, **settings):
    return fa.Trainer(model or mlp(), loss, fa.optim.Adam(0.01), **settings)


def same(a, b):
    np.testing.assert_array_equal(a.model.flat_parameters, b.model.flat_parameters)
    for name in a.history:
        if name != "seconds":
            assert a.history[name] == b.history[name], name


# ---- memory-mapped files ----


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "x.npy", X.astype(np.float64))
    np.save(tmp_path / "y.npy", Y.astype(np.int16))
    return np.load(tmp_path / "x.npy", mmap_mode="r"), np.load(tmp_path / "y.npy", mmap_mode="r")


@pytest.mark.parametrize("batch_size", [1, 8, None])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_mapped_file_trains_as_the_array(mapped, batch_size, shuffle):
    a, b = trainer(), trainer()
    settings = {"epochs": 2, "batch_size": batch_size, "validation": 0.2, "shuffle": shuffle}
    a.fit(X, Y, **settings, class_weight=None)
    b.fit(*mapped, **settings)
    same(a, b)
    assert a.evaluate(X, Y) == b.evaluate(*mapped)


def test_a_mapped_file_is_not_read_into_memory(tmp_path):
    rows, features = 20_000, 200
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float64, (rows, features))
    x[:] = 1.0
    x.flush()
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    y = np.zeros(rows, np.int64)
    assert is_mapped(x[3:])
    assert is_mapped(np.asarray(x))
    assert not is_mapped(y)
    assert not is_mapped(x.astype(np.float32))
    t = fa.Trainer(fa.nn.Sequential(fa.nn.Dense(features, 2, rng=0)))
    t.step(np.ones((100, features), np.float32), y[:100])
    tracemalloc.start()
    t.fit(x, y, epochs=1, batch_size=100, validation=0.5, progress=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert t.steps == 101
    assert peak < x.nbytes / 20, peak


def test_a_wrong_label_in_a_mapped_file_is_seen_before_the_first_update(tmp_path, monkeypatch):
    monkeypatch.setattr("fastact.training.batches.CHECKED_ROWS", 16)
    y = Y.copy()
    y[39] = 4
    np.save(tmp_path / "y.npy", y)
    t = trainer()
    with pytest.raises(ValueError, match=r"y\[32:\]: expected classes 0 <= class < 4 .* got 4 at position 7"):
        t.fit(X, np.load(tmp_path / "y.npy", mmap_mode="r"))
    assert t.steps == 0


# ---- iterables of batches ----


def batches(size=8):
    return [(X[i : i + size], Y[i : i + size]) for i in range(0, 50, size)]


@pytest.mark.parametrize(
    "source",
    [batches(), lambda: iter(batches()), lambda: (b for b in batches()), tuple(batches())],
    ids=["list", "function", "generator function", "tuple"],
)
def test_batches_that_can_be_read_again(source):
    a, b = trainer(), trainer()
    a.fit(X, Y, epochs=3, batch_size=8, shuffle=False, validation=(X, Y))
    b.fit(source, epochs=3, validation=batches(8))
    same(a, b)
    assert b.evaluate(source)["loss"] == pytest.approx(a.evaluate(X, Y)["loss"], rel=1e-6)


def test_an_iterator_goes_on_from_epoch_to_epoch():
    a, b = trainer(), trainer()
    a.fit(X[:48], Y[:48], epochs=1, batch_size=8, shuffle=False)
    b.fit(iter(batches()[:6]), epochs=3, steps_per_epoch=2)
    np.testing.assert_array_equal(a.model.flat_parameters, b.model.flat_parameters)
    assert b.history["step"] == [2, 4, 6]
    endless = trainer()
    endless.fit(itertools.cycle(batches()), epochs=2, steps_per_epoch=10, progress=True)
    assert endless.steps == 20


def test_accumulated_batches_of_an_iterable():
    a, b = trainer(accumulate=3), trainer(accumulate=3)
    a.fit(X, Y, epochs=2, batch_size=8, shuffle=False)
    b.fit(batches(), epochs=2)
    same(a, b)
    assert b.steps == 6


@pytest.mark.parametrize("make", [lambda: batches(), lambda: lambda: iter(batches())], ids=["list", "function"])
@pytest.mark.parametrize("at", [3, 7, 9])
def test_an_iterable_is_resumed_where_it_stood(tmp_path, make, at):
    a, b = trainer(), trainer()
    a.fit(make(), epochs=2)

    def stop(t):
        if t.steps == at:
            t.stop()

    b.fit(make(), epochs=2, on_step=stop, checkpoint=tmp_path / "run")
    again = fa.Trainer.load(tmp_path / "run")
    again.resume(make())
    same(a, again)


def test_an_iterator_is_resumed_where_it_stands():
    a, b = trainer(), trainer()
    a.fit(batches(), epochs=1)
    source = iter(batches())
    b.fit(source, steps_per_epoch=7, on_step=lambda t: t.stop() if t.steps == 2 else None)
    b.resume(source)
    same(a, b)


def test_batches_with_weights_and_a_generator_of_its_own():
    w = RNG.random(50).astype(np.float32)
    a, b = trainer(Weighted()), trainer(Weighted())
    a.fit(X, Y, epochs=2, batch_size=8, shuffle=False, sample_weight=w)
    b.fit([(x, y, w[i * 8 : i * 8 + 8]) for i, (x, y) in enumerate(batches())], epochs=2)
    same(a, b)


@pytest.mark.parametrize(
    ("source", "epochs", "steps", "error", "words"),
    [
        (lambda: iter(batches()), 2, None, ValueError, r"a batch or more in an epoch, it ended after 0; .*lambda"),
        (lambda: iter(batches()), 2, 5, ValueError, "expected 5 batches in an epoch, it ended after 2; the updates"),
        (lambda: batches(), 1, 9, ValueError, "expected 9 batches in an epoch, it ended after 7"),
        (list, 1, None, ValueError, "it ended after 0"),
        (lambda: [X], 1, None, TypeError, r"got ndarray as batch 1"),
        (lambda: [(X,)], 1, None, TypeError, "got 1 parts as batch 1"),
        (lambda: X, 1, None, TypeError, "y: expected targets for x"),
        (lambda: batches(), 1, 0, ValueError, "steps_per_epoch"),
    ],
)
def test_refuses_batches(source, epochs, steps, error, words):
    with pytest.raises(error, match=words):
        trainer().fit(source(), epochs=epochs, steps_per_epoch=steps)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"validation": 0.1}, ValueError, "validation: expected data of their own"),
        ({"validation": iter(batches())}, TypeError, "validation: .*got an iterator; pass a list"),
        ({"sample_weight": np.ones(50)}, ValueError, r"sample_weight: .*put it there, as \(x, y, weight\)"),
        ({"class_weight": "balanced"}, ValueError, "class_weight: "),
    ],
)
def test_refuses_arguments_that_go_with_arrays(settings, error, words):
    t = trainer()
    with pytest.raises(error, match=words):
        t.fit(batches(), **settings)
    assert t.steps == 0


# ---- weights ----


def test_whole_weights_are_repetitions():
    w = RNG.integers(0, 3, 50)
    a, b = (fa.Trainer(mlp(np.float64), Weighted(), fa.optim.SGD(0.1)) for _ in range(2))
    a.fit(X.repeat(w, 0), Y.repeat(w), epochs=3, batch_size=None)
    b.fit(X, Y, epochs=3, batch_size=None, sample_weight=w)
    np.testing.assert_allclose(b.model.flat_parameters, a.model.flat_parameters, rtol=0, atol=1e-12)
    np.testing.assert_allclose(b.history["loss"], a.history["loss"], rtol=1e-12)
    repeated = a.evaluate(X.repeat(w, 0), Y.repeat(w))["loss"]
    assert b.evaluate(X, Y, sample_weight=w)["loss"] == pytest.approx(repeated, rel=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, None])
def test_class_weights_are_sample_weights(batch_size):
    table = np.array([0.5, 2.0, 1.0, 3.0])
    runs = []
    for settings in (
        {"sample_weight": table[Y]},
        {"class_weight": table.tolist()},
        {"class_weight": {0: 0.5, 1: 2.0, 3: 3.0}},  # what is left out weighs 1
        {"class_weight": table * 2, "sample_weight": np.full(50, 0.5)},
    ):
        runs.append(trainer(Weighted()))
        runs[-1].fit(X, Y, epochs=2, batch_size=batch_size, validation=0.2, **settings)
    for other in runs[1:]:
        np.testing.assert_array_equal(other.model.flat_parameters, runs[0].model.flat_parameters)
    # Validation rows have their sample weights, classes count alike there.
    assert runs[1].history["val_loss"][-1] == pytest.approx(runs[1].evaluate(X[40:], Y[40:])["loss"], rel=1e-6)
    weighted = runs[0].evaluate(X[40:], Y[40:], sample_weight=table[Y][40:])["loss"]
    assert runs[0].history["val_loss"][-1] == pytest.approx(weighted, rel=1e-6)


def test_balanced_classes_weigh_the_same():
    y = np.array([0, 0, 0, 1, 3, 3])
    found = as_class_weights("balanced", y, np.dtype(np.float64)).times(y)
    np.testing.assert_allclose(found, [6 / 9] * 3 + [2.0] + [1.0] * 2)
    for targets in (np.eye(4)[y], y[:, None].astype(float), y.astype(np.float32)):
        np.testing.assert_allclose(as_class_weights("balanced", targets, np.dtype(np.float64)).times(targets), found)


def test_weights_of_positions_and_of_sequences():
    y = np.array([[0, 1], [1, 1]])
    weights = as_class_weights([1.0, 4.0], y, np.dtype(np.float64))
    np.testing.assert_array_equal(weights.times(y, np.array([1.0, 0.5])), [[1, 4], [2, 2]])
    np.testing.assert_array_equal(weights.times(y, np.array([[0, 1], [1, 0]])), [[0, 4], [4, 0]])


def test_resume_asks_for_the_same_weights():
    t = trainer(Weighted())
    t.fit(X, Y, sample_weight=np.ones(50), on_step=lambda t: t.stop())
    with pytest.raises(ValueError, match="sample_weight: expected what the interrupted fit was given, got None"):
        t.resume(X, Y)
    with pytest.raises(ValueError, match="class_weight: expected None"):
        t.resume(X, Y, sample_weight=np.ones(50), class_weight=[1, 2, 3, 4])
    t.resume(X, Y, sample_weight=np.ones(50))
    assert t.epochs == 1


class Unweighted(fa.losses.Loss):
    def measure(self, prediction, target, gradient=None):
        return fa.losses.Measure(0.0, 1)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"sample_weight": np.ones(49)}, ValueError, r"sample_weight: .*50 rows, got shape \(49,\)"),
        ({"sample_weight": 1.0}, ValueError, "sample_weight"),
        ({"sample_weight": np.ones((50, 2))}, ValueError, "sample_weight"),
        ({"sample_weight": np.where(np.arange(50) == 7, -1, 1)}, ValueError, "at least 0, got -1.* at position 7"),
        ({"sample_weight": np.where(np.arange(50) == 7, np.nan, 1)}, ValueError, "got nan at position 7"),
        ({"sample_weight": np.zeros(50)}, ValueError, "nothing would be learnt"),
        ({"sample_weight": ["a"] * 50}, TypeError, "sample_weight"),
        ({"class_weight": "even"}, ValueError, "balanced"),
        ({"class_weight": {}}, ValueError, "class_weight"),
        ({"class_weight": {"a": 1}}, ValueError, "class numbers"),
        ({"class_weight": {0: -1.0}}, ValueError, r"class_weight\[0\]"),
        ({"class_weight": [[1.0]]}, ValueError, "class_weight"),
        ({"class_weight": [1.0, 2.0, 3.0]}, ValueError, "each class up to 3, got 3"),
        ({"steps_per_epoch": 3}, ValueError, "steps_per_epoch: expected None with arrays"),
        ({"batch_size": 51}, ValueError, "batch_size: expected at most the 50 rows of training data, got 51"),
        ({"batch_size": 46, "validation": 0.1}, ValueError, "at most the 45 rows"),
        ({"validation": (X, Y, np.ones(3))}, ValueError, "validation weight"),
        ({"validation": "some"}, TypeError, "validation"),
    ],
)
def test_refuses_weights(settings, error, words):
    t = trainer(Weighted())
    with pytest.raises(error, match=words):
        t.fit(X, Y, **settings)
    assert t.steps == 0


def test_a_loss_without_weights_is_refused_only_where_they_are_needed():
    trainer(Unweighted()).fit(X, Y)
    with pytest.raises(TypeError, match=r"Unweighted\.measure.*weight=None"):
        trainer(Unweighted()).fit(X, Y, sample_weight=np.ones(50))


# ---- sequences of different lengths ----


class RunningMean(fa.nn.Layer):
    """y_t = w * mean of x_0 .. x_t: causal, so that padding at the end is of no account to what comes before."""

    takes_lengths = True

    def __init__(self, dtype=np.float32):
        self.dtype = np.dtype(dtype)
        self.add_parameter("w", np.full(1, 0.5, dtype))

    def __call__(self, x, lengths=None):
        return self.forward(x, lengths)[0]

    def forward(self, x, lengths=None):
        assert lengths is not None
        assert len(lengths) == len(x)
        assert x.shape[1] == max(lengths)
        mean = np.cumsum(x, 1) / np.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        w = self.w

        def backward(dy):
            w.grad[...] += (dy * mean).sum()

        return w.value * mean, backward


class Total(RunningMean):
    """y = w * sum of the steps that are there: one output a sequence."""

    def forward(self, x, lengths=None):
        there = np.arange(x.shape[1]) < np.asarray(lengths)[:, None]
        total = (x * there[..., None]).sum(1)
        w = self.w

        def backward(dy):
            w.grad[...] += (dy * total).sum()

        return w.value * total, backward


LENGTHS = [5, 1, 3, 8, 2, 2, 7, 4, 6, 9, 1, 3]
SEQUENCES = [RNG.standard_normal((n, 2)) for n in LENGTHS]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 5, None])
def test_every_sequence_is_there_once_and_padding_weighs_nothing(shuffle, batch_size):
    data = RaggedData(SEQUENCES, [s[:, :1] for s in SEQUENCES])
    seen = []
    for x, y, weight, lengths in data.batches(batch_size, (0, 0) if shuffle else None):
        assert x.shape[1] == y.shape[1] == weight.shape[1] == lengths.max()
        for row, target, there, n in zip(x, y, weight, lengths, strict=True):
            assert there.tolist() == [1] * n + [0] * (len(there) - n)
            assert not row[n:].any()
            np.testing.assert_array_equal(target[:n], row[:n, :1])
            seen.append(row[:n].tobytes())
    assert sorted(seen) == sorted(s.tobytes() for s in SEQUENCES)
    if not shuffle:
        assert seen == [s.tobytes() for s in SEQUENCES]


def test_buckets_hold_sequences_of_like_length_and_change_with_the_epoch():
    rng = np.random.default_rng(0)
    sequences = [np.ones((n, 1)) for n in rng.integers(1, 100, 640)]
    data = RaggedData(sequences, np.zeros(640))
    real = sum(map(len, sequences))

    def read(seeds):
        return sum(b.x.shape[0] * b.x.shape[1] for b in data.batches(10, seeds))

    assert read((0, 0)) < 1.1 * real
    assert read(None) > 1.5 * real
    first, again, other = ([b.lengths.tolist() for b in data.batches(10, s)] for s in ((0, 0), (0, 0), (0, 1)))
    assert first == again != other
    assert [max(b) for b in first] != sorted(max(b) for b in first)
    late = [b.lengths.tolist() for b in data.batches(10, (0, 0), first=60)]
    assert late == first[60:]


def test_padded_training_is_that_of_single_sequences():
    """Means are over all steps that are there; whatever the model puts out beyond is of no account."""
    targets = [3 * np.cumsum(s, 0) / np.arange(1, len(s) + 1)[:, None] for s in SEQUENCES]
    model = RunningMean(np.float64)
    t = fa.Trainer(model, Weighted(), fa.optim.SGD(0.5))
    total = steps = gradient = 0.0
    for s, target in zip(SEQUENCES, targets, strict=True):
        mean = np.cumsum(s, 0) / np.arange(1, len(s) + 1)[:, None]
        d = 0.5 * mean - target
        total, steps, gradient = total + (0.5 * d**2).sum(), steps + len(s), gradient + (d * mean).sum()
    assert t.evaluate(SEQUENCES, targets, batch_size=5)["loss"] == pytest.approx(total / steps, rel=1e-12)
    t.fit(SEQUENCES, targets, epochs=1, batch_size=None)
    assert model.w.value[0] == pytest.approx(0.5 - 0.5 * gradient / steps, rel=1e-12)
    t.fit(SEQUENCES, targets, epochs=30, batch_size=4, validation=0.25)
    assert model.w.value[0] == pytest.approx(3, abs=1e-3)
    assert t.history["val_loss"][-1] < 1e-5


def test_one_target_a_sequence_and_weights():
    targets = np.array([2 * s.sum(0) for s in SEQUENCES])
    t = fa.Trainer(Total(np.float64), Weighted(), fa.optim.SGD(0.01))
    w = RNG.random(12)
    t.fit(SEQUENCES, targets, epochs=60, batch_size=4, validation=(SEQUENCES, targets, w), sample_weight=w)
    assert t.model.w.value[0] == pytest.approx(2, abs=1e-6)
    objects = np.empty(12, object)
    objects[:] = SEQUENCES
    assert t.evaluate(objects, targets) == t.evaluate(SEQUENCES, targets)


def test_a_ragged_fit_is_resumed_to_the_same_bits(tmp_path):
    targets = [s[:, 0] > 0 for s in SEQUENCES]
    targets = [t.astype(np.int64) for t in targets]

    def fresh():
        return fa.Trainer(RunningMean(), Weighted(), fa.optim.Adam(0.1), accumulate=2, seed=3)

    settings = {"class_weight": [1.0, 2.0]}
    a, b = fresh(), fresh()
    a.fit(SEQUENCES, targets, epochs=3, batch_size=2, **settings)
    b.fit(
        SEQUENCES,
        targets,
        epochs=3,
        batch_size=2,
        **settings,
        on_step=lambda t: t.stop() if t.steps == 5 else None,
        checkpoint=tmp_path / "run",
    )
    again = fresh()
    again.restore(tmp_path / "run")
    again.resume(SEQUENCES, targets, **settings)
    same(a, again)


def test_an_epoch_of_sequences_names_what_is_not_finite():
    sequences = [*SEQUENCES[:3], np.full((2, 2), np.inf), *SEQUENCES[4:]]
    with pytest.raises(fa.errors.NonFiniteError, match=r"x\[3\] = inf at position \(0, 0\)"), np.errstate(all="ignore"):
        fa.Trainer(RunningMean(), Weighted()).fit(sequences, sequences)


TARGETS = [s[:, :2] for s in SEQUENCES]


@pytest.mark.parametrize(
    ("x", "y", "error", "words"),
    [
        (
            [*SEQUENCES, np.ones((0, 2))],
            [*TARGETS, np.ones((0, 2))],
            ValueError,
            r"x\[12\]: expected at least one step",
        ),
        (
            [*SEQUENCES, np.ones((4, 3))],
            [*TARGETS, np.ones((4, 2))],
            ValueError,
            r"x\[12\]: expected steps as in x\[0\]",
        ),
        (SEQUENCES, TARGETS[:-1], ValueError, "y: expected one target for each of the 12 sequences of x, got 11"),
        (SEQUENCES, 3, ValueError, "got 0"),
        ([*SEQUENCES, ["a", "b"]], [*TARGETS, ["a", "b"]], TypeError, r"x\[12\]"),
        (SEQUENCES, [t[:-1] if len(t) > 1 else t for t in TARGETS], (ValueError, TypeError), "y"),
    ],
)
def test_refuses_sequences(x, y, error, words):
    t = fa.Trainer(RunningMean(np.float64), "mse")
    t.loss.measure = Weighted().measure
    with pytest.raises(error, match=words):
        t.fit(x, y)
    assert t.steps == 0


def test_a_wrong_label_names_its_sequence():
    class Classes(fa.losses.CrossEntropy):
        def measure(self, prediction, target, gradient=None, weight=None):
            return super().measure(prediction, target, gradient)

    targets = [np.zeros(len(s), np.int64) for s in SEQUENCES]
    targets[6][4] = 2
    with pytest.raises(ValueError, match=r"y\[6\]: expected classes 0 <= class < 2 .* got 2 at position \(0, 4\)"):
        fa.Trainer(RunningMean(), Classes()).fit(SEQUENCES, targets)


def test_a_model_that_takes_no_lengths_is_not_given_sequences():
    with pytest.raises(TypeError, match=r"x: .*pad rows of different shapes to one"):
        trainer().fit([[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]], [0, 1])


# ---- the order of an epoch ----


def test_batches_from_some_number_on_are_the_last_of_all():
    data = ArrayData(X, Y, mlp(), fa.losses.CrossEntropy())
    for seeds in (None, (3, 1)):
        every = list(data.batches(8, seeds))
        for first in (0, 2, 6, 7):
            late = list(data.batches(8, seeds, first))
            assert len(late) == 7 - first
            for a, b in zip(every[first:], late, strict=True):
                np.testing.assert_array_equal(a.x, b.x)
    assert shuffled(50, 0, 1).tolist() != shuffled(50, 0, 0).tolist()


# ---- with recurrent layers ----


@pytest.mark.skipif(not hasattr(fa.nn.Layer, "takes_lengths"), reason="chains do not hand lengths on")
@pytest.mark.parametrize("every_step", [False, True])
def test_an_lstm_learns_from_sequences_of_different_lengths(tmp_path, every_step):
    """Whether the first number was positive: the last step must remember it, over whatever length."""
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((n, 1)) for n in rng.integers(2, 12, 120)]
    firsts = [int(s[0, 0] > 0) for s in sequences]
    targets = [np.full(len(s), first) for s, first in zip(sequences, firsts, strict=True)] if every_step else firsts
    loss = Weighted() if every_step else fa.losses.CrossEntropy()

    def fresh():
        lstm = fa.nn.LSTM(1, 16, return_sequences=every_step, rng=1)
        return fa.Trainer(fa.nn.Sequential(lstm, fa.nn.Dense(16, 2, rng=2)), loss, fa.optim.Adam(0.03), clip_norm=1.0)

    a, b = fresh(), fresh()
    a.fit(sequences, targets, epochs=25, batch_size=16, validation=0.25)
    assert a.history["val_loss"][-1] < 0.75 * a.history["val_loss"][0]
    stop = {"on_step": lambda t: t.stop() if t.steps == 20 else None}
    b.fit(sequences, targets, epochs=25, batch_size=16, validation=0.25, **stop, checkpoint=tmp_path / "run")
    again = fa.Trainer.load(tmp_path / "run", loss=loss)
    again.resume(sequences, targets)
    same(a, again)


@pytest.mark.skipif(not hasattr(fa.nn, "Dropout"), reason="no layer that draws")
def test_dropout_of_a_resumed_fit(tmp_path):
    def fresh():
        rng = np.random.default_rng(2)
        layers = [fa.nn.Dense(3, 16, "relu", rng=rng), fa.nn.Dropout(0.5), fa.nn.Dense(16, 4, rng=rng)]
        return trainer(model=fa.nn.Sequential(*layers))

    a, b = fresh(), fresh()
    a.fit(X, Y, epochs=3, batch_size=8)
    b.fit(X, Y, epochs=3, batch_size=8, on_step=lambda t: t.stop() if t.steps == 9 else None)
    b.save(tmp_path / "run")
    again = fa.Trainer.load(tmp_path / "run")
    again.resume(X, Y)
    same(a, again)
