"""Recurrent layers, one layer and direction: every option, one step after the other.

Time-major: x (T, B, I), y (T, B, R), h (B, R), c (B, H), where R = H unless there is a projection. Weights are those of
torch.nn; rows of gates stand in the order i, f, g, o (LSTM) and r, z, n (GRU), a removed gate leaves its rows out. With
``lengths`` (B,), y is zero beyond them and the final state of a sequence is that of its last step.

Each ``..._forward`` gives a trace, and ``..._backward`` of that trace the gradients by name, of every weight by its own
name and of "x", "h0" and "c0".

With ``weight_norm_ih`` and ``weight_norm_hh`` (G H,) among the weights, the products are normalised before their biases
are added, each by mean and variance of all its rows (Ba, Kiros and Hinton 2016, arXiv:1607.06450); with
``weight_norm_c`` and ``bias_norm_c`` (H,), so is c before it goes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from fastact.reference.catalogue import Array, Elementwise, _f64, activations


def _function(name: str) -> Elementwise:
    found = activations[name]
    assert isinstance(found, Elementwise)
    return found


SIGMOID, TANH = _function("sigmoid"), _function("tanh")


def clipped(function: Elementwise, bound: float) -> Elementwise:
    """The function of min(max(x, -bound), bound): a gate or candidate with the ``clip`` of the ONNX operators."""
    return Elementwise(
        lambda x, *p: function.forward(np.clip(_f64(x), -bound, bound), *p),
        lambda x, *p: np.where(np.abs(_f64(x)) < bound, function.derivative1(np.clip(_f64(x), -bound, bound), *p), 0.0),
        lambda x, *p: np.where(np.abs(_f64(x)) < bound, function.derivative2(np.clip(_f64(x), -bound, bound), *p), 0.0),
    )


def _active(lengths: ArrayLike | None, steps: int, batch: int) -> Array:
    """(T, B, 1): 1 where a sequence has a step, else 0."""
    if lengths is None:
        return np.ones((steps, batch, 1))
    return _f64(np.arange(steps)[:, None] < np.asarray(lengths))[:, :, None]


def _masks(
    lengths: ArrayLike | None, steps: int, batch: int, hidden: int, drop: ArrayLike | None, zoneout: ArrayLike | None
) -> tuple[Array, Array, Array]:
    """``_active``, the recurrent product's mask, and how much of each step is taken: nothing beyond the lengths."""
    active = _active(lengths, steps, batch)
    take = np.ones((steps, batch, hidden)) if zoneout is None else _f64(zoneout)
    return active, np.ones((batch, hidden)) if drop is None else _f64(drop), take * active


LAYER_NORM_EPS = 1e-5


@dataclass
class _Norm:
    """Layer normalisation along the last axis: gain * (v - mean) / sqrt(var + eps)."""

    gain: Array
    eps: float

    def forward(self, v: Array) -> tuple[Array, Array, Array]:
        """The result, without its gain as well, and 1 / sqrt(var + eps)."""
        scale = 1 / np.sqrt(v.var(-1, keepdims=True) + self.eps)
        xhat = (v - v.mean(-1, keepdims=True)) * scale
        return self.gain * xhat, xhat, scale

    def backward(self, d: Array, v: Array) -> tuple[Array, Array]:
        """Gradients of v and, a row each, of the gain."""
        _, xhat, scale = self.forward(v)
        a = self.gain * d
        along = np.mean(a * xhat, -1, keepdims=True)
        return scale * (a - a.mean(-1, keepdims=True) - xhat * along), d * xhat


def _norms(weights: Mapping[str, Array], eps: float) -> dict[str, _Norm]:
    """Of "ih", "hh" and "c", those that have a gain."""
    names = {letters: f"weight_norm_{letters}" for letters in ("ih", "hh", "c")}
    return {letters: _Norm(weights[name], eps) for letters, name in names.items() if name in weights}


def _normalized(norms: Mapping[str, _Norm], letters: str, v: Array) -> Array:
    return norms[letters].forward(v)[0] if letters in norms else v


def _of_product(norms: Mapping[str, _Norm], letters: str, d: dict[str, Array], of_z: Array, v: Array) -> Array:
    """The gradient of a product v from that of z; that of its gain is added to d."""
    if letters not in norms:
        return of_z
    of_v, of_gain = norms[letters].backward(of_z, v)
    d[f"weight_norm_{letters}"] += of_gain.sum(0)
    return of_v


def _start(state: ArrayLike | None, batch: int, size: int) -> Array:
    return np.zeros((batch, size)) if state is None else _f64(state)


@dataclass
class LSTMVariant:
    """The cell between the products; the default is the plain one.

    A gate that is None is removed, which makes it 1; with ``coupled`` the forget gate is 1 - i. ``cell_clip`` bounds
    |c|.
    """

    input_gate: Elementwise | None = SIGMOID
    forget_gate: Elementwise | None = SIGMOID
    candidate: Elementwise = TANH
    output_gate: Elementwise | None = SIGMOID
    cell: Elementwise = TANH
    coupled: bool = False
    cell_clip: float = np.inf

    @property
    def rows(self) -> str:
        """Letters of the gates that have rows of their own in the weights."""
        present = {
            "i": self.input_gate is not None,
            "f": self.forget_gate is not None and not self.coupled,
            "g": True,
            "o": self.output_gate is not None,
        }
        return "".join(letter for letter in "ifgo" if present[letter])

    def function(self, letter: str) -> Elementwise:
        found = {"i": self.input_gate, "f": self.forget_gate, "g": self.candidate, "o": self.output_gate}[letter]
        assert found is not None
        return found


@dataclass
class LSTMTrace:
    """What ``lstm_forward`` computes; h, c and the gates of full gate recurrence begin with the initial state:
    (T + 1, B, R) and (T + 1, B, H)."""

    x: Array
    h: Array
    c: Array
    y: Array
    gates: Array  # (T, 4, B, H): i, f, g, o
    z: dict[str, Array]  # before the activation, (T, B, H) by letter
    weights: dict[str, Array]
    variant: LSTMVariant
    active: Array
    i: Array
    f: Array
    o: Array
    norms: dict[str, _Norm]
    extra: dict[str, Array] = field(default_factory=dict)


def lstm_forward(
    x: ArrayLike,
    weights: Mapping[str, ArrayLike],
    h0: ArrayLike | None = None,
    c0: ArrayLike | None = None,
    i0: ArrayLike | None = None,
    f0: ArrayLike | None = None,
    o0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    variant: LSTMVariant | None = None,
    *,
    recurrent_mask: ArrayLike | None = None,
    zoneout_h: ArrayLike | None = None,
    zoneout_c: ArrayLike | None = None,
    layer_norm_eps: float = LAYER_NORM_EPS,
) -> LSTMTrace:
    """One LSTM layer.

    Parameters
    ----------
    weights : mapping
        ``weight_ih`` (G H, I), ``weight_hh`` (G H, R), ``bias`` (G H,), the sum of both biases; where wanted
        ``weight_peephole`` (the gates that there are among i, f, o; H), ``weight_hr`` (P, H), the projection,
        ``weight_gates`` (3H, 3H), of full gate recurrence, with rows and columns of i, f, o.
    recurrent_mask : (B, R)
        Times h in the recurrent product, at every step the same.
    zoneout_h, zoneout_c : (T, B, R), (T, B, H)
        How much of the step each unit takes; the rest remains as it was: a drawn mask, or its expectation.
    """
    x, w, v = _f64(x), {name: _f64(value) for name, value in weights.items()}, variant or LSTMVariant()
    steps, batch, hidden = len(x), x.shape[1], len(w["weight_hh"]) // len(v.rows)
    width = w["weight_hh"].shape[1]
    active, mask, take_h = _masks(lengths, steps, batch, width, recurrent_mask, zoneout_h)
    take_c = _masks(lengths, steps, batch, hidden, None, zoneout_c)[2]
    h, c = np.zeros((steps + 1, batch, width)), np.zeros((steps + 1, batch, hidden))
    h[0], c[0] = _start(h0, batch, width), _start(c0, batch, hidden)
    gates = np.ones((steps, 4, batch, hidden))
    before = np.zeros((steps + 1, 3, batch, hidden))  # the gates i, f, o that a step sees
    before[0] = [_start(gate, batch, hidden) for gate in (i0, f0, o0)]
    z_all = {letter: np.zeros((steps, batch, hidden)) for letter in v.rows}
    new_c, new_h = np.zeros_like(c[1:]), np.zeros_like(h[1:])
    norms, products = _norms(w, layer_norm_eps), np.zeros((2, steps, batch, len(v.rows) * hidden))
    peephole = dict(zip((k for k in v.rows if k != "g"), w.get("weight_peephole", np.zeros((3, hidden))), strict=False))
    for t in range(steps):
        products[:, t] = x[t] @ w["weight_ih"].T, (mask * h[t]) @ w["weight_hh"].T
        if "weight_gates" in w:
            i, f, o = np.split(np.concatenate(before[t], 1) @ w["weight_gates"].T, 3, axis=1)
            products[1, t] += np.concatenate([i, f, np.zeros_like(i), o], 1)
        columns = _normalized(norms, "ih", products[0, t]) + _normalized(norms, "hh", products[1, t]) + w["bias"]
        z = dict(zip(v.rows, np.split(columns, len(v.rows), axis=1), strict=True))
        gate = dict.fromkeys("ifgo", np.ones((batch, hidden)))
        for letter in v.rows:
            if letter in "if":
                z[letter] = z[letter] + peephole[letter] * c[t]
            if letter != "o":
                gate[letter] = v.function(letter).forward(z[letter])
        if v.coupled:
            gate["f"] = 1 - gate["i"]
        c_new = gate["f"] * c[t] + gate["i"] * gate["g"]
        new_c[t] = np.clip(c_new, -v.cell_clip, v.cell_clip)
        c[t + 1] = c[t] + take_c[t] * (new_c[t] - c[t])
        if "o" in v.rows:
            z["o"] = z["o"] + peephole["o"] * c[t + 1]
            gate["o"] = v.function("o").forward(z["o"])
        seen_c = norms["c"].forward(c[t + 1])[0] + w["bias_norm_c"] if "c" in norms else c[t + 1]
        out = gate["o"] * v.cell.forward(seen_c)
        new_h[t] = out @ w["weight_hr"].T if "weight_hr" in w else out
        h[t + 1] = h[t] + take_h[t] * (new_h[t] - h[t])
        gates[t] = [gate[letter] for letter in "ifgo"]
        before[t + 1] = before[t] + active[t] * (gates[t, [0, 1, 3]] - before[t])
        for letter in v.rows:
            z_all[letter][t] = z[letter]
    extra = {"mask": mask, "take_h": take_h, "take_c": take_c, "new_c": new_c, "products": products}
    seen = before[:, 0], before[:, 1], before[:, 2]
    return LSTMTrace(x, h, c, h[1:] * active, gates, z_all, w, v, active, *seen, norms, extra)


def lstm_backward(
    trace: LSTMTrace,
    dy: ArrayLike,
    dh: ArrayLike | None = None,
    dc: ArrayLike | None = None,
    di: ArrayLike | None = None,
    df: ArrayLike | None = None,
    do: ArrayLike | None = None,
) -> dict[str, Array]:
    """Gradients of all weights, of "x", "h0", "c0", with full gates "i0", "f0", "o0"; dh to do are those of the final
    state."""
    w, v, x, h, c, e = trace.weights, trace.variant, trace.x, trace.h, trace.c, trace.extra
    norms = trace.norms
    batch, width, hidden = h.shape[1], h.shape[2], c.shape[2]
    dy = _f64(dy) * trace.active
    d = {name: np.zeros_like(value) for name, value in w.items()}
    d["x"] = np.zeros_like(x)
    d_h, d_c = _start(dh, batch, width), _start(dc, batch, hidden)
    d_before = np.stack([_start(gradient, batch, hidden) for gradient in (di, df, do)])
    before = np.stack([trace.i, trace.f, trace.o], 1)
    letters = [k for k in v.rows if k != "g"]
    peephole = dict(zip(letters, w.get("weight_peephole", np.zeros((3, hidden))), strict=False))
    for t in reversed(range(len(x))):
        i, f, g, o = trace.gates[t]
        z = {letter: trace.z[letter][t] for letter in v.rows}
        d_h = d_h + dy[t]
        d_new_h, d_h_before = d_h * e["take_h"][t], d_h * (1 - e["take_h"][t])
        seen_c = norms["c"].forward(c[t + 1])[0] + w["bias_norm_c"] if "c" in norms else c[t + 1]
        squashed = v.cell.forward(seen_c)
        d_out = d_new_h
        if "weight_hr" in w:
            d["weight_hr"] += d_new_h.T @ (o * squashed)
            d_out = d_new_h @ w["weight_hr"]
        dz = {}
        of_gate = dict(zip("ifo", d_before * trace.active[t], strict=True))
        d_before = d_before * (1 - trace.active[t])
        d_seen = d_out * o * v.cell.derivative1(seen_c)
        if "c" in norms:
            d["bias_norm_c"] += d_seen.sum(0)
        d_c = d_c + _of_product(norms, "c", d, d_seen, c[t + 1])
        if "o" in v.rows:
            dz["o"] = v.function("o").backward(d_out * squashed + of_gate["o"], x=z["o"])
            d_c = d_c + dz["o"] * peephole["o"]
        inside = np.abs(e["new_c"][t]) < v.cell_clip
        d_new_c, d_c_before = d_c * e["take_c"][t] * inside, d_c * (1 - e["take_c"][t])
        d_c_before = d_c_before + d_new_c * f
        dz["g"] = v.candidate.backward(d_new_c * i, x=z["g"])
        d_gate = {"i": d_new_c * (g - c[t] if v.coupled else g), "f": d_new_c * c[t]}
        for letter in "if":
            if letter in v.rows:
                dz[letter] = v.function(letter).backward(d_gate[letter] + of_gate[letter], x=z[letter])
                d_c_before = d_c_before + dz[letter] * peephole[letter]
        if "weight_peephole" in w:
            seen = {"i": c[t], "f": c[t], "o": c[t + 1]}
            d["weight_peephole"] += [np.sum(dz[letter] * seen[letter], 0) for letter in letters]
        rows = np.concatenate([dz[letter] for letter in v.rows], axis=1)
        d["bias"] += rows.sum(0)
        of_x, of_h = (_of_product(norms, k, d, rows, p[t]) for k, p in zip(("ih", "hh"), e["products"], strict=True))
        if "weight_gates" in w:
            of_z = np.concatenate([np.split(of_h, 4, axis=1)[k] for k in (0, 1, 3)], 1)
            d["weight_gates"] += of_z.T @ np.concatenate(before[t], 1)
            d_before = d_before + np.stack(np.split(of_z @ w["weight_gates"], 3, axis=1))
        d["weight_ih"] += of_x.T @ x[t]
        d["weight_hh"] += of_h.T @ (e["mask"] * h[t])
        d["x"][t] = of_x @ w["weight_ih"]
        d_h = d_h_before + e["mask"] * (of_h @ w["weight_hh"])
        d_c = d_c_before
    of_gates = dict(zip(("i0", "f0", "o0"), d_before, strict=True)) if "weight_gates" in w else {}
    return d | {"h0": d_h, "c0": d_c} | of_gates


@dataclass
class GRUTrace:
    """What ``gru_forward`` computes; h begins with the initial state: (T + 1, B, H)."""

    x: Array
    h: Array
    y: Array
    gates: Array  # (T, 3, B, H): r, z, n
    z: Array  # (T, 3, B, H): the same before the activation
    product: Array  # (T, B, H): the recurrent product of n with its bias, for reset_after
    weights: dict[str, Array]
    functions: tuple[Elementwise, Elementwise]
    reset_after: bool
    active: Array
    mask: Array  # (B, H)
    take: Array  # (T, B, H)
    norms: dict[str, _Norm]
    products: Array  # (2, T, B, 3H): those of x and of h, without biases


def gru_forward(
    x: ArrayLike,
    weights: Mapping[str, ArrayLike],
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    gate: Elementwise = SIGMOID,
    candidate: Elementwise = TANH,
    reset_after: bool = True,
    *,
    recurrent_mask: ArrayLike | None = None,
    zoneout_h: ArrayLike | None = None,
    layer_norm_eps: float = LAYER_NORM_EPS,
) -> GRUTrace:
    """One GRU layer: ``weight_ih`` (3H, I), ``weight_hh`` (3H, H), ``bias_ih`` and ``bias_hh`` (3H,).

    ``recurrent_mask`` and ``zoneout_h`` are as for ``lstm_forward``.

    Normalisation needs ``reset_after``.

    ``reset_after``: n = f(W x + b_ih + r * (U h + b_hh)), as in PyTorch; else n = f(W x + b_ih + U (r * h) + b_hh).
    """
    x, w = _f64(x), {name: _f64(value) for name, value in weights.items()}
    steps, batch, hidden = len(x), x.shape[1], len(w["weight_hh"]) // 3
    active, mask, take = _masks(lengths, steps, batch, hidden, recurrent_mask, zoneout_h)
    h = np.zeros((steps + 1, batch, hidden))
    h[0] = _start(h0, batch, hidden)
    gates, z_all, product = (
        np.zeros((steps, 3, batch, hidden)),
        np.zeros((steps, 3, batch, hidden)),
        np.zeros_like(h[1:]),
    )
    norms, products = _norms(w, layer_norm_eps), np.zeros((2, steps, batch, 3 * hidden))
    for t in range(steps):
        seen = mask * h[t]
        products[:, t] = x[t] @ w["weight_ih"].T, seen @ w["weight_hh"].T
        x_r, x_z, x_n = np.split(_normalized(norms, "ih", products[0, t]) + w["bias_ih"], 3, axis=1)
        h_r, h_z, h_n = np.split(_normalized(norms, "hh", products[1, t]) + w["bias_hh"], 3, axis=1)
        r, z = gate.forward(x_r + h_r), gate.forward(x_z + h_z)
        if not reset_after:
            h_n = (r * seen) @ w["weight_hh"][2 * hidden :].T + w["bias_hh"][2 * hidden :]
        z_n = x_n + (r * h_n if reset_after else h_n)
        n = candidate.forward(z_n)
        h[t + 1] = h[t] + take[t] * ((1 - z) * n + z * h[t] - h[t])
        gates[t], z_all[t], product[t] = (r, z, n), (x_r + h_r, x_z + h_z, z_n), h_n
    y, functions = h[1:] * active, (gate, candidate)
    return GRUTrace(x, h, y, gates, z_all, product, w, functions, reset_after, active, mask, take, norms, products)


def gru_backward(trace: GRUTrace, dy: ArrayLike, dh: ArrayLike | None = None) -> dict[str, Array]:
    """Gradients of all weights, of "x" and "h0"; dh is that of the final state."""
    w, x, h, (gate, candidate) = trace.weights, trace.x, trace.h, trace.functions
    hidden = h.shape[2]
    dy = _f64(dy) * trace.active
    d = {name: np.zeros_like(value) for name, value in w.items()}
    d["x"] = np.zeros_like(x)
    d_h = _start(dh, h.shape[1], hidden)
    for t in reversed(range(len(x))):
        r, z, n = trace.gates[t]
        d_h = d_h + dy[t]
        d_new, seen = d_h * trace.take[t], trace.mask * h[t]
        d_before, d_seen = d_h * (1 - trace.take[t]) + d_new * z, np.zeros_like(d_h)
        dz_n = candidate.backward(d_new * (1 - z), x=trace.z[t, 2])
        dz_z = gate.backward(d_new * (h[t] - n), x=trace.z[t, 1])
        u_n = w["weight_hh"][2 * hidden :]
        if trace.reset_after:
            d_product, d_r = dz_n * r, dz_n * trace.product[t]
        else:
            d_product, d_reset = dz_n, dz_n @ u_n
            d_r, d_seen = d_reset * seen, d_reset * r
        dz_r = gate.backward(d_r, x=trace.z[t, 0])
        of_x, of_h = np.concatenate([dz_r, dz_z, dz_n], 1), np.concatenate([dz_r, dz_z, d_product], 1)
        gates = slice(None, None if trace.reset_after else 2 * hidden)
        d["bias_ih"] += of_x.sum(0)
        d["bias_hh"] += of_h.sum(0)
        of_x = _of_product(trace.norms, "ih", d, of_x, trace.products[0, t])
        of_h = _of_product(trace.norms, "hh", d, of_h, trace.products[1, t])
        d["weight_ih"] += of_x.T @ x[t]
        d["weight_hh"][gates] += of_h[:, gates].T @ seen
        if not trace.reset_after:
            d["weight_hh"][2 * hidden :] += dz_n.T @ (r * seen)
        d["x"][t] = of_x @ w["weight_ih"]
        d_h = d_before + trace.mask * (d_seen + of_h[:, gates] @ w["weight_hh"][gates])
    return d | {"h0": d_h}


@dataclass
class RNNTrace:
    """What ``rnn_forward`` computes; h begins with the initial state: (T + 1, B, H)."""

    x: Array
    h: Array
    y: Array
    z: Array  # (T, B, H)
    weights: dict[str, Array]
    function: Elementwise
    active: Array
    mask: Array  # (B, H)
    take: Array  # (T, B, H)
    norms: dict[str, _Norm]
    products: Array  # (2, T, B, H): those of x and of h, without biases


def rnn_forward(
    x: ArrayLike,
    weights: Mapping[str, ArrayLike],
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    activation: Elementwise = TANH,
    *,
    recurrent_mask: ArrayLike | None = None,
    zoneout_h: ArrayLike | None = None,
    layer_norm_eps: float = LAYER_NORM_EPS,
) -> RNNTrace:
    """One layer of h' = f(W x + U h + b): ``weight_ih`` (H, I), ``weight_hh`` (H, H), ``bias`` (H,).

    ``recurrent_mask`` and ``zoneout_h`` are as for ``lstm_forward``.
    """
    x, w = _f64(x), {name: _f64(value) for name, value in weights.items()}
    steps, batch, hidden = len(x), x.shape[1], len(w["weight_hh"])
    active, mask, take = _masks(lengths, steps, batch, hidden, recurrent_mask, zoneout_h)
    h, z = np.zeros((steps + 1, batch, hidden)), np.zeros((steps, batch, hidden))
    h[0] = _start(h0, batch, hidden)
    norms, products = _norms(w, layer_norm_eps), np.zeros((2, *z.shape))
    for t in range(steps):
        products[:, t] = x[t] @ w["weight_ih"].T, (mask * h[t]) @ w["weight_hh"].T
        z[t] = _normalized(norms, "ih", products[0, t]) + _normalized(norms, "hh", products[1, t]) + w["bias"]
        h[t + 1] = h[t] + take[t] * (activation.forward(z[t]) - h[t])
    return RNNTrace(x, h, h[1:] * active, z, w, activation, active, mask, take, norms, products)


def rnn_backward(trace: RNNTrace, dy: ArrayLike, dh: ArrayLike | None = None) -> dict[str, Array]:
    """Gradients of all weights, of "x" and "h0"; dh is that of the final state."""
    w, x, h = trace.weights, trace.x, trace.h
    dy = _f64(dy) * trace.active
    d = {name: np.zeros_like(value) for name, value in w.items()}
    d["x"] = np.zeros_like(x)
    d_h = _start(dh, h.shape[1], h.shape[2])
    for t in reversed(range(len(x))):
        d_h = d_h + dy[t]
        dz = trace.function.backward(d_h * trace.take[t], x=trace.z[t])
        of_x = _of_product(trace.norms, "ih", d, dz, trace.products[0, t])
        of_h = _of_product(trace.norms, "hh", d, dz, trace.products[1, t])
        d["weight_ih"] += of_x.T @ x[t]
        d["weight_hh"] += of_h.T @ (trace.mask * h[t])
        d["bias"] += dz.sum(0)
        d["x"][t] = of_x @ w["weight_ih"]
        d_h = d_h * (1 - trace.take[t]) + trace.mask * (of_h @ w["weight_hh"])
    return d | {"h0": d_h}
