"""Callbacks: what shall happen at the steps and epochs of a ``fit``.

``trainer.fit(x, y, callbacks=[EarlyStopping(), CSVLogger("log.csv")])``. Those that write checkpoints come last, so
that what they write holds what the others did. What a callback must know to go on after an interruption is its
``state_dict``; it is part of the checkpoint, and ``resume`` gives it back to the callback of the same class and place.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fastact._arguments import as_number, as_size
from fastact._files import PathLike, write_atomically

if TYPE_CHECKING:
    from fastact.training.trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "JSONLogger",
    "LambdaCallback",
    "LearningRateLogger",
    "TensorBoard",
]


class Callback:
    """Base of the callbacks: a subclass defines what it needs.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> class Largest(fa.training.Callback):
    ...     def measure(self, trainer):
    ...         return {"largest_weight": float(np.abs(trainer.model.flat_parameters).max())}
    >>> trainer = fa.Trainer(fa.nn.Sequential(fa.nn.Dense(2, 2, rng=0)))
    >>> history = trainer.fit(np.eye(2), [0, 1], epochs=3, callbacks=[Largest()])
    >>> len(history["largest_weight"])
    3
    """

    saves: bool = False  #: whether it writes checkpoints; it comes after the others then

    def on_begin(self, trainer: Trainer) -> None:
        """A fit begins, or is resumed (``load_state_dict`` follows then): forget earlier ones."""

    def on_step(self, trainer: Trainer) -> None:
        """An update was made. ``trainer.stop()`` ends the fit, so that ``resume`` can finish it."""

    def measure(self, trainer: Trainer) -> Mapping[str, Any]:
        """Further entries in the history for the epoch that has just ended."""
        return {}

    def on_epoch(self, trainer: Trainer) -> None:
        """An epoch is in the history. ``trainer.stop()`` ends the fit."""

    def on_end(self, trainer: Trainer) -> None:
        """The fit is done: all epochs, or stopped after one of them."""

    def close(self) -> None:
        """The fit is left, however: give back what is open."""

    def state_dict(self) -> dict[str, Any]:
        """Arrays, numbers, strings and None, in dicts, lists and tuples."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""


class LambdaCallback(Callback):
    """Functions of the trainer as a callback.

    Parameters
    ----------
    on_begin, on_step, on_epoch, on_end : callable, optional
        ``f(trainer)``.
    """

    def __init__(
        self,
        on_begin: Callable[[Any], Any] | None = None,
        on_step: Callable[[Any], Any] | None = None,
        on_epoch: Callable[[Any], Any] | None = None,
        on_end: Callable[[Any], Any] | None = None,
    ) -> None:
        given = {"on_begin": on_begin, "on_step": on_step, "on_epoch": on_epoch, "on_end": on_end}
        for name, function in given.items():
            if function is not None:
                if not callable(function):
                    raise TypeError(f"{name}: expected a function f(trainer), got {function!r}")
                setattr(self, name, function)


class _Best:
    """Whether a measurement in the history is better than those before.

    ``monitor=None`` is ``val_loss`` where it is measured, else ``loss``; what is an accuracy or a score shall rise.
    """

    def __init__(self, monitor: str | None, maximize: bool | None, min_delta: float = 0.0) -> None:
        self.monitor, self.maximize, self.min_delta = monitor, maximize, min_delta

    def column(self, trainer: Trainer) -> tuple[str, list[Any]]:
        history = trainer.history
        name = self.monitor or ("val_loss" if "val_loss" in history else "loss")
        if name not in history:
            hint = "; fit(validation=...) measures it" if name.startswith("val_") else ""
            raise ValueError(
                f"monitor: expected one of {', '.join(history)}, which the history holds, got {name!r}{hint}"
            )
        return name, history[name]

    def better(self, trainer: Trainer, value: float | None, best: float | None) -> bool:
        name, _ = self.column(trainer)
        if value is None or math.isnan(value):
            return False
        if best is None:
            return True
        rise = self.maximize
        if rise is None:
            rise = not any(word in name for word in ("loss", "error", "perplexity"))
        return value > best + self.min_delta if rise else value < best - self.min_delta


class EarlyStopping(Callback):
    """Ends a fit that no longer improves, with the weights of its best epoch.

    Parameters
    ----------
    monitor : str, optional
        A column of the history; without, ``val_loss`` where there is one, else ``loss``.
    patience : int
        So many epochs without improvement are waited for.
    min_delta : float
        An improvement is more than this.
    maximize : bool, optional
        Whether larger is better; without, for all but names with loss, error or perplexity in them.
    restore : bool
        At the end of the fit, stopped or not, the model (and its average) is as it was after the best epoch. The
        optimiser goes on from where it is.

    Attributes
    ----------
    best, best_epoch : float and int, or None
    stopped : bool

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((40, 5)), rng.integers(0, 2, 40)
    >>> trainer = fa.Trainer(fa.nn.Sequential(fa.nn.Dense(5, 2, rng=0)), optimizer=fa.optim.Adam(0.1))
    >>> stopping = fa.training.EarlyStopping(patience=3)
    >>> history = trainer.fit(x, y, epochs=100, validation=0.5, callbacks=[stopping])
    >>> len(history["loss"]) == stopping.best_epoch + 3 < 100
    True
    """

    def __init__(
        self,
        monitor: str | None = None,
        patience: int = 5,
        min_delta: float = 0.0,
        maximize: bool | None = None,
        restore: bool = True,
    ) -> None:
        self.patience = as_size(patience, "patience")
        self.restore = bool(restore)
        self._rule = _Best(monitor, maximize, as_number(min_delta, "min_delta", 0.0))
        self._reset()

    def _reset(self) -> None:
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.stopped = False
        self._waited = 0
        self._weights: Any = None

    def on_begin(self, trainer: Trainer) -> None:
        self._reset()

    def on_epoch(self, trainer: Trainer) -> None:
        value = self._rule.column(trainer)[1][-1]
        if self._rule.better(trainer, value, self.best):
            self.best, self.best_epoch, self._waited = float(value), trainer.epochs, 0
            if self.restore:
                self._weights = trainer.weights()
        else:
            self._waited += 1
            if self._waited >= self.patience:
                self.stopped = True
                trainer.stop()

    def on_end(self, trainer: Trainer) -> None:
        if self._weights is not None:
            trainer.set_weights(self._weights)
            self._weights = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
            "waited": self._waited,
            "weights": self._weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.best_epoch, self.stopped = state["best"], state["best_epoch"], state["stopped"]
        self._waited, self._weights = state["waited"], state["weights"]


class Checkpoint(Callback):
    """Writes checkpoints, from which ``resume`` goes on to the same bits; see ``Trainer.save``.

    Parameters
    ----------
    path : path
        ``{epoch}`` and ``{step}`` in it become the numbers, so that earlier files stay.
    every : int
        Epochs from one file to the next.
    steps : int, optional
        Updates from one to the next, besides: what a kill in a long epoch may cost.
    best : bool or str
        Only after epochs that are the best in the history so far, by a column of that name; True is ``val_loss``
        where there is one, else ``loss``.
    maximize : bool, optional
        As for ``EarlyStopping``.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import fastact as fa
    >>> trainer = fa.Trainer(fa.nn.Sequential(fa.nn.Dense(2, 2, rng=0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     best = fa.training.Checkpoint(f"{folder}/best.safetensors", best=True)
    ...     history = trainer.fit(np.eye(2), [0, 1], epochs=3, callbacks=[best])
    ...     fa.Trainer.load(f"{folder}/best.safetensors").epochs
    3
    """

    saves = True

    def __init__(
        self,
        path: PathLike,
        every: int = 1,
        steps: int | None = None,
        best: bool | str = False,
        maximize: bool | None = None,
    ) -> None:
        self.path = os.fsdecode(path)
        self.every = as_size(every, "every")
        self.steps = None if steps is None else as_size(steps, "steps")
        self._rule = _Best(best if isinstance(best, str) else None, maximize) if best else None
        if self._rule is not None and self.steps is not None:
            raise ValueError("steps: expected None with best=, which is known after an epoch")

    def on_begin(self, trainer: Trainer) -> None:
        from fastact.training import checkpoints

        checkpoints.check(self._name(trainer), trainer.model)

    def _name(self, trainer: Trainer) -> str:
        return self.path.replace("{epoch}", str(trainer.epochs)).replace("{step}", str(trainer.steps))

    def on_step(self, trainer: Trainer) -> None:
        if self.steps is not None and trainer.steps % self.steps == 0:
            trainer.save(self._name(trainer))

    def on_epoch(self, trainer: Trainer) -> None:
        if self._rule is None:
            if trainer.epochs % self.every == 0 or not trainer.interrupted:
                trainer.save(self._name(trainer))
        elif self._best_so_far(trainer, self._rule):
            trainer.save(self._name(trainer))

    @staticmethod
    def _best_so_far(trainer: Trainer, rule: _Best) -> bool:
        best = None
        *earlier, value = rule.column(trainer)[1]
        for one in earlier:
            if rule.better(trainer, one, best):
                best = one
        return rule.better(trainer, value, best)


class LearningRateLogger(Callback):
    """A column ``lr`` in the history: the rate of the last update of each epoch."""

    def measure(self, trainer: Trainer) -> Mapping[str, Any]:
        return {"lr": trainer.last_lr}


class _FileLogger(Callback):
    """A file with a row for each epoch of the history.

    It is written anew where a fit begins, so that after a resume it holds what the history holds, whatever had been
    written when the process was killed; then rows are added.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = os.fsdecode(path)
        self._columns: list[str] = []

    def _text(self, columns: list[str], rows: Iterable[Mapping[str, Any]], head: bool) -> str:
        raise NotImplementedError

    def on_begin(self, trainer: Trainer) -> None:
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        history = trainer.history.to_dict()
        self._columns = list(history)
        rows = [dict(zip(history, values, strict=True)) for values in zip(*history.values(), strict=True)]
        write_atomically(self.path, self._text(self._columns, rows, True).encode())

    def on_epoch(self, trainer: Trainer) -> None:
        if list(trainer.history) != self._columns:
            self._write(trainer)
            return
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            row = {name: value if _is_finite(value) else None for name, value in trainer.history.last().items()}
            file.write(self._text(self._columns, [row], False))


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


class CSVLogger(_FileLogger):
    """The history as a CSV file, up to date after each epoch; empty where an epoch did not measure something.

    Parameters
    ----------
    path : path

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import fastact as fa
    >>> trainer = fa.Trainer(fa.nn.Sequential(fa.nn.Dense(2, 2, rng=0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = fa.training.CSVLogger(f"{folder}/log.csv")
    ...     history = trainer.fit(np.eye(2), [0, 1], epochs=2, callbacks=[logger])
    ...     pathlib.Path(folder, "log.csv").read_text().splitlines()[0]
    'epoch,step,loss,accuracy,seconds'
    """

    def _text(self, columns: list[str], rows: Iterable[Mapping[str, Any]], head: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        if head and columns:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


class JSONLogger(_FileLogger):
    """The history as JSON Lines, one object an epoch, up to date after each; null where nothing was measured.

    Parameters
    ----------
    path : path
    """

    def _text(self, columns: list[str], rows: Iterable[Mapping[str, Any]], head: bool) -> str:
        return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


class TensorBoard(Callback):
    """The history as curves for TensorBoard.

    Parameters
    ----------
    folder : path
        Of the run.

    Raises
    ------
    ModuleNotFoundError
        Unless tensorboardX, or PyTorch with tensorboard, is installed.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = os.fsdecode(folder)
        self._kind = _summary_writer()
        self._writer: Any = None

    def on_begin(self, trainer: Trainer) -> None:
        if self._writer is None:
            self._writer = self._kind(self.folder)

    def on_epoch(self, trainer: Trainer) -> None:
        for name, value in trainer.history.last().items():
            if isinstance(value, (int, float)) and name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, trainer.epochs)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _summary_writer() -> Any:
    try:
        from tensorboardX import SummaryWriter  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ModuleNotFoundError:
        try:
            from torch.utils.tensorboard import SummaryWriter  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "TensorBoard: expected tensorboardX, or torch with tensorboard, installed; pip install tensorboardX"
            ) from error
    return SummaryWriter


def as_callbacks(
    callbacks: Iterable[Callback] | None,
    on_step: Callable[[Any], Any] | None,
    on_epoch: Callable[[Any], Any] | None,
) -> list[Callback]:
    """The callbacks in the order in which they are called: those that write checkpoints last.

    Raises
    ------
    TypeError
        For what is no callback.
    """
    found = list(callbacks or ())
    for i, callback in enumerate(found):
        if not isinstance(callback, Callback):
            hint = f"; write {callback.__name__}()" if isinstance(callback, type) else ""
            raise TypeError(
                f"callbacks[{i}]: expected an object derived from fa.training.Callback, got {callback!r}{hint}; "
                "functions go to on_step= and on_epoch="
            )
    if on_step is not None or on_epoch is not None:
        found.append(LambdaCallback(on_step=on_step, on_epoch=on_epoch))
    return sorted(found, key=lambda callback: callback.saves)


def states_of(callbacks: list[Callback]) -> dict[str, Any]:
    """The states of those that have one, by class and place among those of the class."""
    names = _names(callbacks)
    return {name: state for name, callback in names.items() if (state := copy.copy(callback.state_dict()))}


def load_states(callbacks: list[Callback], states: Mapping[str, Any]) -> None:
    """Give states back.

    Raises
    ------
    ValueError
        If a callback that had one is not there.
    """
    names = _names(callbacks)
    if missing := [name for name in states if name not in names]:
        raise ValueError(
            f"callbacks: expected those of the interrupted fit, {', '.join(missing)} (class.place) among them, got "
            f"{', '.join(names) or 'none'}"
        )
    for name, state in states.items():
        names[name].load_state_dict(state)


def _names(callbacks: list[Callback]) -> dict[str, Callback]:
    found: dict[str, Callback] = {}
    for callback in callbacks:
        kind, place = type(callback).__name__, 0
        while f"{kind}.{place}" in found:
            place += 1
        found[f"{kind}.{place}"] = callback
    return found
