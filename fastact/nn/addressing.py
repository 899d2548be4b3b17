"""Addressing of a memory as in Neural Turing Machines: ``ContentAddressing`` by cosine, and ``Sharpening``.

Both are layers without parameters: a controller makes the key, the strength and gamma.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import _activations
from fastact._arguments import DTYPES, Array, as_real
from fastact._core.product import matmul
from fastact.nn.base import Backward, Layer

_softmax = _activations.activations["softmax"]


def _floats(**given: Any) -> tuple[Array, ...]:
    """The arguments as arrays of one float dtype: float64 if one of the first two is, else float32."""
    arrays = {name: as_real(value, name) for name, value in given.items()}
    kinds = [a.dtype for a in list(arrays.values())[:2]]
    dtype = DTYPES[any(kind.kind != "f" or kind.itemsize > 4 for kind in kinds)]
    return tuple([a.astype(dtype, copy=False) for a in arrays.values()])


def _spread(a: Array, name: str, shape: tuple[int, ...]) -> Array:
    """``a`` broadcast to ``shape``."""
    try:
        return np.broadcast_to(a, shape)
    except ValueError:
        raise ValueError(f"{name}: expected a number or shape {shape}, one for each head, got {a.shape}") from None


def _gathered(gradient: Array, like: Array) -> Array:
    """The gradient of what was broadcast: summed to the shape that it had."""
    if gradient.shape == like.shape:
        return gradient
    lead = gradient.ndim - like.ndim
    ones = [i + lead for i, size in enumerate(like.shape) if size == 1]
    return gradient.sum(axis=(*range(lead), *ones), keepdims=True).reshape(like.shape)


def _inverse_norms(a: Array) -> Array:
    """1 / |row|, and 0 for a row of zeros, which has no direction."""
    squares = np.einsum("...m,...m->...", a, a)
    return np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)


class ContentAddressing(Layer):
    """Weights over the N rows of a memory by their likeness to a key: softmax(strength cosine(key, row)).

    Notes
    -----
    Graves et al. 2014 (arXiv:1410.5401), eq. 5 and 6. Sharpening by gamma (eq. 9) right after it is the same as a
    strength gamma times as large, and is computed so: weights that would vanish in between are not lost. For weights
    that were interpolated or shifted before there is ``Sharpening``. A row or key of zeros is like nothing: its cosine
    is 0, and so is its gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> memory = np.array([[[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]])
    >>> address = fa.nn.ContentAddressing()
    >>> w, backward = address.forward(np.array([[0.0, 1.0]]), memory, strength=10.0)
    >>> w.round(3)
    array([[0.   , 0.949, 0.051]])
    >>> dkey, dmemory, dstrength = backward(np.array([[0.0, 1.0, 0.0]]))
    >>> dkey.shape, dmemory.shape, float(dstrength.round(4))
    ((1, 2), (1, 3, 2), 0.0141)
    """

    def __call__(
        self,
        key: npt.ArrayLike,
        /,
        memory: npt.ArrayLike,
        strength: npt.ArrayLike = 1.0,
        sharpening: npt.ArrayLike | None = None,
    ) -> Array:
        """The weights; the arguments are those of ``forward``."""
        return self.forward(key, memory, strength, sharpening)[0]

    def forward(
        self,
        key: npt.ArrayLike,
        /,
        memory: npt.ArrayLike,
        strength: npt.ArrayLike = 1.0,
        sharpening: npt.ArrayLike | None = None,
    ) -> tuple[Array, Backward]:
        """Weights and their backward.

        Parameters
        ----------
        key : array of shape (B, M), or (B, h, M) for h heads
        memory : array of shape (B, N, M)
        strength : number, or array of shape (B,) or (B, h)
            beta, the key strength: above 0, as a softplus makes it.
        sharpening : number, or array of shape (B,) or (B, h), optional
            gamma, at least 1.

        Returns
        -------
        w : array of shape (B, N) or (B, h, N)
            Each row sums to 1.
        backward : Backward
            ``dkey, dmemory, dstrength = backward(dw)``, with ``dsharpening`` as the fourth where it was given.
        """
        given = {"key": key, "memory": memory, "strength": strength}
        if sharpening is not None:
            given["sharpening"] = sharpening
        k, m, beta, *gammas = _floats(**given)
        if k.ndim not in (2, 3):
            raise ValueError(f"key: expected shape (B, M) or (B, h, M), got {k.shape}")
        if m.ndim != 3 or (m.shape[0], m.shape[2]) != (k.shape[0], k.shape[-1]):
            raise ValueError(
                f"memory: expected shape ({k.shape[0]}, N, {k.shape[-1]}), as key {k.shape}, got {m.shape}"
            )
        if m.shape[1] == 0:
            raise ValueError(f"memory: expected one row or more, got shape {m.shape}")
        lead = k.shape[:-1]
        strengths = _spread(beta, "strength", lead)
        factors = strengths if not gammas else strengths * _spread(gammas[0], "sharpening", lead)

        keys = k[:, np.newaxis] if k.ndim == 2 else k  # (B, h, M)
        heads = keys.shape[:2]
        per_key, per_row = _inverse_norms(keys)[:, :, np.newaxis], _inverse_norms(m)[:, np.newaxis]
        directions = keys * per_key
        cosine = matmul(directions, m.swapaxes(1, 2))
        cosine *= per_row
        scale = factors.reshape(*heads, 1)
        w = _softmax(cosine * scale, axis=-1)
        shape = (*lead, m.shape[1])

        def run(dw: Array, input_gradient: bool) -> Any:
            if not input_gradient:
                return None
            dscores = _softmax.backward(dw.reshape(w.shape), y=w, axis=-1)
            dfactors = np.einsum("bhn,bhn->bh", dscores, cosine).reshape(lead)
            dcosine = dscores * scale
            through = dcosine * per_row
            dkey = matmul(through, m)
            dkey -= directions * np.einsum("bhm,bhm->bh", directions, dkey)[:, :, np.newaxis]
            dkey *= per_key
            dmemory = matmul(through.swapaxes(1, 2), directions)
            along = np.einsum("bhn,bhn->bn", dcosine, cosine)[:, :, np.newaxis]
            dmemory -= m * (along * np.square(per_row).swapaxes(1, 2))
            if not gammas:
                return dkey.reshape(k.shape), dmemory, _gathered(dfactors, beta)
            gamma = gammas[0]
            return (
                dkey.reshape(k.shape),
                dmemory,
                _gathered(dfactors * gamma, beta),
                _gathered(dfactors * strengths, gamma),
            )

        return w.reshape(shape), Backward(run, shape, w.dtype)


class Sharpening(Layer):
    """Weights raised to a power and scaled to sum 1: w_i^gamma / sum_j w_j^gamma.

    Notes
    -----
    Graves et al. 2014 (arXiv:1410.5401), eq. 9. A row of zeros stays one.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> w, backward = fa.nn.Sharpening().forward(np.array([[0.2, 0.3, 0.5]]), 3.0)
    >>> w.round(3)
    array([[0.05 , 0.169, 0.781]])
    >>> dw, dgamma = backward(np.array([[0.0, 0.0, 1.0]]))
    >>> float(dgamma.round(4))
    0.1031
    """

    def __call__(self, w: npt.ArrayLike, /, gamma: npt.ArrayLike) -> Array:
        """The sharpened weights; the arguments are those of ``forward``."""
        return self.forward(w, gamma)[0]

    def forward(self, w: npt.ArrayLike, /, gamma: npt.ArrayLike) -> tuple[Array, Backward]:
        """Sharpened weights and their backward.

        Parameters
        ----------
        w : array of shape (..., N)
            None of them negative.
        gamma : number, or array of shape (...)
            At least 1.

        Returns
        -------
        y : array of shape (..., N)
        backward : Backward
            ``dw, dgamma = backward(dy)``.
        """
        weights, power = _floats(w=w, gamma=gamma)
        if weights.ndim == 0 or weights.shape[-1] == 0:
            raise ValueError(f"w: expected shape (..., N) with N of at least 1, got {weights.shape}")
        if not (weights >= 0).all():
            raise ValueError("w: expected numbers of at least 0, got negative ones or NaN; take a softmax first")
        if not (power >= 1).all():
            raise ValueError(f"gamma: expected numbers of at least 1, got {power.min()}; take 1 + softplus(x)")
        exponent = _spread(power, "gamma", weights.shape[:-1])[..., np.newaxis]
        top = weights.max(axis=-1, keepdims=True)
        top[top == 0] = 1
        relative = weights / top  # the greatest to any power is 1: the sum can't vanish
        powers = relative**exponent
        total = powers.sum(axis=-1, keepdims=True)
        total[total == 0] = 1
        y = powers / total

        def run(dy: Array, input_gradient: bool) -> Any:
            if not input_gradient:
                return None
            past = dy - (dy * y).sum(axis=-1, keepdims=True)
            dw = past * exponent * relative ** (exponent - 1) / (total * top)
            logs = np.log(relative, out=np.zeros_like(relative), where=relative > 0)
            return dw, _gathered((past * y * logs).sum(axis=-1), power)

        return y, Backward(run, y.shape, y.dtype)
