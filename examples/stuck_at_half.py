"""A net that answers 0.5 to everything, or is right on one half and stays so: three causes, how to see each, its cure.

XOR with four hidden sigmoid units, trained with one thing wrong and then with that one thing put right. What to look at
is how many hidden units differ from each other, and how steep the sigmoids are where the net has come to: their slope
y (1 - y) is at most 0.25, and the gradient is a product with it. Run it with ``python examples/stuck_at_half.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import fastact as fa

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
Y = np.array([[0], [1], [1], [0]], np.float32)
FAR = X + 20
FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what is wrong, and its cure
    "all weights 0": ({"weights": "zeros"}, {"weights": "normal"}),  # units that are alike get equal gradients
    "inputs far from 0": ({"x": FAR}, {"x": (FAR - FAR.mean(0)) / FAR.std(0)}),  # every hidden unit at 0 or 1
    "rate too large": ({"rate": 1000.0}, {"rate": 0.5}),  # the first steps leap to where the output is flat
}


class Symptoms(NamedTuple):
    """What a trained net shows."""

    outputs: np.ndarray  # (4,)
    units: int  # hidden units that differ
    hidden_slope: float  # the greatest of any unit on any sample
    output_slope: float
    gradient: float  # its length


def train(
    weights: str = "normal", x: np.ndarray = X, rate: float = 0.5, epochs: int = 1000, seed: int = 0
) -> fa.nn.Sequential:
    """A 2-4-1 net after so many steps on all samples."""
    rng = np.random.default_rng(seed)
    model = fa.nn.Sequential(
        fa.nn.Dense(2, 4, "sigmoid", weight_init=weights, bias_init=0.0, rng=rng),
        fa.nn.Dense(4, 1, "sigmoid", weight_init=weights, bias_init=0.0, rng=rng),
    )
    trainer = fa.Trainer(model, "mean_squared_error", fa.optim.SGD(rate, momentum=0.9), seed=seed)
    trainer.fit(x, Y, epochs, batch_size=None, progress=False)
    return model


def examine(model: fa.nn.Sequential, x: np.ndarray) -> Symptoms:
    """Look at a net on the four samples."""
    hidden, outputs = model[0](x), model(x)
    prediction, backward = model.forward(x)
    _, loss_backward = fa.losses.MeanSquaredError().forward(prediction, Y)
    model.zero_grad()
    backward(loss_backward())
    return Symptoms(
        outputs[:, 0],
        len(np.unique(hidden.round(3), axis=1).T),
        float((hidden * (1 - hidden)).max()),
        float((outputs * (1 - outputs)).max()),
        float(np.linalg.norm(model.flat_gradients)),
    )


def main(epochs: int = 1000, seed: int = 0) -> dict[str, tuple[Symptoms, Symptoms]]:
    """Train with each fault and with its cure.

    Returns
    -------
    dict of str to (Symptoms, Symptoms)
        Of the ill net and of the cured one.
    """
    found = {}
    print(f"{'':24} outputs for 00 01 10 11   units  slopes: hidden  output  gradient")
    for fault, settings in FAULTS.items():
        ill, cured = (examine(train(**each, epochs=epochs, seed=seed), each.get("x", X)) for each in settings)
        found[fault] = ill, cured
        for name, s in ((fault, ill), ("  cured", cured)):
            outputs = "  ".join(f"{y:.2f}" for y in s.outputs)
            print(f"{name:24} {outputs} {s.units:8} {s.hidden_slope:15.4f} {s.output_slope:7.4f} {s.gradient:9.1e}")
    return found


if __name__ == "__main__":
    main()
