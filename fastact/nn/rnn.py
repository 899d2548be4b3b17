"""``RNN``: the simple recurrent layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._activations import Activation
from fastact._core import recurrent as core
from fastact.nn.recurrent import Recurrent, bound, cell_function


class RNN(Recurrent):
    r"""Simple recurrent layers, one or more, over whole sequences.

    .. math:: h_t = f(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, double_bias, bidirectional, merge, reverse, dropout, \
recurrent_dropout, zoneout, clip, layer_norm_eps, time_major, return_sequences, inference_weights
        As for ``LSTM``.
    layer_norm : bool
        Normalises both products over the units of each sequence and step: see Notes.
    activation : str or Activation
        f, any elementwise activation of the catalogue. PyTorch's ``nonlinearity`` is "tanh" or "relu".
    dtype : float32 or float64
    rng : numpy.random.Generator, int or None
        Draws the initial weights, uniform on [-1/sqrt(H), 1/sqrt(H)) as in PyTorch, and the masks of dropout; None is
        what ``fa.seed`` seeds.

    Attributes
    ----------
    weight_ih_l0 : Parameter, (H, I)
        Further layers: ``weight_ih_l1`` (H, H) and so on; the way back: ``weight_ih_l0_reverse``. Names and shapes are
        PyTorch's.
    weight_hh_l0 : Parameter, (H, H)
    bias_ih_l0, bias_hh_l0 : Parameter, (H,)
    weight_norm_ih_l0, weight_norm_hh_l0 : Parameter, (H,)
        With ``layer_norm``: gains, ones at first.

    Notes
    -----
    A state is h, of shape (num_layers, B, H), or (num_layers x 2, B, H) with both directions of a layer one after the
    other. Layers of different sizes have a tuple of one (1 or 2, B, H) a layer instead.

    With ``layer_norm`` (Ba, Kiros and Hinton 2016, arXiv:1607.06450), :math:`\gamma_{ih} * \mathrm{LN}(W_{ih} x_t)` and
    :math:`\gamma_{hh} * \mathrm{LN}(W_{hh} h_{t-1})` take the place of the products, with LN as for ``LSTM``; h is not
    normalised.

    The cell is that of Elman (1990, Cognitive Science 14(2)).

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.RNN(3, 8, activation="relu", rng=0)
    >>> y, backward = layer.forward(np.ones((2, 5, 3), np.float32))
    >>> y.shape, backward(np.ones_like(y)).shape, layer.weight_hh_l0.grad.shape
    ((2, 5, 8), (2, 5, 3), (8, 8))
    """

    _letters = "h"

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        *,
        bias: bool = True,
        double_bias: bool = True,
        bidirectional: bool = False,
        merge: str = "concat",
        reverse: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        clip: float | None = None,
        layer_norm: bool = False,
        layer_norm_eps: float = 1e-5,
        time_major: bool = False,
        return_sequences: bool = True,
        activation: str | Activation = "tanh",
        inference_weights: str | None = None,
        dtype: npt.DTypeLike = np.float32,
        rng: init.Rng = None,
    ) -> None:
        self.activation = cell_function("activation", activation)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            double_bias=double_bias,
            bidirectional=bidirectional,
            merge=merge,
            reverse=reverse,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
            clip=clip,
            layer_norm=layer_norm,
            layer_norm_eps=layer_norm_eps,
            time_major=time_major,
            return_sequences=return_sequences,
            inference_weights=inference_weights,
            dtype=dtype,
            rng=rng,
        )

    def _make_cell(self) -> core.Cell:
        rows, functions = (0, 0, 0, 0), [self.activation] * 5
        more: dict[str, Any] = {"clip": bound(self.clip), "zoneout": (self.zoneout, 0), "norm_eps": self._norm_eps}
        return core.Cell("RNN", rows, rows, functions, **more)
