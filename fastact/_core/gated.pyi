from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

def forward(index: int, parameters: tuple[float, ...], x: Array, y: Array, gate_first: bool) -> None: ...
def backward(index: int, parameters: tuple[float, ...], dy: Array, x: Array, dx: Array, gate_first: bool) -> None: ...
def direct(
    index: int, parameters: tuple[float, ...] | None, x: Any, dy: Any, out: Any, axis: Any, gate_first: bool
) -> Array | None: ...
