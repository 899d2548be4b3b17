from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Triple = tuple[Array, Array, Array]
Scores = tuple[float, bool, npt.NDArray[np.int64] | None, npt.NDArray[np.bool_] | None, float, int]

def forward(operands: Triple, y: Array, scores: Scores, weights: Array | None = None) -> None: ...
def backward(dy: Array, operands: Triple, gradients: Triple, scores: Scores) -> None: ...
