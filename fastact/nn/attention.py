"""``DotProductAttention`` of queries, keys and values, and what it shares with ``Attention`` of many heads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._arguments import DTYPES, Array, as_number, as_real
from fastact._core import attention as _core
from fastact._core.workspace import empty
from fastact.nn.base import Backward, Layer
from fastact.nn.sequences import as_lengths

Triple = tuple[Array, Array, Array]  # of queries, keys and values


@dataclass(slots=True)
class AttentionResult:
    """What ``run`` of an attention layer returns.

    Attributes
    ----------
    y : array
    weights : array of shape (B, h, T, S)
        How much each query takes of each key: every row sums to 1, or to 0 where no key is visible.
    """

    y: Array
    weights: Array


class Scores(NamedTuple):
    """How scores become weights: what ``_core.forward`` and ``_core.backward`` call so."""

    scale: float
    causal: bool
    lengths: npt.NDArray[np.int64] | None
    mask: npt.NDArray[np.bool_] | None
    dropped: float
    seed: int


class Attending(Layer):
    """What layers of attention share: which keys a query sees, and how much of them training drops."""

    takes_lengths = True
    scale: float | None = None

    def __init__(self, causal: bool, dropout: float, rng: init.Rng) -> None:
        self.causal = bool(causal)
        self.dropout = as_number(dropout, "dropout", 0.0, 1.0)
        self.rng = None if rng is None else init.generator(rng)

    def _scores(self, heads: Triple, lengths: Any, mask: Any, dropout: float) -> Scores:
        """For heads (B, T, h, D) of queries and (B, S, h, D) of keys."""
        q, k, _ = heads
        batch, keys = q.shape[0], k.shape[1]
        if lengths is not None:
            lengths = as_lengths(lengths, batch, keys, least=0).astype(np.int64, copy=False)
        return Scores(
            self.scale or 1 / math.sqrt(max(q.shape[-1], 1)),
            self.causal,
            lengths,
            _as_mask(mask, _score_shape(heads)),
            dropout,
            int(init.generator(self.rng).integers(2**63)) if dropout else 0,
        )

    @staticmethod
    def _weights(heads: Triple) -> Array:
        """Room for what ``run`` tells of the heads."""
        return np.zeros(_score_shape(heads), heads[0].dtype)


def _score_shape(heads: Triple) -> tuple[int, int, int, int]:
    """(B, h, T, S)."""
    q, k, _ = heads
    return q.shape[0], q.shape[2], q.shape[1], k.shape[1]


def _as_mask(mask: npt.ArrayLike | None, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    """``mask`` as booleans (B, h, T, S), a view where it is smaller."""
    if mask is None:
        return None
    array = np.asarray(mask)
    if array.dtype != np.bool_:
        raise TypeError(f"mask: expected booleans, True where a query sees a key, got {array.dtype}; use mask != 0")
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"mask: expected a shape that broadcasts to (B, h, T, S) = {shape}, got {array.shape}; "
            "one a sequence is mask[:, None]"
        ) from None


def _contiguous(a: Array) -> Array:
    """``a`` itself where its last axis is contiguous and it is aligned, else a copy."""
    flags = a.flags
    if flags.c_contiguous and flags.aligned:
        return a
    whole = all(stride % a.itemsize == 0 for stride in a.strides)
    if flags.aligned and whole and (a.shape[-1] == 1 or a.strides[-1] == a.itemsize):
        return a
    return np.require(a, requirements=["C", "A"])


def _heads(a: Array) -> Array:
    """(B, T, D) or (B, h, T, D) as (B, T, h, D), a view."""
    return a[:, :, np.newaxis] if a.ndim == 3 else a.swapaxes(1, 2)


def _all_heads(arrays: Triple) -> Triple:
    q, k, v = arrays
    return _heads(q), _heads(k), _heads(v)


class DotProductAttention(Attending):
    """Scaled dot-product attention, y = softmax(scale q kᵀ) v, without parameters.

    Parameters
    ----------
    causal : bool
        Query t sees keys 0 to t.
    dropout : float, 0 <= dropout < 1
        Share of the weights that training sets to 0; the others grow by 1 / (1 - dropout).
    scale : float, optional
        1 / sqrt(D) unless given.
    rng : numpy.random.Generator, int or None
        Of dropout. None: see ``fa.seed``.

    Notes
    -----
    Vaswani et al. 2017 (arXiv:1706.03762), eq. 1. Luong's attention (2015, arXiv:1508.04025) is ``scale=1`` with the
    states of an encoder for keys and values. Scores are computed in blocks of queries and never stored as a whole, in
    training neither. A query that sees no key gets zeros.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> attend = fa.nn.DotProductAttention()
    >>> q, memory = np.ones((2, 3, 4)), np.ones((2, 5, 4))
    >>> y, backward = attend.forward(q, memory, lengths=[5, 0])
    >>> y[:, 0, 0]
    array([1., 0.])
    >>> dq, dmemory = backward(np.ones_like(y))
    >>> dmemory.shape, dmemory[0, 0].round(3)
    ((2, 5, 4), array([0.6, 0.6, 0.6, 0.6]))
    """

    def __init__(
        self, causal: bool = False, dropout: float = 0.0, scale: float | None = None, rng: init.Rng = None
    ) -> None:
        super().__init__(causal, dropout, rng)
        self.scale = None if scale is None else as_number(scale, "scale", 0.0, above=True)

    def __call__(
        self,
        q: npt.ArrayLike,
        /,
        k: npt.ArrayLike | None = None,
        v: npt.ArrayLike | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> Array:
        """y for the queries; the arguments are those of ``forward``. No dropout."""
        arrays, shape = self._operands(q, k, v)
        y, heads = empty(shape, arrays[0].dtype), _all_heads(arrays)
        _core.forward(heads, _heads(y), self._scores(heads, lengths, mask, 0.0))
        return y

    def run(
        self,
        q: npt.ArrayLike,
        /,
        k: npt.ArrayLike | None = None,
        v: npt.ArrayLike | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> AttentionResult:
        """Inference that also gives the weights, (B, h, T, S)."""
        arrays, shape = self._operands(q, k, v)
        y, heads = empty(shape, arrays[0].dtype), _all_heads(arrays)
        weights = self._weights(heads)
        _core.forward(heads, _heads(y), self._scores(heads, lengths, mask, 0.0), weights)
        return AttentionResult(y, weights)

    def forward(
        self,
        q: npt.ArrayLike,
        /,
        k: npt.ArrayLike | None = None,
        v: npt.ArrayLike | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> tuple[Array, Backward]:
        """y in training mode, and its backward.

        Parameters
        ----------
        q : array of shape (B, T, D), or (B, h, T, D) with heads
        k : array of shape (B, S, D) or (B, h, S, D), optional
            The queries themselves unless given.
        v : array of shape (B, S, V) or (B, h, S, V), optional
            The keys unless given.
        lengths : integers (B,), optional
            How many keys each sequence has, from 0 to S; the rest is padding.
        mask : booleans that broadcast to (B, h, T, S), optional
            True where a query sees a key.

        Returns
        -------
        y : array of shape (B, T, V) or (B, h, T, V)
        backward : Backward
            ``dq, dk, dv = backward(dy)``. What was left out has no gradient of its own: its share is in that of what
            stood for it, and with q alone ``dq = backward(dy)``.
        """
        arrays, shape = self._operands(q, k, v)
        heads, dtype = _all_heads(arrays), arrays[0].dtype
        scores = self._scores(heads, lengths, mask, self.dropout)
        y = empty(shape, dtype)
        _core.forward(heads, _heads(y), scores)

        def run(dy: Array, input_gradient: bool) -> Any:
            if not input_gradient:
                return None
            dq, dk, dv = (empty(a.shape, dtype) for a in arrays)
            _core.backward(_heads(_contiguous(dy)), heads, _all_heads((dq, dk, dv)), scores)
            if v is None:
                dk += dv
            if k is None:
                dq += dk
            return dq if k is None and v is None else (dq, dk) if v is None else (dq, dv) if k is None else (dq, dk, dv)

        return y, Backward(run, shape, dtype)

    def _operands(self, q: Any, k: Any, v: Any) -> tuple[Triple, tuple[int, ...]]:
        """Queries, keys and values of one float dtype, and the shape of y."""
        given = {name: as_real(a, name) for name, a in (("q", q), ("k", k), ("v", v)) if a is not None}
        dtype = np.result_type(np.float32, *(a.dtype if a.dtype.kind == "f" else np.float64 for a in given.values()))
        dtype = DTYPES[dtype != np.float32]
        converted = {name: _contiguous(a.astype(dtype, copy=False)) for name, a in given.items()}
        queries = converted["q"]
        keys = converted.get("k", queries)
        values = converted.get("v", keys)
        if queries.ndim not in (3, 4):
            raise ValueError(f"q: expected shape (B, T, D) or (B, h, T, D), got {queries.shape}")
        lead = queries.shape[:-2]
        if keys.shape != (*lead, keys.shape[-2] if keys.ndim > 1 else 0, queries.shape[-1]):
            expected = f"({', '.join(map(str, lead))}, S, {queries.shape[-1]})"
            raise ValueError(f"k: expected shape {expected}, as q {queries.shape}, got {keys.shape}")
        if values.ndim != keys.ndim or values.shape[:-1] != keys.shape[:-1]:
            expected = f"({', '.join(map(str, keys.shape[:-1]))}, V)"
            raise ValueError(f"v: expected shape {expected}, as k {keys.shape}, got {values.shape}")
        return (queries, keys, values), (*queries.shape[:-1], values.shape[-1])
