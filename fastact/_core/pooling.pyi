from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

def forward(greatest: bool, x: Array, lengths: Array | None, y: Array) -> None: ...
def backward(greatest: bool, x: Array, lengths: Array | None, y: Array, dy: Array, dx: Array) -> None: ...
