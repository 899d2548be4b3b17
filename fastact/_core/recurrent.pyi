from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

class PackedLSTM:
    input_size: int
    hidden_size: int
    for_training: bool
    @property
    def current(self) -> bool: ...

class LSTMTape: ...

class Workspace:
    def __init__(self, size: int) -> None: ...

def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array: ...
def clear_pool() -> None: ...
def pool_bytes() -> int: ...
def pack_lstm(*weights_and_training: Any) -> PackedLSTM: ...  # weight_ih, weight_hh, bias_ih, bias_hh, training
def force_plan(threads: int = 0, by_rows: bool = True) -> None: ...
def lstm_forward(
    packed: list[PackedLSTM],
    x: Array,
    y: Array,
    h0: Array | None,
    c0: Array | None,
    h_final: Array | None,
    c_final: Array | None,
    time_major: bool,
    sequences: bool,
    training: bool,
) -> LSTMTape | None: ...
def lstm_backward(
    tape: LSTMTape | None,
    dy: Array | None,
    dh_final: Array | None,
    dc_final: Array | None,
    dx: Array | None,
    dh0: Array,
    dc0: Array,
    gradients: list[tuple[Any, ...]],
) -> None: ...
def plan(
    dtype: np.dtype[Any],
    T: int,
    B: int,
    I: int,
    H: int,
    passes: float = 1,
) -> tuple[int, bool]: ...
