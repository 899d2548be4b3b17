"""``LSTM``: long short-term memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._arguments import Array
from fastact.nn.recurrent import Recurrent


class LSTM(Recurrent):
    r"""Long short-term memory, one or more layers over whole sequences.

    For each step, with ``*`` elementwise:

    .. math::

        i, f, o &= \sigma(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) \\
        g &= \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) \\
        c_t &= f * c_{t-1} + i * g \\
        h_t &= o * \tanh(c_t)

    each gate with its own rows of the weights, in the order i, f, g, o.

    Parameters
    ----------
    input_size : int
        I, features of each step of the input.
    hidden_size : int or sequence of int
        H, units of each layer; a sequence gives each layer its own size.
    num_layers : int
        Layers on top of each other: each reads the output of the one below.
    bias : bool
        False leaves both biases out.
    double_bias : bool
        PyTorch's two biases, ``bias_ih`` and ``bias_hh``; False keeps ``bias_ih`` alone. Only their sum matters, but
        with two, an optimiser moves it twice as fast.
    bidirectional : bool
        Each layer runs over the sequences both ways, with weights of its own for the way back.
    merge : {"concat", "sum", "mean", "none"}
        What becomes of the two directions' outputs, in every layer: concatenated (2H features), added, averaged; "none"
        keeps them apart in y, (..., 2, H), and concatenates between layers.
    reverse : bool
        Runs over the sequences from their ends; y stands in the order of x.
    dropout : float
        Probability that an output is dropped on the way to the next layer, in ``forward`` alone; the others are scaled
        by 1 / (1 - dropout).
    time_major : bool
        Arrays are (T, B, I) and (T, B, H) instead of (B, T, I) and (B, T, H).
    return_sequences : bool
        False gives the last output only, (B, H): the final h of the last layer.
    forget_bias : float or None
        Initial bias of the forget gate, written once: ``bias_ih`` holds it and ``bias_hh`` zero there. None draws it
        like the others. Of no effect without bias.
    dtype : float32 or float64
    rng : numpy.random.Generator, int or None
        Draws the initial weights, uniform on [-1/sqrt(H), 1/sqrt(H)) as in PyTorch, and the masks of dropout; None is
        what ``fa.seed`` seeds.

    Attributes
    ----------
    weight_ih_l0 : Parameter, (4H, I)
        Further layers: ``weight_ih_l1`` (4H, H) and so on; the way back: ``weight_ih_l0_reverse``. Names, shapes and
        order of gates are PyTorch's.
    weight_hh_l0 : Parameter, (4H, H)
    bias_ih_l0, bias_hh_l0 : Parameter, (4H,)

    Notes
    -----
    A state is (h, c), each of shape (num_layers, B, H), or (num_layers x 2, B, H) with both directions of a layer one
    after the other. Layers of different sizes have tuples of one (1 or 2, B, H) a layer instead.

    The cell is that of Hochreiter and Schmidhuber (1997, Neural Computation 9(8)) with the forget gate of Gers,
    Schmidhuber and Cummins (2000, Neural Computation 12(10)); a forget bias of 1 follows Jozefowicz, Zaremba and
    Sutskever (2015, ICML).

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.LSTM(3, 8, rng=0)
    >>> x = np.ones((2, 5, 3), np.float32)  # (B, T, I)
    >>> layer(x).shape
    (2, 5, 8)
    >>> y, backward = layer.forward(x)
    >>> dx = backward(np.ones_like(y))
    >>> dx.shape, layer.weight_hh_l0.grad.shape
    ((2, 5, 3), (32, 8))
    >>> h, c = backward.state  # final state, each (num_layers, B, H)
    >>> bool((h[0] == y[:, -1]).all())
    True
    >>> y = layer(x, lengths=[5, 2])  # sequences of unequal lengths
    >>> bool((y[1, 2:] == 0).all())
    True
    >>> layer.run(x, all_cells=True).cells.shape  # c after every step: (num_layers, B, T, H)
    (1, 2, 5, 8)
    """

    _letters = "hc"
    _gates = "ifgo"

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
        time_major: bool = False,
        return_sequences: bool = True,
        forget_bias: float | None = 1.0,
        dtype: npt.DTypeLike = np.float32,
        rng: init.Rng = None,
    ) -> None:
        try:
            if forget_bias is not None and not math.isfinite(forget_bias):
                raise ValueError(f"forget_bias: expected a finite number or None, got {forget_bias!r}")
        except TypeError:
            raise TypeError(f"forget_bias: expected a finite number or None, got {forget_bias!r}") from None
        self.forget_bias = None if forget_bias is None else float(forget_bias)
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
            time_major=time_major,
            return_sequences=return_sequences,
            dtype=dtype,
            rng=rng,
        )

    def _cell_shapes(self, inputs: int, hidden: int) -> dict[str, tuple[int, ...] | None]:
        rows = 4 * hidden
        return {
            "weight_ih": (rows, inputs),
            "weight_hh": (rows, hidden),
            "bias_ih": (rows,) if self.bias else None,
            "bias_hh": (rows,) if self.bias and self.double_bias else None,
        }

    def _initial(self, name: str, shape: tuple[int, ...], hidden: int, rng: np.random.Generator) -> Array:
        value = super()._initial(name, shape, hidden, rng)
        if len(shape) == 1 and self.forget_bias is not None:
            value[hidden : 2 * hidden] = self.forget_bias if name.startswith("bias_ih") else 0
        return value
