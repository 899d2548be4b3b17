"""A Trainer as facts and trees of arrays, which a checkpoint holds, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastact import losses, optim, schedules
from fastact._arguments import Array
from fastact.losses import Loss
from fastact.optim import Optimizer
from fastact.schedules import Schedule
from fastact.training.averaging import WeightAverage
from fastact.training.history import History
from fastact.training.run import Run

if TYPE_CHECKING:
    from fastact.training.trainer import Trainer


def taken(trainer: Trainer, extra: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything that an exact resume needs besides the weights: facts of JSON's types, and trees."""
    optimizer, average = trainer.optimizer.state_dict(), trainer.average
    facts = {
        "loss": {"name": type(trainer.loss).__name__, "settings": trainer.loss.config()},
        "optimizer": {k: optimizer[k] for k in ("name", "settings", "steps")},
        "schedule": None if trainer.schedule is None else _described(trainer.schedule),
        "accumulate": trainer.accumulate,
        "clip_norm": trainer.clip_norm,
        "clip_value": trainer.clip_value,
        "average": None if average is None else average.decay,
        "last_lr": trainer.last_lr,
        "seed": trainer.seed,
        "epochs": trainer.epochs,
        "history": {name: list(column) for name, column in trainer.history.items()},
        "run": None if trainer._run is None else asdict(trainer._run),
        "extra": dict(extra or {}),
    }
    callbacks, metrics = trainer._states()
    trees = {
        "optimizer": optimizer["arrays"],
        "state": trainer.state,
        "average": None if average is None else average.values,
        "callbacks": callbacks,
        "metrics": metrics,
    }
    return facts, trees


def put(trainer: Trainer, weights: dict[str, Array], facts: dict[str, Any], trees: dict[str, Any]) -> dict[str, Any]:
    """Make a trainer what ``taken`` found, and return the extra facts; it stays as it is where that does not fit it."""
    if facts["loss"]["name"] != type(trainer.loss).__name__:
        raise ValueError(
            f"loss: expected {facts['loss']['name']}, with which the checkpoint was trained, got {trainer.loss!r}"
        )
    schedule = _schedule_of(facts, trainer.schedule)
    average = None if facts.get("average") is None else WeightAverage(facts["average"])
    if average is not None and trees["average"] is not None:
        average.set(trees["average"])
    optimizer = copy.copy(trainer.optimizer)
    optimizer.load_state_dict({**facts["optimizer"], "arrays": trees["optimizer"] or {}})
    optimizer._bind(trainer.model.arena)
    trainer.model.load_state_dict(weights)
    vars(trainer.optimizer).update(vars(optimizer))
    trainer.schedule, trainer.average = schedule, average
    trainer.accumulate = facts.get("accumulate", 1)
    trainer.clip_norm, trainer.clip_value = facts["clip_norm"], facts.get("clip_value")
    trainer.last_lr = facts.get("last_lr", trainer.optimizer.lr)
    trainer.seed = facts["seed"]
    trainer.epochs = facts["epochs"]
    trainer.history = History(facts["history"])
    trainer.state = trees["state"]
    trainer._run = None if facts["run"] is None else Run(**facts["run"])
    trainer._callback_states, trainer._metric_states = trees.get("callbacks", {}), trees.get("metrics", [])
    trainer._added = 0
    trainer._factor = -1, 1.0
    return facts["extra"]  # type: ignore[no-any-return]


def loss_of(facts: dict[str, Any]) -> Loss:
    """The loss of a checkpoint; an error where it is one of the user's own."""
    name = facts["loss"]["name"]
    kind = getattr(losses, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Loss)):
        raise ValueError(f"loss: the checkpoint was trained with {name}, which is not in fa.losses; pass loss=")
    return kind(**facts["loss"]["settings"])


def optimizer_of(facts: dict[str, Any]) -> Optimizer:
    """The optimiser of a checkpoint, without its state; an error where it is one of the user's own."""
    name = facts["optimizer"]["name"]
    rule = getattr(optim, name, None)
    if not (isinstance(rule, type) and issubclass(rule, Optimizer)):
        raise ValueError(
            f"optimizer: the checkpoint was trained with {name}, which is not in fa.optim; make the Trainer with "
            "one, then trainer.restore(path)"
        )
    return rule(**facts["optimizer"]["settings"])


def _schedule_of(facts: dict[str, Any], own: Schedule | None) -> Schedule | None:
    """The schedule of a checkpoint; where that is code, the trainer's own stands for it."""
    described = facts.get("schedule")
    if described is None:
        return None
    kind = getattr(schedules, described["name"], None)
    if described["settings"] is not None and isinstance(kind, type) and issubclass(kind, Schedule):
        schedule = kind(**described["settings"])
        return schedule.per_epoch() if described["unit"] == "epoch" else schedule
    if own is not None and type(own).__name__ == described["name"]:
        return own
    raise ValueError(
        f"schedule: the checkpoint was trained with one of your own ({described['name']}), which a file cannot "
        "hold; pass schedule= to Trainer or Trainer.load"
    )


def _described(schedule: Schedule) -> dict[str, Any]:
    """A schedule for a checkpoint; one of the user's own by its name alone."""
    kind = type(schedule)
    known = getattr(schedules, kind.__name__, None) is kind and kind is not schedules.Function
    return {"name": kind.__name__, "unit": schedule.unit, "settings": schedule.config() if known else None}
