from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

ELEMENT: dict[str, int]
ROW: dict[str, int]

def elements(
    loss: int,
    prediction: Array,
    target: Array,
    gradient: Array | None,
    each: Array | None,
    weight: Array | None,
    mean: bool,
    a: float = 0.0,
    b: float = 0.0,
    c: float = 0.0,
    low: float = ...,
    high: float = ...,
    target_low: float = ...,
    target_high: float = ...,
    columns: Array | None = None,
    group: int = 1,
) -> tuple[float, float]: ...
def first_outside(indices: Array, limit: int, ignored: int | None = None) -> int: ...
def rows(
    loss: int,
    prediction: Array,
    labels: Array | None,
    target: Array | None,
    gradient: Array | None,
    each: Array | None,
    weight: Array | None,
    mean: bool,
    count_correct: bool = False,
    ignored: int | None = None,
    class_weight: Array | None = None,
    a: float = 0.0,
    b: float = 0.0,
) -> tuple[float, float, float, int]: ...
def ctc(
    logits: Array,
    labels: Array,
    label_counts: Array,
    step_counts: Array,
    scale: Array,
    gradient: Array | None,
    losses: Array,
    blank: int,
    zero_infinity: bool,
) -> None: ...
