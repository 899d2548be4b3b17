"""``Trainer``: batches through a model, loss, optimiser; and back to where an interrupted run stood."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import losses
from fastact._arguments import Array, as_number, as_size
from fastact._core import training as _core
from fastact.errors import NonFiniteError
from fastact.losses import Loss, Measure, as_loss
from fastact.nn.base import Backward, Layer
from fastact.optim import Adam, Optimizer, clip_scale
from fastact.training import checkpoints
from fastact.training.batches import Batches, as_batch_size, as_inputs, as_pair, is_fraction, shuffled, split
from fastact.training.history import History
from fastact.training.interrupts import InterruptGuard
from fastact.training.nonfinite import find_cause
from fastact.training.progress import Progress

Validation = float | tuple[Any, Any] | None
Callback = Callable[["Trainer"], Any]


@dataclass
class Run:
    """A ``fit`` under way: what it was asked for and where it stands. All of it goes into a checkpoint.

    The batch to do next is ``optimizer.steps - first_step``: it cannot disagree with the weights.
    """

    epochs: int  # number of the last epoch, counted over all fits
    rows: int  # training rows, validation rows not among them
    batch_size: int
    shuffle: bool
    fraction: float | None  # of the rows given, held back for validation
    has_validation: bool
    first_step: int = 0  # optimizer.steps when this epoch began
    total: float = 0.0  # this epoch: sum of the loss over `size` terms, those right among them, time
    size: int = 0
    correct: int = 0
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


class Trainer:
    """Trains a model.

    Parameters
    ----------
    model : Layer
        Flattened here: its parameters move into one buffer.
    loss : str or Loss
        ``"cross_entropy"`` (integer classes, class axis of the output last), ``"mean_squared_error"`` or ``"mse"``, or
        an object of ``fa.losses``.
    optimizer : Optimizer, optional
        ``fa.optim.Adam(1e-3)`` unless given.
    clip_norm : float, optional
        Scale the gradients of a batch down to this global norm where they exceed it.
    seed : int
        Of the order of the rows. The same seed gives the same bits for any number of threads.

    Attributes
    ----------
    history : History
        One entry an epoch, over all fits.
    steps, epochs : int
        Updates made, and epochs finished.
    last_loss, last_gradient_norm : float or None
        Of the latest batch; the norm (before clipping) only with ``clip_norm``.
    state : tuple or None
        Final state of the recurrent layers in the latest batch.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> fa.seed(0)
    >>> x = np.random.default_rng(0).standard_normal((256, 2)).astype(np.float32)
    >>> y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    >>> model = fa.nn.Sequential(fa.nn.Dense(2, 16, "tanh"), fa.nn.Dense(16, 2))
    >>> trainer = fa.Trainer(model, loss="cross_entropy", optimizer=fa.optim.Adam(0.02), seed=0)
    >>> history = trainer.fit(x, y, epochs=30, batch_size=32, validation=0.1)
    >>> history["loss"][-1] < 0.2 and trainer.evaluate(x, y)["accuracy"] > 0.9
    True
    """

    def __init__(
        self,
        model: Layer,
        loss: str | Loss = "cross_entropy",
        optimizer: Optimizer | None = None,
        *,
        clip_norm: float | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(model, Layer):
            raise TypeError(f"model: expected a fastact layer or model, got {type(model).__name__}")
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            hint = f"; write {optimizer.__name__}()" if isinstance(optimizer, type) else ""
            raise TypeError(
                f"optimizer: expected an object of fa.optim, such as fa.optim.Adam(1e-3), got {optimizer!r}{hint}"
            )
        self.model = model
        self.loss = as_loss(loss)
        self.optimizer = Adam() if optimizer is None else optimizer
        self.clip_norm = None if clip_norm is None else as_number(clip_norm, "clip_norm", 0.0, above=True)
        self.seed = as_size(seed, "seed", least=0)
        self.epochs = 0
        self.history = History()
        self.state: Any = None
        self.last_loss: float | None = None
        self.last_gradient_norm: float | None = None
        self._run: Run | None = None
        self._gradient = np.empty(0, model.arena.dtype)  # of the loss by the output, reused from batch to batch

    @property
    def steps(self) -> int:
        """Updates made so far."""
        return self.optimizer.steps

    @property
    def interrupted(self) -> bool:
        """Whether a fit was cut short, so that ``resume`` can finish it."""
        return self._run is not None

    # -- one batch ------------------------------------------------------------------------------------------------

    def step(self, x: Any, y: Any, state: Any = None) -> float:
        """Train on one batch: forward, loss, backward, update.

        Parameters
        ----------
        x, y : arrays of shape (B, ...)
        state : tuple, optional
            Initial state of the recurrent layers, as ``trainer.state`` holds the final one after each step. Carrying
            it from batch to batch is truncated backpropagation through time.

        Returns
        -------
        float
            The loss before the update.

        Raises
        ------
        NonFiniteError
            If the loss (or, with ``clip_norm``, the gradient) is NaN or infinite. The batch is not applied.
        """
        self._run = None  # the weights leave the path of an interrupted fit
        return self._step(x, y, state).mean

    def _step(self, x: Any, y: Any, state: Any = None) -> Measure:
        model = self.model
        gradients = model.arena.gradients
        _core.zero(gradients)
        output, backward = model.forward(x) if state is None else model.forward(x, state=state)
        gradient = self._gradient
        if gradient.shape != output.shape or gradient.dtype != output.dtype:
            gradient = self._gradient = np.empty(output.shape, output.dtype)
        measure = self.loss.measure(output, y, gradient)
        if not math.isfinite(measure.mean):
            raise self._non_finite("loss", measure.mean, x, y)
        if isinstance(backward, Backward):
            backward(gradient, input_gradient=False)
        else:
            backward(gradient)
        scale = 1.0
        if self.clip_norm is not None:
            norm = self.last_gradient_norm = math.sqrt(_core.sum_squares(gradients, model.arena.trained.spans))
            if not math.isfinite(norm):
                raise self._non_finite("norm of the gradient", norm, x, y)
            scale = clip_scale(norm, self.clip_norm)
        self.optimizer.step(model, scale)
        self.last_loss = measure.mean
        self.state = getattr(backward, "state", None)
        return measure

    def _non_finite(self, what: str, value: float, x: Any, y: Any) -> NonFiniteError:
        lower = f"lower the learning rate (lr={self.optimizer.lr:g} now, try {self.optimizer.lr / 10:g})"
        clip = "set clip_norm=1.0" if self.clip_norm is None else f"lower clip_norm ({self.clip_norm:g} now)"
        return NonFiniteError(
            f"{what}: expected a finite number, got {value} at step {self.steps + 1} (epoch {self.epochs + 1}). "
            f"{find_cause(self.model, x, y)} The batch was not applied. To try: {lower}; {clip}; scale x to mean 0 and "
            "deviation 1; go on from the last checkpoint"
        )

    # -- all data -------------------------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any,
        epochs: int = 1,
        batch_size: int | None = 32,
        validation: Validation = None,
        shuffle: bool = True,
        *,
        progress: bool | None = None,
        on_step: Callback | None = None,
        on_epoch: Callback | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> History:
        """Train for some epochs.

        Parameters
        ----------
        x : array of shape (rows, ...)
            Real numbers, or integers for an Embedding.
        y : array of shape (rows, ...)
        epochs : int
            How many more.
        batch_size : int or None
            Rows in a batch; the last batch of an epoch may be smaller. None: all rows in one.
        validation : float or (x, y), optional
            Rows that are only evaluated, after each epoch: 0.1 takes the last tenth of the rows.
        shuffle : bool
            Draw the rows of each epoch in a new order; else as they stand.
        progress : bool, optional
            A bar on stderr; None shows it on a terminal.
        on_step, on_epoch : callable, optional
            Called with the trainer after each update and after each epoch.
        checkpoint : path, optional
            Where to ``save`` after each epoch, and when the fit is interrupted.

        Returns
        -------
        History
            ``trainer.history``.

        Raises
        ------
        NonFiniteError
            As from ``step``.
        KeyboardInterrupt
            On Ctrl-C, after the batch under way was finished: model, optimiser and history are consistent, and
            ``resume`` goes on to the same bits as an unbroken fit. A second Ctrl-C does not wait for the batch.
        """
        data, held = self._data(x, y, validation)
        rows = len(data[0])
        run = Run(
            epochs=self.epochs + as_size(epochs, "epochs"),
            rows=rows,
            batch_size=as_batch_size(batch_size, rows),
            shuffle=bool(shuffle),
            fraction=float(validation) if is_fraction(validation) else None,  # type: ignore[arg-type]
            has_validation=held is not None,
            first_step=self.steps,
        )
        return self._continue(run, data, held, progress, on_step, on_epoch, checkpoint)

    def resume(
        self,
        x: Any,
        y: Any,
        validation: tuple[Any, Any] | None = None,
        *,
        progress: bool | None = None,
        on_step: Callback | None = None,
        on_epoch: Callback | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> History:
        """Finish a fit that was interrupted, here or in the process that wrote the checkpoint.

        Parameters
        ----------
        x, y : arrays
            The data of that fit. Its epochs, batch size and shuffling are known.
        validation : (x, y), optional
            Where the fit had validation data of its own; a fraction is known.

        Raises
        ------
        ValueError
            If no fit was interrupted, or the data have another number of rows.
        """
        run = self._run
        if run is None:
            raise ValueError("resume: expected an interrupted fit, found none; call fit")
        if run.has_validation and run.fraction is None and validation is None:
            raise ValueError("validation: expected the pair (x, y) that the interrupted fit was given, got None")
        data, held = self._data(x, y, run.fraction if run.fraction is not None else validation)
        if len(data[0]) != run.rows:
            raise ValueError(f"x: expected the {run.rows} training rows of the interrupted fit, got {len(data[0])}")
        return self._continue(run, data, held, progress, on_step, on_epoch, checkpoint)

    def _data(self, x: Any, y: Any, validation: Validation) -> tuple[tuple[Array, Array], tuple[Array, Array] | None]:
        data = as_pair(x, y, self.model, self.loss)
        if validation is None:
            return data, None
        if is_fraction(validation):
            return split(*data, float(validation))  # type: ignore[arg-type]
        if not isinstance(validation, (tuple, list)) or len(validation) != 2:
            raise TypeError(
                f"validation: expected a fraction 0 < validation < 1, a pair (x, y) or None, got {validation!r}"
            )
        return data, as_pair(*validation, self.model, self.loss, ("validation x", "validation y"))

    def _continue(
        self,
        run: Run,
        data: tuple[Array, Array],
        held: tuple[Array, Array] | None,
        progress: bool | None,
        on_step: Callback | None,
        on_epoch: Callback | None,
        checkpoint: str | os.PathLike[str] | None,
    ) -> History:
        if checkpoint is not None:
            checkpoints.check(checkpoint, self.model)
        self._run = run
        bar = Progress(progress, run.epochs)
        with InterruptGuard() as guard:
            try:
                while self.epochs < run.epochs:
                    self._epoch(run, data, bar, guard, on_step)
                    row = self._measured(run, held, guard)
                    run.next_epoch(self.steps)
                    self.epochs += 1
                    self.history.append(row)
                    bar.end(row)
                    if self.epochs == run.epochs:
                        self._run = None
                    if on_epoch is not None:
                        on_epoch(self)
                    if checkpoint is not None:
                        self.save(checkpoint)
                    if self.epochs < run.epochs:
                        guard.check()
            except KeyboardInterrupt:
                if checkpoint is not None:
                    self.save(checkpoint)
                raise
            finally:
                bar.close()
        return self.history

    def _epoch(
        self, run: Run, data: tuple[Array, Array], bar: Progress, guard: InterruptGuard, on_step: Callback | None
    ) -> None:
        """The batches of an epoch that are still to be done."""
        order = shuffled(run.rows, self.seed, self.epochs) if run.shuffle else None
        batches = Batches(*data, run.batch_size, order)
        done = self.steps - run.first_step
        bar.begin(self.epochs + 1, run.rows, min(done * run.batch_size, run.rows))
        for i in range(done, len(batches)):
            begin = time.perf_counter()
            x, y = batches[i]
            run.add(self._step(x, y))
            run.seconds += time.perf_counter() - begin
            bar.update(len(x), run.mean)
            if on_step is not None:
                on_step(self)
            guard.check()

    def _measured(self, run: Run, held: tuple[Array, Array] | None, guard: InterruptGuard) -> dict[str, Any]:
        """The entry of a finished epoch in the history."""
        row: dict[str, Any] = {"epoch": self.epochs + 1, "step": self.steps, "loss": run.mean}
        if self.loss.counts_correct:
            row["accuracy"] = run.correct / max(run.size, 1)
        if held is not None:
            row.update({f"val_{k}": v for k, v in self._evaluate(*held, run.batch_size, guard).items()})
        row["seconds"] = run.seconds
        return row

    def evaluate(self, x: Any, y: Any, batch_size: int | None = 256) -> dict[str, float]:
        """Loss, and for classifiers accuracy, over all of x: ``{"loss": ..., "accuracy": ...}``. Nothing is changed."""
        inputs, targets = as_pair(x, y, self.model, self.loss)
        return self._evaluate(inputs, targets, as_batch_size(batch_size, len(inputs)))

    def _evaluate(self, x: Array, y: Array, batch_size: int, guard: InterruptGuard | None = None) -> dict[str, float]:
        total, size, correct = 0.0, 0, 0
        for inputs, targets in Batches(x, y, batch_size):
            measure = self.loss.measure(self.model(inputs), targets)
            total += measure.mean * measure.size
            size += measure.size
            correct += measure.correct
            if guard is not None:
                guard.check()
        found = {"loss": total / max(size, 1)}
        if self.loss.counts_correct:
            found["accuracy"] = correct / max(size, 1)
        return found

    def predict(self, x: npt.ArrayLike, batch_size: int | None = None) -> Array:
        """``model.predict``: raw outputs for all of x."""
        return self.model.predict(as_inputs(x, self.model.arena.dtype), batch_size)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], extra: Mapping[str, Any] | None = None) -> None:
        """Write everything that an exact resume needs to one safetensors file, which ``fa.load`` reads as a model too.

        Weights, optimiser, recurrent state, history, the position in an interrupted fit. An earlier file survives
        whatever goes wrong.

        Parameters
        ----------
        path : path
        extra : mapping, optional
            Facts of your own, of JSON's types; ``restore`` returns them.
        """
        optimizer = self.optimizer.state_dict()
        facts = {
            "loss": {"name": type(self.loss).__name__, "settings": self.loss.config()},
            "optimizer": {k: optimizer[k] for k in ("name", "settings", "steps")},
            "clip_norm": self.clip_norm,
            "seed": self.seed,
            "epochs": self.epochs,
            "history": {name: list(column) for name, column in self.history.items()},
            "run": None if self._run is None else asdict(self._run),
            "extra": dict(extra or {}),
        }
        checkpoints.write(path, self.model, facts, {"optimizer": optimizer["arrays"], "state": self.state})

    def restore(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Take over everything that ``save`` wrote, into a trainer of the same model, loss and kind of optimiser.

        Returns
        -------
        dict
            What was passed to ``save`` as ``extra``.

        Raises
        ------
        ModelFileError
            If the file is damaged or no checkpoint.
        ValueError
            If it does not fit this trainer. Nothing is changed then.
        """
        weights, facts, trees = checkpoints.read(path)
        return self._take(weights, facts, trees)

    def _take(self, weights: dict[str, Array], facts: dict[str, Any], trees: dict[str, Any]) -> dict[str, Any]:
        if facts["loss"]["name"] != type(self.loss).__name__:
            raise ValueError(
                f"loss: expected {facts['loss']['name']}, with which the checkpoint was trained, got {self.loss!r}"
            )
        optimizer = copy.copy(self.optimizer)
        optimizer.load_state_dict({**facts["optimizer"], "arrays": trees["optimizer"] or {}})
        optimizer._bind(self.model.arena)
        self.model.load_state_dict(weights)
        vars(self.optimizer).update(vars(optimizer))
        self.clip_norm = facts["clip_norm"]
        self.seed = facts["seed"]
        self.epochs = facts["epochs"]
        self.history = History(facts["history"])
        self.state = trees["state"]
        self._run = None if facts["run"] is None else Run(**facts["run"])
        return facts["extra"]

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        custom: Mapping[str, type[Layer]] | None = None,
        loss: Loss | None = None,
    ) -> Trainer:
        """A trainer, model and all, from a file that ``save`` wrote.

        Parameters
        ----------
        path : path
        custom : mapping of str to type, optional
            Layers of your own by the names of their classes, as for ``fa.load``.
        loss : Loss, optional
            Where the loss was one of your own.

        Raises
        ------
        ModelFileError
            If the file is damaged or no checkpoint.
        ValueError
            If loss or optimiser are your own: pass the one; for the other make a Trainer and ``restore``.
        """
        from fastact import io, optim

        weights, facts, trees = checkpoints.read(path)
        if loss is None:
            name = facts["loss"]["name"]
            kind = getattr(losses, name, None)
            if not (isinstance(kind, type) and issubclass(kind, Loss)):
                raise ValueError(f"loss: the checkpoint was trained with {name}, which is not in fa.losses; pass loss=")
            loss = kind(**facts["loss"]["settings"])
        name = facts["optimizer"]["name"]
        rule = getattr(optim, name, None)
        if not (isinstance(rule, type) and issubclass(rule, Optimizer)):
            raise ValueError(
                f"optimizer: the checkpoint was trained with {name}, which is not in fa.optim; make the Trainer with "
                "one, then trainer.restore(path)"
            )
        optimizer = rule(**facts["optimizer"]["settings"])
        trainer = cls(io.load(path, custom), loss, optimizer, clip_norm=facts["clip_norm"], seed=facts["seed"])
        trainer._take(weights, facts, trees)
        return trainer

    def __repr__(self) -> str:
        return (
            f"Trainer({type(self.model).__name__} of {self.model.num_parameters} parameters, loss={self.loss!r}, "
            f"optimizer={self.optimizer!r}, clip_norm={self.clip_norm}, seed={self.seed}; {self.epochs} epochs, "
            f"{self.steps} steps)"
        )
