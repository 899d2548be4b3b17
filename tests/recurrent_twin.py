"""A whole recurrent layer (stack, directions, merging, lengths) out of the one-direction reference, and comparisons.

Import it as ``from recurrent_twin import ...``.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

import fastact as fa
from fastact import reference
from fastact.nn.sequences import Ragged

# One product sums up to 2 * (I + H) terms in another order than the reference, over T steps that add up: k eps of the
# largest entry, where sigmoid and tanh bring 4 ULP a step.
EPS = {np.dtype(np.float32): 2.0**-23, np.dtype(np.float64): 2.0**-52}


def randomize(layer, seed=1):
    """Random weights, each gate on a scale of its own: a permutation of gates or a lost matrix can't hide."""
    rng = np.random.default_rng(seed)
    for name, p in layer.parameters().items():
        hidden = layer.hidden_sizes[int(name.split("_l")[1].split("_")[0])]
        gate = np.resize(np.repeat([0.7, 1.3, 1.0, 1.6], hidden), p.shape[0])
        if len(p.shape) == 2:
            p.value = rng.uniform(-1, 1, p.shape) * gate[:, None] / np.sqrt(p.shape[1])
        else:
            p.value = rng.uniform(-0.3, 0.7, p.shape) * gate
    return layer


def state_of(layer, B, rng):
    """A random state in the layer's form."""
    state = layer._states.new(B)
    for each in (each for letter in state for each in letter):
        each[...] = rng.normal(size=each.shape)
    return layer._states.public(state)


def arrays(layer, T, B, seed=2):
    """x, dy, a state and the gradient of a final one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*((T, B) if layer.time_major else (B, T)), layer.input_size)).astype(layer.dtype)
    dy = rng.normal(size=layer._input(x)[2]).astype(layer.dtype)
    return x, dy, state_of(layer, B, rng), state_of(layer, B, rng)


def by_letter(layer, state):
    """A state as a list, by letter, of (directions, B, H) by layer."""
    D, count = 2 if layer.bidirectional else 1, len(layer.hidden_sizes)
    parts = state if len(layer._letters) > 1 else (state,)
    return [[*p] if isinstance(p, tuple) else [p[n * D : n * D + D] for n in range(count)] for p in parts]


def flip(a, lengths):
    """(T, B, K), each sequence from its own end."""
    out = a.copy()
    for b in range(a.shape[1]):
        n = len(a) if lengths is None else lengths[b]
        out[:n, b] = a[:n, b][::-1]
    return out


def swap(layer, a):
    return a if layer.time_major else np.swapaxes(a, 0, 1)


def cell_weights(layer, n, d):
    """The weights of one cell by the names of the reference; which parameters the gradient of a name belongs to."""
    suffix = f"_l{n}_reverse" if d else f"_l{n}"
    found = {k.removesuffix(suffix): p.value for k, p in layer.parameters().items() if k.endswith(suffix)}
    names = {k: [k] for k in found}
    biases = [k for k in ("bias_ih", "bias_hh") if k in found]
    zero = np.zeros(len(found["weight_ih"]))
    if isinstance(layer, fa.nn.GRU):  # whose biases act apart
        found = {"bias_ih": zero, "bias_hh": zero} | found
        return found, {k: [name + suffix for name in names.get(k, [])] for k in found}
    for k in biases:
        del names[k]
    found["bias"] = sum((found.pop(k).astype(np.float64) for k in biases), zero)
    names["bias"] = biases
    return found, {k: [name + suffix for name in v] for k, v in names.items()}


def twin_of(function, clip=None):
    """An activation as the reference has it, with its parameters as the layer's type holds them."""
    twin, values = reference.activations[function.name], [*function.parameters.values()]
    if clip is not None:
        twin = reference.clipped(twin, clip)
    return reference.Elementwise(
        lambda x: twin.forward(x, *values),
        lambda x: twin.derivative1(x, *values),
        lambda x: twin.derivative2(x, *values),
    )


def passes(layer):
    """Forward and backward of one cell by the reference; ``masks`` as ``MaskRecorder`` has them."""

    def named(masks, *names):
        return {name: mask for name, mask in zip(names, masks, strict=False) if mask is not None}

    eps = {"layer_norm_eps": layer.layer_norm_eps}
    if isinstance(layer, fa.nn.GRU):
        gate, candidate = twin_of(layer.gate_activation, layer.clip), twin_of(layer.candidate_activation, layer.clip)

        def gru(x, weights, initial, lengths, masks):
            options = named(masks, "recurrent_mask", "zoneout_h") | eps
            begin = initial[0] if initial else None
            return reference.gru_forward(x, weights, begin, lengths, gate, candidate, layer.reset_after, **options)

        return gru, reference.gru_backward
    if isinstance(layer, fa.nn.RNN):

        def rnn(x, weights, initial, lengths, masks):
            options = named(masks, "recurrent_mask", "zoneout_h") | eps
            return reference.rnn_forward(
                x, weights, *(initial or [None]), lengths, twin_of(layer.activation, layer.clip), **options
            )

        return rnn, reference.rnn_backward
    i, f, g, o = (twin_of(function, layer.clip) for function in layer._functions[:4])
    c = twin_of(layer.cell_activation)
    variant = reference.LSTMVariant(
        i if layer.input_gate else None,
        f if layer.forget_gate else None,
        g,
        o if layer.output_gate else None,
        c,
        layer.coupled_gates,
        np.inf if layer.cell_clip is None else layer.cell_clip,
    )

    def lstm(x, weights, initial, lengths, masks):
        options = named(masks, "recurrent_mask", "zoneout_h", "zoneout_c") | eps
        return reference.lstm_forward(x, weights, *(initial or ()), lengths=lengths, variant=variant, **options)

    return lstm, reference.lstm_backward


class MaskRecorder:
    """Keeps the masks that a layer draws in a call, in the order of its passes, as the reference takes them."""

    def __init__(self, layer, lengths, steps):
        self.layer, self.masks, self.steps = layer, [], steps
        self.ragged = None if lengths is None or min(lengths) == steps else Ragged(np.array(lengths), steps, True)

    def __enter__(self):
        draw = self.layer._cell_masks

        def record(layer, batch, rows):
            masks = draw(layer, batch, rows)
            self.masks.append([self.whole(k, mask, batch) for k, mask in enumerate(masks or (None, None, None))])
            return masks

        self.layer._cell_masks = record
        return self.masks

    def __exit__(self, *error):
        del self.layer._cell_masks

    def whole(self, k, mask, batch):
        if mask is None or self.ragged is None:
            return mask
        if k == 0:
            return mask[np.argsort(self.ragged.order)]
        out = np.empty((self.steps, batch, mask.shape[1]), mask.dtype)
        self.ragged.unpack(mask, out)
        return out


def expected(layer, x, state=None, dy=None, dstate=None, lengths=None, masks=()):
    """y, the final state by letter and layer, and with dy all gradients by name ("x", "h0", "c0" among them)."""
    forward, backward = passes(layer)
    D, last = 2 if layer.bidirectional else 1, len(layer.hidden_sizes) - 1
    initial = None if state is None else by_letter(layer, state)
    inner = swap(layer, x).astype(np.float64)
    traces, final = [], [[] for _ in layer._letters]
    for n in range(last + 1):
        traces.append([])
        for d in range(D):
            seen = flip(inner, lengths) if layer.reverse or d else inner
            begin = None if initial is None else [letter[n][d] for letter in initial]
            drawn = masks[n * D + d] if masks else ()
            traces[n].append(forward(seen, cell_weights(layer, n, d)[0], begin, lengths, drawn))
        for letter, parts in zip(layer._letters, final, strict=True):
            parts.append(np.stack([getattr(trace, letter)[-1] for trace in traces[n]]))
        ways = [flip(t.y, lengths) if layer.reverse or d else t.y for d, t in enumerate(traces[n])]
        inner = merged(layer, ways, n == last)
    y = swap(layer, inner) if layer.return_sequences else merged(layer, [*final[0][-1]], True)
    if dy is None:
        return y, final, None

    d_final = [[np.zeros_like(a) for a in letter] for letter in final]
    if dstate is not None:
        d_final = [[a.astype(np.float64) for a in letter] for letter in by_letter(layer, dstate)]
    if layer.return_sequences:
        d_ways = unmerged(layer, swap(layer, dy), layer.output_sizes[-1], True)
    else:
        d_final[0][-1] = d_final[0][-1] + np.stack(unmerged(layer, dy, layer.output_sizes[-1], True))
        d_ways = [np.zeros_like(t.y) for t in traces[-1]]
    gradients, d_initial = {}, [[] for _ in layer._letters]
    for n in reversed(range(last + 1)):
        d_inner, begin = 0, [[] for _ in layer._letters]
        for d in range(D):
            of_y = flip(d_ways[d], lengths) if layer.reverse or d else d_ways[d]
            got = backward(traces[n][d], of_y, *(letter[n][d] for letter in d_final))
            d_inner = d_inner + (flip(got["x"], lengths) if layer.reverse or d else got["x"])
            for k, names in cell_weights(layer, n, d)[1].items():
                gradients |= dict.fromkeys(names, got[k])
            for letter, parts in zip(layer._letters, begin, strict=True):
                parts.append(got[letter + "0"])
        for whole, parts in zip(d_initial, begin, strict=True):
            whole.insert(0, np.stack(parts))
        if n:
            d_ways = unmerged(layer, d_inner, layer.output_sizes[n - 1], False)
    gradients["x"] = swap(layer, d_inner)
    gradients |= dict(zip((letter + "0" for letter in layer._letters), d_initial, strict=True))
    return y, final, gradients


def merged(layer, ways, last):
    if len(ways) == 1:
        return ways[0]
    if layer.merge in ("sum", "mean"):
        return sum(ways) / (2 if layer.merge == "mean" else 1)
    return np.stack(ways, -2) if layer.merge == "none" and last else np.concatenate(ways, -1)


def unmerged(layer, d, H, last):
    """dy of each direction."""
    d = d.astype(np.float64)
    if not layer.bidirectional:
        return [d]
    if layer.merge in ("sum", "mean"):
        return [d / (2 if layer.merge == "mean" else 1)] * 2
    return [d[..., 0, :], d[..., 1, :]] if layer.merge == "none" and last else [d[..., :H], d[..., H:]]


def draw_case(draw, cell, steps, functions=None):
    """What ``check`` takes, out of hypothesis: a layer at sizes around those of a vector and of a tile, each of
    ``functions`` with one of its choices."""
    way = draw(st.sampled_from([{}, {"reverse": True}, {"bidirectional": True}]))
    layer = cell(
        draw(st.sampled_from([1, 3, 16, 17])),
        draw(st.lists(st.sampled_from([1, 7, 16, 33]), min_size=1, max_size=3)),
        merge=draw(st.sampled_from(["concat", "sum", "mean", "none"])) if "bidirectional" in way else "concat",
        bias=draw(st.booleans()),
        double_bias=draw(st.booleans()),
        time_major=draw(st.booleans()),
        return_sequences=draw(st.booleans()),
        dtype=draw(st.sampled_from([np.float32, np.float64])),
        **way,
        **{name: draw(st.sampled_from(choice)) for name, choice in (functions or {}).items()},
    )
    T, B = draw(st.sampled_from([1, 2, 5, steps])), draw(st.sampled_from([1, 2, 7, 8, 13]))
    lengths = draw(st.none() | st.lists(st.integers(1, T), min_size=B, max_size=B))
    return {"layer": randomize(layer), "T": T, "B": B, "with_state": draw(st.booleans()), "lengths": lengths}


def check_activation(cell, options, name):
    """One activation in each place: values, and gradients where it is smooth at the points that come up; or refused."""
    function = fa.activations[name]
    for option in options:
        if function.index < 0 or function.rowwise:
            with pytest.raises(ValueError, match=f"{option}: expected an elementwise activation of the catalogue"):
                cell(2, 3, **{option: name})
            continue
        layer = randomize(cell(3, 5, dtype=np.float64, **{option: name}))
        for p in layer.parameters().values():
            p.value = 0.5 * p.value
        x, dy, state, dstate = arrays(layer, 3, 2)
        want, _, gradients = expected(layer, x, state, dy, dstate)
        y, backward = layer.forward(x, state=state)
        close("y", y, want, layer.dtype, 30)
        close("x", backward(dy, dstate=dstate), gradients["x"], layer.dtype, 30)


def close(name, got, want, dtype, steps):
    budget = EPS[dtype] * (16 + 4 * steps)
    assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
    scale = max(1.0, np.abs(want).max(initial=0))
    error = np.abs(got - want).max(initial=0) / scale
    assert error <= budget, f"{name}: {error / EPS[dtype]:.1f} eps, allowed {budget / EPS[dtype]:.1f}"


def check(layer, T, B, with_state=True, lengths=None):
    """Hold inference, run, forward and backward against the twin."""
    x, dy, state, dstate = arrays(layer, T, B)
    state, dstate = (state, dstate) if with_state else (None, None)
    depth = T * len(layer.hidden_sizes)  # what a layer adds goes through those above, and back

    def close_state(got, want):
        for letter, parts, right in zip(layer._letters, by_letter(layer, got), want, strict=True):
            for n, (a, b) in enumerate(zip(parts, right, strict=True)):
                close(f"{letter} of layer {n}", a, b, layer.dtype, depth)

    layer.zero_grad()
    with MaskRecorder(layer, lengths, T) as masks:
        y, backward = layer.forward(x, state=state, lengths=lengths)
    want, final, gradients = expected(layer, x, state, dy, dstate, lengths, masks)
    close("y", y, want, layer.dtype, depth)
    close_state(backward.state, final)
    assert backward.dstate is None
    dx = backward(dy, dstate=dstate)
    close("x", dx, gradients.pop("x"), layer.dtype, depth)
    close_state(backward.dstate, [gradients.pop(letter + "0") for letter in layer._letters])
    for name, p in layer.parameters().items():
        close(name, p.grad, gradients.pop(name), layer.dtype, depth)
    assert not gradients

    result = layer.run(x, state=state, lengths=lengths)
    if masks:  # inference takes what is expected of them
        take = [None if not p else np.array([1 - p], layer.dtype) for p in (layer.zoneout, layer.cell_zoneout)]
        want, final, _ = expected(layer, x, state, lengths=lengths, masks=[[None, *take]] * len(masks))
    close("run", result.y, want, layer.dtype, depth)
    close_state(result.state, final)
    close("inference", layer(x, state=state, lengths=lengths), want, layer.dtype, depth)


def check_numerically(layer, T, B, lengths=None, before=lambda: None):
    """Every gradient in float64 against central differences; ``before`` runs ahead of each forward."""
    from gradients import assert_gradient, numeric_gradient

    assert layer.dtype == np.float64
    x, dy, state, dstate = arrays(layer, T, B)
    letters = by_letter(layer, dstate)

    def total():
        before()
        y, backward = layer.forward(x, state=state, lengths=lengths)
        parts = by_letter(layer, backward.state)
        return np.sum(y * dy) + sum(
            np.sum(a * b) for p, q in zip(parts, letters, strict=True) for a, b in zip(p, q, strict=True)
        )

    before()
    _, backward = layer.forward(x, state=state, lengths=lengths)
    layer.zero_grad()
    dx = backward(dy, dstate=dstate)
    got = {name: p.grad.copy() for name, p in layer.parameters().items()}
    assert_gradient("x", dx, numeric_gradient(total, x))
    for letter, parts, initial in zip(
        layer._letters, by_letter(layer, backward.dstate), by_letter(layer, state), strict=True
    ):
        for a, at in zip(parts, initial, strict=True):
            assert_gradient(letter, a, numeric_gradient(total, at))
    for name, p in layer.parameters().items():

        def put(new, p=p):
            p.value = new

        assert_gradient(name, got[name], numeric_gradient(total, p.value, put))
