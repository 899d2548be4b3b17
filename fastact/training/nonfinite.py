"""Why a loss is not finite: a search along the way from the data to the loss, and what to try."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastact.nn.base import Layer


def first_bad(array: Any) -> str | None:
    """Where an array is first NaN or infinite, in words; None if it is finite (or holds no floats)."""
    values = np.asarray(array)
    if values.dtype.kind != "f":
        return None
    good = np.isfinite(values)
    if good.all():
        return None
    flat = int(np.argmin(good))
    where = tuple(int(i) for i in np.unravel_index(flat, values.shape))
    return f"{values.reshape(-1)[flat]} at position {where[0] if len(where) == 1 else where}"


def find_cause(model: Layer, x: Any, y: Any) -> str:
    """One sentence on what is the first thing that is not finite: data, a parameter, or the output of a layer."""
    for name, data in (("x", x), ("y", y)):
        if bad := first_bad(data):
            return f"The batch itself has {name} = {bad}: clean the data."
    for name, parameter in model.parameters().items():
        if bad := first_bad(parameter.value):
            return f"Parameter {name} is {bad}: an earlier update overflowed."
    layers = list(getattr(model, "layers", ()))
    value = x
    with np.errstate(all="ignore"):
        for i, layer in enumerate(layers):
            value = layer(value)
            if bad := first_bad(value):
                return f"Layer {i}, {type(layer).__name__}, puts out {bad} first."
        if not layers:
            value = model(x)
            if bad := first_bad(value):
                return f"The model puts out {bad}."
    largest = float(np.max(np.abs(value)))
    return f"Data, parameters and outputs are finite (largest output {largest:.3g}): the loss itself overflowed."
