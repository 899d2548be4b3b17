"""Dropout, VariationalDropout and PReLU."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastact as fa
from fastact.nn import Dense, Dropout, PReLU, Sequential, VariationalDropout


def test_dropout_zeroes_and_scales(dtype):
    x = np.random.default_rng(0).uniform(1, 2, (400, 50)).astype(dtype)
    layer = Dropout(0.25, rng=0)
    y, backward = layer.forward(x)
    assert y.dtype == dtype
    kept = y != 0
    np.testing.assert_allclose(y[kept], x[kept] / dtype.type(0.75), rtol=2 * np.finfo(dtype).eps)
    assert abs(kept.mean() - 0.75) < 0.02  # 5 standard deviations: 0.015
    assert (np.abs(kept.mean(0) - 0.75) < 0.12).all()
    dy = np.random.default_rng(1).normal(size=x.shape).astype(dtype)
    np.testing.assert_array_equal(backward(dy), dy * (y / x).round(6).astype(bool) * dtype.type(1 / 0.75))
    np.testing.assert_array_equal(layer(x), x)
    assert (layer.forward(x)[0] != y).any()  # another mask for each call


def test_variational_dropout_keeps_its_mask_over_time(dtype):
    x = np.ones((20, 7, 30), dtype)
    for time_major in (False, True):
        layer = VariationalDropout(0.5, time_major=time_major, rng=0)
        y, backward = layer.forward(x)
        along = y if time_major else y.swapaxes(0, 1)
        assert (along == along[0]).all()
        assert abs((along[0] != 0).mean() - 0.5) < 0.12
        assert len(np.unique(along[0], axis=0)) > 3
        np.testing.assert_array_equal(backward(x), y)
    with pytest.raises(ValueError, match=r"x: expected shape \(B, T, ...\) of three axes or more, got \(3, 4\)"):
        layer.forward(np.ones((3, 4)))


@pytest.mark.parametrize("layer", [Dropout(0.4, rng=0), VariationalDropout(0.4, rng=0)])
def test_gradients(layer):
    fa.testing.check_gradients(layer, np.random.default_rng(0).normal(size=(3, 4, 5)))


def test_the_same_seed_draws_the_same_masks():
    x = np.ones((8, 8), np.float32)
    np.testing.assert_array_equal(Dropout(rng=3).forward(x)[0], Dropout(rng=3).forward(x)[0])
    layer = Dropout()
    fa.seed(1)
    first = layer.forward(x)[0]
    assert (layer.forward(x)[0] != first).any()
    fa.seed(1)
    np.testing.assert_array_equal(layer.forward(x)[0], first)
    seeded = Dropout(rng=0)
    seeded.forward(x)
    twins = copy.deepcopy(seeded), pickle.loads(pickle.dumps(seeded))
    expected = seeded.forward(x)[0]
    for twin in twins:
        np.testing.assert_array_equal(twin.forward(x)[0], expected)


def test_p_zero_and_refusals():
    x = np.ones((2, 3), np.float32)
    y, backward = Dropout(0).forward(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(backward(x), x)
    for bad in (-0.1, 1.0, 2):
        with pytest.raises(ValueError, match="p: expected 0 <= p < 1"):
            Dropout(bad)
    with pytest.raises(TypeError, match="p: expected a number"):
        Dropout("half")
    with pytest.raises(TypeError, match="x: expected an array of real numbers"):
        Dropout().forward(np.zeros(2, complex))
    assert Dropout().forward([1, 2])[0].dtype == np.float64
    assert Dropout().forward(np.ones(2, np.float16))[0].dtype == np.float32


def test_in_a_model(tmp_path):
    model = Sequential(Dense(3, 8, "relu", rng=0), Dropout(0.3, rng=1), Dense(8, 2, rng=2))
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(x), model(x))
    assert (model.forward(x)[0] != model.forward(x)[0]).any()
    fa.save(model, tmp_path / "m.safetensors")
    twin = fa.load(tmp_path / "m.safetensors")
    assert repr(twin[1]) == "Dropout(p=0.3)"
    np.testing.assert_array_equal(twin(x), model(x))
    stream = model.stream(5)
    np.testing.assert_allclose(stream.step(x), model(x), rtol=1e-6)


# -- PReLU ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [1, 4])
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_prelu(features, leading):
    layer = PReLU(features, dtype="float64")
    layer.weight.value = np.linspace(-0.5, 0.9, features)
    x = np.random.default_rng(0).normal(size=(*leading, 4))
    expected = np.where(x > 0, x, x * layer.weight.value)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-15)
    fa.testing.check_gradients(layer, x)
    layer.freeze().zero_grad()
    y, backward = layer.forward(x)
    np.testing.assert_allclose(backward(np.ones_like(y)), np.where(x > 0, 1, layer.weight.value), rtol=1e-15)
    assert not layer.weight.grad.any()


def test_prelu_copies_files_and_refusals(tmp_path, dtype):
    layer = PReLU(3, initial=0.1, dtype=dtype)
    layer.weight.value = [0.1, 0.2, 0.3]
    fa.save(layer, tmp_path / "m.safetensors")
    x = -np.ones((2, 3), dtype)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fa.load(tmp_path / "m.safetensors")):
        np.testing.assert_array_equal(twin(x), layer(x))
        assert twin(x).dtype == dtype
    for call in (layer, layer.forward):
        with pytest.raises(ValueError, match=r"x: expected shape \(\.\.\., 3\), the layer's num_features"):
            call(np.zeros((2, 4)))
    np.testing.assert_array_equal(layer.stream(2).step(x), layer(x))


def test_prelu_is_that_of_pytorch(dtype):
    torch = pytest.importorskip("torch")
    kind = torch.float64 if dtype == np.float64 else torch.float32
    for features in (1, 4):
        theirs, ours = torch.nn.PReLU(features, dtype=kind), PReLU(features, dtype=dtype)
        ours.load_state_dict(theirs.state_dict())
        x, dy = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(dtype)
        tx = torch.from_numpy(x).requires_grad_()
        ty = theirs(tx)
        ty.backward(torch.from_numpy(dy))
        y, backward = ours.forward(x)
        tolerance = 20 * np.finfo(dtype).eps
        np.testing.assert_allclose(y, ty.detach().numpy(), rtol=tolerance)
        np.testing.assert_allclose(backward(dy), tx.grad.numpy(), rtol=tolerance)
        np.testing.assert_allclose(ours.weight.grad, theirs.weight.grad.numpy(), rtol=tolerance, atol=tolerance)
