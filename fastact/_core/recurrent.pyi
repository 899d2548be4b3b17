from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Masks = tuple[Array | None, Array | None, Array | None]  # drop, take_h, take_c

class Cell:
    peepholes: bool
    def __init__(
        self,
        kind: str,
        row_ih: tuple[int, ...],
        row_hh: tuple[int, ...],
        functions: list[Any],
        coupled: bool = False,
        peepholes: bool = False,
        clip: float = ...,
        cell_clip: float = ...,
        full_gates: bool = False,
        second: bool = False,
        zoneout: tuple[float, float] = ...,
        norm_eps: float = ...,
    ) -> None: ...

class PackedCell:
    cell: Cell
    input_size: int
    hidden_size: int
    output_size: int
    for_training: bool
    nbytes: int
    @property
    def current(self) -> bool: ...

class Tape:
    cell: PackedCell
    x: Array | None
    starts: Array | None
    T: int
    B: int
    def sequence(self, which: int = 0) -> Array: ...
    def gates(self) -> Array: ...

def unchanged(made_of: list[Any], attributes: dict[str, Any]) -> bool: ...
def pack_cell(
    cell: Cell, training: bool, precision: str | None, *weights: Array | None
) -> PackedCell: ...  # ih, hh, both biases, ...
def force_plan(threads: int = 0, by_rows: bool = True) -> None: ...
def forward_pass(
    cell: PackedCell,
    x: Array,
    y: Array | None,
    initial: tuple[Array, ...] | None,
    final: tuple[Array, ...] | None,
    starts: Array | None,
    training: bool,
    time_major: bool = True,
    masks: Masks | None = None,
) -> Tape | None: ...
def take_rows(source: Array, index: Array, out: Array) -> None: ...
def backward_pass(
    tape: Tape,
    dy: Array | None,
    final: tuple[Array, ...] | None,
    dx: Array | None,
    dx_adds: bool,
    initial: tuple[Array, ...],
    gradients: tuple[Array | None, ...],
) -> None: ...
def plan(
    dtype: np.dtype[Any],
    T: int,
    B: int,
    I: int,
    H: int,
    passes: float = 1,
) -> tuple[int, bool]: ...
