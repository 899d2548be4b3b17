"""``Run``: a ``fit`` under way, in a form that a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass

from fastact.training.measuring import Totals


@dataclass(kw_only=True)
class Run(Totals):
    """What a ``fit`` was asked for and where it stands. All of it goes into a checkpoint.

    The totals are those of this epoch. The update to do next is ``optimizer.steps - first_step``: it cannot disagree
    with the weights.
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
    seconds: float = 0.0  # of this epoch, in updates

    def next_epoch(self, steps: int) -> None:
        self.first_step, self.total, self.size, self.correct, self.seconds = steps, 0.0, 0, 0, 0.0
