"""``Attention`` of many heads: projections to queries, keys and values, and back from what the heads find."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._arguments import Array, as_dtype, as_floats, as_size
from fastact._core import attention as _core
from fastact._core.product import PackedMatrix, add_column_sums, matmul
from fastact._core.workspace import empty
from fastact.nn.attention import Attending, AttentionResult, Scores, Triple
from fastact.nn.base import Backward
from fastact.nn.dense import Dense
from fastact.nn.parameter import Parameter


class _Projection(NamedTuple):
    """One product that makes queries, keys or values, or several of them that have the same input."""

    source: int  # 0: x, 1: memory, 2: values
    first: int  # thirds of the projections that it makes: 0 queries, 1 keys, 2 values
    last: int
    weight: Parameter
    begin: int  # row of the weight that the first of them begins at


class Attention(Attending):
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
        self.dtype = as_dtype(dtype)
        super().__init__(causal, dropout, rng)
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
        weights = self._weights(heads)
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
        bias = None if self.in_proj_bias is None else self.in_proj_bias._view
        products = []
        for source, first, last, weight, begin in plan:
            rows = slice(begin, begin + (last - first) * self.embed_dim)
            part = None if bias is None else bias[first * self.embed_dim : last * self.embed_dim]
            matrix = self._pack(weight, rows) if keep else weight._view[rows].T
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
            held = packed[place] = weight, weight.version, PackedMatrix(weight._view[rows].T)
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

    def _attend(self, heads: Triple, scores: Scores, weights: Array | None = None) -> Array:
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
                    found[source] = matmul(dz, weight._view[rows]).reshape(a.shape)
                else:
                    matmul(dz, weight._view[rows], so_far.reshape(len(dz), a.shape[2]), accumulate=True)
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
