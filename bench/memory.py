"""Peak memory of training one LSTM layer, megabytes above the process with its library loaded; each contender alone.

`python -m fastact.bench.memory [T B I H]` prints it for fastact and, where it is installed, PyTorch.
"""

from __future__ import annotations

import importlib.util
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

SHAPE = (100, 64, 256, 512)
STEPS = 3


def _fastact(T: int, B: int, inputs: int, H: int) -> Callable[[], Any]:
    import fastact as fa

    layer = fa.nn.LSTM(inputs, H, time_major=True)
    x, dy = np.ones((T, B, inputs), np.float32), np.ones((T, B, H), np.float32)

    def step() -> None:
        layer.zero_grad()
        _, backward = layer.forward(x)
        backward(dy)

    return step


def _torch(T: int, B: int, inputs: int, H: int) -> Callable[[], Any]:
    import torch

    layer = torch.nn.LSTM(inputs, H)
    x, dy = torch.ones((T, B, inputs), requires_grad=True), torch.ones((T, B, H))

    def step() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x)[0].backward(dy)

    return step


CONTENDERS = {"fastact": _fastact, "torch": _torch}


def _peak() -> float:
    """Most memory of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def measure(name: str, shape: tuple[int, ...]) -> float:
    """In this process: the first step of a tiny layer loads all that is loaded late."""
    CONTENDERS[name](2, 2, 4, 4)()
    before = _peak()
    step = CONTENDERS[name](*shape)
    for _ in range(STEPS):
        step()
    return _peak() - before


def main() -> None:
    """Measure each contender in a process of its own."""
    shape = tuple(map(int, sys.argv[1:])) or SHAPE
    print(f"LSTM training (T, B, I, H) = {shape}, float32, MB at the peak, inputs and weights included")
    for name in CONTENDERS:
        if importlib.util.find_spec(name) is None:
            continue
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__package__}.memory import measure; "
        command = [sys.executable, "-c", f"{code}print(measure({name!r}, {shape!r}))"]
        print(f"  {name:8} {float(subprocess.run(command, check=True, capture_output=True, text=True).stdout):8.1f}")


if __name__ == "__main__":
    main()
