"""Attention: ``DotProductAttention`` of queries, keys and values, and ``Attention``, which projects them to heads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._arguments import DTYPES, Array, as_dtype, as_floats, as_number, as_real, as_size
from fastact._core import attention as _core
from fastact._core.product import PackedMatrix, add_column_sums, matmul
from fastact._core.workspace import empty
from fastact.nn.base import Backward, Layer
from fastact.nn.dense import Dense
from fastact.nn.parameter import Parameter
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


class _Scores(NamedTuple):
    """How scores become weights: what ``_core.forward`` and ``_core.backward`` call so."""

    scale: float
    causal: bool
    lengths: npt.NDArray[np.int64] | None
    mask: npt.NDArray[np.bool_] | None
    dropped: float
    seed: int


def _key_lengths(lengths: npt.ArrayLike | None, batch: int, keys: int) -> npt.NDArray[np.int64] | None:
    return None if lengths is None else as_lengths(lengths, batch, keys, least=0).astype(np.int64, copy=False)


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


def _dropped(value: Any) -> float:
    return as_number(value, "dropout", 0.0, 1.0)


class DotProductAttention(Layer):
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

    takes_lengths = True

    def __init__(
        self, causal: bool = False, dropout: float = 0.0, scale: float | None = None, rng: init.Rng = None
    ) -> None:
        self.causal = bool(causal)
        self.dropout = _dropped(dropout)
        self.scale = None if scale is None else as_number(scale, "scale", 0.0, above=True)
        self.rng = None if rng is None else init.generator(rng)

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
        y = empty(shape, arrays[0].dtype)
        _core.forward(_all_heads(arrays), _heads(y), self._scores(arrays, lengths, mask, 0.0))
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
        dtype = arrays[0].dtype
        y, scores = empty(shape, dtype), self._scores(arrays, lengths, mask, 0.0)
        weights = np.zeros(_score_shape(arrays), dtype)
        _core.forward(_all_heads(arrays), _heads(y), scores, weights)
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
        scores = self._scores(arrays, lengths, mask, self.dropout)
        queries, keys, values = arrays
        dtype = queries.dtype
        y = empty(shape, dtype)
        _core.forward(_all_heads(arrays), _heads(y), scores)

        def run(dy: Array, input_gradient: bool) -> Any:
            if not input_gradient:
                return None
            found = (empty(queries.shape, dtype), empty(keys.shape, dtype), empty(values.shape, dtype))
            _core.backward(_heads(_contiguous(dy)), _all_heads(arrays), _all_heads(found), scores)
            dq, dk, dv = found
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

    def _scores(self, arrays: Triple, lengths: Any, mask: Any, dropout: float) -> _Scores:
        q, k, _ = arrays
        return _Scores(
            self.scale or 1 / math.sqrt(max(q.shape[-1], 1)),
            self.causal,
            _key_lengths(lengths, q.shape[0], k.shape[-2]),
            _as_mask(mask, _score_shape(arrays)),
            dropout,
            _seed(self.rng) if dropout else 0,
        )


def _score_shape(arrays: Triple) -> tuple[int, int, int, int]:
    """(B, h, T, S)."""
    q, k, _ = arrays
    return q.shape[0], 1 if q.ndim == 3 else q.shape[1], q.shape[-2], k.shape[-2]


def _seed(rng: init.Rng) -> int:
    return int(init.generator(rng).integers(2**63))


class _Projection(NamedTuple):
    """One product that makes queries, keys or values, or several of them that have the same input."""

    source: int  # 0: x, 1: memory, 2: values
    first: int  # thirds of the projections that it makes: 0 queries, 1 keys, 2 values
    last: int
    weight: Parameter
    begin: int  # row of the weight that the first of them begins at


class Attention(Layer):
    """Attention of many heads, to the sequence itself or to another: ``torch.nn.MultiheadAttention``, batch first.

    Queries, keys and values are projections of x (and of ``memory``) by ``in_proj_weight``, cut into heads of E / h
    features; what the heads find is put side by side and goes through ``out_proj``.

    Parameters
    ----------
    embed_dim : int
        E, the features of x and of y.
    num_heads : int
        h, a divisor of E.
    kdim, vdim : int, optional
        Features of the memory, and of the values where they are another array; E unless given.
    bias : bool
        False leaves both biases out.
    causal : bool
        Step t sees steps 0 to t.
    dropout : float, 0 <= dropout < 1
        Share of the weights that training sets to 0.
    dtype : float32 or float64
    rng : numpy.random.Generator, int or None
        Source of the initial weights, and of dropout. None: see ``fa.seed``.

    Attributes
    ----------
    in_proj_weight : Parameter, shape (3 E, E)
        Of queries, keys and values, in this order. With another kdim or vdim there are ``q_proj_weight`` (E, E),
        ``k_proj_weight`` (E, kdim) and ``v_proj_weight`` (E, vdim) instead.
    in_proj_bias : Parameter of shape (3 E,), or None
    out_proj : Dense

    Notes
    -----
    Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.2. Names, layouts and initial values are PyTorch's, so a state
    dict of ``torch.nn.MultiheadAttention`` loads as it is. ``lengths`` are those of the keys: all steps of y are
    computed, those beyond a length too. A query that sees no key gets the bias of ``out_proj`` and passes no gradient
    to the scores.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.Attention(8, num_heads=2, causal=True, rng=0)
    >>> x = np.ones((3, 5, 8), np.float32)
    >>> y, backward = layer.forward(x, lengths=[5, 4, 1])
    >>> y.shape, backward(y).shape
    ((3, 5, 8), (3, 5, 8))
    >>> layer.run(x).weights[0, 0, 1]
    array([0.5, 0.5, 0. , 0. , 0. ], dtype=float32)
    >>> list(layer.parameters())
    ['in_proj_weight', 'in_proj_bias', 'out_proj.weight', 'out_proj.bias']
    """

    takes_lengths = True
    in_proj_weight: Parameter
    q_proj_weight: Parameter
    k_proj_weight: Parameter
    v_proj_weight: Parameter
    in_proj_bias: Parameter | None
    _transient = ("_packed",)

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 1,
        kdim: int | None = None,
        vdim: int | None = None,
        bias: bool = True,
        causal: bool = False,
        dropout: float = 0.0,
        dtype: npt.DTypeLike = np.float32,
        rng: init.Rng = None,
    ) -> None:
        self.embed_dim = as_size(embed_dim, "embed_dim")
        self.num_heads = as_size(num_heads, "num_heads")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"num_heads: expected a divisor of embed_dim = {self.embed_dim}, got {num_heads}; each head has "
                "embed_dim / num_heads features"
            )
        self.kdim = self.embed_dim if kdim is None else as_size(kdim, "kdim")
        self.vdim = self.embed_dim if vdim is None else as_size(vdim, "vdim")
        self.bias = bool(bias)
        self.causal = bool(causal)
        self.dropout = _dropped(dropout)
        self.dtype = as_dtype(dtype)
        self.rng = None if rng is None else init.generator(rng)
        rng = init.generator(self.rng)
        self._packed: dict[tuple[int, int, int], tuple[Parameter, int, PackedMatrix]] | None = None
        E = self.embed_dim
        widths = (E, self.kdim, self.vdim)
        if widths == (E, E, E):
            self.add_parameter("in_proj_weight", init.glorot_uniform((3 * E, E), dtype=self.dtype, rng=rng))
        else:
            for letter, width in zip("qkv", widths, strict=True):
                value = init.glorot_uniform((E, width), dtype=self.dtype, rng=rng)
                self.add_parameter(f"{letter}_proj_weight", value)
        self.in_proj_bias = None
        if self.bias:
            self.add_parameter("in_proj_bias", np.zeros(3 * E, self.dtype))
        self.out_proj = Dense(E, E, bias=self.bias, dtype=self.dtype, rng=rng, bias_init=0.0)

    # -- computing ------------------------------------------------------------------------------------------------

    def __call__(
        self,
        x: npt.ArrayLike,
        /,
        memory: npt.ArrayLike | None = None,
        *,
        values: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> Array:
        """y for x; the arguments are those of ``forward``. No dropout."""
        sources, plan = self._plan(x, memory, values)
        heads, _ = self._project(sources, plan, keep=True)
        return self.out_proj(self._attend(heads, self._scores(heads, lengths, mask, 0.0)))

    def run(
        self,
        x: npt.ArrayLike,
        /,
        memory: npt.ArrayLike | None = None,
        *,
        values: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> AttentionResult:
        """Inference that also gives the weights of each head, (B, h, T, S)."""
        sources, plan = self._plan(x, memory, values)
        heads, _ = self._project(sources, plan, keep=True)
        q, k, _ = heads
        weights = np.zeros((q.shape[0], q.shape[2], q.shape[1], k.shape[1]), self.dtype)
        y = self.out_proj(self._attend(heads, self._scores(heads, lengths, mask, 0.0), weights))
        return AttentionResult(y, weights)

    def forward(
        self,
        x: npt.ArrayLike,
        /,
        memory: npt.ArrayLike | None = None,
        *,
        values: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> tuple[Array, AttentionBackward]:
        """y in training mode, and its backward.

        Parameters
        ----------
        x : array of shape (B, T, E)
            What the queries are made of.
        memory : array of shape (B, S, kdim), optional
            What keys and values are made of; x unless given.
        values : array of shape (B, S, vdim), optional
            What the values are made of, where it is something else.
        lengths : integers (B,), optional
            How many keys each sequence has, from 0 to S; the rest is padding.
        mask : booleans that broadcast to (B, h, T, S), optional
            True where a query sees a key (in ``torch.nn.MultiheadAttention`` it is the other way round).

        Returns
        -------
        y : array of shape (B, T, E)
        backward : AttentionBackward
            ``dx = backward(dy)``; ``backward.dmemory`` and ``backward.dvalues`` are there after the call.
        """
        sources, plan = self._plan(x, memory, values)
        heads, products = self._project(sources, plan, keep=False)
        scores = self._scores(heads, lengths, mask, self.dropout)
        found = self._attend(heads, scores)
        y, out_backward = self.out_proj.forward(found)

        def run(dy: Array, input_gradient: bool) -> tuple[Array | None, ...]:
            dfound = self._cut(out_backward(dy))
            gradients = [empty(z.shape, z.dtype) for z in products]
            dheads = self._heads(gradients, sources, plan)
            _core.backward(dfound, heads, dheads, scores)
            return self._project_back(sources, plan, gradients, input_gradient)

        return y, AttentionBackward(run, y.shape, self.dtype)

    def _plan(self, x: Any, memory: Any, values: Any) -> tuple[list[Array], list[_Projection]]:
        """The arrays, (B, T, features) each, and the products that make queries, keys and values of them."""
        E = self.embed_dim
        sources = [self._source(x, "x", E)]
        if memory is None and values is None and self.kdim == self.vdim == E:
            return sources, [_Projection(0, 0, 3, self.in_proj_weight, 0)]
        if memory is None:
            raise ValueError(
                f"memory: expected an array (B, S, {self.kdim}) with values= or for kdim={self.kdim}, "
                f"vdim={self.vdim}, embed_dim={E}, got None"
            )
        sources.append(self._source(memory, "memory", self.kdim, sources[0].shape[0]))
        if values is not None:
            sources.append(self._source(values, "values", self.vdim, *sources[1].shape[:2]))
        elif self.vdim != self.kdim:
            raise ValueError(f"values: expected an array (B, S, {self.vdim}), as vdim is not kdim, got None")
        last = len(sources) - 1
        if "in_proj_weight" in vars(self):
            weight = self.in_proj_weight
            if last == 1:
                return sources, [_Projection(0, 0, 1, weight, 0), _Projection(1, 1, 3, weight, E)]
            return sources, [_Projection(i, i, i + 1, weight, i * E) for i in range(3)]
        weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        return sources, [_Projection(min(i, last), i, i + 1, weights[i], 0) for i in range(3)]

    def _source(self, value: Any, name: str, width: int, batch: int = -1, steps: int = -1) -> Array:
        a = value
        if a.__class__ is not np.ndarray or a.dtype is not self.dtype:
            a = as_floats(a, self.dtype, name)
        expected = (batch, steps, width)
        if a.ndim != 3 or any(want not in (-1, have) for want, have in zip(expected, a.shape, strict=True)):
            sides = ", ".join(
                letter if size < 0 else str(size)
                for letter, size in zip("B" + ("T" if name == "x" else "S") + "E", expected, strict=True)
            )
            raise ValueError(f"{name}: expected shape ({sides}), got {a.shape}")
        return a

    def _project(self, sources: list[Array], plan: list[_Projection], keep: bool) -> tuple[Triple, list[Array]]:
        """Queries, keys and values (B, T, h, D), and the products that they are views of."""
        bias = None if self.in_proj_bias is None else self.in_proj_bias.value
        products = []
        for source, first, last, weight, begin in plan:
            rows = slice(begin, begin + (last - first) * self.embed_dim)
            part = None if bias is None else bias[first * self.embed_dim : last * self.embed_dim]
            matrix = self._pack(weight, rows) if keep else weight.value[rows].T
            a = sources[source]
            z = matmul(a.reshape(a.shape[0] * a.shape[1], a.shape[2]), matrix, None, part)
            products.append(z)
        return self._heads(products, sources, plan), products

    def _pack(self, weight: Parameter, rows: slice) -> PackedMatrix:
        """Those rows of the weight, prepacked; kept as long as they stay as they are."""
        packed = self._packed
        if packed is None:
            packed = self._packed = {}
        place = id(weight), rows.start, rows.stop
        held = packed.get(place)
        if held is None or held[0] is not weight or held[1] != weight.version:
            held = packed[place] = weight, weight.version, PackedMatrix(weight.value[rows].T)
        return held[2]

    def _heads(self, products: list[Array], sources: list[Array], plan: list[_Projection]) -> Triple:
        """Views (B, T, h, D) of queries, keys and values."""
        found = []
        for z, (source, first, last, _, _) in zip(products, plan, strict=True):
            batch, steps = sources[source].shape[:2]
            cut = z.reshape(batch, steps, last - first, self.num_heads, self.embed_dim // self.num_heads)
            found += [cut[:, :, i] for i in range(last - first)]
        q, k, v = found
        return q, k, v

    def _scores(self, heads: Triple, lengths: Any, mask: Any, dropout: float) -> _Scores:
        q, k, _ = heads
        batch, steps, h, width = q.shape
        keys = k.shape[1]
        return _Scores(
            1 / math.sqrt(width),
            self.causal,
            _key_lengths(lengths, batch, keys),
            _as_mask(mask, (batch, h, steps, keys)),
            dropout,
            _seed(self.rng) if dropout else 0,
        )

    def _attend(self, heads: Triple, scores: _Scores, weights: Array | None = None) -> Array:
        """What the heads find, side by side: (B, T, E)."""
        batch, steps = heads[0].shape[:2]
        found = empty((batch, steps, self.embed_dim), self.dtype)
        _core.forward(heads, self._cut(found), scores, weights)
        return found

    def _cut(self, a: Array) -> Array:
        """(B, T, E) as (B, T, h, D)."""
        return a.reshape(*a.shape[:2], self.num_heads, self.embed_dim // self.num_heads)

    def _project_back(
        self, sources: list[Array], plan: list[_Projection], gradients: list[Array], input_gradient: bool
    ) -> tuple[Array | None, ...]:
        """Gradients of the weights, added up, and of the sources: x, memory, values."""
        found: list[Array | None] = [None, None, None]
        E = self.embed_dim
        for dz, (source, first, last, weight, begin) in zip(gradients, plan, strict=True):
            a = sources[source]
            rows = slice(begin, begin + (last - first) * E)
            if weight.trainable:
                matmul(dz.T, a.reshape(len(dz), a.shape[2]), weight.grad[rows], accumulate=True)
            if self.in_proj_bias is not None and self.in_proj_bias.trainable:
                add_column_sums(dz, self.in_proj_bias.grad[first * E : last * E])
            if input_gradient:
                so_far = found[source]
                if so_far is None:
                    found[source] = matmul(dz, weight.value[rows]).reshape(a.shape)
                else:
                    matmul(dz, weight.value[rows], so_far.reshape(len(dz), a.shape[2]), accumulate=True)
        return tuple(found)


class AttentionBackward(Backward):
    """Backward of an ``Attention``.

    Attributes
    ----------
    dmemory, dvalues : array or None
        After the call: the gradients of ``memory`` and ``values``, where they were given.
    """

    __slots__ = ("dmemory", "dvalues")

    def __init__(self, run: Any, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__(run, shape, dtype)
        self.dmemory: Array | None = None
        self.dvalues: Array | None = None

    def __call__(self, dy: npt.ArrayLike, input_gradient: bool = True) -> Any:
        """Gradient of x; those of memory and values are left in ``dmemory`` and ``dvalues``."""
        dy = self._check(dy)
        dx, self.dmemory, self.dvalues = self._begin()(dy, input_gradient)
        return dx
