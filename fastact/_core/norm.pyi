from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

def rows_forward(
    centred: bool, x: Array, gain: Array | None, bias: Array | None, y: Array, statistics: Array | None, eps: float
) -> None: ...
def rows_backward(
    centred: bool,
    x: Array,
    dy: Array,
    gain: Array | None,
    statistics: Array,
    dx: Array | None,
    of_gain: Array | None,
    of_bias: Array | None,
) -> None: ...
def batch_forward(
    x: Array,
    gain: Array | None,
    bias: Array | None,
    y: Array,
    statistics: Array,
    running_mean: Array,
    running_variance: Array,
    eps: float,
    momentum: float,
    running: bool,
) -> None: ...
def batch_backward(
    x: Array,
    dy: Array,
    gain: Array | None,
    statistics: Array,
    dx: Array | None,
    of_gain: Array | None,
    of_bias: Array | None,
    running: bool,
) -> None: ...
