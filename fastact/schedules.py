"""Learning-rate schedules: what the optimiser's rate is multiplied with at each update.

``fa.Trainer(model, schedule=fa.schedules.Cosine(1000, warmup=100))`` makes update number t (from 0) with the rate
``optimizer.lr * schedule(t)``; ``optimizer.lr`` itself stays as it was set. A schedule is a pure function of t, or of
the history in the case of ``ReduceOnPlateau``: it holds no state, so a resumed run needs none. ``schedule.per_epoch()``
is the same function of the number of epochs. A function of your own, ``f(t) -> factor``, serves as well.

Values are those of ``torch.optim.lr_scheduler`` divided by the base rate, unless a class says otherwise.
"""

from __future__ import annotations

import copy
import inspect
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastact._arguments import as_number, as_size

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "MultiStep",
    "OneCycle",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "Step",
    "as_schedule",
]


class Schedule:
    """Base of the schedules. A subclass defines ``factor`` and keeps the arguments of ``__init__`` as attributes.

    Attributes
    ----------
    unit : {"step", "epoch", "history"}
        What a Trainer calls the schedule with: updates made, epochs finished, or the history.

    Examples
    --------
    >>> import fastact as fa
    >>> halved = fa.schedules.Step(10, gamma=0.5)
    >>> [halved(t) for t in (0, 9, 10, 25)]
    [1.0, 1.0, 0.5, 0.25]
    >>> halved.per_epoch()
    Step(size=10, gamma=0.5).per_epoch()
    """

    unit: str = "step"

    def factor(self, t: int) -> float:
        """What the rate is multiplied with at update (or epoch) number ``t``, from 0."""
        raise NotImplementedError(f"{type(self).__name__} defines no factor(t)")

    def __call__(self, t: int) -> float:
        return self.factor(t)

    def per_epoch(self) -> Schedule:
        """The same function of the number of finished epochs instead of updates."""
        if self.unit == "history":
            raise ValueError(f"per_epoch: {type(self).__name__} goes by epochs already")
        other = copy.copy(self)
        other.unit = "epoch"
        return other

    def config(self) -> dict[str, Any]:
        """Arguments that make the same schedule, for messages and checkpoints."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.unit == other.unit and self.config() == other.config()  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({inside}){'.per_epoch()' if self.unit == 'epoch' else ''}"


class Constant(Schedule):
    """Always the same.

    Parameters
    ----------
    value : float
    """

    def __init__(self, value: float = 1.0) -> None:
        self.value = as_number(value, "value", 0.0)

    def factor(self, t: int) -> float:
        return self.value


class Step(Schedule):
    """gamma^floor(t / size): ``torch.optim.lr_scheduler.StepLR``.

    Parameters
    ----------
    size : int
        Updates between two falls.
    gamma : float
    """

    def __init__(self, size: int, gamma: float = 0.1) -> None:
        self.size = as_size(size, "size")
        self.gamma = as_number(gamma, "gamma", 0.0)

    def factor(self, t: int) -> float:
        return self.gamma ** (t // self.size)


class MultiStep(Schedule):
    """gamma^(how many of the milestones are reached): ``MultiStepLR``.

    Parameters
    ----------
    milestones : sequence of int
        Rising.
    gamma : float
    """

    def __init__(self, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones = [as_size(m, f"milestones[{i}]") for i, m in enumerate(milestones)]
        if sorted(self.milestones) != self.milestones:
            raise ValueError(f"milestones: expected rising numbers, got {self.milestones}; sort them")
        self.gamma = as_number(gamma, "gamma", 0.0)

    def factor(self, t: int) -> float:
        return self.gamma ** bisect_right(self.milestones, t)


class Exponential(Schedule):
    """gamma^t: ``ExponentialLR``.

    Parameters
    ----------
    gamma : float
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = as_number(gamma, "gamma", 0.0)

    def factor(self, t: int) -> float:
        return self.gamma**t


class Polynomial(Schedule):
    """final + (1 - final) (1 - t / steps)^power, ``final`` from then on: ``PolynomialLR``, whose ``final`` is 0.

    Parameters
    ----------
    steps : int
    power : float
        1 falls linearly.
    final : float

    Examples
    --------
    >>> import fastact as fa
    >>> [fa.schedules.Polynomial(4)(t) for t in range(6)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    def __init__(self, steps: int, power: float = 1.0, final: float = 0.0) -> None:
        self.steps = as_size(steps, "steps")
        self.power = as_number(power, "power", 0.0, above=True)
        self.final = as_number(final, "final", 0.0)

    def factor(self, t: int) -> float:
        return self.final + (1 - self.final) * (1 - min(t / self.steps, 1.0)) ** self.power


class Cosine(Schedule):
    """Half a cosine from 1 down to ``final``, after a linear warm-up (Loshchilov and Hutter 2017, arXiv:1608.03983).

    During the warm-up: start + (1 - start) t / warmup (``LinearLR``). Then, s updates into a period of ``steps``:
    final + (1 - final) (1 + cos(pi s / steps)) / 2 (``CosineAnnealingLR``), and ``final`` from then on; with
    ``restarts`` a new period begins at 1, ``growth`` times as long (``CosineAnnealingWarmRestarts``).

    Parameters
    ----------
    steps : int
        Updates of the (first) period, the warm-up not among them.
    warmup : int
    start : float
        What the warm-up begins with.
    final : float
    restarts : bool
    growth : int

    Examples
    --------
    >>> import fastact as fa
    >>> schedule = fa.schedules.Cosine(100, warmup=10, start=0.1)
    >>> [round(schedule(t), 6) for t in (0, 5, 10, 60, 110, 1000)]
    [0.1, 0.55, 1.0, 0.5, 0.0, 0.0]
    """

    def __init__(
        self,
        steps: int,
        warmup: int = 0,
        start: float = 0.01,
        final: float = 0.0,
        restarts: bool = False,
        growth: int = 1,
    ) -> None:
        self.steps = as_size(steps, "steps")
        self.warmup = as_size(warmup, "warmup", least=0)
        self.start = as_number(start, "start", 0.0)
        self.final = as_number(final, "final", 0.0)
        self.restarts = bool(restarts)
        self.growth = as_size(growth, "growth")
        if self.growth > 1 and not self.restarts:
            raise ValueError(f"growth: expected restarts=True with it, got growth={growth} and restarts=False")

    def factor(self, t: int) -> float:
        if t < self.warmup:
            return self.start + (1 - self.start) * t / self.warmup
        s, period = t - self.warmup, self.steps
        if self.restarts:
            if self.growth == 1:
                s %= period
            while s >= period:
                s -= period
                period *= self.growth
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(s / period, 1.0))) / 2


class OneCycle(Schedule):
    """Up to 1 and down again (Smith and Topin 2019, arXiv:1708.07120): ``OneCycleLR`` with two phases.

    The optimiser's rate is the highest one, ``max_lr`` there. It begins with 1 / div, reaches 1 after a share ``rise``
    of the updates, and ends with 1 / (div final_div). The momentum is left alone.

    Parameters
    ----------
    steps : int
        Updates in all, at least 2.
    rise : float, 0 < rise < 1
        torch's ``pct_start``.
    div, final_div : float
    linear : bool
        Straight lines instead of half cosines.
    """

    def __init__(
        self, steps: int, rise: float = 0.3, div: float = 25.0, final_div: float = 1e4, linear: bool = False
    ) -> None:
        self.steps = as_size(steps, "steps", 2)
        self.rise = as_number(rise, "rise", 0.0, 1.0, above=True)
        self.div = as_number(div, "div", 0.0, above=True)
        self.final_div = as_number(final_div, "final_div", 0.0, above=True)
        self.linear = bool(linear)

    def factor(self, t: int) -> float:
        low, last, top = 1 / self.div, 1 / (self.div * self.final_div), self.rise * self.steps - 1
        if t <= top:
            begin, end, share = low, 1.0, t / top if top > 0 else 1.0
        else:
            begin, end, share = 1.0, last, min((t - max(top, 0.0)) / (self.steps - 1 - max(top, 0.0)), 1.0)
        if not self.linear:
            share = (1 - math.cos(math.pi * share)) / 2
        return begin + (end - begin) * share


class ReduceOnPlateau(Schedule):
    """Times gamma each time that a measurement has not improved for more than ``patience`` epochs.

    ``ReduceLROnPlateau`` of PyTorch, as a function of the whole history: epochs that did not measure it do not count.
    The threshold is a share of |best|, so that it serves for negative measurements too.

    Parameters
    ----------
    monitor : str, optional
        A column of the history; without, ``val_loss`` where there is one, else ``loss``.
    gamma : float, 0 <= gamma < 1
    patience : int
    threshold : float
        What counts as an improvement: a value below best - threshold |best|.
    absolute : bool
        Below best - threshold instead.
    cooldown : int
        Epochs after a fall during which nothing is counted.
    least : float
        No factor falls below it.
    maximize : bool
        For measurements that shall rise.

    Examples
    --------
    >>> import fastact as fa
    >>> schedule = fa.schedules.ReduceOnPlateau(gamma=0.5, patience=1)
    >>> [schedule({"loss": [1.0, 0.5, 0.5, 0.5, 0.5][:n]}) for n in range(6)]
    [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]
    """

    unit = "history"

    def __init__(
        self,
        monitor: str | None = None,
        gamma: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        absolute: bool = False,
        cooldown: int = 0,
        least: float = 0.0,
        maximize: bool = False,
    ) -> None:
        self.monitor = monitor
        self.gamma = as_number(gamma, "gamma", 0.0, 1.0)
        self.patience = as_size(patience, "patience", 0)
        self.threshold = as_number(threshold, "threshold", 0.0)
        self.absolute = bool(absolute)
        self.cooldown = as_size(cooldown, "cooldown", 0)
        self.least = as_number(least, "least", 0.0)
        self.maximize = bool(maximize)

    def __call__(self, history: Mapping[str, Sequence[Any]]) -> float:  # type: ignore[override]
        """The factor after the epochs of a history."""
        monitor = self.monitor or ("val_loss" if "val_loss" in history else "loss")
        column = history[monitor] if len(history) else ()
        sign = -1.0 if self.maximize else 1.0
        best, waited, cooling, factor = math.inf, 0, 0, 1.0
        for value in column:
            if value is None:
                continue
            value = sign * value
            margin = self.threshold if self.absolute else self.threshold * abs(best)
            if value < best - margin if best < math.inf else value < best:
                best, waited = value, 0
            else:
                waited += 1
            if cooling:
                cooling -= 1
                waited = 0
            if waited > self.patience:
                factor, cooling, waited = max(factor * self.gamma, self.least), self.cooldown, 0
        return factor


class Function(Schedule):
    """A function of one's own as a schedule; a checkpoint can't hold it."""

    def __init__(self, function: Callable[[int], float]) -> None:
        self.function = function

    def factor(self, t: int) -> float:
        return as_number(self.function(t), "schedule(t)", 0.0)


def as_schedule(spec: Schedule | Callable[[int], float] | None) -> Schedule | None:
    """``spec`` itself, or a function of the step as a schedule.

    Raises
    ------
    TypeError
        For anything else.
    """
    if spec is None or isinstance(spec, Schedule):
        return spec
    if isinstance(spec, type):
        raise TypeError(f"schedule: expected an object, got the class; write {spec.__name__}(...)")
    if not callable(spec):
        raise TypeError(
            f"schedule: expected an object of fa.schedules or a function f(step) -> factor, got {type(spec).__name__}"
        )
    return Function(spec)
