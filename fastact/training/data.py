"""What ``fit`` and ``evaluate`` take as data, turned into something that hands out batches."""

from __future__ import annotations

import inspect
import numbers
from typing import Any

import numpy as np

from fastact._arguments import as_real, as_size
from fastact.losses import Loss
from fastact.nn.base import Layer
from fastact.training.batches import ArrayData, as_arrays
from fastact.training.iterables import IterableData, is_batches
from fastact.training.ragged import RaggedData, as_sequences, is_ragged
from fastact.training.weights import as_class_weights, as_weight

Data = ArrayData | RaggedData | IterableData


def as_data(
    x: Any,
    y: Any,
    model: Layer,
    loss: Loss,
    *,
    sample_weight: Any = None,
    class_weight: Any = None,
    steps: int | None = None,
    names: tuple[str, str, str] = ("x", "y", "sample_weight"),
) -> Data:
    """Arrays, mapped files, ragged lists of sequences, or batches (y is None then), checked against model and loss.

    Raises
    ------
    ValueError, TypeError
        Naming the argument.
    """
    if y is None:
        if not is_batches(x):
            raise TypeError(f"{names[1]}: expected targets for {names[0]}, got None; or pass an iterable of batches")
        for name, value in ((names[2], sample_weight), ("class_weight", class_weight)):
            if value is not None:
                raise ValueError(f"{name}: expected None with an iterable of batches; put it there, as (x, y, weight)")
        return IterableData(x, None if steps is None else as_size(steps, "steps_per_epoch"), names[0])
    if steps is not None:
        raise ValueError("steps_per_epoch: expected None with arrays, whose rows are all read in each epoch")
    dtype = model.arena.dtype
    weighted = sample_weight is not None or class_weight is not None
    if class_weight is not None and not loss.aligned:
        raise ValueError(
            f"class_weight: expected None with {type(loss).__name__}, whose labels have no steps of their own, got "
            f"{class_weight!r}; sample_weight serves"
        )
    if model.takes_lengths and is_ragged(x):
        sequences, targets = as_sequences(x, y, model, loss, names[:2])
        every_step = not isinstance(targets, np.ndarray)
        if weighted or every_step or not loss.aligned:
            _takes_weight(loss)
        weight = as_weight(sample_weight, (len(sequences),), dtype, names[2])
        labels = targets if isinstance(targets, np.ndarray) else np.concatenate(targets)
        return RaggedData(sequences, targets, weight, as_class_weights(class_weight, labels, dtype), loss.aligned)
    if is_ragged(x) and not isinstance(x, np.ndarray):
        as_real(x, names[0])  # says what is wrong with it
    inputs, found = as_arrays(x, y, model, loss, names[:2])
    if weighted:
        _takes_weight(loss)
    weight = as_weight(sample_weight, found.shape if loss.aligned else found.shape[:1], dtype, names[2])
    return ArrayData(inputs, found, model, loss, weight, as_class_weights(class_weight, found, dtype))


def as_validation(validation: Any, model: Layer, loss: Loss) -> Data | None:
    """``validation=`` that is no fraction: (x, y), (x, y, sample_weight), batches that can be read again, or None.

    Raises
    ------
    TypeError, ValueError
        For anything else.
    """
    names = ("validation x", "validation y", "validation weight")
    if validation is None:
        return None
    of_batches = isinstance(validation, list) and all(isinstance(item, tuple) for item in validation)
    if isinstance(validation, (tuple, list)) and not of_batches and len(validation) in (2, 3):
        weight = validation[2] if len(validation) == 3 else None
        return as_data(validation[0], validation[1], model, loss, sample_weight=weight, names=names)
    if not is_batches(validation) or isinstance(validation, (tuple, str)):
        raise TypeError(
            "validation: expected a fraction 0 < validation < 1, a pair (x, y), (x, y, weight), an iterable of "
            f"batches or None, got {validation!r}"
        )
    data = IterableData(validation, name="validation")
    if data.once:
        raise TypeError("validation: expected batches that can be read after every epoch, got an iterator; pass a list")
    return data


def is_fraction(validation: Any) -> bool:
    """Whether ``validation=`` is a number, to be checked by ``split``, rather than data."""
    return isinstance(validation, (numbers.Real, np.number)) and not isinstance(validation, bool)


def _takes_weight(loss: Loss) -> None:
    """A loss of one's own may know no weights."""
    if "weight" not in inspect.signature(loss.measure).parameters:
        raise TypeError(
            f"loss: expected {type(loss).__name__}.measure(prediction, target, gradient=None, weight=None), which "
            "weights of samples or classes, and sequences of different lengths, need; it takes no weight"
        )
