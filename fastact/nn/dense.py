"""``Dense``: y = activation(x Wᵀ + b), bias and activation fused into the product."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._activations import Activation, as_activation
from fastact._arguments import Array, as_dtype, as_floats, as_size
from fastact._core.product import PackedMatrix, add_column_sums, matmul
from fastact.nn.activation import backward_of, room
from fastact.nn.base import Backward, Layer
from fastact.nn.parameter import Parameter


class Dense(Layer):
    """Fully connected layer, y = activation(x Wᵀ + b), over the last axis of x.

    Parameters
    ----------
    in_features, out_features : int
        I and H.
    activation : str, fastact.Activation or None
        None is linear.
    bias : bool
        False leaves b out.
    dtype : float32 or float64
        Of the parameters and of y; x is converted.
    rng : numpy.random.Generator, int or None
        Source of the initial weights. None: see ``fa.seed``.
    weight_init : float, str or callable, optional
        A name of ``fa.init``, or a function ``f(shape, dtype=, rng=)``; "auto" is ``fa.init.for_activation`` with the
        layer's own, which keeps the variance of a signal through many layers. A number is the same for all, and units
        that begin alike remain so. Without, uniform on ±1/sqrt(I), as in ``torch.nn.Linear``.
    bias_init : float, str or callable, optional
        The same; 0.01 lets every ReLU be active in the beginning. Without, as the weights without.

    Attributes
    ----------
    weight : Parameter, shape (H, I)
    bias : Parameter of shape (H,), or None
    activation : fastact.Activation or None

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.Dense(3, 2, activation="tanh", rng=0)
    >>> x = np.ones((5, 3), np.float32)
    >>> y, backward = layer.forward(x)
    >>> y.shape, backward(np.ones_like(y)).shape, layer.weight.grad.shape
    ((5, 2), (5, 3), (2, 3))
    """

    weight: Parameter
    bias: Parameter | None
    _transient = ("_packed",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str | Activation | None = None,
        bias: bool = True,
        dtype: npt.DTypeLike = np.float32,
        rng: init.Rng = None,
        weight_init: float | str | init.Initializer | None = None,
        bias_init: float | str | init.Initializer | None = None,
    ) -> None:
        self.in_features = as_size(in_features, "in_features")
        self.out_features = as_size(out_features, "out_features")
        function = None if activation is None else as_activation(activation, keeps_shape=True)
        self.activation = None if function is None or function.name == "linear" else function
        self.dtype = as_dtype(dtype)
        rng = init.generator(rng)
        shape = (self.out_features, self.in_features)
        if weight_init is None:
            weight = init.fan_in_uniform(shape, self.in_features, self.dtype, rng)
        elif isinstance(weight_init, str) and weight_init == "auto":
            weight = init.for_activation(shape, self.activation or "linear", self.dtype, rng)
        else:
            weight = init.drawn(weight_init, "weight_init", shape, self.dtype, rng)
        self.add_parameter("weight", weight)
        self._packed: tuple[Parameter, int, PackedMatrix] | None = None
        self.bias = None
        if bias:
            if bias_init is None:
                start = init.fan_in_uniform(shape[:1], self.in_features, self.dtype, rng)
            else:
                start = init.drawn(bias_init, "bias_init", shape[:1], self.dtype, rng)
            self.add_parameter("bias", start)

    def config(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "activation": self.activation,
            "bias": self.bias is not None,
            "dtype": self.dtype.name,
        }

    def _rows(self, x: Any) -> tuple[Array, tuple[int, ...] | None]:
        """x as (rows, I) of this layer's dtype, and the shape of y where that is not (rows, H)."""
        if x.__class__ is not np.ndarray or x.dtype is not self.dtype:
            x = as_floats(x, self.dtype, "x")
        shape = x.shape
        if not shape or shape[-1] != self.in_features:
            raise ValueError(f"x: expected shape (..., {self.in_features}), the layer's in_features, got {shape}")
        if len(shape) == 2:
            return x, None
        return x.reshape(prod(shape[:-1]), self.in_features), (*shape[:-1], self.out_features)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not shape or shape[-1] != self.in_features:
            raise ValueError(f"x: expected shape (..., {self.in_features}), the layer's in_features, got {shape}")
        return (*shape[:-1], self.out_features)

    def __call__(self, x: npt.ArrayLike, /) -> Array:
        """y of shape (..., H) for x of shape (..., I)."""
        rows, shape = self._rows(x)
        y = self._product(rows, None)
        return y if shape is None else y.reshape(shape)

    def _into(self, x: npt.ArrayLike, out: Array | None) -> Array:
        rows, shape = self._rows(x)
        if shape is not None:
            raise ValueError(f"x: expected shape (B, {self.in_features}) in a stream, got {np.shape(x)}")
        return self._product(rows, out)

    def _product(self, rows: Array, out: Array | None) -> Array:
        weight, bias, packed = self.weight, self.bias, self._packed  # read once: another thread may replace the pack
        if packed is None or packed[0] is not weight or packed[1] != weight.version:
            # Saves 5 to 45 % of a call at (784, 512), 30 to 40 % at (64, 32). Not in forward: its weights change soon.
            packed = self._packed = weight, weight.version, PackedMatrix(weight._view.T)
        return matmul(rows, packed[2], out, None if bias is None else bias._view, self.activation)

    def forward(self, x: npt.ArrayLike, /) -> tuple[Array, Backward]:
        """y of shape (..., H) for x of shape (..., I), and its backward."""
        rows, shape = self._rows(x)
        weight, bias, function = self.weight, self.bias, self.activation
        b = None if bias is None else bias._view
        if function is None:
            y, dz_of = matmul(rows, weight._view.T, None, b), None
        elif function.backward_from == "x":
            z = matmul(rows, weight._view.T, None, b)
            y = function(z, out=room(z))
            dz_of = backward_of(function, z, y)
        else:
            y = matmul(rows, weight._view.T, None, b, function)
            dz_of = backward_of(function, None, y)

        y_shape = y.shape  # (rows, H)

        def run(dy: Array, input_gradient: bool) -> Array | None:
            if shape is not None:
                dy = dy.reshape(y_shape)
            dz = dy if dz_of is None else dz_of(dy)
            if weight.trainable:
                matmul(dz.T, rows, weight.grad, accumulate=True)
            if bias is not None and bias.trainable:
                add_column_sums(dz, bias.grad)
            if not input_gradient:
                return None
            dx = matmul(dz, weight._view)
            return dx if shape is None else dx.reshape(*shape[:-1], self.in_features)

        if shape is not None:
            y = y.reshape(shape)
        return y, Backward(run, y.shape, self.dtype)
