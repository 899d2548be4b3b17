"""``Trainer``: batches through a model, loss, optimiser; and back to where an interrupted run stood.

What it orchestrates has files of its own: data (``data``, ``batches``, ``ragged``, ``iterables``, ``weights``), the
loop over epochs (``fitting``), callbacks, measuring, the average of the weights, the search for what is not finite,
what a checkpoint holds (``snapshots``) and its file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import init, io
from fastact._arguments import Array, as_number, as_size
from fastact._core import training as _core
from fastact.errors import NonFiniteError
from fastact.losses import Loss, Measure, as_loss
from fastact.nn.base import Backward, Layer
from fastact.optim import Adam, Optimizer, clip_by_value, clip_scale, global_norm
from fastact.schedules import Schedule, as_schedule
from fastact.training import checkpoints, snapshots
from fastact.training.averaging import WeightAverage
from fastact.training.batches import Batch, as_batch_size, as_inputs
from fastact.training.callbacks import Callback, as_callbacks
from fastact.training.data import Data, as_data, as_validation, is_fraction
from fastact.training.fitting import Fit
from fastact.training.history import History
from fastact.training.measuring import Measuring, Totals, adds_up, as_metrics, evaluated, measured
from fastact.training.nonfinite import find_cause, find_gradient
from fastact.training.ragged import is_ragged, predicted
from fastact.training.run import Run

Function = Callable[["Trainer"], Any]
PathLike = str | os.PathLike[str]


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
    schedule : Schedule or callable, optional
        What its rate is multiplied with at each update: an object of ``fa.schedules``, or ``f(step) -> factor``.
    metrics : sequence, optional
        Names or objects of ``fa.metrics``, or functions of (prediction, target): measured beside the loss.
    accumulate : int
        Batches in an update. Its gradient is that of one batch of all their rows; each takes memory for itself alone.
    clip_norm : float, optional
        Scale the gradients of an update down to this global norm where they exceed it.
    clip_value : float, optional
        Bound each gradient by it, before its norm is taken.
    average : float, optional
        Keep an exponential moving average of the weights, of this decay (0.999, say). Validation goes by it.
    seed : int
        Of the order of the rows, and of the draws in forward passes (dropout) of layers without an ``rng`` of their
        own. The same seed gives the same bits for any number of threads.

    Attributes
    ----------
    history : History
        One entry an epoch, over all fits.
    steps, epochs : int
        Updates made, and epochs finished.
    stopping : bool
        Whether ``stop`` was called in the fit under way.
    lr, last_lr : float
        Rate of the next update, and of the latest; ``optimizer.lr`` times the schedule.
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
        schedule: Schedule | Callable[[int], float] | None = None,
        metrics: Sequence[Any] = (),
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        average: float | None = None,
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
        self.schedule = as_schedule(schedule)
        self.metrics = as_metrics(metrics)
        self.accumulate = as_size(accumulate, "accumulate")
        self.clip_norm = None if clip_norm is None else as_number(clip_norm, "clip_norm", 0.0, above=True)
        self.clip_value = None if clip_value is None else as_number(clip_value, "clip_value", 0.0, above=True)
        self.average = None if average is None else WeightAverage(average)
        self.seed = as_size(seed, "seed", least=0)
        self.epochs = 0
        self.history = History()
        self.state: Any = None
        self.last_lr: float = self.optimizer.lr
        self.last_loss: float | None = None
        self.last_gradient_norm: float | None = None
        self._run: Run | None = None
        self.stopping = False
        self._callback_states: dict[str, Any] = {}  # of an interrupted fit, for the callbacks that resume it
        self._metric_states: list[Any] = []  # the same for what metrics have seen of its epoch
        self._fit: Fit | None = None  # under way
        self._added = 0  # batches whose gradients ``step`` has added up for the update to come
        self._pending = Totals()  # what it found on them
        self._factor: tuple[int, float] = (-1, 1.0)  # of a schedule that goes by the history: its epochs, the factor
        self._gradient = np.empty(0, model.arena.dtype)  # of the loss by the output, reused from batch to batch

    @property
    def steps(self) -> int:
        """Updates made so far."""
        return self.optimizer.steps

    @property
    def interrupted(self) -> bool:
        """Whether a fit was cut short, so that ``resume`` can finish it."""
        return self._run is not None

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        schedule = self.schedule
        if schedule is None:
            return self.optimizer.lr
        if schedule.unit == "step":
            return self.optimizer.lr * schedule(self.steps)
        if schedule.unit == "epoch":
            return self.optimizer.lr * schedule(self.epochs)
        if self._factor[0] != self.history.epochs:
            self._factor = self.history.epochs, schedule(self.history)  # type: ignore[arg-type]
        return self.optimizer.lr * self._factor[1]

    # -- one update -----------------------------------------------------------------------------------------------

    def step(
        self, x: Any, y: Any, state: Any = None, *, weight: npt.ArrayLike | None = None, lengths: Any = None
    ) -> float:
        """Train on one batch: forward, loss, backward, update (with ``accumulate`` at each so many calls).

        Parameters
        ----------
        x, y : arrays of shape (B, ...)
        state : tuple, optional
            Initial state of the recurrent layers, as ``trainer.state`` holds the final one after each step. Carrying
            it from batch to batch is truncated backpropagation through time.
        weight : array of shape (B,) or (B, T), optional
            Of the terms of the loss; 0 leaves a position out.
        lengths : integers of shape (B,), optional
            Steps of each sequence, for a model that takes them; padding beyond needs a ``weight`` of 0 besides where
            the loss looks at it.

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
        batch = Batch(x, y, weight, lengths)  # type: ignore[arg-type]
        if self.accumulate == 1:
            return self._update([batch], state).mean
        if self._added == 0:
            _core.zero(self.model.arena.gradients)
            self._pending = Totals(sums=adds_up(self.loss))
        number, self._added = self._added, 0  # if this batch fails, some of its gradient may be there: begin anew
        measure, final, _ = self._add_gradient(batch, state, number, summed=True)
        self._pending.add(measure)
        if number + 1 == self.accumulate:
            self._apply(self._pending.share)
        else:
            self._added = number + 1
        self.last_loss, self.state = measure.mean, final
        return measure.mean

    def _update(self, batches: Sequence[Batch], state: Any = None, measuring: Measuring | None = None) -> Measure:
        """One update from the gradient of the mean loss over all terms of the batches."""
        _core.zero(self.model.arena.gradients)
        if len(batches) == 1:
            batch = batches[0]
            measure, final, output = self._add_gradient(batch, state)
            self._apply(1.0)
            outputs = [output]
        else:
            totals, outputs = Totals(sums=adds_up(self.loss)), []
            for i, batch in enumerate(batches):
                measure, final, output = self._add_gradient(batch, state, i, summed=True)
                totals.add(measure)
                if measuring is not None:
                    outputs.append(output)
            self._apply(totals.share)
            measure = Measure(totals.loss, totals.size, totals.correct)
        self.last_loss, self.state = measure.mean, final
        if measuring is not None:
            for batch, output in zip(batches, outputs, strict=True):
                measuring.update(output, batch)
        return measure

    def _add_gradient(
        self, batch: Batch, state: Any, number: int = 0, summed: bool = False
    ) -> tuple[Measure, Any, Array]:
        """Forward, loss, backward: the gradient of the mean (or the sum) of the batch's losses is added.

        Returns the loss, the final state and the output.
        """
        given = batch.arguments(state)
        with init.seeded(self.seed, self.optimizer.steps, number, 1):
            output, backward = self.model.forward(batch.x, **given)
        gradient = self._gradient
        if gradient.shape != output.shape or gradient.dtype != output.dtype:
            gradient = self._gradient = np.empty(output.shape, output.dtype)
        measure = measured(self.loss, output, batch, gradient)
        if not math.isfinite(measure.mean):
            seeds = (self.seed, self.steps, number, 1)
            cause = find_cause(self.model, batch.x, batch.y, seeds, **given)
            raise self._non_finite("loss", measure.mean, cause)
        if summed and not adds_up(self.loss):
            gradient *= measure.size
        if isinstance(backward, Backward):
            backward(gradient, input_gradient=False)
        else:
            backward(gradient)
        return measure, getattr(backward, "state", None), output

    def _apply(self, scale: float) -> None:
        """Clip ``scale`` times the gradients, and let the optimiser use them."""
        model, optimizer = self.model, self.optimizer
        if self.average is not None and self.average.in_use:
            raise RuntimeError("step: expected the model's own weights, it holds their average; leave averaged() first")
        if self.clip_value is not None:
            clip_by_value(model, self.clip_value / scale)
        if self.clip_norm is not None:
            norm = self.last_gradient_norm = global_norm(model) * scale
            if not math.isfinite(norm):
                raise self._non_finite("norm of the gradient", norm, find_gradient(model))
            scale *= clip_scale(norm, self.clip_norm)
        if self.schedule is None:
            self.last_lr = optimizer.lr
            optimizer.step(model, scale)
        else:
            setting = optimizer.lr
            optimizer.lr = self.last_lr = self.lr
            try:
                optimizer.step(model, scale)
            finally:
                optimizer.lr = setting
        if self.average is not None:
            self.average.update(model.arena)

    def _non_finite(self, what: str, value: float, cause: str) -> NonFiniteError:
        """The error for a batch in which ``what`` is not finite, as ``cause`` says; or as the data of the fit say."""
        if self._fit is not None and (bad := self._fit.data.first_bad()):
            cause = f"The data have {bad} first: clean them."
        lower = f"lower the learning rate (lr={self.lr:g} now, try {self.lr / 10:g})"
        clip = "set clip_norm=1.0" if self.clip_norm is None else f"lower clip_norm ({self.clip_norm:g} now)"
        return NonFiniteError(
            f"{what}: expected a finite number, got {value} at step {self.steps + 1} (epoch {self.epochs + 1}). "
            f"{cause} The batch was not applied. To try: {lower}; {clip}; scale x to mean 0 and deviation 1; go on "
            "from the last checkpoint"
        )

    # -- all data -------------------------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any = None,
        epochs: int = 1,
        batch_size: int | str | None = "auto",
        validation: Any = None,
        shuffle: bool = True,
        *,
        sample_weight: npt.ArrayLike | None = None,
        class_weight: Any = None,
        steps_per_epoch: int | None = None,
        progress: bool | None = None,
        callbacks: Iterable[Callback] | None = None,
        on_step: Function | None = None,
        on_epoch: Function | None = None,
        checkpoint: PathLike | None = None,
    ) -> History:
        """Train for some epochs.

        Parameters
        ----------
        x : array of shape (rows, ...), list of sequences, or iterable of batches
            Real numbers, or integers for an Embedding. Of a memory-mapped array only the rows of a batch are read at a
            time. Sequences of different lengths, (T_i, ...) each, are padded and go together with others of like
            length; the model takes ``lengths``. Batches are (x, y), (x, y, weight) or (x, y, weight, lengths); a
            function that makes the iterable is called for each epoch, an iterator goes on from epoch to epoch.
        y : array of shape (rows, ...), or list of arrays of shape (T_i, ...)
            For CTC a list of label sequences, whose lengths are their own. Not with an iterable of batches.
        epochs : int
            How many more.
        batch_size : int, "auto" or None
            Rows in a batch; the last batch of an epoch may be smaller. None: all rows in one. "auto": 32, or all rows
            where they are fewer.
        validation : float, (x, y), (x, y, weight) or iterable of batches, optional
            Rows that are only evaluated, after each epoch: 0.1 takes the last tenth of the rows. With ``average`` they
            measure the averaged weights.
        shuffle : bool
            Draw the rows of each epoch in a new order; else as they stand.
        sample_weight : array of shape (rows,) or (rows, T), optional
            Of the terms of the loss, which is sum(weight loss) / sum(weight) over a batch.
        class_weight : mapping, sequence or "balanced", optional
            The same by class, of the training rows; balanced is rows / (classes * rows of the class).
        steps_per_epoch : int, optional
            Batches of an iterable in an epoch; without, all there are.
        progress : bool, optional
            A bar on stderr; None shows it on a terminal.
        callbacks : iterable of Callback, optional
            See ``fa.training.callbacks``.
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
            On Ctrl-C, after the update under way was finished: model, optimiser and history are consistent, and
            ``resume`` goes on to the same bits as an unbroken fit. A second Ctrl-C does not wait.
        """
        weights = {"sample_weight": sample_weight, "class_weight": class_weight}
        data, held = self._both(x, y, validation, steps_per_epoch, weights)
        size = as_batch_size(batch_size, data.rows)
        run = Run(
            epochs=self.epochs + as_size(epochs, "epochs"),
            rows=data.rows,
            batch_size=data.rows if size is None else size,
            shuffle=bool(shuffle),
            fraction=float(validation) if is_fraction(validation) else None,
            has_validation=held is not None,
            steps_per_epoch=None if steps_per_epoch is None else int(steps_per_epoch),
            weighted=(sample_weight is not None, class_weight is not None),
            first_step=self.steps,
            sums=adds_up(self.loss),
        )
        called = as_callbacks(callbacks, on_step, on_epoch)
        return self._continue(run, Fit(self, run, data, held, called, progress, checkpoint))

    def resume(
        self,
        x: Any,
        y: Any = None,
        validation: Any = None,
        *,
        sample_weight: npt.ArrayLike | None = None,
        class_weight: Any = None,
        progress: bool | None = None,
        callbacks: Iterable[Callback] | None = None,
        on_step: Function | None = None,
        on_epoch: Function | None = None,
        checkpoint: PathLike | None = None,
    ) -> History:
        """Finish a fit that was interrupted, here or in the process that wrote the checkpoint.

        Parameters
        ----------
        x, y, sample_weight, class_weight
            The data of that fit. Its epochs, batch size and shuffling are known. An iterable of batches is read up to
            where the fit stood; an iterator goes on where it stands.
        validation : optional
            Where the fit had validation data of its own; a fraction is known.
        callbacks : iterable of Callback, optional
            Those of that fit: they take up their states.

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
        weights = {"sample_weight": sample_weight, "class_weight": class_weight}
        for (name, value), had in zip(weights.items(), run.weighted, strict=True):
            if (value is not None) != had:
                given = "what the interrupted fit was given" if had else "None, as in the interrupted fit"
                raise ValueError(f"{name}: expected {given}, got {'None' if had else 'another'}")
        fraction = run.fraction if run.fraction is not None else validation
        data, held = self._both(x, y, fraction, run.steps_per_epoch, weights)
        if data.rows != run.rows:
            raise ValueError(f"x: expected the {run.rows} training rows of the interrupted fit, got {data.rows}")
        called = as_callbacks(callbacks, on_step, on_epoch)
        fit = Fit(self, run, data, held, called, progress, checkpoint)
        fit.load_states(self._callback_states, self._metric_states)
        return self._continue(run, fit)

    def _both(
        self, x: Any, y: Any, validation: Any, steps: int | None, weights: dict[str, Any]
    ) -> tuple[Data, Data | None]:
        """Training and validation data."""
        data = as_data(x, y, self.model, self.loss, steps=steps, **weights)
        if is_fraction(validation):
            return data.split(float(validation))
        return data, as_validation(validation, self.model, self.loss)

    def stop(self) -> None:
        """For callbacks: end the fit after this epoch; within an epoch, after this update, as ``interrupted``."""
        self.stopping = True

    def _continue(self, run: Run, fit: Fit) -> History:
        """Make, or finish, a fit."""
        self._run, self._fit, self.stopping = run, fit, False
        try:
            fit.go()
        finally:
            self._callback_states, self._metric_states = self._states()
            self._fit = None
            fit.close()
        return self.history

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = 256,
        *,
        sample_weight: npt.ArrayLike | None = None,
        averaged: bool = False,
    ) -> dict[str, float]:
        """Loss, for classifiers accuracy, and the metrics over all of x: ``{"loss": ..., "accuracy": ...}``.

        Nothing is changed. ``averaged`` measures the averaged weights; data are as for ``fit``.
        """
        names = ("x", "y", "sample_weight")
        data = as_data(x, y, self.model, self.loss, sample_weight=sample_weight, names=names)
        size = None if batch_size is None else as_size(batch_size, "batch_size")
        with self.averaged() if averaged else nullcontext():
            return evaluated(self.model, self.loss, self.metrics, data.batches(size))

    def predict(self, x: Any, batch_size: int | None = None) -> Array | list[Array]:
        """Raw outputs for all of x, in its order; ``batch_size`` rows at a time.

        Parameters
        ----------
        x : array of shape (rows, ...), or list of sequences of different lengths (T_i, ...)
        batch_size : int, optional
            Without, all rows in one call; of sequences 64, those of like length together.

        Returns
        -------
        array of shape (rows, ...), or list of arrays of shape (T_i, ...)
            The list for sequences of different lengths, where the model puts out something at each step.

        Examples
        --------
        >>> import numpy as np
        >>> import fastact as fa
        >>> trainer = fa.Trainer(fa.nn.Sequential(fa.nn.GRU(2, 3, rng=0)), "mse")
        >>> [y.shape for y in trainer.predict([np.ones((5, 2)), np.ones((4, 2))])]
        [(5, 3), (4, 3)]
        """
        if self.model.takes_lengths and is_ragged(x):
            return predicted(self.model, x, batch_size)
        return self.model.predict(as_inputs(x, self.model.arena.dtype), batch_size)

    def averaged(self) -> AbstractContextManager[None]:
        """``with trainer.averaged(): ...``: for a while the model holds the average of its weights.

        Examples
        --------
        >>> import numpy as np
        >>> import fastact as fa
        >>> model = fa.nn.Sequential(fa.nn.Dense(2, 2, rng=0))
        >>> trainer = fa.Trainer(model, optimizer=fa.optim.SGD(0.1), average=0.9)
        >>> history = trainer.fit(np.eye(2), [0, 1], epochs=20)
        >>> with trainer.averaged():
        ...     behind = trainer.evaluate(np.eye(2), [0, 1])["loss"]  # or fa.save(model, path)
        >>> trainer.evaluate(np.eye(2), [0, 1])["loss"] < behind
        True
        """
        if self.average is None:
            raise ValueError("averaged: expected Trainer(average=0.999) or so, got a trainer without")
        return self.average.used(self.model.arena)

    def weights(self) -> dict[str, Any]:
        """A copy of what the model and its average are now, for ``set_weights``."""
        values = None if self.average is None else self.average.values
        return {"model": self.model.state_dict(), "average": None if values is None else values.copy()}

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Go back to what ``weights`` gave; optimiser and history stay as they are."""
        self.model.load_state_dict(weights["model"])
        if self.average is not None and weights["average"] is not None:
            self.average.set(weights["average"])

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], extra: Mapping[str, Any] | None = None) -> None:
        """Write everything that an exact resume needs to one safetensors file, which ``fa.load`` reads as a model too.

        Weights and their average, optimiser, schedule, recurrent state, history; the position in an interrupted fit,
        with what its callbacks and metrics have seen. An earlier file survives whatever goes wrong.

        Parameters
        ----------
        path : path
        extra : mapping, optional
            Facts of your own, of JSON's types; ``restore`` returns them.
        """
        checkpoints.write(path, self.model, *snapshots.taken(self, extra))

    def _states(self) -> tuple[dict[str, Any], list[Any]]:
        """What callbacks and metrics must know to finish an interrupted fit."""
        if self._run is None:
            return {}, []
        return (self._callback_states, self._metric_states) if self._fit is None else self._fit.states()

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
        return snapshots.put(self, *checkpoints.read(path))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        custom: Mapping[str, type[Layer]] | None = None,
        loss: Loss | None = None,
        schedule: Schedule | Callable[[int], float] | None = None,
        metrics: Sequence[Any] = (),
    ) -> Trainer:
        """A trainer, model and all, from a file that ``save`` wrote.

        Parameters
        ----------
        path : path
        custom : mapping of str to type, optional
            Layers of your own by the names of their classes, as for ``fa.load``.
        loss : Loss, optional
            Where the loss was one of your own.
        schedule : Schedule or callable, optional
            Where the schedule was one of your own.
        metrics : sequence, optional
            A file does not name them.

        Raises
        ------
        ModelFileError
            If the file is damaged or no checkpoint.
        ValueError
            If loss or optimiser are your own: pass the one; for the other make a Trainer and ``restore``.
        """
        weights, facts, trees = checkpoints.read(path)
        made = loss or snapshots.loss_of(facts), snapshots.optimizer_of(facts)
        trainer = cls(io.load(path, custom), *made, schedule=schedule, metrics=metrics)
        snapshots.put(trainer, weights, facts, trees)
        return trainer

    def __repr__(self) -> str:
        given = {"schedule": self.schedule, "clip_norm": self.clip_norm, "clip_value": self.clip_value}
        given |= {"accumulate": None if self.accumulate == 1 else self.accumulate}
        given |= {"average": None if self.average is None else self.average.decay}
        more = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
        return (
            f"Trainer({type(self.model).__name__} of {self.model.num_parameters} parameters, loss={self.loss!r}, "
            f"optimizer={self.optimizer!r}{more}, seed={self.seed}; {self.epochs} epochs, {self.steps} steps)"
        )
