"""JAX on the CPU, jitted; a recurrent layer is a lax.scan over the steps with the input product before it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..timing import Run
from .base import UNIT_SLOPE, Array, Peer, Weights, layers_of


class JAX(Peer):
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
            "standardize": functools.partial(nn.standardize, axis=axis),
            "swish": nn.silu,
            "square": numpy.square,
            "absolute": numpy.abs,
            "sign": numpy.sign,
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

    def _stack(self, cell: str, ways: int, parameters: Any, x: Any) -> Any:
        for k in range(0, len(parameters), 4 * ways):
            y = self._recurrent(cell, parameters[k : k + 4], x)
            if ways == 2:
                back = self._recurrent(cell, parameters[k + 4 : k + 8], x[::-1])[::-1]
                y = self.jax.numpy.concatenate([y, back], axis=-1)
            x = y
        return x

    def recurrent_inference(self, cell: str, weights: Weights, x: Array) -> Run | None:
        stack = functools.partial(self._stack, cell, layers_of(weights)[1])
        return self._compiled(stack, tuple(weights.values()), x)

    def recurrent_training(self, cell: str, weights: Weights, x: Array, dy: Array) -> Run | None:
        def step(parameters: Any, x: Any, dy: Any) -> Any:
            y, pullback = self.jax.vjp(functools.partial(self._stack, cell, layers_of(weights)[1]), parameters, x)
            (d_ih, d_hh, d_bias, *others), dx = pullback(dy)
            return y, dx, d_ih, d_hh, d_bias, others

        run = self._compiled(step, tuple(weights.values()), x, dy)
        return lambda: run()[:5]

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
