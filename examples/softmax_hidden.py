"""Softmax in hidden layers starves a net; batch normalisation is what was wanted.

Softmax looks like a way to keep the units of a layer in bounds. But its units share a sum of 1: of 64 each is about
1/64 whatever the input, so each layer passes on next to nothing of the signal, and the way back is as narrow. Batch
normalisation gives every unit mean 0 and deviation 1 instead; even after a softmax it restores what that took away.
Run it with ``python examples/softmax_hidden.py`` (needs scikit-learn for its digits).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from digits import load

import fastact as fa

WIDTH, DEPTH = 64, 3
HIDDEN: dict[str, Callable[[], list[fa.nn.Layer]]] = {  # what follows the product in each hidden layer
    "softmax": lambda: [fa.nn.Activation("softmax")],
    "softmax, BatchNorm": lambda: [fa.nn.Activation("softmax"), fa.nn.BatchNorm(WIDTH)],
    "BatchNorm, relu": lambda: [fa.nn.BatchNorm(WIDTH), fa.nn.Activation("relu")],
}


class Finding(NamedTuple):
    """Of one kind of hidden layer."""

    signal: float  # deviation over the samples of what the last hidden layer puts out, before training
    gradient: float  # length of the gradient of the first layer's weights, before training
    accuracy: float  # on held-out digits, after training


def build(kind: str, seed: int) -> fa.nn.Sequential:
    """A net with hidden layers of that kind."""
    rng = np.random.default_rng(seed)
    hidden = [layer for _ in range(DEPTH) for layer in (fa.nn.Dense(WIDTH, WIDTH, rng=rng), *HIDDEN[kind]())]
    return fa.nn.Sequential(*hidden, fa.nn.Dense(WIDTH, 10, rng=rng))


def main(epochs: int = 15, seed: int = 0) -> dict[str, Finding]:
    """Train a net of each kind in the same way.

    Returns
    -------
    dict of str to Finding
    """
    x, y = load(seed)
    findings = {}
    print(f"{'hidden layers':20} signal   gradient  accuracy")
    for kind in HIDDEN:
        model = build(kind, seed)
        signal, _ = model[:-1].forward(x)  # as in training: by the statistics of the batch
        prediction, backward = model.forward(x)
        _, loss_backward = fa.losses.CrossEntropy().forward(prediction, y)
        backward(loss_backward())
        gradient = np.linalg.norm(model.parameters()["0.weight"].grad)
        trainer = fa.Trainer(model, "cross_entropy", fa.optim.Adam(3e-3), seed=seed)
        history = trainer.fit(x, y, epochs, batch_size=32, validation=0.25, progress=False)
        finding = findings[kind] = Finding(
            float(signal.std(axis=0).mean()), float(gradient), history["val_accuracy"][-1]
        )
        print(f"{kind:20} {finding.signal:.0e} {finding.gradient:9.0e} {finding.accuracy:9.1%}")
    return findings


if __name__ == "__main__":
    main()
