"""The other libraries, each used in the fastest public way it has, and only where it is installed.

A peer offers some of the methods of `Peer`; each sets a piece of work up and returns a function that does it once, or
None where the library has no such thing. Arrays written through `out` are shared with the caller. Weights have
PyTorch's names, shapes and gate order (i, f, g, o); sequences are time-major.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastact as fa
from fastact import reference

from . import formulas
from .shapes import LanguageModelShape, MLPShape

Array = NDArray[Any]
Run = Callable[[], Any]
Weights = Mapping[str, Array]


_METHODS = {
    "activations": ("forward", "backward"),
    "calls": ("forward", "backward"),
    "values": (),
    "product": ("product",),
    "normalization": ("normalization",),
    "lstm": ("recurrent_inference", "recurrent_training"),
    "recurrent": ("recurrent_inference", "recurrent_training"),
    "variants": (),
    "rounded": (),
    "streams": ("recurrent_step",),
    "training": ("mlp_step", "mlp_inference", "language_model_step"),
}
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
GATES = ("glu", "swiglu", "geglu", "geglu_tanh", "reglu")
UNIT_SLOPE = float(np.sqrt(np.pi) / 2)  # of erf


class Peer:
    """Base: a library that offers nothing. Subclasses import it in `__init__`; an ImportError means: not here."""

    name = ""

    def __init__(self, threads: int) -> None:
        self.version = ""

    @classmethod
    def offers(cls, section: str) -> bool:
        """Whether it takes part in any row of that section."""
        return any(getattr(cls, method) is not getattr(Peer, method) for method in _METHODS[section])

    def forward(self, activation: str, x: Array, out: Array, axis: int = -1) -> Run | None:
        """The activation of x into out, over rows along the axis."""
        return None

    def backward(self, activation: str, x: Array, y: Array, dy: Array, out: Array, axis: int = -1) -> Run | None:
        """Gradient of the input, from dy and x or y, into out."""
        return None

    def product(self, a: Array, b: Array, out: Array) -> Run | None:
        """A (M, K) times B (K, N) into out (M, N)."""
        return None

    def normalization(self, kind: str, x: Array, gain: Array, bias: Array, dy: Array | None, eps: float) -> Run | None:
        """LayerNorm, RMSNorm or BatchNorm of x (R, N): y, or with dy y and the gradients of x and gain."""
        return None

    def recurrent_inference(self, cell: str, weights: Weights, x: Array) -> Run | None:
        """x (T, B, I) to y (T, B, H) from a zero state; returns y. The cell is "LSTM", "GRU" or "RNN"."""
        return None

    def recurrent_training(self, cell: str, weights: Weights, x: Array, dy: Array) -> Run | None:
        """Forward and backward; returns y and the gradients of x, weight_ih, weight_hh and bias_ih."""
        return None

    def recurrent_step(self, cell: str, weights: Weights, x: Array) -> Run | None:
        """Each call is the next step, for x (B, I); returns h. The first begins from zeros."""
        return None

    def mlp_step(self, shape: MLPShape, weights: Weights, x: Array, y: Array, rate: float) -> Run | None:
        """Forward, cross-entropy, backward, Adam; returns the loss."""
        return None

    def mlp_inference(self, shape: MLPShape, weights: Weights, x: Array) -> Run | None:
        """Class probabilities of x (B, I)."""
        return None

    def language_model_step(
        self, shape: LanguageModelShape, weights: Weights, x: Array, y: Array, rate: float, clip: float
    ) -> Run | None:
        """Embedding, LSTM, dense, cross-entropy, backward, clipping by global norm, Adam; returns the loss."""
        return None


class PyTorch(Peer):
    """Eager PyTorch with oneDNN; operators with `out` where there are such."""

    name = "PyTorch"

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        self.version = torch.__version__

    def forward(self, activation: str, x: Array, out: Array, axis: int = -1) -> Run | None:
        torch, nn, aten = self.torch, self.torch._C._nn, self.torch.ops.aten
        t, o = torch.from_numpy(x), torch.from_numpy(out)
        if activation in GATES:
            return self._gated(activation, t, o, axis)
        axis %= x.ndim
        pieces = t.unflatten(axis, (-1, 2)) if activation == "maxout" else t
        slope = torch.full((1,), 0.25, dtype=t.dtype)
        runs: dict[str, Run] = {
            "sigmoid": lambda: torch.sigmoid(t, out=o),
            "tanh": lambda: torch.tanh(t, out=o),
            "relu": lambda: torch.clamp_min(t, 0, out=o),
            "leaky_relu": lambda: nn.leaky_relu(t, 0.01, out=o),
            "elu": lambda: nn.elu(t, out=o),
            "softplus": lambda: nn.softplus(t, out=o),
            "silu": lambda: nn.silu(t, out=o),
            "gelu": lambda: nn.gelu(t, out=o),
            "gelu_tanh": lambda: nn.gelu(t, approximate="tanh", out=o),
            "hard_tanh": lambda: nn.hardtanh(t, out=o),
            "exponential": lambda: torch.exp(t, out=o),
            "square": lambda: torch.square(t, out=o),
            "relu6": lambda: nn.hardtanh(t, 0, 6, out=o),
            "threshold": lambda: aten.threshold(t, 1, 0, out=o),
            "hard_shrink": lambda: torch.hardshrink(t, 0.5, out=o),
            "soft_shrink": lambda: nn.softshrink(t, 0.5, out=o),
            "hard_sigmoid": lambda: nn.hardsigmoid(t, out=o),
            "hard_swish": lambda: nn.hardswish(t, out=o),
            "selu": lambda: nn.elu(t, SELU_ALPHA, SELU_SCALE, 1, out=o),
            "celu": lambda: nn.elu(t, 1, 1, 1, out=o),
            "log_sigmoid": lambda: nn.log_sigmoid(t, out=o),
            "mish": lambda: aten.mish(t, out=o),
            "softsign": lambda: torch.div(t, torch.abs(t).add_(1), out=o),
            "tanh_shrink": lambda: torch.sub(t, torch.tanh(t), out=o),
            "erf": lambda: torch.erf(t * UNIT_SLOPE, out=o),
            "arctan": lambda: torch.atan(t * (np.pi / 2), out=o).mul_(2 / np.pi),
            "gaussian": lambda: torch.exp(torch.square(t).neg_(), out=o),
            "prelu": lambda: torch.prelu(t, slope),
            "linear": lambda: o.copy_(t),
            "relu_squared": lambda: torch.clamp_min(t, 0, out=o).square_(),
            "scaled_tanh": lambda: torch.tanh(t * (2 / 3), out=o).mul_(1.7159),
            "symmetric_sigmoid": lambda: torch.tanh(t * (1 / 3), out=o).mul_(1.7159),
            "swish": lambda: nn.silu(t, out=o),
            "quick_gelu": lambda: torch.mul(t, torch.sigmoid(t * 1.702), out=o),
            "isru": lambda: torch.mul(t, torch.rsqrt(torch.square(t).add_(1)), out=o),
            "squareplus": lambda: torch.add(t, torch.square(t).add_(4).sqrt_(), out=o).mul_(0.5),
            "softmax": lambda: torch.softmax(t, axis, out=o),
            "log_softmax": lambda: torch.log_softmax(t, axis, out=o),
            "softmin": lambda: torch.softmax(-t, axis, out=o),
            "logsumexp": lambda: torch.logsumexp(t, axis, out=o),
            "maxout": lambda: torch.amax(pieces, axis + 1, out=o),
        }
        return runs.get(activation)

    def _gated(self, activation: str, t: Any, out: Any, axis: int) -> Run:
        torch, functions = self.torch, self.torch.nn.functional
        if activation == "glu":
            return lambda: torch._C._nn.glu(t, axis, out=out)
        halves = t.chunk(2, axis)
        gated, value = halves if activation == "swiglu" else halves[::-1]
        gate = {
            "swiglu": functions.silu,
            "geglu": functions.gelu,
            "geglu_tanh": functools.partial(functions.gelu, approximate="tanh"),
            "reglu": functions.relu,
        }[activation]
        return lambda: torch.mul(gate(gated), value, out=out)

    def backward(self, activation: str, x: Array, y: Array, dy: Array, out: Array, axis: int = -1) -> Run | None:
        torch, aten = self.torch, self.torch.ops.aten
        tx, ty, td, o = (torch.from_numpy(a) for a in (x, y, dy, out))
        buffer = aten.log_sigmoid_forward(tx)[1] if activation == "log_sigmoid" else None
        runs: dict[str, Run] = {
            "sigmoid": lambda: aten.sigmoid_backward.grad_input(td, ty, grad_input=o),
            "tanh": lambda: aten.tanh_backward.grad_input(td, ty, grad_input=o),
            "relu": lambda: aten.threshold_backward.grad_input(td, tx, 0, grad_input=o),
            "leaky_relu": lambda: aten.leaky_relu_backward.grad_input(td, tx, 0.01, False, grad_input=o),
            "elu": lambda: aten.elu_backward.grad_input(td, 1, 1, 1, False, tx, grad_input=o),
            "softplus": lambda: aten.softplus_backward.grad_input(td, tx, 1, 20, grad_input=o),
            "silu": lambda: aten.silu_backward.grad_input(td, tx, grad_input=o),
            "gelu": lambda: aten.gelu_backward.grad_input(td, tx, grad_input=o),
            "gelu_tanh": lambda: aten.gelu_backward.grad_input(td, tx, approximate="tanh", grad_input=o),
            "hard_tanh": lambda: aten.hardtanh_backward.grad_input(td, tx, -1, 1, grad_input=o),
            "exponential": lambda: torch.mul(td, ty, out=o),
            "relu6": lambda: aten.hardtanh_backward.grad_input(td, tx, 0, 6, grad_input=o),
            "threshold": lambda: aten.threshold_backward.grad_input(td, tx, 1, grad_input=o),
            "hard_shrink": lambda: aten.hardshrink_backward.grad_input(td, tx, 0.5, grad_input=o),
            "soft_shrink": lambda: aten.softshrink_backward.grad_input(td, tx, 0.5, grad_input=o),
            "hard_sigmoid": lambda: aten.hardsigmoid_backward.grad_input(td, tx, grad_input=o),
            "hard_swish": lambda: aten.hardswish_backward(td, tx),
            "selu": lambda: aten.elu_backward.grad_input(td, SELU_ALPHA, SELU_SCALE, 1, False, tx, grad_input=o),
            "celu": lambda: aten.elu_backward.grad_input(td, 1, 1, 1, False, tx, grad_input=o),
            "log_sigmoid": lambda: aten.log_sigmoid_backward.grad_input(td, tx, buffer, grad_input=o),
            "mish": lambda: aten.mish_backward(td, tx),
            "swish": lambda: aten.silu_backward.grad_input(td, tx, grad_input=o),
            "prelu": lambda: aten.leaky_relu_backward.grad_input(td, tx, 0.25, False, grad_input=o),
            "softmax": lambda: torch._softmax_backward_data(td, ty, axis, ty.dtype, grad_input=o),
            "log_softmax": lambda: torch._log_softmax_backward_data(td, ty, axis, ty.dtype, out=o),
            "glu": lambda: aten.glu_backward.grad_input(td, tx, axis, grad_input=o),
        }
        return runs.get(activation)

    def product(self, a: Array, b: Array, out: Array) -> Run | None:
        ta, tb, to = (self.torch.from_numpy(m) for m in (a, b, out))
        return lambda: self.torch.mm(ta, tb, out=to)

    def normalization(self, kind: str, x: Array, gain: Array, bias: Array, dy: Array | None, eps: float) -> Run | None:
        torch = self.torch
        make = torch.nn.BatchNorm1d if kind == "BatchNorm" else getattr(torch.nn, kind)
        layer = make(x.shape[1], eps=eps, dtype=self._dtype(x))
        weights = {"weight": gain} if kind == "RMSNorm" else {"weight": gain, "bias": bias}
        layer.load_state_dict(self._tensors(weights), strict=False)
        if dy is None:
            layer.eval()
            given = torch.from_numpy(x)

            def infer() -> Any:
                with torch.inference_mode():
                    return layer(given)

            return infer
        tx, tdy = torch.from_numpy(x.copy()).requires_grad_(), torch.from_numpy(dy)

        def run() -> Any:
            tx.grad = None
            layer.zero_grad()
            y = layer(tx)
            y.backward(tdy)
            return y, tx.grad, layer.weight.grad

        return run

    def _recurrent(self, kind: str, weights: Weights) -> Any:
        weight = weights["weight_ih_l0"]
        make = getattr(self.torch.nn, kind)
        layer = make(weight.shape[1], weights["weight_hh_l0"].shape[1], dtype=self._dtype(weight))
        names = {name: name.removesuffix("_l0") if kind.endswith("Cell") else name for name in weights}
        layer.load_state_dict({names[name]: value for name, value in self._tensors(weights).items()})
        return layer

    def _dtype(self, array: Array) -> Any:
        return self.torch.from_numpy(array[:0]).dtype

    def _tensors(self, weights: Weights) -> dict[str, Any]:
        return {name: self.torch.from_numpy(value.copy()) for name, value in weights.items()}

    def recurrent_inference(self, cell: str, weights: Weights, x: Array) -> Run | None:
        torch, layer, tx = self.torch, self._recurrent(cell, weights), self.torch.from_numpy(x)

        def run() -> Any:
            with torch.inference_mode():
                return layer(tx)[0]

        return run

    def recurrent_step(self, cell: str, weights: Weights, x: Array) -> Run | None:
        torch, layer, tx = self.torch, self._recurrent(f"{cell}Cell", weights), self.torch.from_numpy(x)
        state = None

        def run() -> Any:
            nonlocal state
            with torch.inference_mode():
                state = layer(tx, state)
            return state[0] if cell == "LSTM" else state

        return run

    def recurrent_training(self, cell: str, weights: Weights, x: Array, dy: Array) -> Run | None:
        torch, layer = self.torch, self._recurrent(cell, weights)
        tx, td = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)
        wanted = [tx, layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0]

        def run() -> Any:
            y, _ = layer(tx)
            return y, *torch.autograd.grad(y, wanted, td)[:4]

        return run

    def _mlp(self, shape: MLPShape, weights: Weights, *last: Any) -> Any:
        """Linear layers with ReLU between them, and what comes last."""
        torch, layers = self.torch, []
        for a, b in zip(shape.widths, shape.widths[1:], strict=False):
            layers += [torch.nn.Linear(a, b, dtype=self._dtype(weights["0.weight"])), torch.nn.ReLU()]
        model = torch.nn.Sequential(*layers[:-1], *last)
        named = {f"{2 * int(name.split('.')[0])}.{name.split('.')[1]}": value for name, value in weights.items()}
        model.load_state_dict(self._tensors(named))
        return model

    def mlp_inference(self, shape: MLPShape, weights: Weights, x: Array) -> Run | None:
        torch, tx = self.torch, self.torch.from_numpy(x)
        model = self._mlp(shape, weights, torch.nn.Softmax(-1))

        def run() -> Any:
            with torch.inference_mode():
                return model(tx)

        return run

    def mlp_step(self, shape: MLPShape, weights: Weights, x: Array, y: Array, rate: float) -> Run | None:
        torch = self.torch
        model = self._mlp(shape, weights)
        optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
        tx, ty = torch.from_numpy(x), torch.from_numpy(y)

        def run() -> Any:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(tx), ty)
            loss.backward()
            optimizer.step()
            return loss

        return run

    def language_model_step(
        self, shape: LanguageModelShape, weights: Weights, x: Array, y: Array, rate: float, clip: float
    ) -> Run | None:
        torch, dtype = self.torch, self._dtype(weights["2.weight"])
        model = torch.nn.ModuleList(
            [
                torch.nn.Embedding(shape.V, shape.E, dtype=dtype),
                torch.nn.LSTM(shape.E, shape.H, dtype=dtype),
                torch.nn.Linear(shape.H, shape.V, dtype=dtype),
            ]
        )
        model.load_state_dict(self._tensors(weights))
        embedding, lstm, dense = model
        optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
        tx, ty = (torch.from_numpy(np.ascontiguousarray(a.T)) for a in (x, y))
        parameters = list(model.parameters())

        def run() -> Any:
            optimizer.zero_grad()
            hidden, _ = lstm(embedding(tx))
            loss = torch.nn.functional.cross_entropy(dense(hidden).view(-1, shape.V), ty.view(-1))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            return loss

        return run


class ONNXRuntime(Peer):
    """ONNX Runtime on its recurrent operators (float32 only), weights in the model, arrays bound beforehand."""

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


class JAX(Peer):
    """JAX on the CPU, jitted; a recurrent layer is a lax.scan over the steps with the input product before it."""

    name = "JAX"

    def __init__(self, threads: int) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax

        jax.config.update("jax_enable_x64", True)
        self.jax = jax
        self.version = jax.__version__

    def _compiled(self, function: Callable[..., Any], *arguments: Any) -> Run:
        """Compile, put the arguments on the device, and wait for each result."""
        on_device = self.jax.device_put(arguments)
        compiled = self.jax.jit(function).lower(*on_device).compile()
        return lambda: self.jax.block_until_ready(compiled(*on_device))

    def _function(self, activation: str, axis: int) -> Callable[[Any], Any] | None:
        nn, numpy = self.jax.nn, self.jax.numpy
        functions = {
            "sigmoid": nn.sigmoid,
            "tanh": numpy.tanh,
            "relu": nn.relu,
            "leaky_relu": nn.leaky_relu,
            "elu": nn.elu,
            "softplus": nn.softplus,
            "silu": nn.silu,
            "gelu": lambda v: nn.gelu(v, approximate=False),
            "gelu_tanh": lambda v: nn.gelu(v, approximate=True),
            "hard_tanh": nn.hard_tanh,
            "exponential": numpy.exp,
            "relu6": nn.relu6,
            "hard_sigmoid": nn.hard_sigmoid,
            "hard_swish": nn.hard_swish,
            "selu": nn.selu,
            "celu": nn.celu,
            "log_sigmoid": nn.log_sigmoid,
            "mish": nn.mish,
            "softsign": nn.soft_sign,
            "squareplus": nn.squareplus,
            "sparse_plus": nn.sparse_plus,
            "sparse_sigmoid": nn.sparse_sigmoid,
            "softmax": functools.partial(nn.softmax, axis=axis),
            "log_softmax": functools.partial(nn.log_softmax, axis=axis),
            "logsumexp": functools.partial(nn.logsumexp, axis=axis),
            "swish": nn.silu,
            "square": numpy.square,
            "relu_squared": lambda v: numpy.square(nn.relu(v)),
            "arctan": lambda v: 2 / np.pi * numpy.arctan(np.pi / 2 * v),
            "erf": lambda v: self.jax.lax.erf(UNIT_SLOPE * v),
            "gaussian": lambda v: numpy.exp(-v * v),
            "tanh_shrink": lambda v: v - numpy.tanh(v),
            "scaled_tanh": lambda v: 1.7159 * numpy.tanh(2 / 3 * v),
            "symmetric_sigmoid": lambda v: 1.7159 * numpy.tanh(v / 3),
            "quick_gelu": lambda v: v * nn.sigmoid(1.702 * v),
            "isru": lambda v: v / numpy.sqrt(1 + v * v),
            "dish": lambda v: 0.5 * v * (v / numpy.sqrt(1 + v * v) + 1),
            "glu": functools.partial(nn.glu, axis=axis),
        }
        return functions.get(activation)

    def forward(self, activation: str, x: Array, out: Array, axis: int = -1) -> Run | None:
        function = self._function(activation, axis)
        return None if function is None else self._compiled(function, x)

    def backward(self, activation: str, x: Array, y: Array, dy: Array, out: Array, axis: int = -1) -> Run | None:
        function = self._function(activation, axis)
        if function is None:
            return None
        return self._compiled(lambda x, dy: self.jax.vjp(function, x)[1](dy)[0], x, dy)

    def product(self, a: Array, b: Array, out: Array) -> Run | None:
        return self._compiled(lambda left, right: left @ right, a, b)

    def _step(self, cell: str, parameters: Any, carry: Any, z: Any) -> Any:
        """The state after a step whose input product, with bias_ih, is z."""
        jax, numpy = self.jax, self.jax.numpy
        _, weight_hh, _, bias_hh = parameters
        h = carry[0]
        product = h @ weight_hh.T + bias_hh
        if cell == "RNN":
            return (numpy.tanh(z + product),)
        if cell == "GRU":
            (r, u, n), (hr, hu, hn) = numpy.split(z, 3, axis=1), numpy.split(product, 3, axis=1)
            n = numpy.tanh(n + jax.nn.sigmoid(r + hr) * hn)
            u = jax.nn.sigmoid(u + hu)
            return ((1 - u) * n + u * h,)
        i, f, g, o = numpy.split(z + product, 4, axis=1)
        c = jax.nn.sigmoid(f) * carry[1] + jax.nn.sigmoid(i) * numpy.tanh(g)
        return jax.nn.sigmoid(o) * numpy.tanh(c), c

    def _zeros(self, cell: str, parameters: Any, rows: int, dtype: Any) -> Any:
        return (self.jax.numpy.zeros((rows, parameters[1].shape[1]), dtype),) * (2 if cell == "LSTM" else 1)

    def _recurrent(self, cell: str, parameters: Any, x: Any) -> Any:
        def step(carry: Any, z: Any) -> Any:
            carry = self._step(cell, parameters, carry, z)
            return carry, carry[0]

        zeros = self._zeros(cell, parameters, x.shape[1], x.dtype)
        return self.jax.lax.scan(step, zeros, x @ parameters[0].T + parameters[2])[1]

    def recurrent_inference(self, cell: str, weights: Weights, x: Array) -> Run | None:
        return self._compiled(functools.partial(self._recurrent, cell), tuple(weights.values()), x)

    def recurrent_training(self, cell: str, weights: Weights, x: Array, dy: Array) -> Run | None:
        def step(parameters: Any, x: Any, dy: Any) -> Any:
            y, pullback = self.jax.vjp(functools.partial(self._recurrent, cell), parameters, x)
            (d_ih, d_hh, d_bias, _), dx = pullback(dy)
            return y, dx, d_ih, d_hh, d_bias

        return self._compiled(step, tuple(weights.values()), x, dy)

    def recurrent_step(self, cell: str, weights: Weights, x: Array) -> Run | None:
        jax = self.jax
        parameters, tx = jax.device_put((tuple(weights.values()), x))
        carry = jax.device_put(self._zeros(cell, parameters, len(x), x.dtype))

        def step(carry: Any, x: Any) -> Any:
            return self._step(cell, parameters, carry, x @ parameters[0].T + parameters[2])

        compiled = jax.jit(step).lower(carry, tx).compile()

        def run() -> Any:
            nonlocal carry
            carry = jax.block_until_ready(compiled(carry, tx))
            return carry[0]

        return run


class SciPy(Peer):
    """SciPy's special functions."""

    name = "SciPy"

    def __init__(self, threads: int) -> None:
        import scipy
        import scipy.special

        self.special = scipy.special
        self.version = scipy.__version__

    def forward(self, activation: str, x: Array, out: Array, axis: int = -1) -> Run | None:
        special = self.special
        work = x.dtype.type(np.sqrt(0.5))

        def gelu() -> Array:
            np.multiply(x, work, out=out)
            special.erf(out, out=out)
            np.add(out, 1, out=out)
            np.multiply(out, x, out=out)
            return np.multiply(out, x.dtype.type(0.5), out=out)

        runs: dict[str, Run] = {
            "sigmoid": lambda: special.expit(x, out=out),
            "gelu": gelu,
            "erf": lambda: special.erf(np.multiply(x, x.dtype.type(UNIT_SLOPE), out=out), out=out),
            "log_sigmoid": lambda: special.log_expit(x, out=out),
            "softmax": lambda: special.softmax(x, axis=axis),
            "log_softmax": lambda: special.log_softmax(x, axis=axis),
            "logsumexp": lambda: special.logsumexp(x, axis=axis),
        }
        return runs.get(activation)

    def product(self, a: Array, b: Array, out: Array) -> Run | None:
        from scipy.linalg import blas

        gemm = blas.sgemm if a.dtype == np.float32 else blas.dgemm

        def transposed(m: Array) -> tuple[Array, int]:
            """SciPy's BLAS wants Fortran order: hand over the transpose and a flag instead of copying."""
            return (m.T, 0) if m.T.flags.f_contiguous else (m, 1)

        (left, left_flag), (right, right_flag) = transposed(b), transposed(a)  # (A B)^T = B^T A^T
        target = out.T
        return lambda: gemm(1.0, left, right, 0.0, target, left_flag, right_flag, overwrite_c=1).T


class Numexpr(Peer):
    """numexpr: the whole formula, the catalogue's own, in one pass over blocks, on threads."""

    name = "numexpr"

    def __init__(self, threads: int) -> None:
        import numexpr

        numexpr.set_num_threads(threads)
        self.numexpr = numexpr
        self.version = numexpr.__version__

    def _run(self, formula: str, activation: str, arrays: dict[str, Array], out: Array) -> Run | None:
        parameters = dict(fa.activations[activation].parameters)
        translated = formulas.translated(formula, parameters, out.dtype, "dy * " if "dy" in arrays else "")
        if translated is None:
            return None
        expression, constants = translated
        names = arrays | constants
        return lambda: self.numexpr.evaluate(expression, local_dict=names, global_dict={}, out=out)

    def forward(self, activation: str, x: Array, out: Array, axis: int = -1) -> Run | None:
        if fa.activations[activation].rowwise:
            return None
        return self._run(fa.activations[activation].formula, activation, {"x": x}, out)

    def backward(self, activation: str, x: Array, y: Array, dy: Array, out: Array, axis: int = -1) -> Run | None:
        if fa.activations[activation].rowwise:
            return None
        return self._run(reference.derivatives[activation][0], activation, {"x": x, "y": y, "dy": dy}, out)


class ScikitLearn(Peer):
    """scikit-learn's MLPClassifier: one partial_fit call on one batch is one step, predict_proba is inference."""

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


PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (PyTorch, ONNXRuntime, JAX, SciPy, Numexpr, ScikitLearn)}


def offered(peers: Sequence[Peer], method: str, *arguments: Any) -> dict[str, Run | None]:
    """By name, what each peer's method returns for these arguments; setting up may fail, which shows when it is run."""

    def attempt(peer: Peer) -> Run | None:
        try:
            run: Run | None = getattr(peer, method)(*arguments)
        except Exception as error:
            failure = error

            def run() -> Any:
                raise failure

        return run

    return {peer.name: attempt(peer) for peer in peers}


def installed(threads: int, names: tuple[str, ...]) -> Iterator[Peer]:
    """Those of the named peers that can be imported here, set to so many threads."""
    for name in names:
        try:
            yield PEERS[name](threads)
        except ImportError:
            continue
