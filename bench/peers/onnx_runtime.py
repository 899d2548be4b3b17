"""ONNX Runtime: its recurrent operators (float32 only), weights in the model, arrays bound beforehand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..timing import Run
from .base import Array, Peer, Weights, layers_of

OPTIONS = {"GRU": {"linear_before_reset": 1}}


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

    def _constants(self, cell: str, weights: Weights, layer: int = 0, ways: int = 1, mark: str = "") -> list[Any]:
        """The operator's own W, R and b, a row for each direction."""
        order = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}[cell]  # i, o, f, c and z, r, h
        suffixes = [f"_l{layer}", f"_l{layer}_reverse"][:ways]

        def ordered(*names: str) -> Array:
            return np.stack(
                [
                    np.concatenate([np.split(weights[n + suffix], len(order))[k] for n in names for k in order])
                    for suffix in suffixes
                ]
            )

        from_array = self.onnx.numpy_helper.from_array
        operands = {"W": ("weight_ih",), "R": ("weight_hh",), "b": ("bias_ih", "bias_hh")}
        return [from_array(ordered(*names), letter + mark) for letter, names in operands.items()]

    def _model(
        self, nodes: list[Any], inputs: Mapping[str, Array], outputs: Mapping[str, Array], constants: list[Any]
    ) -> Any:
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "recurrent",
            [helper.make_tensor_value_info(name, kind, a.shape) for name, a in inputs.items()],
            [helper.make_tensor_value_info(name, kind, a.shape) for name, a in outputs.items()],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return self.runtime.InferenceSession(
            model.SerializeToString(), self.options, providers=["CPUExecutionProvider"]
        )

    def _session(self, cell: str, weights: Weights, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Any:
        """One node of the operator; the names of its inputs after x, and of its outputs, are the operator's own."""
        present = {"W", "R", "b", *inputs, *outputs}

        def slots(*names: str) -> list[str]:
            """The node's: an empty name for what is left out, unless nothing follows."""
            found = [name if name in present else "" for name in names]
            return found[: 1 + max(i for i, name in enumerate(found) if name)]

        node = self.onnx.helper.make_node(
            cell,
            slots("x", "W", "R", "b", "", "initial_h", "initial_c"),
            slots("Y", "Y_h", "Y_c"),
            hidden_size=weights["weight_hh_l0"].shape[1],
            **OPTIONS.get(cell, {}),
        )
        return self._model([node], inputs, outputs, self._constants(cell, weights))

    def _stack(self, cell: str, weights: Weights, x: Array, out: Array) -> Any:
        """A node a layer; between them its directions go beside each other, as an exporter writes it."""
        make, from_array = self.onnx.helper.make_node, self.onnx.numpy_helper.from_array
        layers, ways = layers_of(weights)
        nodes, constants = [], [from_array(np.array([0, 0, -1]), "shape")]
        for k in range(layers):
            constants += self._constants(cell, weights, k, ways, str(k))
            nodes += [
                make(
                    cell,
                    [f"x{k}", f"W{k}", f"R{k}", f"b{k}"],
                    [f"Y{k}"],
                    hidden_size=weights["weight_hh_l0"].shape[1],
                    direction="bidirectional" if ways == 2 else "forward",
                    **OPTIONS.get(cell, {}),
                ),
                make("Transpose", [f"Y{k}"], [f"rows{k}"], perm=[0, 2, 1, 3]),
                make("Reshape", [f"rows{k}", "shape"], [f"x{k + 1}"]),
            ]
        return self._model(nodes, {"x0": x}, {f"x{layers}": out}, constants)

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
        layers, ways = layers_of(weights)
        hidden = weights["weight_hh_l0"].shape[1]
        if layers * ways > 1:
            out = y = np.empty((*x.shape[:2], ways * hidden), np.float32)
            session, names = self._stack(cell, weights, x, out), ("x0", f"x{layers}")
        else:
            out = np.empty((len(x), 1, x.shape[1], hidden), np.float32)
            y, session, names = out[:, 0], self._session(cell, weights, {"x": x}, {"Y": out}), ("x", "Y")
        binding = self._bound(session, {names[0]: x}, {names[1]: out})

        def run() -> Any:
            session.run_with_iobinding(binding)
            return y

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
