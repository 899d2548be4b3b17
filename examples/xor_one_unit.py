"""XOR with one unit: what takes a sigmoid a hidden layer, a window does alone.

A sigmoid unit divides the plane along one line. A window is 1 between two parallel lines and 0 elsewhere, and the two
corners where XOR is 1 are between x1 + x2 = 1 and x1 + x2 = -1. Its slope is 0 wherever it has one, so ``fa.window``
passes back that of a bell curve over the same place. Run it with ``python examples/xor_one_unit.py``.
"""

from __future__ import annotations

import numpy as np

import fastact as fa

X = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float32)
Y = np.array([[0], [1], [1], [0]], np.float32)


def train(activation: fa.Activation, epochs: int, seed: int) -> tuple[fa.nn.Dense, fa.training.History]:
    """One unit and the losses of its epochs."""
    # It starts in the middle, where it is 1 for all corners: the gradient drives out the two that are to be 0.
    unit = fa.nn.Dense(2, 1, activation, bias_init=0.0, rng=seed)
    trainer = fa.Trainer(unit, "mean_squared_error", fa.optim.SGD(0.5), seed=seed)
    return unit, trainer.fit(X, Y, epochs, batch_size=None, progress=False)


def main(epochs: int = 50, seed: int = 0) -> dict[str, list[float]]:
    """Train a sigmoid unit and a window unit from the same weights.

    Returns
    -------
    dict of str to list
        The loss of each epoch, by the name of the activation.
    """
    losses = {}
    for activation in (fa.sigmoid, fa.window):
        unit, history = train(activation, epochs, seed)
        losses[activation.name] = history["loss"]
        (w1, w2), (b,) = unit.weight.value[0], unit.bias.value
        print(f"{activation.name}({w1:.2f} x1 {w2:+.2f} x2 {b:+.2f})  loss {history['loss'][-1]:.3f}")
        print("   ", ", ".join(f"{x1:+.0f} {x2:+.0f}: {y:.2f}" for (x1, x2), y in zip(X, unit(X)[:, 0], strict=True)))
    return losses


if __name__ == "__main__":
    main()
