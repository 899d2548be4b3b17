"""Loss and metrics over the batches of an epoch or of an evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from fastact.losses import Loss
from fastact.nn.base import Layer
from fastact.training.batches import Batch
from fastact.training.interrupts import InterruptGuard


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
            given = {} if batch.lengths is None else {"lengths": batch.lengths}
            self.update(model(batch.x, **given), batch)
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
    total, size, correct = 0.0, 0.0, 0.0
    measuring = Measuring(copy.deepcopy(metrics))
    for batch in batches:
        x, y, weight, lengths = batch
        output = model(x) if lengths is None else model(x, lengths=lengths)  # type: ignore[call-arg]
        measure = loss.measure(output, y) if weight is None else loss.measure(output, y, weight=weight)  # type: ignore[call-arg]
        total += measure.mean * measure.size
        size += measure.size
        correct += measure.correct
        measuring.update(output, batch)
        if guard is not None:
            guard.check()
    found = {"loss": total / (size or 1)}
    if loss.counts_correct:
        found["accuracy"] = correct / (size or 1)
    return found | measuring.results()


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
    from fastact.metrics import as_metric  # type: ignore[import-not-found,unused-ignore]

    found = [as_metric(metric) for metric in metrics]
    names = [metric.name for metric in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"metrics: expected different names, got {', '.join(sorted(twice))} twice; set .name")
    return found
