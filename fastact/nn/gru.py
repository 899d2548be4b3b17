"""``GRU``: gated recurrent units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._activations import Activation
from fastact._arguments import Array
from fastact._core import recurrent as core
from fastact.nn.recurrent import Recurrent, bound, cell_function, gate_value


class GRU(Recurrent):
    r"""Gated recurrent units, one or more layers over whole sequences.

    For each step, with ``*`` elementwise:

    .. math::

        r, z &= \sigma(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) \\
        n &= \tanh(W_{ih} x_t + b_{ih} + r * (W_{hh} h_{t-1} + b_{hh})) \\
        h_t &= (1 - z) * n + z * h_{t-1}

    each with its own rows of the weights, in the order r, z, n. The reset gate acts after the product, as in PyTorch,
    or, with ``reset_after=False``, before it: :math:`W_{hh} (r * h_{t-1}) + b_{hh}` in the second line.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, bidirectional, merge, reverse, dropout, recurrent_dropout, zoneout, \
clip, layer_norm_eps, time_major, return_sequences, inference_weights
        As for ``LSTM``.
    layer_norm : bool
        Normalises both products over the units of each sequence and step: see Notes. Needs ``reset_after``.
    double_bias : bool
        PyTorch's two biases. They do not act alike: that of n within the reset gate is ``bias_hh``. False keeps
        ``bias_ih`` alone.
    gate_activation, candidate_activation : str or Activation
        Of r and z, and in place of tanh: any elementwise activation of the catalogue.
    reset_after : bool
        False as in the papers, in ONNX without ``linear_before_reset``, and in Keras with ``reset_after=False``: two
        products follow each other in a step, which takes the longer for it.
    dtype : float32 or float64
    rng : numpy.random.Generator, int or None
        Draws the initial weights, uniform on [-1/sqrt(H), 1/sqrt(H)) as in PyTorch, and the masks of dropout; None is
        what ``fa.seed`` seeds.

    Attributes
    ----------
    weight_ih_l0 : Parameter, (3H, I)
        Further layers: ``weight_ih_l1`` (3H, H) and so on; the way back: ``weight_ih_l0_reverse``. Names, shapes and
        order of gates are PyTorch's.
    weight_hh_l0 : Parameter, (3H, H)
    bias_ih_l0, bias_hh_l0 : Parameter, (3H,)
    weight_norm_ih_l0, weight_norm_hh_l0 : Parameter, (3H,)
        With ``layer_norm``: gains, ones at first.

    Notes
    -----
    A state is h, of shape (num_layers, B, H), or (num_layers x 2, B, H) with both directions of a layer one after the
    other. Layers of different sizes have a tuple of one (1 or 2, B, H) a layer instead.

    With ``layer_norm`` (Ba, Kiros and Hinton 2016, arXiv:1607.06450), :math:`\gamma_{ih} * \mathrm{LN}(W_{ih} x_t)` and
    :math:`\gamma_{hh} * \mathrm{LN}(W_{hh} h_{t-1})` take the place of the products, with LN as for ``LSTM``, over
    all rows of r, z and n together; h is not normalised.

    The attributes of the ONNX operator are ``activations`` f: ``gate_activation``, g: ``candidate_activation``, with
    their parameters as ``activation_alpha`` and ``activation_beta``; ``clip``; ``linear_before_reset``:
    ``reset_after``; ``layout`` 0: ``time_major``. Its gates stand in the order z, r, n.

    The cell is that of Cho et al. (2014, arXiv:1406.1078), its reset gate where cuDNN and PyTorch have it.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.GRU(3, 8, rng=0)
    >>> y, backward = layer.forward(np.ones((2, 5, 3), np.float32))
    >>> y.shape, backward(np.ones_like(y)).shape, layer.weight_hh_l0.grad.shape
    ((2, 5, 8), (2, 5, 3), (24, 8))
    >>> bool((backward.state[0] == y[:, -1]).all())
    True
    """

    _letters = "h"
    _blocks = 3

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
        gate_activation: str | Activation = "sigmoid",
        candidate_activation: str | Activation = "tanh",
        reset_after: bool = True,
        inference_weights: str | None = None,
        dtype: npt.DTypeLike = np.float32,
        rng: init.Rng = None,
    ) -> None:
        self.reset_after = bool(reset_after)
        if layer_norm and not self.reset_after:
            raise ValueError(
                "layer_norm: expected reset_after=True, got False: the recurrent products of gates and candidate are "
                "normalised together, but without it that of the candidate needs the reset gate first; leave "
                "reset_after or layer_norm out"
            )
        self._biases_add_up = not self.reset_after
        self.gate_activation = cell_function("gate_activation", gate_activation)
        self.candidate_activation = cell_function("candidate_activation", candidate_activation)
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
        gate, candidate = self.gate_activation, self.candidate_activation
        functions = [candidate, gate, gate, candidate, candidate]
        # Columns: n of x, r, z, n of h.
        of_h = (-1, 0, 1, 2 if self.reset_after else -1)
        more: dict[str, Any] = {"clip": bound(self.clip), "zoneout": (self.zoneout, 0), "norm_eps": self._norm_eps}
        return core.Cell("GRU", (2, 0, 1, -1), of_h, functions, second=not self.reset_after, **more)

    def _gate_values(self, tape: core.Tape) -> dict[str, Array]:
        functions = {"n": self.candidate_activation, "r": self.gate_activation, "z": self.gate_activation}
        values = dict(zip("nrz", tape.gates(), strict=False))
        return {k: gate_value(functions[k], values[k], self.clip) for k in "rzn"}
