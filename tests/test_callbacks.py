"""Callbacks: when they are called, what they write, and that a resumed fit goes on as if nothing had happened."""

from __future__ import annotations

import csv
import json
import sys
import types

import numpy as np
import pytest

import fastact as fa
from fastact.training import (
    Callback,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    JSONLogger,
    LambdaCallback,
    LearningRateLogger,
    TensorBoard,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 5)).astype(np.float32)
Y = RNG.integers(0, 2, 40)  # nothing to learn: what training finds is of no use in validation
SETTINGS = {"epochs": 60, "batch_size": 10, "validation": 0.5}


def trainer(**settings):
    model = fa.nn.Sequential(fa.nn.Dense(5, 16, "tanh", rng=0), fa.nn.Dense(16, 2, rng=1))
    return fa.Trainer(model, optimizer=fa.optim.Adam(0.03), seed=1, **settings)


def without_time(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


# ---- when they are called ----


class Spy(Callback):
    def __init__(self):
        self.calls = []

    def on_begin(self, t):
        self.calls.append("begin")

    def on_step(self, t):
        self.calls.append(f"step {t.steps}")

    def measure(self, t):
        self.calls.append("measure")
        return {"epochs_before": t.epochs}

    def on_epoch(self, t):
        assert t.history["epochs_before"][-1] == t.epochs - 1
        self.calls.append(f"epoch {t.epochs}")

    def on_end(self, t):
        assert not t.interrupted
        self.calls.append("end")

    def close(self):
        self.calls.append("close")


def test_the_order_of_calls():
    spy = Spy()
    trainer().fit(X, Y, 2, 20, callbacks=[spy])
    whole = "begin,step 1,step 2,measure,epoch 1,step 3,step 4,measure,epoch 2,end,close"
    assert ",".join(spy.calls) == whole
    assert list(trainer().fit(X, Y, 1, callbacks=[Spy()])) == [
        "epoch",
        "step",
        "loss",
        "accuracy",
        "epochs_before",
        "seconds",
    ]


def test_an_error_closes_what_is_open():
    spy = Spy()
    with pytest.raises(ZeroDivisionError):
        trainer().fit(X, Y, callbacks=[spy, LambdaCallback(on_step=lambda t: 1 / 0)])
    assert spy.calls[-1] == "close"
    assert "end" not in spy.calls


def test_functions_are_callbacks():
    seen = []
    called = LambdaCallback(
        on_begin=lambda t: seen.append("b"),
        on_step=lambda t: seen.append("s"),
        on_epoch=lambda t: seen.append("e"),
        on_end=lambda t: seen.append("."),
    )
    trainer().fit(
        X, Y, 2, 20, callbacks=[called], on_step=lambda t: seen.append("f"), on_epoch=lambda t: seen.append("g")
    )
    assert "".join(seen) == "bsfsfegsfsfeg."
    with pytest.raises(TypeError, match="on_epoch: expected a function"):
        LambdaCallback(on_epoch=3)


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [
        ([EarlyStopping], r"callbacks\[0\]: .*write EarlyStopping\(\)"),
        ([EarlyStopping(), print], r"callbacks\[1\]: .*on_step= and on_epoch="),
    ],
)
def test_refuses_what_is_no_callback(callbacks, words):
    with pytest.raises(TypeError, match=words):
        trainer().fit(X, Y, callbacks=callbacks)


def test_stopping_within_an_epoch_leaves_something_to_resume():
    a, b = trainer(), trainer()
    a.fit(X, Y, **SETTINGS)
    b.fit(X, Y, **SETTINGS, on_step=lambda t: t.stop() if t.steps == 7 else None)
    assert (b.steps, b.epochs, b.interrupted) == (7, 3, True)
    b.resume(X, Y)
    np.testing.assert_array_equal(a.model.flat_parameters, b.model.flat_parameters)


# ---- early stopping ----


@pytest.mark.parametrize("average", [None, 0.9])
def test_early_stopping_goes_back_to_the_best_epoch(average):
    kept = {}
    stopping = EarlyStopping(patience=4)
    t = trainer(average=average)
    t.fit(X, Y, **SETTINGS, callbacks=[stopping], on_epoch=lambda t: kept.update({t.epochs: t.weights()}))
    losses = t.history["val_loss"]
    best = int(np.argmin(losses)) + 1
    assert len(losses) == best + 4 < 60
    assert (stopping.best_epoch, stopping.best, stopping.stopped) == (best, min(losses), True)
    for name, value in t.model.state_dict().items():
        np.testing.assert_array_equal(value, kept[best]["model"][name])
    assert t.evaluate(X[20:], Y[20:], averaged=average is not None)["loss"] == pytest.approx(min(losses), rel=1e-6)
    assert not t.interrupted
    assert "stopped" in stopping.state_dict()


def test_early_stopping_by_a_score_and_by_hand():
    t = trainer()
    stopping = EarlyStopping("accuracy", patience=3, min_delta=0.01, restore=False)
    stopping.on_begin(t)
    waited = []
    for value in (0.5, 0.6, 0.605, None, 0.7, 0.7, float("nan"), 0.65):
        t.history.append({"accuracy": value})
        t.epochs += 1
        stopping.on_epoch(t)
        waited.append(stopping._waited)
    assert waited == [0, 0, 1, 2, 0, 1, 2, 3]
    assert (stopping.best, stopping.best_epoch, stopping.stopped) == (0.7, 5, True)


def test_a_fit_that_ends_first_goes_back_too_and_the_next_begins_anew():
    stopping = EarlyStopping(patience=100)
    t = trainer()
    t.fit(X, Y, epochs=30, batch_size=10, validation=0.5, callbacks=[stopping])
    assert not stopping.stopped
    assert t.evaluate(X[20:], Y[20:])["loss"] == pytest.approx(min(t.history["val_loss"]), rel=1e-6)
    t.fit(X, Y, epochs=1, batch_size=10, validation=0.5, callbacks=[stopping])
    assert stopping.best == t.history["val_loss"][-1]


def test_a_column_that_nobody_measures():
    with pytest.raises(ValueError, match=r"monitor: expected one of epoch, step, loss.*fit\(validation=\.\.\.\)"):
        trainer().fit(X, Y, callbacks=[EarlyStopping("val_loss")])


# ---- resuming ----


@pytest.mark.parametrize("at", [3, 9, 14])
def test_a_resumed_fit_stops_where_the_unbroken_one_did(tmp_path, at):
    """Early stopping, its best weights, logs and checkpoints: the same after an interruption in a new process."""

    def callbacks(name):
        return [
            Checkpoint(tmp_path / f"{name}_best", best=True),
            EarlyStopping(patience=6),
            CSVLogger(tmp_path / f"{name}.csv"),
            JSONLogger(tmp_path / f"{name}.jsonl"),
            LearningRateLogger(),
        ]

    settings = {"average": 0.8, "schedule": fa.schedules.Cosine(200), "accumulate": 1}
    a, b = trainer(**settings), trainer(**settings)
    a.fit(X, Y, **SETTINGS, callbacks=callbacks("a"))
    assert len(a.history["loss"]) < 60

    def interrupt(t):
        if t.steps == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        b.fit(X, Y, **SETTINGS, callbacks=callbacks("b"), on_step=interrupt, checkpoint=tmp_path / "run")
    with open(tmp_path / "b.csv", "a") as file:
        file.write("999,rows,of,epochs,that,will,be,done,again\n")
    again = fa.Trainer.load(tmp_path / "run")
    again.resume(X, Y, callbacks=callbacks("b"))
    np.testing.assert_array_equal(a.model.flat_parameters, again.model.flat_parameters)
    np.testing.assert_array_equal(a.average.values, again.average.values)
    rows = {}
    for name in "ab":
        with open(tmp_path / f"{name}.csv", newline="") as file:
            rows[name] = without_time(csv.DictReader(file))
    assert rows["a"] == rows["b"]
    lines = [[json.loads(line) for line in (tmp_path / f"{n}.jsonl").read_text().splitlines()] for n in "ab"]
    assert without_time(lines[0]) == without_time(lines[1])
    best = [fa.Trainer.load(tmp_path / f"{n}_best") for n in "ab"]
    assert best[0].epochs == best[1].epochs == int(np.argmin(a.history["val_loss"])) + 1
    np.testing.assert_array_equal(best[0].model.flat_parameters, best[1].model.flat_parameters)


def test_resume_asks_for_callbacks_that_had_a_state(tmp_path):
    t = trainer()
    t.fit(X, Y, **SETTINGS, callbacks=[EarlyStopping()], on_step=lambda t: t.stop() if t.steps == 5 else None)
    t.save(tmp_path / "run")
    for other in (t, fa.Trainer.load(tmp_path / "run")):
        with pytest.raises(ValueError, match=r"callbacks: expected those .*EarlyStopping\.0 .*got none"):
            other.resume(X, Y)
        assert other.interrupted

    class Odd(Callback):
        def state_dict(self):
            return {"function": print}

    with pytest.raises(TypeError, match="callbacks/Odd"):
        trainer().fit(X, Y, callbacks=[Odd()], checkpoint=tmp_path / "odd", on_step=lambda t: t.stop())


# ---- checkpoints ----


def test_checkpoints_of_epochs_steps_and_the_best(tmp_path):
    t = trainer()
    t.fit(
        X,
        Y,
        epochs=5,
        batch_size=10,
        callbacks=[
            Checkpoint(tmp_path / "epoch{epoch}", every=2),
            Checkpoint(tmp_path / "step{step}", every=100, steps=6),
        ],
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["epoch2", "epoch4", "epoch5", "step12", "step18", "step20", "step6"]
    for name in names:
        found = fa.Trainer.load(tmp_path / name)
        assert name in (f"epoch{found.epochs}", f"step{found.steps}")
        if found.interrupted:
            found.resume(X, Y)
        np.testing.assert_array_equal(found.model.flat_parameters, t.model.flat_parameters)


def test_a_checkpoint_with_nowhere_to_go_is_refused_before_training(tmp_path):
    t = trainer()
    with pytest.raises(FileNotFoundError, match="checkpoint: the folder"):
        t.fit(X, Y, callbacks=[Checkpoint(tmp_path / "none" / "file")])
    assert t.steps == 0
    with pytest.raises(ValueError, match="steps: expected None with best="):
        Checkpoint("file", best=True, steps=3)


# ---- logs ----


def test_logs_hold_the_history_of_all_fits(tmp_path):
    t = trainer(schedule=fa.schedules.Step(12, 0.5))
    loggers = [CSVLogger(tmp_path / "a.csv"), JSONLogger(tmp_path / "a.jsonl"), LearningRateLogger()]
    t.fit(X, Y, epochs=2, batch_size=10)
    t.fit(X, Y, epochs=3, batch_size=10, validation=0.5, callbacks=loggers)  # two more columns: written anew
    assert t.history["lr"] == [None, None, 0.03, 0.03, 0.015]
    expected = [dict(zip(t.history, row, strict=True)) for row in zip(*t.history.values(), strict=True)]
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(v) if v else None for k, v in row.items()} for row in rows] == expected
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == expected


def test_tensorboard_gets_the_history(monkeypatch, tmp_path):
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            written.append(folder)

        def add_scalar(self, *call):
            written.append(call)

        def flush(self):
            pass

        def close(self):
            written.append("closed")

    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    t = trainer()
    t.fit(X, Y, epochs=2, validation=0.5, callbacks=[TensorBoard(tmp_path / "run")])
    assert written[0] == str(tmp_path / "run")
    assert written[-1] == "closed"
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "seconds"):
        assert [c for c in written if c[0] == name] == [(name, t.history[name][i], i + 1) for i in range(2)]


def test_tensorboard_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboardX"):
        TensorBoard("run")


def test_tensorboard_files_can_be_read(tmp_path):
    pytest.importorskip("tensorboardX")
    trainer().fit(X, Y, epochs=2, callbacks=[TensorBoard(tmp_path)])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("events")]


# ---- metrics ----


class Largest:
    """The largest error so far, and the size of each batch: state of two kinds."""

    name = "largest"

    def reset(self):
        self.largest, self.sizes = 0.0, []

    def update(self, prediction, target, weight=None):
        self.largest = max(self.largest, float(np.abs(prediction).max()))
        self.sizes.append(np.array(len(target)))

    def result(self):
        return np.float64(self.largest + len(self.sizes))


@pytest.fixture
def largest(monkeypatch):
    monkeypatch.setattr("fastact.training.trainer.as_metrics", list)
    return [Largest()]


def test_metrics_of_training_and_validation(largest):
    t = trainer(metrics=largest)
    t.fit(X, Y, epochs=2, batch_size=10, validation=0.5)
    assert t.history["largest"][0] > 2
    found = t.evaluate(X[20:], Y[20:], batch_size=10)
    assert found["largest"] == t.history["val_largest"][-1] == 2 + float(np.abs(t.predict(X[20:])).max())
    json.dumps(t.history.to_dict())


@pytest.mark.parametrize("at", [1, 5, 8])
def test_metrics_of_a_resumed_epoch_are_those_of_the_whole(tmp_path, largest, at):
    a, b = trainer(metrics=largest), trainer(metrics=[Largest()])
    a.fit(X, Y, epochs=3, batch_size=10, validation=0.1)
    settings = {"epochs": 3, "batch_size": 10, "validation": 0.1}

    def stop(t):
        t.evaluate(X, Y)  # of no account to what is measured in training
        if t.steps == at:
            t.stop()

    b.fit(X, Y, **settings, on_step=stop, checkpoint=tmp_path / "run")
    fresh = fa.Trainer.load(tmp_path / "run", metrics=[Largest()])
    fresh.resume(X, Y)
    assert fresh.history["largest"] == a.history["largest"]
    b.resume(X, Y)
    assert b.history["largest"] == a.history["largest"]
    assert b.history["val_largest"] == a.history["val_largest"]


def test_a_metric_that_does_not_fit_is_refused_before_the_first_update(largest):
    class Wrong(Largest):
        def update(self, prediction, target, weight=None):
            raise ValueError("classes: expected 2")

    t = trainer(metrics=[Wrong()])
    with pytest.raises(ValueError, match="classes: expected 2"):
        t.fit(X, Y)
    assert t.steps == 0
    assert not t.interrupted


def test_metrics_by_name():
    pytest.importorskip("fastact.metrics")
    t = trainer(metrics=["accuracy", "f1"])
    t.fit(X, Y, epochs=2, validation=0.5)
    found = t.evaluate(X[20:], Y[20:])
    assert found["accuracy"] == np.mean(t.predict(X[20:]).argmax(-1) == Y[20:]) == t.history["val_accuracy"][-1]
    assert 0 <= t.history["val_f1"][-1] == found["f1"] <= 1
    with pytest.raises(ValueError, match="accuracy twice"):
        trainer(metrics=["accuracy", "accuracy"])
