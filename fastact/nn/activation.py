"""``Activation``: an activation function as a layer, and how layers keep what its backward needs; ``PReLU``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import _activations, init
from fastact._arguments import DTYPES, Array, as_dtype, as_floats, as_number, as_size
from fastact._core.workspace import empty
from fastact._slopes import prelu
from fastact.nn.base import Backward, Layer
from fastact.nn.parameter import Parameter

LARGE = 1 << 14  # bytes


def backward_of(function: _activations.Activation, z: Array | None, y: Array) -> Callable[[Array], Array]:
    """``dz = f(dy)`` for y = function(z), holding y or, where the derivative does not follow from it, z."""
    backward = function.backward
    if function.backward_from == "x":
        return lambda dy: backward(dy, x=z, out=None if z is None else room(z))
    return lambda dy: backward(dy, y=y, out=room(y))


def room(a: Array) -> Array | None:
    """Where a result of the shape and type of ``a`` goes, if it is large: memory that is handed out again."""
    return empty(a.shape, a.dtype) if a.nbytes >= LARGE else None


class Activation(Layer):
    """An activation function between layers; row functions (softmax) work along the last axis.

    Parameters
    ----------
    function : str or fastact.Activation
        ``"gelu"``, ``fa.gelu``, ``fa.leaky_relu.with_params(alpha=0.2)``. After a ``Dense`` prefer its ``activation=``,
        which is computed while the product is still in cache.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.Activation("relu")
    >>> y, backward = layer.forward(np.array([-1.0, 2.0]))
    >>> y
    array([0., 2.])
    >>> backward(np.array([1.0, 1.0]))
    array([0., 1.])
    """

    def __init__(self, function: str | _activations.Activation) -> None:
        self.function = _activations.as_activation(function)

    def __call__(self, x: npt.ArrayLike, /) -> Array:
        """y of the shape of x; integers are promoted as NumPy's functions do."""
        return self.function(x)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.function.keeps_shape else super().output_shape(shape)

    def _into(self, x: npt.ArrayLike, out: Array | None) -> Array:
        return self.function(x, out=out)

    def forward(self, x: npt.ArrayLike, /) -> tuple[Array, Backward]:
        """y of the shape of x, and its backward."""
        z = np.asarray(x)
        if z.dtype not in DTYPES:
            z = as_floats(x, np.result_type(z.dtype, np.float16), "x")
        y = self.function(z, out=room(z) if self.function.keeps_shape else None)
        dz_of = backward_of(self.function, z, y)
        return y, Backward(lambda dy, input_gradient: dz_of(dy) if input_gradient else None, y.shape, y.dtype)


class PReLU(Layer):
    """A leaky rectifier that learns its slopes (He et al. 2015, arXiv:1502.01852): y = x where x > 0, else weight x.

    Parameters
    ----------
    num_features : int, optional
        N, a slope for each feature of the last axis; 1 is a single slope for all, as in ``torch.nn.PReLU``.
    initial : float
        The slopes in the beginning: 0.25 as in the paper and in PyTorch; 0 in Keras, 0.01 in Flax.
    dtype : float32 or float64
        Of the slopes and of y; x is converted.

    Attributes
    ----------
    weight : Parameter, shape (N,) or (1,)

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.PReLU()
    >>> y, backward = layer.forward(np.array([-4.0, 2.0], np.float32))
    >>> dx = backward(np.ones(2, np.float32))
    >>> y.tolist(), dx.tolist(), layer.weight.grad.tolist()
    ([-1.0, 2.0], [0.25, 1.0], [-4.0])
    """

    weight: Parameter

    def __init__(self, num_features: int = 1, initial: float = 0.25, dtype: npt.DTypeLike = np.float32) -> None:
        self.num_features = as_size(num_features, "num_features")
        self.initial = as_number(initial, "initial", -np.inf)
        self.dtype = as_dtype(dtype)
        self.add_parameter("weight", init.drawn(self.initial, "initial", (self.num_features,), self.dtype, None))

    def _given(self, x: Any) -> Array:
        if x.__class__ is not np.ndarray or x.dtype is not self.dtype:
            x = as_floats(x, self.dtype, "x")
        if self.num_features > 1 and x.shape[-1:] != (self.num_features,):
            raise ValueError(f"x: expected shape (..., {self.num_features}), the layer's num_features, got {x.shape}")
        return x

    def _slopes(self) -> Array:
        weight = self.weight._view
        return weight if self.num_features > 1 else weight.reshape(())

    def __call__(self, x: npt.ArrayLike, /) -> Array:
        """y of the shape of x."""
        return self._into(x, None)

    def _into(self, x: npt.ArrayLike, out: Array | None) -> Array:
        return prelu(self._given(x), out=out, alpha=self._slopes())

    def forward(self, x: npt.ArrayLike, /) -> tuple[Array, Backward]:
        """y of the shape of x, and its backward."""
        given, weight = self._given(x), self.weight
        y = prelu(given, alpha=self._slopes())

        def run(dy: Array, input_gradient: bool) -> Array | None:
            if not weight.trainable:
                return prelu.backward(dy, given, alpha=self._slopes()) if input_gradient else None
            dx, slopes = prelu.gradients(dy, given, alpha=self._slopes())  # type: ignore[attr-defined]
            weight.grad[...] += slopes
            return dx if input_gradient else None

        return y, Backward(run, y.shape, y.dtype)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape
