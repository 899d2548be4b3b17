"""Loss and metrics over the batches of an epoch or of an evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fastact._arguments import Array
from fastact.losses import Loss, Measure
from fastact.metrics import as_metric
from fastact.nn.base import Layer
from fastact.training.batches import Batch
from fastact.training.interrupts import InterruptGuard


def measured(loss: Loss, output: Array, batch: Batch, gradient: Array | None = None) -> Measure:
    """What the loss finds on a batch; one of the user's own may know no weights."""
    if batch.weight is None:
        return loss.measure(output, batch.y, gradient)
    return loss.measure(output, batch.y, gradient, weight=batch.weight)


@dataclass(kw_only=True)
class Totals:
    """What the loss would have found on several batches at once.

    Attributes
    ----------
    sums : bool
        Whether the loss of a batch is a sum over it rather than a mean.
    total : float
        Sum of the loss over all terms, each times its weight.
    size, correct : float
        The sum of the weights, and the part of it that is right.
    """

    sums: bool = False
    total: float = 0.0
    size: float = 0
    correct: float = 0

    def add(self, measure: Measure) -> None:
        self.total += measure.mean if self.sums else measure.mean * measure.size
        self.size += measure.size
        self.correct += measure.correct

    @property
    def share(self) -> float:
        """What ``total``, and the gradients of the batches' sums added up, are multiplied with to be the loss's."""
        return 1.0 if self.sums else 1.0 / (self.size or 1.0)

    @property
    def loss(self) -> float:
        return self.total if self.sums else self.total / (self.size or 1.0)

    def results(self, loss: Loss) -> dict[str, float]:
        """For the history."""
        found = {"loss": self.loss}
        if loss.counts_correct:
            found["accuracy"] = self.correct / (self.size or 1.0)
        return found


def adds_up(loss: Loss) -> bool:
    """Whether the loss of a batch is a sum over it rather than a mean."""
    return getattr(loss, "reduction", "mean") == "sum"


class Measuring:
    """Metrics over the batches of one pass.

    Parameters
    ----------
    metrics : list of metrics
    data : optional
        With ``model``: a metric that does not fit its output is refused now, by the first row, and not after an update.
    """

    def __init__(self, metrics: list[Any], data: Any = None, model: Layer | None = None) -> None:
        self.metrics = metrics
        self.reset()
        if metrics and model is not None and data.rows is not None:
            batch = next(data.batches(1))
            self.update(model(batch.x, **batch.arguments()), batch)
            self.reset()

    def reset(self) -> None:
        for metric in self.metrics:
            metric.reset()

    def update(self, output: Any, batch: Batch) -> None:
        for metric in self.metrics:
            if batch.weight is None:
                metric.update(output, batch.y)
            else:
                metric.update(output, batch.y, weight=batch.weight)

    def results(self) -> dict[str, float]:
        return {metric.name: float(metric.result()) for metric in self.metrics}

    def state_dict(self) -> list[Any]:
        """What the metrics hold in their attributes: numbers and arrays, in lists, tuples and dicts."""
        return [dict(vars(metric)) for metric in self.metrics]

    def load_state_dict(self, states: list[Any]) -> None:
        if len(states) == len(self.metrics):
            for metric, state in zip(self.metrics, states, strict=True):
                vars(metric).update(state)


def evaluated(
    model: Layer, loss: Loss, metrics: list[Any], batches: Iterable[Batch], guard: InterruptGuard | None = None
) -> dict[str, float]:
    """Loss, for classifiers accuracy, and metrics of a model over batches. Nothing is changed, the metrics neither."""
    totals = Totals(sums=adds_up(loss))
    measuring = Measuring(copy.deepcopy(metrics))
    for batch in batches:
        output = model(batch.x, **batch.arguments())
        totals.add(measured(loss, output, batch))
        measuring.update(output, batch)
        if guard is not None:
            guard.check()
    return totals.results(loss) | measuring.results()


def as_metrics(metrics: Sequence[Any]) -> list[Any]:
    """Metrics by name, as objects, or as functions of (prediction, target).

    Raises
    ------
    TypeError, ValueError
        For what is none, an unknown name, or two of one name.
    """
    if isinstance(metrics, str) or not isinstance(metrics, (list, tuple)):
        raise TypeError(
            f"metrics: expected a list of names, objects or functions, got {metrics!r}; write [{metrics!r}]"
        )
    if not metrics:
        return []
    found = [as_metric(metric) for metric in metrics]
    names = [metric.name for metric in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"metrics: expected different names, got {', '.join(sorted(twice))} twice; set .name")
    return found
