"""A Siamese net learns from pairs what "the same digit" means, without being told of any digit which one it is.

One net looks at both pictures of a pair and puts them in a plane; trained is the distance of the two places: small for
the same digit, at least 1 for different ones (contrastive loss; Hadsell, Chopra and LeCun 2006). The gradient of a
shared net is the sum over its uses, which is what two calls of ``forward`` before their backwards give.
Run it with ``python examples/siamese.py [--picture FILE]`` (needs scikit-learn for its digits).
"""

from __future__ import annotations

import argparse

import numpy as np
from digits import load

import fastact as fa


class Siamese(fa.nn.Layer):
    """Distances (B,) that a net sees between the two members of pairs (B, 2, ...)."""

    def __init__(self, net: fa.nn.Layer) -> None:
        self.net = net

    def forward(self, pairs):
        (a, backward_a), (b, backward_b) = self.net.forward(pairs[:, 0]), self.net.forward(pairs[:, 1])
        difference = a - b
        distance = np.sqrt((difference**2).sum(axis=1) + 1e-6)  # of finite slope where both are at one place

        def backward(dy):
            da = (dy / distance)[:, None] * difference
            return np.stack([backward_a(da), backward_b(-da)], axis=1)

        return distance, backward


class Contrastive(fa.losses.Loss):
    """d^2 for the distance of a pair that is the same, max(0, 1 - d)^2 for a different one (target 1); the mean."""

    def measure(self, prediction, target, gradient=None):
        error = np.where(target == 1, np.minimum(prediction - 1, 0), prediction)
        if gradient is not None:
            gradient[...] = 2 * error / len(error)
        return fa.losses.Measure(float(np.mean(error**2)), len(error))


def pairs_of(x: np.ndarray, y: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (count, 2, 64), every other one of different digits, and 1 for these (count,)."""
    first, different = rng.integers(len(x), size=count), np.arange(count) % 2
    second = [rng.choice(np.flatnonzero((y != y[i]) == d)) for i, d in zip(first, different, strict=True)]
    return np.stack([x[first], x[second]], axis=1), different.astype(np.float32)


def nearest(examples: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Which of the examples (K, N) each row of x (B, N) is nearest to (B,)."""
    return ((x[:, None] - examples) ** 2).sum(axis=-1).argmin(axis=1)


def draw(places: np.ndarray, y: np.ndarray, file: str) -> None:
    """The plane, with every digit where the net puts it."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 6), layout="constrained")
    for digit in range(10):
        axes.scatter(*places[y == digit].T, s=60, marker=f"${digit}$", linewidths=0.3)
    axes.set(aspect="equal", title="Digits that the net has not seen before")
    figure.savefig(file)
    plt.close(figure)


def main(epochs: int = 20, seed: int = 0, picture: str | None = None) -> dict[str, float]:
    """Train on pairs alone; then name new digits by the nearest of ten examples, one of each digit.

    Returns
    -------
    dict of str to float
        ``area`` under the ROC curve for new pairs (how likely a different one is farther apart than one of the same
        digit), and the shares named rightly by distance of ``pixels`` and of ``places``.
    """
    rng = np.random.default_rng(seed)
    x, y = load(seed)
    x_train, y_train, x_test, y_test = x[:1350], y[:1350], x[1350:], y[1350:]
    net = fa.nn.Sequential(fa.nn.Dense(64, 64, "relu", weight_init="auto", rng=rng), fa.nn.Dense(64, 2, rng=rng))
    trainer = fa.Trainer(Siamese(net), Contrastive(), fa.optim.Adam(3e-3), metrics=["roc_auc"], seed=seed)
    trainer.fit(*pairs_of(x_train, y_train, 10_000, rng), epochs, batch_size=64, progress=False)

    area = trainer.evaluate(*pairs_of(x_test, y_test, 2000, rng))["roc_auc"]
    examples = x_train[[np.flatnonzero(y_train == digit)[0] for digit in range(10)]]
    pixels = np.mean(nearest(examples, x_test) == y_test)
    places = np.mean(nearest(net(examples), net(x_test)) == y_test)
    print(f"new pairs: area under the ROC curve {area:.3f}")
    print(f"new digits named by the nearest of ten examples: {pixels:.1%} by pixels, {places:.1%} by places")
    if picture:
        draw(net(x_test), y_test, picture)
    return {"area": area, "pixels": float(pixels), "places": float(places)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Learn from pairs which digits are the same.")
    parser.add_argument("--picture", metavar="FILE", help="draw where the net puts new digits")
    main(picture=parser.parse_args().picture)
