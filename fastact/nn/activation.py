"""``Activation``: an activation function as a layer, and how layers keep what its backward needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fastact import _activations
from fastact._arguments import DTYPES, Array, as_floats
from fastact._core.workspace import empty
from fastact.nn.base import Backward, Layer

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

    def _into(self, x: npt.ArrayLike, out: Array | None) -> Array:
        return self.function(x, out=out)

    def forward(self, x: npt.ArrayLike, /) -> tuple[Array, Backward]:  # type: ignore[override]
        """y of the shape of x, and its backward."""
        z = np.asarray(x)
        if z.dtype not in DTYPES:
            z = as_floats(x, np.result_type(z.dtype, np.float16), "x")
        y = self.function(z, out=room(z) if self.function.keeps_shape else None)
        dz_of = backward_of(self.function, z, y)
        return y, Backward(lambda dy, input_gradient: dz_of(dy) if input_gradient else None, y.shape, y.dtype)
