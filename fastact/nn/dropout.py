"""``Dropout`` and ``VariationalDropout``, and the masks that recurrent layers draw, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._arguments import Array, as_number, as_signal
from fastact._core.workspace import empty
from fastact.nn.base import Backward, Layer


def dropout_mask(
    shape: tuple[int, ...], probability: float, dtype: np.dtype[Any], rng: init.Rng, scale: float | None = None
) -> Array:
    """0 with this probability, else ``scale``, which is 1 / (1 - probability) unless given."""
    drawn = init.generator(rng).random(shape, np.float32)
    mask = np.greater_equal(drawn, probability, out=empty(shape, dtype), casting="unsafe")
    mask *= dtype.type(1 / (1 - probability) if scale is None else scale)
    return mask


class Dropout(Layer):
    """Zeroes each number with probability ``p`` in training, and divides the others by 1 - p (Srivastava et al. 2014).

    y = x m / (1 - p), where m is 0 with probability p, else 1; a plain call gives x back, as ``torch.nn.Dropout`` does
    in evaluation.

    Parameters
    ----------
    p : float, 0 <= p < 1
    rng : numpy.random.Generator, int or None
        Source of the masks. None: the Trainer's seed in a Trainer, else see ``fa.seed``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.Dropout(0.5, rng=0)
    >>> y, backward = layer.forward(np.ones((2, 4)))
    >>> y
    array([[2., 2., 2., 0.],
           [0., 0., 0., 0.]])
    >>> bool((backward(np.ones((2, 4))) == y).all())
    True
    """

    def __init__(self, p: float = 0.5, rng: init.Rng = None) -> None:
        self.p = as_number(p, "p", 0.0, 1.0)
        self.rng = None if rng is None else init.generator(rng)

    def _mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def __call__(self, x: npt.ArrayLike, /) -> Array:
        """x itself."""
        return as_signal(x)

    def _into(self, x: npt.ArrayLike, out: Array | None) -> Array:
        x = as_signal(x)
        if out is None:
            return x.copy()
        np.copyto(out, x)
        return out

    def forward(self, x: npt.ArrayLike, /) -> tuple[Array, Backward]:
        """x times a mask drawn for this call, and its backward."""
        x = as_signal(x)
        if not self.p:
            return x, Backward(lambda dy, input_gradient: dy if input_gradient else None, x.shape, x.dtype)
        mask = dropout_mask(self._mask_shape(x.shape), self.p, x.dtype, self.rng)
        y = np.multiply(x, mask, out=empty(x.shape, x.dtype))

        def run(dy: Array, input_gradient: bool) -> Array | None:
            return np.multiply(dy, mask, out=empty(dy.shape, dy.dtype)) if input_gradient else None

        return y, Backward(run, y.shape, y.dtype)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


class VariationalDropout(Dropout):
    """``Dropout`` with one mask for all steps of a sequence (Gal and Ghahramani 2016, arXiv:1512.05287).

    x is (B, T, ...): a feature that is dropped is so from the first step of its sequence to the last.
    ``recurrent_dropout`` of the recurrent layers does the same to the state.

    Parameters
    ----------
    p : float, 0 <= p < 1
    time_major : bool
        x is (T, B, ...).
    rng : numpy.random.Generator, int or None
        Source of the masks. None: the Trainer's seed in a Trainer, else see ``fa.seed``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> y, backward = fa.nn.VariationalDropout(0.5, rng=0).forward(np.ones((1, 2, 4)))
    >>> y
    array([[[2., 2., 2., 0.],
            [2., 2., 2., 0.]]])
    """

    def __init__(self, p: float = 0.5, time_major: bool = False, rng: init.Rng = None) -> None:
        super().__init__(p, rng)
        self.time_major = bool(time_major)

    def _mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) < 3:
            raise ValueError(f"x: expected shape (B, T, ...) of three axes or more, got {shape}; Dropout takes any")
        return (1, *shape[1:]) if self.time_major else (shape[0], 1, *shape[2:])
