"""XOR, the function that no single layer can compute, with four sigmoid units (Rumelhart, Hinton and Williams 1986).

The same call trains one sample at a time, in mini-batches or on all samples at once: only ``batch_size`` differs.
Run it with ``python examples/xor.py``.
"""

from __future__ import annotations

import numpy as np

import fastact as fa

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
Y = np.array([[0], [1], [1], [0]], np.float32)
BATCHES = {"per sample": 1, "mini-batch": 2, "full batch": None}


def train(batch_size: int | None, epochs: int = 1000, seed: int = 0) -> tuple[fa.nn.Sequential, fa.Trainer]:
    """A 2-4-1 net and its trainer, after so many times through the four samples."""
    rng = np.random.default_rng(seed)
    # Weights of deviation 1: the usual ones, at most 1/sqrt(2), leave sigmoids almost linear and the start slow.
    model = fa.nn.Sequential(
        fa.nn.Dense(2, 4, "sigmoid", weight_init="normal", rng=rng),
        fa.nn.Dense(4, 1, "sigmoid", weight_init="normal", rng=rng),
    )
    trainer = fa.Trainer(model, "mean_squared_error", fa.optim.SGD(0.5, momentum=0.9), seed=seed)
    trainer.fit(X, Y, epochs, batch_size, progress=False)
    return model, trainer


def main(epochs: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """Train in all three ways.

    Returns
    -------
    dict of str to array of shape (4,)
        What each net puts out for 00, 01, 10 and 11.
    """
    outputs = {}
    print(f"{'':12} updates    loss    00    01    10    11")
    for name, batch_size in BATCHES.items():
        model, trainer = train(batch_size, epochs, seed)
        y = outputs[name] = model(X)[:, 0]
        loss = trainer.evaluate(X, Y)["loss"]
        print(f"{name:12} {trainer.steps:7} {loss:7.4f} " + " ".join(f"{value:5.2f}" for value in y))
    return outputs


if __name__ == "__main__":
    main()
