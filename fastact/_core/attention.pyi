from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

def forward(
    q: Array,
    k: Array,
    v: Array,
    y: Array,
    scale: float,
    causal: bool = False,
    lengths: npt.NDArray[np.int64] | None = None,
    mask: npt.NDArray[np.bool_] | None = None,
    dropped: float = 0,
    seed: int = 0,
    weights: Array | None = None,
) -> None: ...
def backward(
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    dq: Array,
    dk: Array,
    dv: Array,
    scale: float,
    causal: bool = False,
    lengths: npt.NDArray[np.int64] | None = None,
    mask: npt.NDArray[np.bool_] | None = None,
    dropped: float = 0,
    seed: int = 0,
) -> None: ...
