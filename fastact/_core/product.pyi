from typing import Any

import numpy as np
import numpy.typing as npt

class PackedMatrix:
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    ndim: int
    def __init__(self, b: npt.ArrayLike) -> None: ...
    def unpack(self) -> npt.NDArray[Any]: ...
    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]: ...

def matmul(
    a: npt.ArrayLike,
    b: npt.ArrayLike | PackedMatrix,
    out: npt.NDArray[Any] | None = None,
    bias: npt.ArrayLike | None = None,
    activation: Any = None,
    accumulate: bool = False,
) -> npt.NDArray[Any]: ...
def add_column_sums(x: npt.NDArray[Any], out: npt.NDArray[Any]) -> None: ...
def public_matmul(
    a: npt.ArrayLike,
    b: npt.ArrayLike | PackedMatrix,
    bias: npt.ArrayLike | None = None,
    activation: Any = None,
    out: npt.NDArray[Any] | None = None,
) -> npt.NDArray[Any]: ...
def pack(b: npt.ArrayLike) -> PackedMatrix: ...
