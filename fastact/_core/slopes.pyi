from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

BLOCK_ROWS: int

def forward(x: Any, alpha: Any, out: Any) -> Array | None: ...
def backward(x: Array, dy: Array, alpha: Array, dx: Array | None, sums: Array) -> None: ...
