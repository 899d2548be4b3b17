"""Schedules: PyTorch's values, pure functions of the step, what the Trainer makes of them, bad input."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

import fastact as fa
from fastact import schedules
from fastact.schedules import Cosine, Exponential, MultiStep, OneCycle, Polynomial, ReduceOnPlateau, Step

EVERY = [
    schedules.Constant(0.5),
    Step(7, gamma=0.5),
    MultiStep([3, 8, 20], gamma=0.3),
    Exponential(0.93),
    Polynomial(23, power=2.0),
    Polynomial(23, final=0.2),
    Cosine(29),
    Cosine(29, final=0.1),
    Cosine(20, warmup=6, start=0.2),
    Cosine(8, restarts=True),
    Cosine(5, restarts=True, growth=2, final=0.01),
    OneCycle(31),
    OneCycle(40, rise=0.1, div=10, final_div=100, linear=True),
]


def torchs(torch, optimizer, ours):
    """PyTorch's schedule with the values of ours, for a base rate of 1."""
    s = torch.optim.lr_scheduler
    match ours:
        case schedules.Constant():
            return s.ConstantLR(optimizer, ours.value, 10**6)
        case Step():
            return s.StepLR(optimizer, ours.size, ours.gamma)
        case MultiStep():
            return s.MultiStepLR(optimizer, ours.milestones, ours.gamma)
        case Exponential():
            return s.ExponentialLR(optimizer, ours.gamma)
        case Polynomial(final=0.0):
            return s.PolynomialLR(optimizer, ours.steps, ours.power)
        case Polynomial():
            return s.LinearLR(optimizer, 1.0, ours.final, ours.steps)
        case Cosine(restarts=True):
            return s.CosineAnnealingWarmRestarts(optimizer, ours.steps, ours.growth, ours.final)
        case Cosine(warmup=0):
            return s.CosineAnnealingLR(optimizer, ours.steps, ours.final)
        case Cosine():
            warmup = s.LinearLR(optimizer, ours.start, total_iters=ours.warmup)
            return s.SequentialLR(optimizer, [warmup, s.CosineAnnealingLR(optimizer, ours.steps)], [ours.warmup])
        case OneCycle():
            anneal = "linear" if ours.linear else "cos"
            return s.OneCycleLR(
                optimizer,
                1.0,
                ours.steps,
                pct_start=ours.rise,
                anneal_strategy=anneal,
                div_factor=ours.div,
                final_div_factor=ours.final_div,
            )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # SequentialLR's own, and step's order
@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_values_of_pytorch(schedule):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    theirs = torchs(torch, optimizer, schedule)
    last = (
        getattr(schedule, "steps", 30) + getattr(schedule, "warmup", 0) if not getattr(schedule, "restarts", 0) else 60
    )
    for t in range(last):
        assert schedule(t) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12), t
        optimizer.step()
        theirs.step()


# Without PyTorch: values that follow from the formulas by hand.
@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Step(2, 0.5), {0: 1, 1: 1, 2: 0.5, 5: 0.25}),
        (MultiStep([2, 5], 0.1), {1: 1, 2: 0.1, 4: 0.1, 5: 0.01}),
        (Exponential(0.5), {0: 1, 3: 0.125}),
        (Polynomial(4, 2.0), {0: 1, 2: 0.25, 4: 0, 9: 0}),
        (Cosine(4, final=0.5), {0: 1, 2: 0.75, 4: 0.5, 99: 0.5}),
        (Cosine(4, warmup=2, start=0.5), {0: 0.5, 1: 0.75, 2: 1, 4: 0.5, 6: 0}),
        (Cosine(2, restarts=True, growth=2), {0: 1, 1: 0.5, 2: 1, 4: 0.5, 6: 1, 10: 0.5, 14: 1}),
        (Cosine(2, warmup=1, start=0.25, restarts=True), {0: 0.25, 1: 1, 2: 0.5, 3: 1, 1001: 1}),
        (OneCycle(11, rise=6 / 11, linear=True, div=2, final_div=2), {0: 0.5, 5: 1, 10: 0.25, 50: 0.25}),
    ],
    ids=repr,
)
def test_values_by_hand(schedule, values):
    for t, value in values.items():
        assert schedule(t) == pytest.approx(value, abs=1e-15), t


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_a_schedule_is_a_pure_function_and_its_configuration_makes_it_again(schedule):
    forward = [schedule(t) for t in range(50)]
    assert [schedule(t) for t in reversed(range(50))] == forward[::-1]
    again = type(schedule)(**schedule.config())
    for other in (again, copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert other == schedule
        assert [other(t) for t in range(50)] == forward
    assert schedule.per_epoch() != schedule
    assert repr(schedule.per_epoch()) == repr(schedule) + ".per_epoch()"


PLATEAUS = [
    {"patience": 0},
    {"patience": 2, "gamma": 0.5},
    {"patience": 1, "cooldown": 3},
    {"patience": 1, "threshold": 0.2},
    {"patience": 1, "threshold": 0.3, "absolute": True},
    {"patience": 1, "maximize": True},
    {"patience": 0, "least": 0.02},
]


@pytest.mark.parametrize("settings", PLATEAUS, ids=repr)
def test_plateau_of_pytorch(settings):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    losses = (1 + np.exp(-np.arange(40) / 5) + 0.1 * rng.standard_normal(40)).tolist()
    ours = ReduceOnPlateau(**settings)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        "max" if ours.maximize else "min",
        ours.gamma,
        ours.patience,
        ours.threshold,
        "abs" if ours.absolute else "rel",
        ours.cooldown,
        ours.least,
        0.0,
    )
    for n, loss in enumerate(losses, 1):
        theirs.step(loss)
        assert ours({"loss": losses[:n]}) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), n
    assert ours({"loss": losses}) < 1


def test_plateau_by_hand():
    schedule = ReduceOnPlateau(gamma=0.5, patience=1)
    assert schedule({}) == 1
    assert schedule({"loss": [3.0, 2.0, None, 2.0, None]}) == 1  # what was not measured does not count
    assert schedule({"loss": [3.0, 2.0, 2.0, math.nan]}) == 0.5
    assert schedule({"loss": [3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0]}) == 0.25
    assert schedule({"loss": [3.0, 3.0, 3.0], "val_loss": [3.0, 2.0, 1.0]}) == 1  # val_loss comes first
    assert ReduceOnPlateau("loss", 0.5, 1)({"loss": [3.0, 3.0, 3.0], "val_loss": [3.0, 2.0, 1.0]}) == 0.5
    with pytest.raises(KeyError, match="val_loss"):
        ReduceOnPlateau("val_loss")(fa.training.History({"loss": [1.0]}))
    with pytest.raises(ValueError, match="per_epoch"):
        schedule.per_epoch()


# ---- in a Trainer ----

X = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
Y = np.arange(12) % 2


def model():
    return fa.nn.Sequential(fa.nn.Dense(3, 2, rng=0))


@pytest.mark.parametrize("schedule", [Cosine(8, warmup=2), lambda t: 1 / (1 + t)], ids=["object", "function"])
def test_the_trainer_uses_the_factor_and_leaves_the_setting(schedule):
    a, b = model(), model()
    trainer = fa.Trainer(a, optimizer=fa.optim.Adam(0.1), schedule=schedule)
    by_hand, loss = fa.optim.Adam(0.1), fa.losses.CrossEntropy()
    for t in range(6):
        assert trainer.lr == 0.1 * schedule(t)
        trainer.step(X, Y)
        assert (trainer.last_lr, trainer.optimizer.lr) == (0.1 * schedule(t), 0.1)
        by_hand.lr = 0.1 * schedule(t)
        b.zero_grad()
        output, backward = b.forward(X)
        backward(loss.forward(output, Y)[1]())
        by_hand.step(b)
    np.testing.assert_array_equal(a.flat_parameters, b.flat_parameters)


def test_a_schedule_goes_by_epochs_where_asked():
    rates = []
    trainer = fa.Trainer(model(), optimizer=fa.optim.SGD(0.8), schedule=Step(1, 0.5).per_epoch())
    trainer.fit(X, Y, epochs=3, batch_size=4, on_step=lambda t: rates.append(t.last_lr))
    assert rates == [0.8] * 3 + [0.4] * 3 + [0.2] * 3


def test_a_plateau_lowers_the_rate_of_a_fit():
    trainer = fa.Trainer(model(), optimizer=fa.optim.SGD(0.0), schedule=ReduceOnPlateau(gamma=0.5, patience=1))
    trainer.optimizer.lr = 1e-30  # a rate without effect: the loss stays
    seen = []
    trainer.fit(X, Y, epochs=6, batch_size=None, on_step=lambda t: seen.append(t.last_lr / 1e-30))
    assert seen == [1, 1, 1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("schedule", [*EVERY, Step(2).per_epoch(), ReduceOnPlateau(patience=0)], ids=repr)
def test_a_checkpoint_holds_the_schedule(tmp_path, schedule):
    trainer = fa.Trainer(model(), optimizer=fa.optim.Adam(0.1), schedule=schedule)
    trainer.fit(X, Y, epochs=3, batch_size=5)
    trainer.save(tmp_path / "run")
    again = fa.Trainer.load(tmp_path / "run")
    assert again.schedule == schedule
    assert again.lr == trainer.lr
    other = fa.Trainer(model())
    other.restore(tmp_path / "run")
    assert other.schedule == schedule


def test_a_function_is_given_again_with_the_checkpoint(tmp_path):
    def halved(step):
        return 0.5**step

    trainer = fa.Trainer(model(), schedule=halved)
    trainer.step(X, Y)
    trainer.save(tmp_path / "run")
    with pytest.raises(ValueError, match=r"schedule: .*pass schedule="):
        fa.Trainer.load(tmp_path / "run")
    again = fa.Trainer.load(tmp_path / "run", schedule=halved)
    assert again.lr == trainer.lr == 0.5e-3


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Step(0), ValueError, "size"),
        (lambda: Step(3, gamma=-1), ValueError, "gamma"),
        (lambda: MultiStep([5, 3]), ValueError, "rising"),
        (lambda: MultiStep([1.5]), TypeError, r"milestones\[0\]"),
        (lambda: Exponential("a"), TypeError, "gamma"),
        (lambda: Polynomial(3, power=0), ValueError, "power"),
        (lambda: Cosine(3, growth=2), ValueError, "restarts=True"),
        (lambda: Cosine(3, warmup=-1), ValueError, "warmup"),
        (lambda: OneCycle(1), ValueError, "steps"),
        (lambda: OneCycle(10, rise=1.0), ValueError, "rise"),
        (lambda: ReduceOnPlateau(gamma=1.0), ValueError, "gamma"),
        (lambda: fa.Trainer(model(), schedule=Step), TypeError, r"write Step\(\.\.\.\)"),
        (lambda: fa.Trainer(model(), schedule=0.5), TypeError, "schedule: .* got float"),
        (lambda: fa.Trainer(model(), schedule=lambda t: math.nan).step(X, Y), ValueError, r"schedule\(t\)"),
        (lambda: fa.Trainer(model(), schedule=lambda t: None).step(X, Y), TypeError, r"schedule\(t\)"),
        (lambda: schedules.Schedule()(0), NotImplementedError, "factor"),
    ],
)
def test_refuses(call, error, words):
    with pytest.raises(error, match=words):
        call()
