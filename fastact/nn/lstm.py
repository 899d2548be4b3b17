"""``LSTM``: long short-term memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._activations import Activation, activations
from fastact._arguments import Array, as_number
from fastact._core import recurrent as core
from fastact.nn.recurrent import Recurrent, bound, cell_function, gate_value


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
    recurrent_dropout : float
        Probability that an element of h does not reach the recurrent product, in ``forward`` alone: one draw a
        sequence, the same at all steps (Gal and Ghahramani 2016, arXiv:1512.05287); the others are scaled by
        1 / (1 - recurrent_dropout).
    zoneout, cell_zoneout : float
        Probability that a unit's h, or c, stays as it was before a step, drawn anew at each step in ``forward``;
        inference takes the expectation, p * before + (1 - p) * after (Krueger et al. 2017, arXiv:1606.01305).
    clip : float or None
        Bounds what goes into the gates and the candidate to [-clip, clip], as ``clip`` does in ONNX Runtime.
    cell_clip : float or None
        Bounds c_t itself to [-cell_clip, cell_clip].
    layer_norm : bool
        Normalises both products, and c on its way out, over the units of each sequence and step: see Notes.
    layer_norm_eps : float
        What is added to the variance there.
    time_major : bool
        Arrays are (T, B, I) and (T, B, H) instead of (B, T, I) and (B, T, H).
    return_sequences : bool
        False gives the last output only, (B, H): the final h of the last layer.
    forget_bias : float or None
        Initial bias of the forget gate, written once: ``bias_ih`` holds it and ``bias_hh`` zero there. None draws it
        like the others. Of no effect without bias.
    gate_bias : mapping of str to float, or None
        The same for any of the gates i, f, g and o by letter: ``{"i": -2.0, "o": -1.0}`` keeps cells shut until
        training opens them, which Hochreiter and Schmidhuber (1997, section 4) advise against drift of the cell state
        (i) and its abuse as a bias (o). "f" goes before ``forget_bias``.
    gate_activation : str or Activation
        Of all three gates; ``input_gate_activation``, ``forget_gate_activation``, ``output_gate_activation`` give one
        its own. Any elementwise activation of the catalogue; ``fa.hard_sigmoid.with_params(slope=0.2)`` has parameters.
    candidate_activation, cell_activation : str or Activation
        In place of the tanh of g, and of that of c.
    input_gate, forget_gate, output_gate : bool
        False removes the gate: it is 1, and has no rows in the weights.
    coupled_gates : bool
        The forget gate is 1 - i, and has no rows in the weights.
    peepholes : bool
        The gates see the cell state: z_i + p_i * c, z_f + p_f * c before the step, z_o + p_o * c after it.
    full_gate_recurrence : bool
        The gates also see all three gates of the step before: z_i, z_f, z_o grow by ``weight_gates`` times (i, f, o).
        The gates then belong to the state, which is (h, c, i, f, o).
    projection_size : int or None
        P: h is projected, h_t = W_hr (o * tanh(c_t)), and all that reads h has P features: y, the next layer, the
        recurrent product (Sak, Senior and Beaufays 2014, arXiv:1402.1128; ``proj_size`` of PyTorch).
    inference_weights : {"bfloat16", "int8"} or None
        Rounds the matrices where nothing is trained, in calls, ``run`` and streams of a float32 layer, which then reads
        a half or a quarter of the bytes: see Notes. Also an attribute to set later; None is float32.
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
    weight_norm_ih_l0, weight_norm_hh_l0 : Parameter, (4H,)
        With ``layer_norm``: gains, ones at first. Without a gate they have no rows for it, as the weights have none.
    weight_norm_c_l0, bias_norm_c_l0 : Parameter, (H,)
        With ``layer_norm``: gain and shift of c, ones and zeros at first.
    weight_peephole_l0 : Parameter, (3, H)
        With ``peepholes``; of the gates i, f, o. A state dict may have rows of gates that are not there.
    weight_gates_l0 : Parameter, (3H, 3H)
        With ``full_gate_recurrence``; rows and columns are those of the gates i, f, o.
    weight_hr_l0 : Parameter, (P, H)
        With ``projection_size``; ``weight_hh_l0`` is (4H, P) then.

    Notes
    -----
    A state is (h, c), each of shape (num_layers, B, H), or (num_layers x 2, B, H) with both directions of a layer one
    after the other. Layers of different sizes have tuples of one (1 or 2, B, H) a layer instead.

    With ``layer_norm`` (Ba, Kiros and Hinton 2016, arXiv:1607.06450),

    .. math::

        z &= \gamma_{ih} * \mathrm{LN}(W_{ih} x_t) + \gamma_{hh} * \mathrm{LN}(W_{hh} h_{t-1}) + b_{ih} + b_{hh} \\
        h_t &= o * \tanh(\gamma_c * \mathrm{LN}(c_t) + \beta_c) \\
        \mathrm{LN}(v) &= (v - \bar v) / \sqrt{\mathrm{var}(v) + \epsilon}

    is what goes into the gates and the candidate, and what comes out: mean and variance (over n, not n - 1) are those
    of one sequence at one step, over all rows of the gates together, or all units. The state and the peepholes have c
    as it is. In full gate recurrence the product with ``weight_gates`` belongs to :math:`W_{hh} h_{t-1}`.

    With ``inference_weights``, matrices are rounded when inference packs them, to the nearest bfloat16, or, with int8,
    to the nearest of 255 whole multiples of a 127th of each row's largest weight. Parameters, ``forward``, files,
    biases, peepholes, x, h, c and all sums stay float32. It pays where a step waits for its weights, at batch 1 and 2
    from H = 256 on. Times less than float32, on a core of Zen 5, batch 1, I = H = 256, 512 and 1024: a step of a stream
    2.2, 1.6 and 2.5 with bfloat16, 2.2, 2.0 and 3.2 with int8; T = 100 in one call 1.5, 1.7 and 1.7, and 1.2, 1.6 and
    1.7. At H = 32 and from a batch of 4 on there is little to win or something to lose (0.7 to 1.2). What it costs
    there, with new weights and normal x: y of T = 100 is off by at most 0.0035, rms 0.0003, with bfloat16, and 0.007,
    rms 0.0008, with int8, where y is of rms 0.17; a language model of H = 256 that needs 1.5723 bits a character needs
    1.5723 and 1.5731. With int8, a row with a weight that is not finite gives NaN, and so does an infinite x.

    The attributes of the ONNX operator are ``activations`` f: ``gate_activation``, g: ``candidate_activation``, h:
    ``cell_activation``; ``activation_alpha`` and ``activation_beta``: parameters of an activation, as in
    ``fa.leaky_relu.with_params(alpha=0.2)`` or ``fa.scaled_tanh.with_params(amplitude=1, slope=0.5)``; ``clip``;
    ``input_forget``: the coupling c = (1 - i) * c + i * g of ``coupled_gates``; ``layout`` 0: ``time_major``;
    ``direction``: ``reverse`` or ``bidirectional``. Its gates stand in the order i, o, f, g, its peepholes i, o, f.

    The cell is that of Hochreiter and Schmidhuber (1997, Neural Computation 9(8)) with the forget gate of Gers,
    Schmidhuber and Cummins (2000, Neural Computation 12(10)); a forget bias of 1 follows Jozefowicz, Zaremba and
    Sutskever (2015, ICML), peepholes Gers, Schraudolph and Schmidhuber (2002, JMLR 3). ``LSTM.variant`` has the
    published cells by name. What differs from the plain cell costs what it computes.

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
    input_gate_activation: Activation | None
    forget_gate_activation: Activation | None
    output_gate_activation: Activation | None

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
        cell_zoneout: float = 0.0,
        clip: float | None = None,
        cell_clip: float | None = None,
        layer_norm: bool = False,
        layer_norm_eps: float = 1e-5,
        time_major: bool = False,
        return_sequences: bool = True,
        forget_bias: float | None = 1.0,
        gate_bias: Mapping[str, float] | None = None,
        gate_activation: str | Activation = "sigmoid",
        input_gate_activation: str | Activation | None = None,
        forget_gate_activation: str | Activation | None = None,
        output_gate_activation: str | Activation | None = None,
        candidate_activation: str | Activation = "tanh",
        cell_activation: str | Activation = "tanh",
        input_gate: bool = True,
        forget_gate: bool = True,
        output_gate: bool = True,
        coupled_gates: bool = False,
        peepholes: bool = False,
        full_gate_recurrence: bool = False,
        projection_size: int | None = None,
        inference_weights: str | None = None,
        dtype: npt.DTypeLike = np.float32,
        rng: init.Rng = None,
    ) -> None:
        try:
            if forget_bias is not None and not math.isfinite(forget_bias):
                raise ValueError(f"forget_bias: expected a finite number or None, got {forget_bias!r}")
        except TypeError:
            raise TypeError(f"forget_bias: expected a finite number or None, got {forget_bias!r}") from None
        self.forget_bias = None if forget_bias is None else float(forget_bias)
        self.input_gate, self.forget_gate, self.output_gate = bool(input_gate), bool(forget_gate), bool(output_gate)
        self.coupled_gates = bool(coupled_gates)
        self._blocks = len(self._rows)
        self.peepholes = bool(peepholes)
        self.cell_clip = None if cell_clip is None else as_number(cell_clip, "cell_clip", 0, above=True)
        self.gate_bias = None if gate_bias is None else self._checked_bias(gate_bias)
        if self.coupled_gates and not (self.input_gate and self.forget_gate):
            raise ValueError(
                "coupled_gates: expected an input and a forget gate, as the forget gate is 1 - i; leave input_gate and "
                "forget_gate True"
            )
        if self.peepholes and not self._rows.strip("g"):
            raise ValueError("peepholes: expected a gate to look through them, got none; leave one of the gates True")
        self.full_gate_recurrence = bool(full_gate_recurrence)
        if self.full_gate_recurrence and self._rows != "ifgo":
            raise ValueError(
                "full_gate_recurrence: expected all three gates, as each sees them all; leave coupled_gates False and "
                "input_gate, forget_gate and output_gate True"
            )
        if self.full_gate_recurrence:
            self._letters = "hcifo"
        self.gate_activation = cell_function("gate_activation", gate_activation)
        self.candidate_activation = cell_function("candidate_activation", candidate_activation)
        self.cell_activation = cell_function("cell_activation", cell_activation)
        given = (input_gate_activation, forget_gate_activation, output_gate_activation)
        for letter, name, spec in zip("ifo", ("input", "forget", "output"), given, strict=True):
            name += "_gate_activation"
            if spec is not None and letter not in self._rows:
                raise ValueError(
                    f"{name}: expected None, as this layer computes no such gate, got {spec!r}; leave it out"
                )
            setattr(self, name, None if spec is None else cell_function(name, spec))
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
            cell_zoneout=cell_zoneout,
            clip=clip,
            layer_norm=layer_norm,
            layer_norm_eps=layer_norm_eps,
            time_major=time_major,
            return_sequences=return_sequences,
            inference_weights=inference_weights,
            dtype=dtype,
            rng=rng,
            projection_size=projection_size,
        )

    @classmethod
    def variant(cls, name: str, input_size: int, hidden_size: int | Sequence[int], *args: Any, **options: Any) -> LSTM:
        """A published cell by its name; every other argument is the class's.

        Parameters
        ----------
        name : str
            "1997": no forget gate, g = 4 sigmoid(z) - 2, output 2 sigmoid(c) - 1 (Hochreiter and Schmidhuber 1997).
            "gang_chen": tanh output gate, sigmoid candidate (arXiv:1610.02583).
            Those of "LSTM: A Search Space Odyssey" (arXiv:1503.04069): "vanilla", with peepholes, and what differs from
            it in "NIG", "NFG", "NOG" (no input, forget, output gate), "NIAF", "NOAF" (candidate, output not squashed),
            "CIFG" (forget gate 1 - i), "FGR" (the gates see those of the step before), "NP" (no peepholes: the plain
            cell).

        Raises
        ------
        ValueError
            For another name.

        Examples
        --------
        >>> import fastact as fa
        >>> layer = fa.nn.LSTM.variant("CIFG", 3, 8)
        >>> layer.weight_ih_l0.shape, layer.weight_peephole_l0.shape  # rows of i, g, o; of i, o
        ((24, 3), (2, 8))
        """
        if name not in VARIANTS:
            raise ValueError(f"name: expected one of {', '.join(VARIANTS)}, got {name!r}")
        return cls(input_size, hidden_size, *args, **(VARIANTS[name] | options))

    def _checked_bias(self, gate_bias: Any) -> dict[str, float]:
        if not isinstance(gate_bias, Mapping) or not set(gate_bias) <= set(self._rows):
            raise ValueError(
                f"gate_bias: expected a mapping of some of {', '.join(self._rows)}, the gates that there are, to "
                f"numbers, got {gate_bias!r}"
            )
        return {
            letter: as_number(bias, f"gate_bias[{letter!r}]", -math.inf, above=True)
            for letter, bias in gate_bias.items()
        }

    # -- the cell -------------------------------------------------------------------------------------------------

    @property
    def _rows(self) -> str:
        """Letters of the gates that have rows in the weights, in their order."""
        present = (self.input_gate, self.forget_gate and not self.coupled_gates, True, self.output_gate)
        return "".join(letter for letter, there in zip("ifgo", present, strict=True) if there)

    @property
    def _functions(self) -> list[Activation]:
        """Of the gates i, f, g, o and of the cell's output."""
        gates = (self.input_gate_activation, self.forget_gate_activation, self.output_gate_activation)
        i, f, o = (self.gate_activation if each is None else each for each in gates)
        return [i, f, self.candidate_activation, o, self.cell_activation]

    def _make_cell(self) -> core.Cell:
        rows = tuple(self._rows.find(letter) for letter in "ifgo")
        clips = bound(self.clip), bound(self.cell_clip)
        options = (
            self.coupled_gates,
            self.peepholes,
            *clips,
            self.full_gate_recurrence,
            self.projection_size is not None,
        )
        zoneout = (self.zoneout, self.cell_zoneout)
        return core.Cell("LSTM", rows, rows, self._functions, *options, zoneout, self._norm_eps)

    def _gate_values(self, tape: core.Tape) -> dict[str, Array]:
        values = {
            letter: gate_value(function, z, self.clip)
            for letter, z, function in zip("ifgo", tape.gates(), self._functions, strict=False)
            if letter in self._rows
        }
        if self.coupled_gates:
            values["f"] = 1 - values["i"]
        return values

    # -- weights --------------------------------------------------------------------------------------------------

    def _cell_shapes(self, inputs: int, hidden: int) -> dict[str, tuple[int, ...] | None]:
        return super()._cell_shapes(inputs, hidden) | {
            "weight_norm_c": (hidden,) if self.layer_norm else None,
            "bias_norm_c": (hidden,) if self.layer_norm else None,
            "weight_peephole": (len(self._rows) - 1, hidden) if self.peepholes else None,
            "weight_gates": (3 * hidden, 3 * hidden) if self.full_gate_recurrence else None,
            "weight_hr": None if self.projection_size is None else (self.projection_size, hidden),
        }

    def _initial(self, name: str, shape: tuple[int, ...], hidden: int, rng: np.random.Generator) -> Array:
        value = super()._initial(name, shape, hidden, rng)
        if name.startswith("bias_") and "_norm_" not in name:
            forget = {} if self.forget_bias is None else {"f": self.forget_bias}
            for letter, bias in (forget | (self.gate_bias or {})).items():
                if letter in self._rows:
                    begin = self._rows.index(letter) * hidden
                    value[begin : begin + hidden] = bias if name.startswith("bias_ih") else 0
        return value

    def adapt_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """With ``double_bias=False``, both biases add up; of all four gates, those that are there are taken."""
        for name, parameter in self.parameters().items():
            if name.startswith(("weight_norm_c", "bias_norm_c", "weight_hr")):
                continue
            array = np.asarray(state[name]) if name in state else None
            letters = "ifo" if name.startswith("weight_peephole") else "ifgo"
            rows = [k for k in letters if k in self._rows]
            if array is None or len(rows) == len(letters) or array.ndim != len(parameter.shape):
                continue
            each = parameter.shape[0] // len(rows)
            if array.shape[0] == each * len(letters):
                blocks = array.reshape(len(letters), each, *array.shape[1:])
                state[name] = np.concatenate([blocks[letters.index(k)] for k in rows])
        return super().adapt_state(state)


VARIANTS: dict[str, dict[str, Any]] = {
    "vanilla": {"peepholes": True},
    "1997": {
        "forget_gate": False,
        "candidate_activation": activations["scaled_tanh"].with_params(amplitude=2, slope=0.5),
        "cell_activation": activations["scaled_tanh"].with_params(amplitude=1, slope=0.5),
    },
    "gang_chen": {"output_gate_activation": "tanh", "candidate_activation": "sigmoid"},
    "NIG": {"peepholes": True, "input_gate": False},
    "NFG": {"peepholes": True, "forget_gate": False},
    "NOG": {"peepholes": True, "output_gate": False},
    "NIAF": {"peepholes": True, "candidate_activation": "linear"},
    "NOAF": {"peepholes": True, "cell_activation": "linear"},
    "CIFG": {"peepholes": True, "coupled_gates": True},
    "FGR": {"peepholes": True, "full_gate_recurrence": True},
    "NP": {},
}
