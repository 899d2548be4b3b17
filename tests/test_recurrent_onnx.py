"""The options of the ONNX operators against ONNX Runtime; skipped where it is not installed."""

from __future__ import annotations

import numpy as np
import pytest
from recurrent_twin import randomize

import fastact as fa

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

T, B, I, H = 7, 3, 5, 6  # noqa: E741
ORDER = {"LSTM": "iofg", "GRU": "zrn", "RNN": "h"}


def blocks(rows, letters, order):
    """Rows of the gates ``letters`` in another order; zero for a gate that is not there."""
    each = dict(zip(letters, np.split(rows, len(letters)), strict=True))
    zero = np.zeros_like(each[letters[0]])
    return np.concatenate([each.get(letter, zero) for letter in order])


def by_onnx(layer, letters, x, **attributes):
    """y (T, B, H) of the operator with the weights of a layer."""
    helper, name = onnx.helper, type(layer).__name__
    w = {k.removesuffix("_l0"): p.value for k, p in layer.parameters().items()}
    biases = [blocks(w[k], letters, ORDER[name]) for k in ("bias_ih", "bias_hh")]
    weights = {"W": blocks(w["weight_ih"], letters, ORDER[name]), "R": blocks(w["weight_hh"], letters, ORDER[name])}
    weights["B"] = np.concatenate(biases)
    inputs = ["X", "W", "R", "B"]
    if "weight_peephole" in w:
        gates = letters.replace("g", "")
        weights["P"] = blocks(w["weight_peephole"].ravel(), gates, "iof")
        inputs += ["", "", "", "P"]
    node = helper.make_node(name, inputs, ["Y"], hidden_size=H, **attributes)
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("X", kind, x.shape)],
        [helper.make_tensor_value_info("Y", kind, None)],
        [helper.make_tensor(k, kind, (1, *v.shape), v.ravel()) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    model.ir_version = 8
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"X": x})[0][:, 0]


@pytest.mark.parametrize("clip", [None, 0.3, 0.8])
@pytest.mark.parametrize(
    ("cell", "letters", "options", "attributes"),
    [
        (fa.nn.LSTM, "ifgo", {}, {}),
        (fa.nn.LSTM, "ifgo", {"peepholes": True}, {}),
        (fa.nn.LSTM, "igo", {"coupled_gates": True}, {"input_forget": 1}),
        (fa.nn.LSTM, "igo", {"coupled_gates": True, "peepholes": True}, {"input_forget": 1}),
        (
            fa.nn.LSTM,
            "ifgo",
            {
                "gate_activation": fa.hard_sigmoid.with_params(slope=0.3, offset=0.4),
                "candidate_activation": fa.leaky_relu.with_params(alpha=0.2),
                "cell_activation": fa.scaled_tanh.with_params(amplitude=0.9, slope=0.7),
            },
            {
                "activations": ["HardSigmoid", "LeakyRelu", "ScaledTanh"],
                "activation_alpha": [0.3, 0.2, 0.9],
                "activation_beta": [0.4, 0.7],
            },
        ),
        (fa.nn.GRU, "rzn", {"reset_after": True}, {"linear_before_reset": 1}),
        (fa.nn.GRU, "rzn", {"reset_after": False}, {"linear_before_reset": 0}),
        (
            fa.nn.GRU,
            "rzn",
            {"reset_after": False, "candidate_activation": "softsign"},
            {"activations": ["Sigmoid", "Softsign"]},
        ),
        (fa.nn.RNN, "h", {}, {}),
        (
            fa.nn.RNN,
            "h",
            {"activation": fa.elu.with_params(alpha=0.5)},
            {"activations": ["Elu"], "activation_alpha": [0.5]},
        ),
    ],
)
def test_same_numbers(cell, letters, options, attributes, clip):
    layer = randomize(cell(I, H, time_major=True, clip=clip, **options))
    x = 3 * np.random.default_rng(0).normal(size=(T, B, I)).astype(np.float32)
    if clip is not None:
        attributes = attributes | {"clip": clip}
    want = by_onnx(layer, letters, x, **attributes)
    assert np.abs(layer(x) - want).max() <= 5e-6 * max(1, np.abs(want).max())
