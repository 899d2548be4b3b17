"""``Embedding``: rows of a table by integer index."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._arguments import Array, as_dtype, as_size, place_of
from fastact._core.training import embedding_backward, embedding_forward
from fastact._core.workspace import empty
from fastact.nn.base import Backward, Layer
from fastact.nn.parameter import Parameter


class Embedding(Layer):
    """A trained vector for each of N symbols: y[...] = W[x[...]].

    Parameters
    ----------
    num_embeddings : int
        N; indices are 0 to N - 1.
    embedding_dim : int
        D.
    dtype : float32 or float64
    rng : numpy.random.Generator, int or None
        Source of the initial W: standard normal, as ``torch.nn.Embedding``. None: see ``fa.seed``.

    Attributes
    ----------
    weight : Parameter, shape (N, D)

    Examples
    --------
    >>> import fastact as fa
    >>> layer = fa.nn.Embedding(5, 3, rng=0)
    >>> layer([[0, 4], [2, 2]]).shape
    (2, 2, 3)
    """

    weight: Parameter

    def __init__(
        self, num_embeddings: int, embedding_dim: int, dtype: npt.DTypeLike = np.float32, rng: init.Rng = None
    ) -> None:
        self.num_embeddings = as_size(num_embeddings, "num_embeddings")
        self.embedding_dim = as_size(embedding_dim, "embedding_dim")
        self.dtype = as_dtype(dtype)
        shape = (self.num_embeddings, self.embedding_dim)
        self.add_parameter("weight", init.normal(shape, 1.0, self.dtype, rng))

    def _indices(self, x: Any) -> tuple[Array, tuple[int, ...]]:
        """x as a dense vector of int64, and its shape."""
        if x.__class__ is not np.ndarray or x.dtype is not INT64:
            given = np.asarray(x)
            if given.dtype.kind not in "iu" and given.size:
                raise TypeError(
                    f"x: expected integer indices, got dtype {given.dtype}; whole numbers: x.astype(np.int64)"
                )
            x = given.astype(INT64)
        return np.ascontiguousarray(x).reshape(-1), x.shape

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape, self.embedding_dim)

    def __call__(self, x: npt.ArrayLike, /) -> Array:
        """y of shape (..., D) for integers x of any shape (...).

        Raises
        ------
        IndexError
            If an index is not in 0 ... N - 1.
        """
        return self._into(x, None)

    def forward(self, x: npt.ArrayLike, /) -> tuple[Array, Backward]:
        """y as from ``layer(x)`` and its backward, which returns None: integers have no gradient."""
        indices, shape = self._indices(x)
        y = self._look_up(indices, shape, None)
        weight = self.weight

        def run(dy: Array, input_gradient: bool) -> None:
            if weight.trainable:
                embedding_backward(indices, np.ascontiguousarray(dy).reshape(-1, weight.shape[1]), weight.grad)

        return y, Backward(run, y.shape, self.dtype)

    def _into(self, x: npt.ArrayLike, out: Array | None) -> Array:
        indices, shape = self._indices(x)
        return self._look_up(indices, shape, out)

    def _look_up(self, indices: Array, shape: tuple[int, ...], out: Array | None) -> Array:
        y = empty((*shape, self.embedding_dim), self.dtype) if out is None else out
        if y.shape != (*shape, self.embedding_dim) or y.dtype != self.dtype or not y.flags.c_contiguous:
            raise ValueError(
                f"out: expected a C-contiguous {self.dtype} array of shape {(*shape, self.embedding_dim)}, "
                f"got {y.dtype}, {y.shape}"
            )
        try:
            embedding_forward(self.weight._view, indices, y.reshape(-1, self.embedding_dim))
        except IndexError:
            outside = int(np.argmax((indices < 0) | (indices >= self.num_embeddings)))
            raise IndexError(
                f"x: expected indices from 0 to {self.num_embeddings - 1} (num_embeddings is {self.num_embeddings}), "
                f"got {indices[outside]} at position {place_of(np.unravel_index(outside, shape))}"
            ) from None
        return y


INT64 = np.dtype(np.int64)
