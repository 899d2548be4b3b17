"""Why a loss is not finite: a search along the way from the data to the loss, and what to try."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from fastact import init
from fastact.nn.base import Layer


def first_bad(array: Any, begin: int = 0) -> str | None:
    """Where an array is first NaN or infinite, in words; None if it is finite (or holds no floats).

    ``begin`` is the number of its first row, where it is a part of a larger one.
    """
    values = np.asarray(array)
    if values.dtype.kind != "f":
        return None
    good = np.isfinite(values)
    if good.all():
        return None
    flat = int(np.argmin(good))
    where = tuple(int(i) for i in np.unravel_index(flat, values.shape))
    if where:
        where = (where[0] + begin, *where[1:])
    return f"{values.reshape(-1)[flat]} at position {where[0] if len(where) == 1 else where}"


def find_cause(model: Layer, x: Any, y: Any, seeds: tuple[int, ...] = (0,), **given: Any) -> str:
    """One sentence on what is the first thing that is not finite: data, a parameter, or the output of a layer.

    The forward pass is made again as it was made in training, by a copy of the model: with the same draws (``seeds``)
    and arguments (``given``), and without a trace in running statistics.
    """
    for name, data in (("x", x), ("y", y)):
        if bad := first_bad(data):
            return f"The batch itself has {name} = {bad}: clean the data."
    for name, parameter in model.parameters().items():
        if bad := first_bad(parameter.value):
            return f"Parameter {name} is {bad}: an earlier update overflowed."
    found: list[str] = []
    model = copy.deepcopy(model)
    for prefix, layer in model._tree():
        if not layer.children():
            _watch(prefix.removesuffix("."), layer, found)
    with np.errstate(all="ignore"), init.seeded(*seeds):
        value = model.forward(x, **given)[0]
    if found:
        return found[0]
    if bad := first_bad(value):
        return f"The model puts out {bad}."
    largest = float(np.max(np.abs(value)))
    return f"Data, parameters and outputs are finite (largest output {largest:.3g}): the loss itself overflowed."


def find_gradient(model: Layer) -> str:
    """One sentence on the first gradient that is not finite."""
    for name, parameter in model.parameters().items():
        if bad := first_bad(parameter.grad):
            return f"The loss is finite, but the gradient of {name} is {bad}."
    return "Every gradient is finite: their squares overflowed."


def _watch(name: str, layer: Layer, found: list[str]) -> None:
    """Let ``layer.forward`` note in ``found`` when it puts out what is not finite."""
    forward = layer.forward

    def watched(x: Any, /, **given: Any) -> Any:
        y, backward = forward(x, **given)
        if bad := first_bad(y):
            found.append(f"{f'Layer {name}' if name else 'The model'}, {type(layer).__name__}, puts out {bad} first.")
        return y, backward

    vars(layer)["forward"] = watched
