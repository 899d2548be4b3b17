"""scikit-learn's MLPClassifier: one partial_fit call on one batch is one step, predict_proba is inference."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..shapes import MLPShape
from ..timing import Run
from .base import Array, Peer, Weights


class ScikitLearn(Peer):
    name = "scikit-learn"

    def __init__(self, threads: int) -> None:
        import sklearn
        from sklearn.neural_network import MLPClassifier

        self.classifier = MLPClassifier
        self.version = sklearn.__version__

    def _mlp(self, shape: MLPShape, weights: Weights, x: Array, rate: float) -> Any:
        model = self.classifier(
            shape.widths[1:-1], alpha=0.0, batch_size=shape.B, learning_rate_init=rate, shuffle=False, random_state=0
        )
        classes = np.arange(shape.widths[-1])
        labels = np.zeros(len(x), np.int64)
        model.partial_fit(x, labels, classes=classes)  # makes the arrays, which then take our weights
        for layer in range(len(shape.widths) - 1):
            model.coefs_[layer][...] = weights[f"{layer}.weight"].T
            model.intercepts_[layer][...] = weights[f"{layer}.bias"]
        optimizer = model._optimizer
        optimizer.t = 0
        for moment in (*optimizer.ms, *optimizer.vs):
            moment[...] = 0
        return model

    def mlp_inference(self, shape: MLPShape, weights: Weights, x: Array) -> Run | None:
        model = self._mlp(shape, weights, x, 1e-3)
        return lambda: model.predict_proba(x)

    def mlp_step(self, shape: MLPShape, weights: Weights, x: Array, y: Array, rate: float) -> Run | None:
        model = self._mlp(shape, weights, x, rate)

        def run() -> float:
            model.partial_fit(x, y)
            return float(model.loss_)

        return run
