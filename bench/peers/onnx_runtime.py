"""ONNX Runtime: its recurrent operators (float32 only), weights in the model, arrays bound beforehand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..timing import Run
from .base import Array, Peer, Weights


class ONNXRuntime(Peer):
    name = "ONNX Runtime"

    def __init__(self, threads: int) -> None:
        import onnx
        import onnxruntime

        self.onnx, self.runtime = onnx, onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.version = onnxruntime.__version__

    def _session(self, cell: str, weights: Weights, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Any:
        """One node of the operator; the names of its inputs after x, and of its outputs, are the operator's own."""
        helper, from_array, kind = self.onnx.helper, self.onnx.numpy_helper.from_array, self.onnx.TensorProto.FLOAT
        order = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}[cell]  # i, o, f, c and z, r, h

        def ordered(a: Array) -> Array:
            return np.concatenate([np.split(a, len(order))[k] for k in order])

        constants = [
            from_array(ordered(weights["weight_ih_l0"])[None], "W"),
            from_array(ordered(weights["weight_hh_l0"])[None], "R"),
            from_array(np.concatenate([ordered(weights["bias_ih_l0"]), ordered(weights["bias_hh_l0"])])[None], "b"),
        ]
        options = {"linear_before_reset": 1} if cell == "GRU" else {}
        present = {"W", "R", "b", *inputs, *outputs}

        def slots(*names: str) -> list[str]:
            """The node's: an empty name for what is left out, unless nothing follows."""
            found = [name if name in present else "" for name in names]
            return found[: 1 + max(i for i, name in enumerate(found) if name)]

        node = helper.make_node(
            cell,
            slots("x", "W", "R", "b", "", "initial_h", "initial_c"),
            slots("Y", "Y_h", "Y_c"),
            hidden_size=weights["weight_hh_l0"].shape[1],
            **options,
        )
        graph = helper.make_graph(
            [node],
            "recurrent",
            [helper.make_tensor_value_info(name, kind, a.shape) for name, a in inputs.items()],
            [helper.make_tensor_value_info(name, kind, a.shape) for name, a in outputs.items()],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return self.runtime.InferenceSession(
            model.SerializeToString(), self.options, providers=["CPUExecutionProvider"]
        )

    def _bound(self, session: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Any:
        binding = session.io_binding()
        value = self.runtime.OrtValue.ortvalue_from_numpy  # shares the array's memory
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, value(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, value(array))
        return binding

    def recurrent_inference(self, cell: str, weights: Weights, x: Array) -> Run | None:
        if x.dtype != np.float32:
            return None
        out = np.empty((len(x), 1, x.shape[1], weights["weight_hh_l0"].shape[1]), np.float32)
        session = self._session(cell, weights, {"x": x}, {"Y": out})
        binding = self._bound(session, {"x": x}, {"Y": out})

        def run() -> Any:
            session.run_with_iobinding(binding)
            return out[:, 0]

        return run

    def recurrent_step(self, cell: str, weights: Weights, x: Array) -> Run | None:
        if x.dtype != np.float32:
            return None
        letters = "hc" if cell == "LSTM" else "h"
        shape = (1, len(x), weights["weight_hh_l0"].shape[1])
        before, after = ({k: np.zeros(shape, np.float32) for k in letters} for _ in range(2))

        def ends(source: Mapping[str, Array], target: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
            inputs = {"x": x[None]} | {f"initial_{k}": source[k] for k in letters}
            return inputs, {f"Y_{k}": target[k] for k in letters}

        session = self._session(cell, weights, *ends(before, after))
        there, back = self._bound(session, *ends(before, after)), self._bound(session, *ends(after, before))
        turns = itertools.cycle([(there, after["h"][0]), (back, before["h"][0])])

        def run() -> Any:
            binding, h = next(turns)
            session.run_with_iobinding(binding)
            return h

        return run
