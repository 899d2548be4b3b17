"""Content addressing and sharpening: against the reference and PyTorch, every gradient, rows of zeros, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from gradients import assert_gradient, numeric_gradient

from fastact import reference
from fastact.nn import ContentAddressing, Sharpening


def drawn(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def operands(B, h, N, M, seed=0):
    rng = np.random.default_rng(seed)
    key, memory = rng.normal(size=(B, h, M)), rng.normal(size=(B, N, M))
    return key, memory, rng.uniform(0.5, 9, (B, h)), rng.uniform(1, 3, (B, h))


@pytest.mark.parametrize(
    ("B", "h", "N", "M"), [(1, 1, 1, 1), (2, 3, 5, 4), (3, 1, 128, 20), (2, 4, 17, 33), (0, 1, 2, 3)]
)
def test_against_the_reference(B, h, N, M, dtype):
    key, memory, strength, gamma = (a.astype(dtype) for a in operands(B, h, N, M))
    w, _ = ContentAddressing().forward(key, memory, strength)
    assert w.dtype == dtype
    expected = reference.content_weights(key, memory, strength)
    tolerance = 200 * np.finfo(dtype).eps
    np.testing.assert_allclose(w, expected, rtol=tolerance)
    sharp = ContentAddressing()(key, memory, strength, gamma)
    np.testing.assert_allclose(sharp, reference.sharpened(expected, gamma), rtol=4 * tolerance)
    np.testing.assert_allclose(Sharpening()(w, gamma), reference.sharpened(w, gamma), rtol=4 * tolerance)


@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("sharpened", [False, True])
@pytest.mark.parametrize("per_head", [False, True])
def test_gradients(heads, sharpened, per_head):
    key, memory, strength, gamma = operands(2, 3, 5, 4)
    if not heads:
        key, strength, gamma = key[:, 0].copy(), strength[:, 0].copy(), gamma[:, 0].copy()
    if not per_head:
        strength, gamma = np.array(2.5), np.array([1.7])
    arrays = [key, memory, strength] + [gamma] * sharpened
    layer = ContentAddressing()
    w, backward = layer.forward(*arrays)
    assert w.shape == (*key.shape[:-1], 5)
    dw = drawn(w.shape, 3)
    names = ("key", "memory", "strength", "sharpening")
    for name, a, d in zip(names, arrays, backward(dw), strict=False):
        assert_gradient(name, d, numeric_gradient(lambda: np.sum(layer(*arrays) * dw), a))


def test_what_is_most_alike_is_found_whatever_its_size():
    memory = drawn((2, 50, 10))
    key = memory[:, 17] * np.array([[1e-3], [1e3]])
    w = ContentAddressing()(key, memory, 200.0)
    assert (w.argmax(-1) == 17).all()
    assert (w.max(-1) > 0.99).all()
    np.testing.assert_allclose(ContentAddressing()(key, memory, 0.0), 1 / 50)


def test_zeros_are_like_nothing():
    key, memory, strength, _ = operands(2, 2, 4, 3)
    key[0, 0], memory[1, 2] = 0, 0
    w, backward = ContentAddressing().forward(key, memory, strength)
    np.testing.assert_allclose(w[0, 0], 0.25)
    np.testing.assert_allclose(w, reference.content_weights(key, memory, strength), rtol=1e-13)
    dkey, dmemory, dstrength = backward(drawn(w.shape, 1))
    assert not dkey[0, 0].any()
    assert not dmemory[1, 2].any()
    assert dkey[1].all()
    assert np.isfinite(dstrength).all()
    assert dstrength[0, 0] == 0


@pytest.mark.parametrize("scalar", [False, True])
def test_sharpening_gradients(scalar):
    w = np.random.default_rng(0).uniform(0.05, 1, (3, 2, 6))
    gamma = np.array(1.9) if scalar else np.random.default_rng(1).uniform(1.2, 4, (3, 2))
    layer = Sharpening()
    y, backward = layer.forward(w, gamma)
    np.testing.assert_allclose(y.sum(-1), 1)
    dy = drawn(y.shape, 2)
    for name, a, d in zip(("w", "gamma"), (w, gamma), backward(dy), strict=True):
        assert_gradient(name, d, numeric_gradient(lambda: np.sum(layer(w, gamma) * dy), a))


def test_sharpening_at_the_edges():
    w = np.array([[0.0, 0.25, 0.75], [0.0, 0.0, 0.0], [1e-300, 2e-300, 0.0]])
    y, backward = Sharpening().forward(w, 2.0)
    np.testing.assert_allclose(y, [[0, 0.1, 0.9], [0, 0, 0], [0.2, 0.8, 0]], rtol=1e-15)
    dw, dgamma = backward(drawn(y.shape))
    assert np.isfinite(dw[:2]).all()
    assert np.isfinite(dgamma).all()
    np.testing.assert_array_equal(Sharpening()(w[:1], 1.0), w[:1])  # gamma 1 changes nothing
    y, backward = Sharpening().forward(w[:1], 1.0)
    np.testing.assert_allclose(backward([[1.0, 0.0, 0.0]])[0], [[1.0, 0.0, 0.0]])  # a weight of 0 has a slope there


def test_against_pytorch():
    torch = pytest.importorskip("torch")
    key, memory, strength, gamma = operands(3, 2, 6, 5)
    tensors = [torch.from_numpy(a).requires_grad_() for a in (key, memory, strength, gamma)]
    k, m, beta, power = tensors
    cosine = torch.nn.functional.cosine_similarity(k[:, :, None], m[:, None], dim=-1)
    w = torch.softmax(beta[..., None] * cosine, -1) ** power[..., None]
    w = w / w.sum(-1, keepdim=True)
    dw = drawn(tuple(w.shape), 3)
    w.backward(torch.from_numpy(dw))
    ours, backward = ContentAddressing().forward(key, memory, strength, gamma)
    np.testing.assert_allclose(ours, w.detach().numpy(), rtol=1e-12)
    for got, tensor in zip(backward(dw), tensors, strict=True):
        np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: a(np.ones(3), np.ones((1, 2, 3))), r"key: expected shape \(B, M\)"),
        (lambda a: a(np.ones((2, 3)), np.ones((2, 4, 5))), r"memory: expected shape \(2, N, 3\)"),
        (lambda a: a(np.ones((2, 3)), np.ones((4, 3))), "memory: expected shape"),
        (lambda a: a(np.ones((2, 3)), np.ones((2, 0, 3))), "memory: expected one row"),
        (lambda a: a(np.ones((2, 3)), np.ones((2, 4, 3)), np.ones(5)), "strength: expected a number or shape"),
        (lambda a: a(np.ones((2, 3)), np.ones((2, 4, 3)), 1.0, np.ones(5)), "sharpening: expected a number or"),
        (lambda a: a(np.ones((2, 3)), np.ones((2, 4, 3)) * 1j), "memory: expected an array of real"),
        (lambda _: Sharpening()(np.array([0.5, -0.1]), 1.0), "w: expected numbers of at least 0"),
        (lambda _: Sharpening()(np.array([0.5, 0.5]), 0.5), "gamma: expected numbers of at least 1"),
        (lambda _: Sharpening()(np.ones((2, 3)), np.ones(3)), "gamma: expected a number or shape"),
        (lambda _: Sharpening()(np.ones((2, 0)), 1.0), "w: expected shape"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(ContentAddressing())
