"""The yardstick: an LSTM and a whole language-model training step in pure NumPy, as a good NumPy user would write them.

Nothing here is slow on purpose. Sequences are time-major; all four gates stand in one (B, 4H) buffer; the input
product is hoisted over the whole sequence; each weight gradient is one product at the end; sigmoid(z) =
(1 + tanh(z/2)) / 2 with the halves folded into a copy of the weights, so that a step is 10 NumPy calls forward and 7
backward; every result goes into an array that is kept for the next call. Names, shapes and gate order (i, f, g, o)
are PyTorch's.

Letters: B batch, T time steps, I inputs, H units, E embedding width, V classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
State = tuple[Array, Array]


class Buffers:
    """Arrays by name, made at first use and handed out again while shape and dtype stay the same; a model's layers."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}
        self.layers: dict[int, LSTMLayer] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        array = self._arrays.get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            array = self._arrays[name] = np.empty(shape, dtype)
        return array


class LSTMLayer:
    """One LSTM layer over whole sequences (T, B, I) -> (T, B, H).

    Parameters
    ----------
    weight_ih : array, (4H, I)
    weight_hh : array, (4H, H)
    bias_ih, bias_hh : array, (4H,), optional
        Read at each call of `prepare` and `forward`; they may be changed in place between calls.
    """

    def __init__(
        self, weight_ih: Array, weight_hh: Array, bias_ih: Array | None = None, bias_hh: Array | None = None
    ) -> None:
        self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh = weight_ih, weight_hh, bias_ih, bias_hh
        self.hidden = weight_hh.shape[1]
        self.dtype = weight_hh.dtype
        self._buffer = Buffers()
        self.prepare()

    def prepare(self) -> None:
        """Copy the weights: transposed to (I, 4H) and (H, 4H), and halved for the three sigmoid gates."""
        hidden, buffer = self.hidden, self._buffer
        # gate = scale * tanh(scale * z) + shift with scale = 1/2, shift = 1/2 is sigmoid(z); 1 and 0 is tanh(z)
        scale = self._scale = np.full(4 * hidden, 0.5, self.dtype)
        shift = self._shift = np.full(4 * hidden, 0.5, self.dtype)
        scale[2 * hidden : 3 * hidden] = 1
        shift[2 * hidden : 3 * hidden] = 0
        self._input = buffer("input", self.weight_ih.T.shape, self.dtype)
        self._recurrent = buffer("recurrent", self.weight_hh.T.shape, self.dtype)
        np.multiply(self.weight_ih.T, scale, out=self._input)
        np.multiply(self.weight_hh.T, scale, out=self._recurrent)
        self._bias = np.zeros(4 * hidden, self.dtype)
        for bias in (self.bias_ih, self.bias_hh):
            if bias is not None:
                self._bias += bias
        self._bias *= scale

    def _input_product(self, x: Array) -> Array:
        steps, batch, inputs = x.shape
        z = self._buffer("z", (steps, batch, 4 * self.hidden), self.dtype)
        np.dot(x.reshape(-1, inputs), self._input, out=z.reshape(-1, 4 * self.hidden))
        z += self._bias
        return z

    def _state(self, batch: int, state: State | None) -> State:
        if state is not None:
            return state
        zero = np.zeros((batch, self.hidden), self.dtype)
        return zero, zero

    def run(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        """Inference with the weights as last prepared.

        Parameters
        ----------
        x : array, (T, B, I), C-contiguous
        state : (h, c), each (B, H), optional

        Returns
        -------
        y : array, (T, B, H)
            Overwritten by the next call.
        (h, c) : final state, each (B, H)
        """
        steps, batch, _ = x.shape
        hidden, dtype, buffer = self.hidden, self.dtype, self._buffer
        z = self._input_product(x)
        h, c0 = self._state(batch, state)
        y = buffer("y", (steps, batch, hidden), dtype)
        c = c0.copy()
        gates = buffer("gates", (batch, 4 * hidden), dtype)
        temporary = buffer("temporary", (batch, hidden), dtype)
        i, f, g, o = (gates[:, k * hidden : (k + 1) * hidden] for k in range(4))
        recurrent, scale, shift = self._recurrent, self._scale, self._shift
        dot, add, multiply, tanh = np.dot, np.add, np.multiply, np.tanh
        for t in range(steps):
            dot(h, recurrent, out=gates)
            add(gates, z[t], out=gates)
            tanh(gates, out=gates)
            multiply(gates, scale, out=gates)
            add(gates, shift, out=gates)
            multiply(i, g, out=temporary)
            multiply(c, f, out=c)
            add(c, temporary, out=c)
            tanh(c, out=temporary)
            h = y[t]
            multiply(o, temporary, out=h)
        return y, (h.copy(), c)

    def forward(self, x: Array, state: State | None = None) -> tuple[Array, State, Callable[..., dict[str, Any]]]:
        """Training: as `run`, keeping what the gradients need.

        Returns
        -------
        y : array, (T, B, H)
            Overwritten by the next call, like all results and what `backward` reads: call that first.
        (h, c) : final state, each (B, H)
        backward : callable
            ``backward(dy, dstate=None)`` with dy (T, B, H) and dstate = (dh, dc), each (B, H), gives a dict with
            "x", "weight_ih", "weight_hh", "bias", "h0", "c0". The gradient of "bias" is that of both biases.
        """
        self.prepare()
        steps, batch, _ = x.shape
        hidden, dtype, buffer = self.hidden, self.dtype, self._buffer
        gates = self._input_product(x)  # becomes the gates in place, then the gradients of the pre-activations
        h0, c0 = self._state(batch, state)
        h = buffer("h", (steps + 1, batch, hidden), dtype)
        c = buffer("c", (steps + 1, batch, hidden), dtype)
        tanh_c = buffer("tanh_c", (steps, batch, hidden), dtype)
        h[0], c[0] = h0, c0
        product = buffer("product", (batch, 4 * hidden), dtype)
        temporary = buffer("temporary", (batch, hidden), dtype)
        gate_rows = gates.reshape(steps, batch, 4, hidden)
        recurrent, scale, shift = self._recurrent, self._scale, self._shift
        dot, add, multiply, tanh = np.dot, np.add, np.multiply, np.tanh
        for t in range(steps):
            gate = gates[t]
            dot(h[t], recurrent, out=product)
            add(gate, product, out=gate)
            tanh(gate, out=gate)
            multiply(gate, scale, out=gate)
            add(gate, shift, out=gate)
            i, f, g, o = gate_rows[t, :, 0], gate_rows[t, :, 1], gate_rows[t, :, 2], gate_rows[t, :, 3]
            multiply(i, g, out=temporary)
            c_next = c[t + 1]
            multiply(c[t], f, out=c_next)
            add(c_next, temporary, out=c_next)
            tanh(c_next, out=tanh_c[t])
            multiply(o, tanh_c[t], out=h[t + 1])

        def backward(dy: Array, dstate: State | None = None) -> dict[str, Any]:
            return self._backward(x, gates, h, c, tanh_c, dy, dstate)

        return h[1:], (h[-1], c[-1]), backward

    def _backward(
        self, x: Array, gates: Array, h: Array, c: Array, tanh_c: Array, dy: Array, dstate: State | None
    ) -> dict[str, Any]:
        steps, batch, inputs = x.shape
        hidden, dtype, buffer = self.hidden, self.dtype, self._buffer
        gate_rows = gates.reshape(steps, batch, 4, hidden)
        # With dh and dc for the gradients of this step's outputs, the gradients of the pre-activations are
        #   di, df, dg = dc * (g i(1-i), c[t-1] f(1-f), i(1-g^2)),   do = dh * tanh(c) o(1-o)
        # The right factors need no recurrence. They are made for a block of steps that stays in the cache, in place
        # over the gates; the forget gate, which carries dc to the step before, and dc/dh are kept first.
        block = max(1, min(steps, 2**18 // max(1, batch * 4 * hidden * dtype.itemsize)))
        forget = buffer("forget", (block, batch, hidden), dtype)
        dc_dh = buffer("dc_dh", (block, batch, hidden), dtype)
        slope = buffer("slope", (block, batch, hidden), dtype)
        dh = buffer("dh", (batch, hidden), dtype)
        dc = buffer("dc", (batch, hidden), dtype)
        temporary = buffer("temporary", (batch, hidden), dtype)
        dh[...], dc[...] = (0, 0) if dstate is None else dstate
        dot, add, multiply, subtract = np.dot, np.add, np.multiply, np.subtract
        weight_hh = self.weight_hh
        for stop in range(steps, 0, -block):
            start = max(0, stop - block)
            count = stop - start
            i, f, g, o = (gate_rows[start:stop, :, k] for k in range(4))
            tanh_block, keep, through, work = tanh_c[start:stop], forget[:count], dc_dh[:count], slope[:count]
            keep[...] = f
            multiply(tanh_block, tanh_block, out=through)
            subtract(1, through, out=through)
            multiply(through, o, out=through)  # dc/dh = o (1 - tanh(c)^2)
            subtract(1, o, out=work)
            multiply(o, work, out=o)
            multiply(o, tanh_block, out=o)
            subtract(1, f, out=work)
            multiply(f, work, out=f)
            multiply(f, c[start:stop], out=f)
            multiply(g, g, out=work)
            subtract(1, work, out=work)
            multiply(work, i, out=work)  # i (1 - g^2), which waits until g has been read
            multiply(g, i, out=g)
            subtract(1, i, out=i)
            multiply(i, g, out=i)
            g[...] = work
            for t in range(stop - 1, start - 1, -1):
                add(dh, dy[t], out=dh)
                multiply(dh, through[t - start], out=temporary)
                add(dc, temporary, out=dc)
                dz = gate_rows[t]
                multiply(dz[:, :3], dc[:, None], out=dz[:, :3])
                multiply(dz[:, 3], dh, out=dz[:, 3])
                multiply(dc, keep[t - start], out=dc)
                dot(gates[t], weight_hh, out=dh)
        dz_rows = gates.reshape(-1, 4 * hidden)
        dx = buffer("dx", x.shape, dtype)
        dot(dz_rows, self.weight_ih, out=dx.reshape(-1, inputs))
        d_ih = buffer("d_ih", self.weight_ih.shape, dtype)
        d_hh = buffer("d_hh", self.weight_hh.shape, dtype)
        dot(dz_rows.T, x.reshape(-1, inputs), out=d_ih)
        dot(dz_rows.T, h[:-1].reshape(-1, hidden), out=d_hh)
        d_bias = np.dot(np.ones(len(dz_rows), dtype), dz_rows)
        return {"x": dx, "weight_ih": d_ih, "weight_hh": d_hh, "bias": d_bias, "h0": dh, "c0": dc}


def cross_entropy(logits: Array, target: Array) -> tuple[float, Array]:
    """Mean cross-entropy of logits (N, V) against classes (N,), and its gradient, which takes the logits' place."""
    count = len(logits)
    rows = np.arange(count)
    top = logits.max(axis=1, keepdims=True)
    logits -= top
    chosen = logits[rows, target]
    np.exp(logits, out=logits)
    total = logits.sum(axis=1, keepdims=True)
    loss = float(np.log(total).mean(dtype=np.float64) - chosen.mean(dtype=np.float64))
    total *= count
    logits /= total
    logits[rows, target] -= 1 / count
    return loss, logits


def adam_state(parameters: Mapping[str, Array]) -> dict[str, Any]:
    """What Adam remembers of these parameters: step 0, zero moments; and the buffers that steps reuse."""
    return {
        "step": 0,
        "m": {name: np.zeros_like(value) for name, value in parameters.items()},
        "v": {name: np.zeros_like(value) for name, value in parameters.items()},
        "buffers": Buffers(),
    }


def adam_update(
    parameters: Mapping[str, Array],
    gradients: Mapping[str, Array],
    adam: dict[str, Any],
    learning_rate: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    clip_norm: float | None = None,
) -> None:
    """One Adam step in place (Kingma & Ba, 2015), after clipping the gradients' joint norm to `clip_norm`."""
    adam["step"] += 1
    if clip_norm is not None:
        norm = np.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
        if norm > clip_norm:
            for gradient in gradients.values():
                gradient *= clip_norm / (norm + 1e-6)
    beta1, beta2 = betas
    rate = learning_rate / (1 - beta1 ** adam["step"])
    correction = np.sqrt(1 - beta2 ** adam["step"])
    for name, parameter in parameters.items():
        gradient, m, v = gradients[name], adam["m"][name], adam["v"][name]
        work = adam["buffers"]("adam " + name, parameter.shape, parameter.dtype)
        np.multiply(gradient, 1 - beta1, out=work)
        m *= beta1
        m += work
        np.multiply(gradient, gradient, out=work)
        work *= 1 - beta2
        v *= beta2
        v += work
        np.sqrt(v, out=work)
        work *= 1 / correction
        work += eps
        np.divide(m, work, out=work)
        work *= rate
        parameter -= work


def language_model_gradients(
    parameters: Mapping[str, Array], x: Array, y: Array, state: State | None, buffer: Buffers
) -> tuple[float, dict[str, Array], State]:
    """Loss, gradients and final state of embedding -> LSTM layers -> dense -> cross-entropy.

    Parameters
    ----------
    parameters : mapping
        "0.weight" (V, E); "1.weight_ih_l0" (4H, E), "1.weight_hh_l0" (4H, H), "1.bias_ih_l0" and "1.bias_hh_l0" (4H,),
        and so on for l1 ...; "2.weight" (V, H), "2.bias" (V,). A bias may be missing.
    x, y : integer array, (B, T)
        Input and target classes.
    state : (h, c), each (layers, B, H), or None for zeros
    buffer : Buffers
        Kept by the caller from step to step.

    Returns
    -------
    loss : float
        Mean over all B * T targets.
    gradients : dict
        By the names of `parameters`.
    (h, c) : final state, each (layers, B, H)
    """
    batch, steps = x.shape
    embedding, weight = parameters["0.weight"], parameters["2.weight"]
    classes, dtype = len(weight), weight.dtype
    indices = np.ascontiguousarray(x.T)
    h = buffer("embedded", (steps, batch, embedding.shape[1]), dtype)
    np.take(embedding, indices, axis=0, out=h, mode="clip")

    finals, backwards = [], []
    number = 0
    while f"1.weight_hh_l{number}" in parameters:
        layer = _kept_layer(parameters, number, buffer)
        before = None if state is None else (state[0][number], state[1][number])
        h, final, backward = layer.forward(h, before)
        finals.append(final)
        backwards.append(backward)
        number += 1

    hidden = h.shape[2]
    rows = h.reshape(-1, hidden)
    logits = buffer("logits", (len(rows), classes), dtype)
    np.dot(rows, weight.T, out=logits)
    if "2.bias" in parameters:
        logits += parameters["2.bias"]
    loss, d_logits = cross_entropy(logits, y.T.ravel())

    gradients: dict[str, Array] = {}
    gradients["2.weight"] = np.dot(d_logits.T, rows, out=buffer("d_weight", weight.shape, dtype))
    if "2.bias" in parameters:
        gradients["2.bias"] = d_logits.sum(axis=0)
    dh = buffer("dh", h.shape, dtype)
    np.dot(d_logits, weight, out=dh.reshape(-1, hidden))
    for number in reversed(range(len(backwards))):
        d = backwards[number](dh)
        dh = d["x"]
        gradients[f"1.weight_ih_l{number}"] = d["weight_ih"]
        gradients[f"1.weight_hh_l{number}"] = d["weight_hh"]
        for bias in ("bias_ih", "bias_hh"):
            if f"1.{bias}_l{number}" in parameters:
                gradients[f"1.{bias}_l{number}"] = d["bias"].copy()
    gradients["0.weight"] = _embedding_gradient(embedding, indices.ravel(), dh.reshape(len(rows), -1), buffer)
    final_state = np.stack([f[0] for f in finals]), np.stack([f[1] for f in finals])
    return loss, {name: gradients[name] for name in parameters}, final_state


def _kept_layer(parameters: Mapping[str, Array], number: int, buffer: Buffers) -> LSTMLayer:
    """The layer of an earlier step, with its buffers, if it still belongs to these arrays."""
    names = [f"1.{name}_l{number}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    arrays = [parameters.get(name) for name in names]
    layer = buffer.layers.get(number)
    held = (layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh) if layer else ()
    if [id(array) for array in arrays] != [id(array) for array in held]:
        layer = buffer.layers[number] = LSTMLayer(
            parameters[names[0]], parameters[names[1]], parameters.get(names[2]), parameters.get(names[3])
        )
    assert layer is not None
    return layer


def _embedding_gradient(embedding: Array, indices: Array, dy: Array, buffer: Buffers) -> Array:
    """Sum the rows of dy (N, E) that belong to one class: sorted by class, then added run by run."""
    gradient = buffer("d_embedding", embedding.shape, embedding.dtype)
    gradient[...] = 0
    order = np.argsort(indices, kind="stable")
    sorted_indices = indices[order]
    starts = np.flatnonzero(np.r_[True, sorted_indices[1:] != sorted_indices[:-1]])
    gradient[sorted_indices[starts]] = np.add.reduceat(dy[order], starts, axis=0)
    return gradient


def language_model_step(
    parameters: Mapping[str, Array],
    x: Array,
    y: Array,
    state: State | None,
    adam: dict[str, Any],
    learning_rate: float = 1e-3,
    clip_norm: float | None = None,
) -> tuple[float, State]:
    """One training step of a language model: forward, loss, all gradients, clipping, Adam, in place.

    Parameters
    ----------
    parameters : mapping of writable arrays
        As in `language_model_gradients`: the state dict of Sequential(Embedding, LSTM, Dense).
    x, y : integer array, (B, T)
    state : (h, c), each (layers, B, H), or None
        The state that the previous piece of text ended in (truncated backpropagation through time).
    adam : dict
        From `adam_state(parameters)`; updated in place.
    learning_rate, clip_norm : float
        As in `adam_update`.

    Returns
    -------
    loss : float
    (h, c) : final state, each (layers, B, H)

    Examples
    --------
    >>> import numpy as np
    >>> from fastact.bench.numpy_lstm import adam_state, language_model_step
    >>> rng = np.random.default_rng(0)
    >>> shapes = {"0.weight": (5, 3), "1.weight_ih_l0": (16, 3), "1.weight_hh_l0": (16, 4), "1.bias_ih_l0": (16,),
    ...           "1.bias_hh_l0": (16,), "2.weight": (5, 4), "2.bias": (5,)}
    >>> parameters = {name: rng.normal(0, 0.1, shape).astype("f4") for name, shape in shapes.items()}
    >>> x = np.array([[0, 1, 2, 3, 4, 0]]); adam = adam_state(parameters); state = None
    >>> losses = [language_model_step(parameters, x[:, :-1], x[:, 1:], None, adam, 0.05)[0] for _ in range(60)]
    >>> losses[-1] < 0.1 < losses[0]
    True
    """
    buffer: Buffers = adam["buffers"]
    loss, gradients, final = language_model_gradients(parameters, x, y, state, buffer)
    adam_update(parameters, gradients, adam, learning_rate, clip_norm=clip_norm)
    return loss, final
