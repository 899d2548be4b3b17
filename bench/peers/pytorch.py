"""PyTorch: eager, with oneDNN; operators with `out` where there are such, and its fused Adam."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..shapes import LanguageModelShape, MLPShape
from ..timing import Run
from .base import UNIT_SLOPE, Array, Learner, Peer, Weights, layers_of

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
GATES = ("glu", "swiglu", "geglu", "geglu_tanh", "reglu")


class PyTorch(Peer):
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
            "absolute": lambda: torch.abs(t, out=o),
            "sign": lambda: torch.sign(t, out=o),
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
            "normalize": lambda: torch.nn.functional.normalize(t, dim=axis, out=o),
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

    def loss(self, name: str, prediction: Array, target: Array, gradient: bool) -> Run | None:
        torch, functions = self.torch, self.torch.nn.functional
        t, p = torch.from_numpy(target), torch.from_numpy(prediction.copy())
        if name == "ctc":
            p = p.transpose(0, 1).contiguous()  # its order: time first
        steps, labels = (torch.full((len(t),), count) for count in (len(p), t.shape[-1]))
        losses: dict[str, Run] = {
            "cross_entropy": lambda: functions.cross_entropy(p, t),
            "mse": lambda: functions.mse_loss(p, t),
            "mae": lambda: functions.l1_loss(p, t),
            "huber": lambda: functions.huber_loss(p, t),
            "smooth_l1": lambda: functions.smooth_l1_loss(p, t),
            "binary_cross_entropy": lambda: functions.binary_cross_entropy(p, t),
            "binary_cross_entropy_with_logits": lambda: functions.binary_cross_entropy_with_logits(p, t),
            "ctc": lambda: functions.ctc_loss(functions.log_softmax(p, 2), t, steps, labels),
        }
        loss = losses[name]
        p.requires_grad_(gradient)

        def alone() -> Any:
            with torch.inference_mode():
                return [loss()]

        def both() -> Any:
            value = loss()
            (dp,) = torch.autograd.grad(value, p)
            return value, dp.transpose(0, 1) if name == "ctc" else dp

        return both if gradient else alone

    def dot_product_attention(self, q: Array, k: Array, v: Array, dy: Array | None, causal: bool) -> Run | None:
        torch, attend = self.torch, self.torch.nn.functional.scaled_dot_product_attention
        operands = [torch.from_numpy(a.copy()).requires_grad_(dy is not None) for a in (q, k, v)]
        if dy is None:

            def infer() -> Any:
                with torch.inference_mode():
                    return attend(*operands, is_causal=causal)

            return infer
        d = torch.from_numpy(dy)

        def run() -> Any:
            y = attend(*operands, is_causal=causal)
            return y, *torch.autograd.grad(y, operands, d)

        return run

    def attention_layer(self, weights: Weights, heads: int, x: Array, dy: Array | None) -> Run | None:
        torch = self.torch
        layer = torch.nn.MultiheadAttention(x.shape[-1], heads, batch_first=True, dtype=self._dtype(x))
        layer.load_state_dict(self._tensors(weights))
        tx = torch.from_numpy(x.copy())
        if dy is None:
            layer.eval()

            def infer() -> Any:
                with torch.inference_mode():
                    return layer(tx, tx, tx, need_weights=False)[0]

            return infer
        d, named = torch.from_numpy(dy), dict(layer.named_parameters())
        wanted = [tx.requires_grad_(), *(named[name] for name in weights)]

        def run() -> Any:
            y = layer(tx, tx, tx, need_weights=False)[0]
            return y, *torch.autograd.grad(y, wanted, d)

        return run

    def _recurrent(self, kind: str, weights: Weights) -> Any:
        weight = weights["weight_ih_l0"]
        make = getattr(self.torch.nn, kind)
        layers, ways = layers_of(weights)
        stack = {} if kind.endswith("Cell") else {"num_layers": layers, "bidirectional": ways == 2}
        layer = make(weight.shape[1], weights["weight_hh_l0"].shape[1], dtype=self._dtype(weight), **stack)
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
        wanted = [tx, *(getattr(layer, name) for name in weights)]

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
        learner = self.mlp(shape, weights, rate)
        return functools.partial(learner.step, *learner.prepare(x, y))

    def mlp(self, shape: MLPShape, weights: Weights, rate: float) -> Learner:
        torch, model = self.torch, self._mlp(shape, weights)
        optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        def copies() -> dict[str, Array]:
            return dict(zip(weights, self._copies(model).values(), strict=True))

        return Learner(lambda x, y: (torch.from_numpy(x), torch.from_numpy(y)), step, copies)

    def _copies(self, model: Any) -> dict[str, Array]:
        return {name: value.numpy().copy() for name, value in model.state_dict().items()}

    def language_model_step(
        self, shape: LanguageModelShape, weights: Weights, x: Array, y: Array, rate: float, clip: float
    ) -> Run | None:
        learner = self.language_model(shape, weights, rate, clip, (0.9, 0.999))
        return functools.partial(learner.step, *learner.prepare(x, y, True, rate))

    def language_model(
        self, shape: LanguageModelShape, weights: Weights, rate: float, clip: float, betas: tuple[float, float]
    ) -> Learner:
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
        optimizer = torch.optim.Adam(model.parameters(), rate, betas, fused=True)
        parameters = list(model.parameters())
        state: Any = None

        def prepare(x: Array, y: Array, first: bool, rate: float) -> tuple[Any, ...]:
            return *(torch.from_numpy(np.ascontiguousarray(a.T)) for a in (x, y)), first, rate

        def step(x: Any, y: Any, first: bool, rate: float) -> Any:
            nonlocal state
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            hidden, final = lstm(embedding(x), None if first else state)
            loss = torch.nn.functional.cross_entropy(dense(hidden).view(-1, shape.V), y.view(-1))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            state = tuple(part.detach() for part in final)
            return loss

        return Learner(prepare, step, lambda: self._copies(model))
