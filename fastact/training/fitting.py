"""``Fit``: the loop of one ``fit`` over epochs and batches, with everything that happens besides the updates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

from fastact._files import PathLike
from fastact.training import checkpoints
from fastact.training.batches import Batch
from fastact.training.callbacks import Callback, load_states, states_of
from fastact.training.data import Data
from fastact.training.interrupts import InterruptGuard
from fastact.training.measuring import Measuring, evaluated
from fastact.training.progress import Progress
from fastact.training.run import Run

if TYPE_CHECKING:
    from fastact.training.trainer import Trainer


class Fit:
    """A ``fit`` or ``resume`` under way.

    Parameters
    ----------
    trainer : Trainer
    run : Run
        What was asked for, and where it stands.
    data, held : data for training, and for validation or None
    callbacks : list of Callback
        Those that write checkpoints last.
    progress : bool or None
    checkpoint : path or None
    """

    def __init__(
        self,
        trainer: Trainer,
        run: Run,
        data: Data,
        held: Data | None,
        callbacks: list[Callback],
        progress: bool | None,
        checkpoint: PathLike | None,
    ) -> None:
        if checkpoint is not None:
            checkpoints.check(checkpoint, trainer.model)
        self.trainer, self.run, self.data, self.held = trainer, run, data, held
        self.callbacks, self.checkpoint = callbacks, checkpoint
        self.measuring = Measuring(trainer.metrics, data, trainer.model)
        self.guard = InterruptGuard()
        self.bar = Progress(progress, run.epochs)
        for callback in callbacks:
            callback.on_begin(trainer)

    def states(self) -> tuple[dict[str, Any], list[Any]]:
        """What callbacks and metrics must know to go on after an interruption."""
        return states_of(self.callbacks), self.measuring.state_dict()

    def load_states(self, callbacks: Mapping[str, Any], metrics: list[Any]) -> None:
        """Take back what ``states`` gave."""
        load_states(self.callbacks, callbacks)
        self.measuring.load_state_dict(metrics)

    def go(self) -> None:
        """All epochs that are left, unless it is stopped or interrupted; a checkpoint then holds where it stands."""
        trainer, run = self.trainer, self.run
        with self.guard:
            try:
                while trainer.epochs < run.epochs and not trainer.stopping:
                    self._epoch()
                    if trainer.stopping:
                        break
                    self._end_epoch()
                    self._save()
                    if trainer.interrupted:
                        self.guard.check()
                if trainer.interrupted:
                    self._save()
            except KeyboardInterrupt:
                self._save()
                raise

    def _save(self) -> None:
        if self.checkpoint is not None:
            self.trainer.save(self.checkpoint)

    def close(self) -> None:
        """Take the bar away, and let callbacks give back what they hold open."""
        self.bar.close()
        for callback in self.callbacks:
            callback.close()

    def _epoch(self) -> None:
        """The batches of an epoch that are still to be done."""
        trainer, run, bar = self.trainer, self.run, self.bar
        seeds = (trainer.seed, trainer.epochs) if run.shuffle else None
        done = (trainer.steps - run.first_step) * trainer.accumulate
        batches = self.data.batches(run.batch_size, seeds, done)
        behind = 0 if run.rows is None or run.batch_size is None else min(done * run.batch_size, run.rows)
        bar.begin(trainer.epochs + 1, run.rows, behind)
        called = [callback.on_step for callback in self.callbacks if _defines(callback, "on_step")]
        measuring = self.measuring if self.measuring.metrics else None
        begin = time.perf_counter()
        for group in _groups(batches, trainer.accumulate):
            run.add(trainer._update(group, None, measuring))
            run.seconds += time.perf_counter() - begin
            bar.update(sum([len(batch.x) for batch in group]), run.loss)
            for on_step in called:
                on_step(trainer)
            if trainer.stopping:
                return
            self.guard.check()
            begin = time.perf_counter()

    def _end_epoch(self) -> None:
        """Measure, write it down, and tell the callbacks."""
        trainer, run = self.trainer, self.run
        row: dict[str, Any] = {"epoch": trainer.epochs + 1, "step": trainer.steps}
        row |= run.results(trainer.loss) | self.measuring.results()
        if self.held is not None:
            batches = self.held.batches(run.batch_size)
            with nullcontext() if trainer.average is None else trainer.averaged():
                found = evaluated(trainer.model, trainer.loss, trainer.metrics, batches, self.guard)
            row.update({f"val_{name}": value for name, value in found.items()})
        for callback in self.callbacks:
            row.update(callback.measure(trainer))
        row["seconds"] = run.seconds
        self.measuring.reset()
        run.next_epoch(trainer.steps)
        trainer.epochs += 1
        trainer.history.append(row)
        self.bar.end(row)
        if trainer.epochs == run.epochs:
            trainer._run = None
        for callback in self.callbacks:
            if not callback.saves:
                callback.on_epoch(trainer)
        if trainer.stopping:
            trainer._run = None
        if not trainer.interrupted:
            for callback in self.callbacks:
                callback.on_end(trainer)
        for callback in self.callbacks:
            if callback.saves:
                callback.on_epoch(trainer)


def _groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """The batches of one update after the other."""
    while group := list(islice(batches, size)):
        yield group


def _defines(callback: Callback, name: str) -> bool:
    """Whether a callback does anything there: a step is not to pay for empty calls."""
    return getattr(type(callback), name) is not getattr(Callback, name) or name in vars(callback)
