"""``Run``: a ``fit`` under way, in a form that a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass

from fastact.losses import Measure


@dataclass
class Run:
    """What a ``fit`` was asked for and where it stands. All of it goes into a checkpoint.

    The update to do next is ``optimizer.steps - first_step``: it cannot disagree with the weights.
    """

    epochs: int  # number of the last epoch, counted over all fits
    rows: int | None  # training rows, validation rows not among them; None for batches from an iterable
    batch_size: int | None
    shuffle: bool
    fraction: float | None  # of the rows given, held back for validation
    has_validation: bool
    steps_per_epoch: int | None = None  # of an iterable
    weighted: tuple[bool, bool] | list[bool] = (False, False)  # by sample, by class
    first_step: int = 0  # optimizer.steps when this epoch began
    total: float = 0.0  # this epoch: sum of the loss over `size` terms, those right among them, time
    size: float = 0
    correct: float = 0
    seconds: float = 0.0

    def add(self, measure: Measure) -> None:
        self.total += measure.mean * measure.size
        self.size += measure.size
        self.correct += measure.correct

    @property
    def mean(self) -> float:
        return self.total / self.size if self.size else 0.0

    def next_epoch(self, steps: int) -> None:
        self.first_step, self.total, self.size, self.correct, self.seconds = steps, 0.0, 0, 0, 0.0
