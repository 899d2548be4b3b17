from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

def embedding_forward(weight: Array, indices: Array, out: Array) -> None: ...
def embedding_backward(indices: Array, dy: Array, grad: Array) -> None: ...
def sum_squares(x: Array, spans: Array | None = None) -> float: ...

RULES: dict[str, int]

def states(rule: int) -> list[bool]: ...
def update(
    rule: int,
    parameters: Array,
    gradients: Array,
    state: tuple[Array | None, ...],
    steps: Array,
    spans: Array | None = None,
    gradient_scale: float = 1.0,
    rate: float = 0.0,
    decay: float = 0.0,
    shrink: float = 1.0,
    beta1: float = 0.0,
    beta2: float = 0.0,
    eps: float = 0.0,
    root_scale: float = 1.0,
    rate_now: float = 0.0,
    low: float = 0.0,
    high: float = 0.0,
) -> None: ...
def zero(gradients: Array) -> None: ...
