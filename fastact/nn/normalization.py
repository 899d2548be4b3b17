"""Normalisation over the last axis: ``LayerNorm`` and ``RMSNorm`` of each row, ``BatchNorm`` of each feature."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._arguments import Array, as_dtype, as_floats, as_number, as_size
from fastact._core.norm import batch_backward, batch_forward, rows_backward, rows_forward
from fastact._core.workspace import empty
from fastact.nn.base import Backward, Layer
from fastact.nn.parameter import Buffer, Parameter

Maybe = Array | None


class Normalization(Layer):
    """What all of them share: features on the last axis, gain and bias, any leading axes."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, num_features: int, eps: float, weight: bool, bias: bool, dtype: npt.DTypeLike) -> None:
        self.num_features = as_size(num_features, "num_features")
        self.eps = as_number(eps, "eps", 0.0)
        self.dtype = as_dtype(dtype)
        self.weight = self.bias = None
        if weight:
            self.add_parameter("weight", init.drawn(1.0, "weight", (self.num_features,), self.dtype, None))
        if bias:
            self.add_parameter("bias", init.drawn(0.0, "bias", (self.num_features,), self.dtype, None))

    def _rows(self, x: Any) -> tuple[Array, tuple[int, ...]]:
        """x as dense (R, N) of this layer's dtype, and its shape."""
        if x.__class__ is not np.ndarray or x.dtype is not self.dtype:
            x = as_floats(x, self.dtype, "x")
        shape = x.shape
        if not shape or shape[-1] != self.num_features:
            raise ValueError(f"x: expected shape (..., {self.num_features}), the layer's num_features, got {shape}")
        if len(shape) != 2:
            x = x.reshape(prod(shape[:-1]), self.num_features)
        return np.ascontiguousarray(x), shape

    def _room(self, out: Array | None, shape: tuple[int, ...]) -> Array:
        """Where y goes, as dense (R, N)."""
        y = empty(shape, self.dtype) if out is None else out
        if y.shape != shape or y.dtype != self.dtype or not y.flags.c_contiguous:
            raise ValueError(
                f"out: expected a C-contiguous {self.dtype} array of shape {shape}, got {y.dtype}, {y.shape}"
            )
        return y

    def __call__(self, x: npt.ArrayLike, /) -> Array:
        """y of the shape of x (..., N)."""
        return self._into(x, None)

    def _values(self) -> tuple[Array | None, Array | None]:
        """Gain and bias as the kernels take them."""
        weight, bias = self.weight, self.bias
        return None if weight is None else weight._view, None if bias is None else bias._view

    def _backward(self, rows: Array, shape: tuple[int, ...], kernel: Callable[..., None]) -> Backward:
        """By ``kernel(dy, weight, dx, dweight, dbias)``: dx and the gradients that are not wanted are None."""
        weight, bias = self.weight, self.bias

        def run(dy: Array, input_gradient: bool) -> Array | None:
            dx = empty(rows.shape, rows.dtype) if input_gradient else None
            kernel(
                np.ascontiguousarray(dy).reshape(rows.shape),
                None if weight is None else weight._view,
                dx,
                None if weight is None or not weight.trainable else weight.grad,
                None if bias is None or not bias.trainable else bias.grad,
            )
            return None if dx is None else dx.reshape(shape)

        return Backward(run, shape, self.dtype)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not shape or shape[-1] != self.num_features:
            raise ValueError(f"x: expected shape (..., {self.num_features}), the layer's num_features, got {shape}")
        return shape


class _RowNorm(Normalization):
    """Each row by its own statistics."""

    _centred: bool

    def _into(self, x: npt.ArrayLike, out: Array | None) -> Array:
        rows, shape = self._rows(x)
        y = self._room(out, shape)
        rows_forward(self._centred, rows, *self._values(), y.reshape(rows.shape), None, self.eps)
        return y

    def forward(self, x: npt.ArrayLike, /) -> tuple[Array, Backward]:
        """y of the shape of x (..., N), and its backward. x must not be written before that has run."""
        rows, shape = self._rows(x)
        y = empty(shape, self.dtype)
        statistics = empty((len(rows), 2), self.dtype)
        gain, bias = self._values()
        rows_forward(self._centred, rows, gain, bias, y.reshape(rows.shape), statistics, self.eps)

        def kernel(dy: Array, weight: Maybe, dx: Maybe, dweight: Maybe, dbias: Maybe) -> None:
            rows_backward(self._centred, rows, dy, weight, statistics, dx, dweight, dbias)

        return y, self._backward(rows, shape, kernel)


class LayerNorm(_RowNorm):
    """Layer normalisation (Ba, Kiros and Hinton 2016, arXiv:1607.06450) over the last axis, as ``torch.nn.LayerNorm``.

    y = (x - mean) / sqrt(var + eps) * weight + bias, with mean and variance of the N features of each position.

    Parameters
    ----------
    num_features : int
        N.
    eps : float
        1e-5 as in PyTorch; Keras 1e-3, Flax 1e-6.
    affine : bool
        False leaves weight and bias out.
    bias : bool
        False leaves bias out.
    dtype : float32 or float64
        Of the parameters and of y; x is converted.

    Attributes
    ----------
    weight, bias : Parameter of shape (N,), or None
        Ones and zeros in the beginning.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.LayerNorm(4)
    >>> layer(np.array([[1, 2, 3, 4], [0, 0, 0, 8]], np.float32)).round(3)
    array([[-1.342, -0.447,  0.447,  1.342],
           [-0.577, -0.577, -0.577,  1.732]], dtype=float32)
    """

    _centred = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        bias: bool = True,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.affine = bool(affine)
        super().__init__(num_features, eps, self.affine, self.affine and bool(bias), dtype)

    def config(self) -> dict[str, Any]:
        return {
            "num_features": self.num_features,
            "eps": self.eps,
            "affine": self.affine,
            "bias": self.bias is not None,
            "dtype": self.dtype.name,
        }


class RMSNorm(_RowNorm):
    """Root mean square normalisation (Zhang and Sennrich 2019, arXiv:1910.07467), as ``torch.nn.RMSNorm``.

    y = x / sqrt(mean(x^2) + eps) * weight, with the mean over the N features of each position.

    Parameters
    ----------
    num_features : int
        N.
    eps : float, optional
        None is the machine epsilon of ``dtype``, as in PyTorch; Keras and Flax 1e-6.
    affine : bool
        False leaves weight out.
    dtype : float32 or float64
        Of the parameters and of y; x is converted.

    Attributes
    ----------
    weight : Parameter of shape (N,), or None
        Ones in the beginning.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> fa.nn.RMSNorm(2)(np.array([[3, 4]], np.float32)).round(4)
    array([[0.8485, 1.1314]], dtype=float32)
    """

    _centred = False

    def __init__(
        self, num_features: int, eps: float | None = None, affine: bool = True, dtype: npt.DTypeLike = np.float32
    ) -> None:
        self.affine = bool(affine)
        eps = float(np.finfo(as_dtype(dtype)).eps) if eps is None else eps
        super().__init__(num_features, eps, self.affine, False, dtype)


class BatchNorm(Normalization):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) of the last axis, as ``torch.nn.BatchNorm1d``.

    y = (x - mean) / sqrt(var + eps) * weight + bias, with mean and variance of each of the N features over all other
    axes: those of the batch in ``forward``, which also moves the running ones, r = (1 - momentum) r + momentum b, and
    the running ones in a plain call. The running variance is over one number less than there are, as in PyTorch.

    After ``freeze`` the running statistics stay as they are and ``forward`` uses them as well.

    Parameters
    ----------
    num_features : int
        N. x is (B, N) or (..., N); padded steps of sequences count like any other.
    momentum : float or None
        Share of the batch in the running statistics: 0.1 as in PyTorch is 0.9 in Keras's reckoning. None, as in
        PyTorch: 1 / n for the n-th batch, so that they are the means over all batches so far.
    eps : float
        1e-5 as in PyTorch; Keras 1e-3.
    affine : bool
        False leaves weight and bias out.
    dtype : float32 or float64
        Of the parameters and of y; x is converted.

    Attributes
    ----------
    weight, bias : Parameter of shape (N,), or None
        Ones and zeros in the beginning.
    running_mean, running_var : Buffer of shape (N,)
        Zeros and ones in the beginning.
    num_batches_tracked : Buffer of shape ()
        n, with ``momentum=None`` alone.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.BatchNorm(2)
    >>> y, backward = layer.forward(np.array([[0, 10], [2, 30]], np.float32))
    >>> y.round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> layer.running_mean.value, layer.running_var.value
    (array([0.1, 2. ], dtype=float32), array([ 1.1, 20.9], dtype=float32))
    """

    running_mean: Buffer
    running_var: Buffer
    num_batches_tracked: Buffer

    def __init__(
        self,
        num_features: int,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.momentum = None if momentum is None else as_number(momentum, "momentum", 0.0, 1.0 + 1e-9)
        self.affine = bool(affine)
        super().__init__(num_features, eps, self.affine, self.affine, dtype)
        shape = (self.num_features,)
        self.add_buffer("running_mean", init.drawn(0.0, "running_mean", shape, self.dtype, None))
        self.add_buffer("running_var", init.drawn(1.0, "running_var", shape, self.dtype, None))
        if self.momentum is None:
            self.add_buffer("num_batches_tracked", np.zeros((), self.dtype))

    def adapt_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """PyTorch's count of batches has no use here with a momentum."""
        if self.momentum is not None:
            state.pop("num_batches_tracked", None)
        return state

    def _into(self, x: npt.ArrayLike, out: Array | None) -> Array:
        rows, shape = self._rows(x)
        y = self._room(out, shape)
        self._run(rows, y, empty((2, self.num_features), self.dtype), True)
        return y

    def _run(self, rows: Array, y: Array, statistics: Array, running: bool) -> None:
        """y by the running statistics, or by those of the rows, which then move the running ones."""
        mean, variance = self.running_mean, self.running_var
        running_mean, running_var = (mean._view, variance._view) if running else (mean._data, variance._data)
        share = 0.0 if running else self._share()
        y = y.reshape(rows.shape)
        batch_forward(rows, *self._values(), y, statistics, running_mean, running_var, self.eps, share, running)
        if not running:
            mean.version += 1
            variance.version += 1

    def _share(self) -> float:
        """Of the batch at hand in the running statistics."""
        if self.momentum is not None:
            return self.momentum
        self.num_batches_tracked.value = self.num_batches_tracked.value + 1
        return 1 / float(self.num_batches_tracked.value)

    def forward(self, x: npt.ArrayLike, /) -> tuple[Array, Backward]:
        """y of the shape of x (..., N) by the statistics of x itself, and its backward.

        Raises
        ------
        ValueError
            For fewer than two positions: they have no variance.
        """
        rows, shape = self._rows(x)
        running = not self.running_mean.trainable
        if len(rows) < 2 and not running:
            raise ValueError(
                f"x: expected two positions or more to take a variance of, got shape {shape}; a plain call uses the "
                "running statistics"
            )
        y = empty(shape, self.dtype)
        statistics = empty((2, self.num_features), self.dtype)
        self._run(rows, y, statistics, running)

        def kernel(dy: Array, weight: Maybe, dx: Maybe, dweight: Maybe, dbias: Maybe) -> None:
            batch_backward(rows, dy, weight, statistics, dx, dweight, dbias, running)

        return y, self._backward(rows, shape, kernel)
