"""Weights of the terms of a loss: of samples, of classes, and of the positions that exist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastact._arguments import Array, as_number, as_real


def as_weight(weight: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "sample_weight") -> Array | None:
    """Weights over the leading axes of targets of this shape, as a dense array of ``dtype``.

    Raises
    ------
    ValueError
        For another shape; for negative, infinite or undefined weights; where all are 0.
    """
    if weight is None:
        return None
    array = as_real(weight, name).astype(dtype, copy=False)
    if array.ndim == 0 or array.shape != shape[: array.ndim]:
        raise ValueError(f"{name}: expected one number for each of the {shape[0]} rows, got shape {array.shape}")
    bad = ~((array >= 0) & (array < math.inf))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        place = where[0] if len(where) == 1 else where
        raise ValueError(f"{name}: expected finite weights of at least 0, got {array[where]} at position {place}")
    if not array.any():
        raise ValueError(f"{name}: expected a weight above 0 somewhere, got zeros: nothing would be learnt")
    return np.ascontiguousarray(array)


class ClassWeights:
    """A weight for each class: ``times(y, weight)`` gives those of a batch.

    Parameters
    ----------
    table : array of shape (C,)
        Weights of classes 0 to C - 1; classes after them have the last one's.
    form : {"plain", "column", "one_hot"}
        Of the targets: class numbers, those on a last axis of length 1, or C numbers of which the largest is the class.

    Examples
    --------
    >>> import numpy as np
    >>> from fastact.training.weights import ClassWeights
    >>> ClassWeights(np.array([1.0, 5.0])).times(np.array([0, 1, 1]))
    array([1., 5., 5.])
    """

    def __init__(self, table: Array, form: str = "plain") -> None:
        self.table, self.form = table, form

    def times(self, y: Array, weight: Array | None = None) -> Array:
        """Weights over the positions of targets, times weights that are there already (over the leading axes)."""
        # An index that the loss ignores (-1, say) finds some weight here, and does not count there.
        found = self.table.take(labels_of(y, self.form), mode="clip")
        if weight is None:
            return found
        return found * weight.reshape(weight.shape + (1,) * (found.ndim - weight.ndim))


def as_class_weights(spec: Any, y: Array, dtype: np.dtype[Any]) -> ClassWeights | None:
    """Weights of the classes from a mapping (classes left out: 1), a sequence, or ``"balanced"``.

    Balanced weights are N / (C count), as in scikit-learn: all classes together weigh the same.

    Parameters
    ----------
    spec : mapping of int to float, sequence of float, "balanced", or None
    y : array
        All targets: class numbers (integers, or 0.0 and 1.0), or rows of probabilities, one-hot for example.

    Raises
    ------
    ValueError, TypeError
        For anything else.
    """
    if spec is None:
        return None
    form = "plain"
    if y.dtype.kind == "f" and y.ndim > 1:
        form = "column" if y.shape[-1] == 1 else "one_hot"
    if form == "one_hot" and not ((y >= 0).all() and np.allclose(y.sum(-1), 1, atol=1e-3)):
        raise ValueError(
            f"class_weight: expected targets that are class numbers, or rows of probabilities that sum to 1, got "
            f"{y.dtype} of shape {y.shape}; sample_weight serves for others"
        )
    if isinstance(spec, str):
        if spec != "balanced":
            raise ValueError(f'class_weight: expected a mapping, a sequence or "balanced", got {spec!r}')
        labels = labels_of(y, form)
        counts = np.bincount(labels[labels >= 0])
        table = labels.size / (np.count_nonzero(counts) * np.maximum(counts, 1))
    elif isinstance(spec, Mapping):
        if not spec or not all(isinstance(c, (int, np.integer)) and not isinstance(c, bool) and c >= 0 for c in spec):
            raise ValueError(f"class_weight: expected class numbers, 0 and up, as keys, got {list(spec)}")
        table = np.ones(max(spec) + 2)  # one more for the classes above, which are left out
        for c, value in spec.items():
            table[c] = as_number(value, f"class_weight[{c}]", 0.0)
    else:
        table = as_real(spec, "class_weight").astype(np.float64)
        if table.ndim != 1 or not table.size or not ((table >= 0) & (table < math.inf)).all():
            raise ValueError(f"class_weight: expected one finite weight of at least 0 for each class, got {spec!r}")
        most = int(labels_of(y, form).max(initial=-1))
        if most >= table.size:
            raise ValueError(f"class_weight: expected a weight for each class up to {most}, got {table.size}")
    return ClassWeights(table.astype(dtype), form)


def labels_of(y: Array, form: str = "plain") -> Array:
    """Class numbers of targets of a form; see ``ClassWeights``."""
    if form == "one_hot":
        return y.argmax(-1)
    return (y[..., 0] if form == "column" else y).astype(np.int64, copy=False)
