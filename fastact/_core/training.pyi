from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

def embedding_forward(weight: Array, indices: Array, out: Array) -> None: ...
def embedding_backward(indices: Array, dy: Array, grad: Array) -> None: ...
def first_outside(indices: Array, limit: int, ignored: int | None = None) -> int: ...
def cross_entropy(
    logits: Array,
    targets: Array,
    gradient: Array | None = None,
    ignore_index: int | None = None,
    count_correct: bool = False,
) -> tuple[float, int, int, int]: ...
def squared_error(prediction: Array, target: Array, gradient: Array | None = None) -> float: ...
def sum_squares(x: Array) -> float: ...
def sgd(
    parameters: Array,
    gradients: Array,
    velocity: Array | None,
    steps: Array,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    gradient_scale: float = 1.0,
) -> None: ...
def adam(
    parameters: Array,
    gradients: Array,
    first: Array,
    second: Array,
    steps: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    gradient_scale: float = 1.0,
) -> None: ...
def zero(gradients: Array) -> None: ...
