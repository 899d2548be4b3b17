"""``Flatten`` and ``Reshape``: the same numbers in another shape."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact._arguments import Array, as_real, as_size
from fastact.nn.base import Backward, Layer


class Reshape(Layer):
    """x of shape (B, ...) as (B, *shape).

    Parameters
    ----------
    shape : tuple of int
        Without the batch axis; one size may be -1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> fa.nn.Reshape((2, -1))(np.ones((5, 6))).shape
    (5, 2, 3)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        if not isinstance(shape, (tuple, list)):
            raise TypeError(f"shape: expected a tuple of sizes without the batch axis, got {shape!r}")
        self.shape = tuple(as_size(n, f"shape[{k}]", least=-1) for k, n in enumerate(shape))
        if self.shape.count(-1) > 1:
            raise ValueError(f"shape: expected -1 once at most, got {shape!r}")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not shape:
            raise ValueError("x: expected at least one axis (rows first), got a scalar")
        size, known = prod(shape[1:]), prod(n for n in self.shape if n >= 0)
        wanted = tuple(size // max(known, 1) if n < 0 else n for n in self.shape)
        if prod(wanted) != size:
            raise ValueError(f"x: expected rows of {known} numbers for shape {self.shape}, got {shape}")
        return (shape[0], *wanted)

    def __call__(self, x: npt.ArrayLike, /) -> Array:
        """The same numbers, a view where that can be."""
        array = as_real(x, "x")
        return array.reshape(self.output_shape(array.shape))

    def _into(self, x: npt.ArrayLike, out: Array | None) -> Array:
        y = self(x)
        if out is None:
            return y.copy()
        np.copyto(out, y)
        return out

    def forward(self, x: npt.ArrayLike, /) -> tuple[Array, Backward]:
        """The same numbers, and the way back."""
        array = as_real(x, "x")
        y = array.reshape(self.output_shape(array.shape))
        shape = array.shape
        return y, Backward(lambda dy, wanted: dy.reshape(shape) if wanted else None, y.shape, y.dtype)


class Flatten(Reshape):
    """x of shape (B, ...) as (B, N): all axes but the first become one, as ``torch.nn.Flatten`` does.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> fa.nn.Flatten()(np.ones((5, 2, 3))).shape
    (5, 6)
    """

    def __init__(self) -> None:
        super().__init__((-1,))

    def config(self) -> dict[str, Any]:
        return {}
