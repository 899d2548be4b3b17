"""Recurrent layers against PyTorch from the same weights; skipped where PyTorch is not installed."""

from __future__ import annotations

import numpy as np
import pytest

import fastact as fa

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("T", "B", "I", "H", "layers"),
    [(5, 1, 3, 4, 1), (7, 13, 32, 128, 1), (6, 2, 5, 7, 2), (4, 9, 17, 33, 3), (1, 1, 1, 1, 1), (40, 3, 20, 97, 1)],
)
@pytest.mark.parametrize("time_major", [False, True])
def test_same_numbers_and_gradients(T, B, I, H, layers, time_major, dtype):  # noqa: E741
    peer = torch.nn.LSTM(I, H, layers, batch_first=not time_major, dtype=getattr(torch, dtype.name))
    layer = fa.nn.LSTM(I, H, layers, time_major=time_major, dtype=dtype)
    layer.load_state_dict({name: value.numpy() for name, value in peer.state_dict().items()})
    rng = np.random.default_rng(1)
    axes = (T, B) if time_major else (B, T)
    x, dy = rng.normal(size=(*axes, I)).astype(dtype), rng.normal(size=(*axes, H)).astype(dtype)
    h, c, dh, dc = rng.normal(size=(4, layers, B, H)).astype(dtype)
    tx, th, tc = (torch.tensor(a, requires_grad=True) for a in (x, h, c))
    ty, (final_h, final_c) = peer(tx, (th, tc))
    torch.autograd.backward((ty, final_h, final_c), [torch.tensor(a) for a in (dy, dh, dc)])

    y, backward = layer.forward(x, state=(h, c))
    dx = backward(dy, dstate=(dh, dc))
    pairs = {"y": (y, ty), "inference": (layer(x, state=(h, c)), ty), "dx": (dx, tx.grad)}
    pairs |= {"h": (backward.state[0], final_h), "c": (backward.state[1], final_c)}
    pairs |= {"dh0": (backward.dstate[0], th.grad), "dc0": (backward.dstate[1], tc.grad)}
    pairs |= {name: (getattr(layer, name).grad, p.grad) for name, p in peer.named_parameters()}
    tolerance = 2e-5 if dtype == np.float32 else 1e-12  # PyTorch's own sums run in another order
    for name, (got, want) in pairs.items():
        want = want.detach().numpy()
        assert np.abs(got - want).max() <= tolerance * max(1, np.abs(want).max()), name


@pytest.mark.parametrize(
    ("T", "B", "I", "H", "layers", "bidirectional", "lengths"),
    [
        (6, 3, 5, 7, 2, True, None),
        (9, 12, 17, 33, 1, True, None),
        (6, 4, 5, 7, 2, False, [3, 6, 1, 4]),
        (9, 12, 17, 33, 2, True, [9, 1, 4, 4, 7, 9, 2, 3, 8, 5, 1, 6]),
        (5, 1, 3, 4, 3, True, [3]),
    ],
)
def test_directions_and_packed_sequences(T, B, I, H, layers, bidirectional, lengths, dtype):  # noqa: E741
    peer = torch.nn.LSTM(I, H, layers, batch_first=True, bidirectional=bidirectional, dtype=getattr(torch, dtype.name))
    layer = fa.nn.LSTM(I, H, layers, bidirectional=bidirectional, dtype=dtype)
    layer.load_state_dict({name: value.numpy() for name, value in peer.state_dict().items()})
    rng = np.random.default_rng(1)
    D = 2 if bidirectional else 1
    x, dy = rng.normal(size=(B, T, I)).astype(dtype), rng.normal(size=(B, T, D * H)).astype(dtype)
    h, c, dh, dc = rng.normal(size=(4, layers * D, B, H)).astype(dtype)
    tx, th, tc = (torch.tensor(a, requires_grad=True) for a in (x, h, c))
    if lengths is None:
        ty, (final_h, final_c) = peer(tx, (th, tc))
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(tx, lengths, batch_first=True, enforce_sorted=False)
        out, (final_h, final_c) = peer(packed, (th, tc))
        ty, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=T)
    torch.autograd.backward((ty, final_h, final_c), [torch.tensor(a) for a in (dy, dh, dc)])

    y, backward = layer.forward(x, state=(h, c), lengths=lengths)
    dx = backward(dy, dstate=(dh, dc))
    pairs = {"y": (y, ty), "inference": (layer(x, state=(h, c), lengths=lengths), ty), "dx": (dx, tx.grad)}
    pairs |= {"h": (backward.state[0], final_h), "c": (backward.state[1], final_c)}
    pairs |= {"dh0": (backward.dstate[0], th.grad), "dc0": (backward.dstate[1], tc.grad)}
    pairs |= {name: (getattr(layer, name).grad, p.grad) for name, p in peer.named_parameters()}
    tolerance = 4e-5 if dtype == np.float32 else 1e-12
    for name, (got, want) in pairs.items():
        want = want.detach().numpy()
        assert np.abs(got - want).max() <= tolerance * max(1, np.abs(want).max()), name


@pytest.mark.parametrize("kind", ["GRU", "RNN", "RNN relu"])
@pytest.mark.parametrize(
    ("T", "B", "I", "H", "layers", "bidirectional", "lengths"),
    [
        (5, 1, 3, 4, 1, False, None),
        (7, 13, 32, 128, 1, False, None),
        (6, 3, 5, 7, 2, True, None),
        (9, 12, 17, 33, 2, True, [9, 1, 4, 4, 7, 9, 2, 3, 8, 5, 1, 6]),
    ],
)
def test_gru_and_rnn(kind, T, B, I, H, layers, bidirectional, lengths, dtype):  # noqa: E741
    options = {"bidirectional": bidirectional}
    name, *activation = kind.split()
    extra = {"nonlinearity": activation[0]} if activation else {}
    peer = getattr(torch.nn, name)(I, H, layers, batch_first=True, dtype=getattr(torch, dtype.name), **options, **extra)
    extra = {"activation": activation[0]} if activation else {}
    layer = getattr(fa.nn, name)(I, H, layers, dtype=dtype, **options, **extra)
    layer.load_state_dict({name: value.numpy() for name, value in peer.state_dict().items()})
    rng = np.random.default_rng(1)
    D = 2 if bidirectional else 1
    x, dy = rng.normal(size=(B, T, I)).astype(dtype), rng.normal(size=(B, T, D * H)).astype(dtype)
    h, dh = rng.normal(size=(2, layers * D, B, H)).astype(dtype)
    tx, th = (torch.tensor(a, requires_grad=True) for a in (x, h))
    if lengths is None:
        ty, final = peer(tx, th)
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(tx, lengths, batch_first=True, enforce_sorted=False)
        out, final = peer(packed, th)
        ty, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=T)
    torch.autograd.backward((ty, final), [torch.tensor(a) for a in (dy, dh)])

    y, backward = layer.forward(x, state=h, lengths=lengths)
    dx = backward(dy, dstate=dh)
    pairs = {"y": (y, ty), "inference": (layer(x, state=h, lengths=lengths), ty), "dx": (dx, tx.grad)}
    pairs |= {"h": (backward.state, final), "dh0": (backward.dstate, th.grad)}
    pairs |= {name: (getattr(layer, name).grad, p.grad) for name, p in peer.named_parameters()}
    tolerance = 4e-5 if dtype == np.float32 else 1e-12
    for name, (got, want) in pairs.items():
        want = want.detach().numpy()
        assert np.abs(got - want).max() <= tolerance * max(1, np.abs(want).max()), name


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("around", [{}, {"num_layers": 2}, {"num_layers": 2, "bidirectional": True}])
@pytest.mark.parametrize(("H", "P"), [(33, 5), (16, 15)])
def test_projection(around, H, P, dtype):
    """``proj_size``, with the same weights."""
    peer = torch.nn.LSTM(6, H, proj_size=P, batch_first=True, dtype=getattr(torch, dtype.name), **around)
    layer = fa.nn.LSTM(6, H, projection_size=P, dtype=dtype, **around)
    layer.load_state_dict({name: value.numpy() for name, value in peer.state_dict().items()})
    rng = np.random.default_rng(1)
    count = around.get("num_layers", 1) * (2 if "bidirectional" in around else 1)
    x = rng.normal(size=(9, 7, 6)).astype(dtype)
    h, c = rng.normal(size=(count, 9, P)).astype(dtype), rng.normal(size=(count, 9, H)).astype(dtype)
    tx, th, tc = (torch.tensor(a, requires_grad=True) for a in (x, h, c))
    ty, (final_h, final_c) = peer(tx, (th, tc))
    dy = rng.normal(size=ty.shape).astype(dtype)
    torch.autograd.backward((ty, final_h, final_c), [torch.tensor(dy), torch.ones_like(final_h), final_c.detach()])
    y, backward = layer.forward(x, state=(h, c))
    dx = backward(dy, dstate=(np.ones_like(h), backward.state[1]))
    pairs = {"y": (y, ty), "inference": (layer(x, state=(h, c)), ty), "dx": (dx, tx.grad)}
    pairs |= {"h": (backward.state[0], final_h), "c": (backward.state[1], final_c)}
    pairs |= {"dh0": (backward.dstate[0], th.grad), "dc0": (backward.dstate[1], tc.grad)}
    pairs |= {name: (getattr(layer, name).grad, p.grad) for name, p in peer.named_parameters()}
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    for name, (got, want) in pairs.items():
        want = want.detach().numpy()
        assert np.abs(got - want).max() <= tolerance * max(1, np.abs(want).max()), name
