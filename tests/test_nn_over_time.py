"""TimeDistributed, pooling over time, Flatten and Reshape."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastact as fa
from fastact._core import pooling as core
from fastact.nn import (
    LSTM,
    BatchNorm,
    Dense,
    Flatten,
    LastStep,
    MaxPooling,
    MeanPooling,
    Reshape,
    Sequential,
    TimeDistributed,
)

pytestmark = pytest.mark.sanitise

X = np.random.default_rng(0).normal(size=(3, 5, 4))
LENGTHS = np.array([2, 5, 1])
POOLING = {MeanPooling: lambda x: x.mean(0), MaxPooling: lambda x: x.max(0), LastStep: lambda x: x[-1]}


@pytest.mark.parametrize("kind", POOLING)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("tail", [(4,), (), (2, 2)])
def test_pooling(kind, lengths, time_major, tail, dtype):
    layer = kind(time_major=time_major)
    x = np.random.default_rng(0).normal(size=(3, 5, *tail)).astype(dtype)
    expected = [POOLING[kind](x[b, :n]) for b, n in enumerate([5] * 3 if lengths is None else lengths)]
    given = x.swapaxes(0, 1) if time_major else x
    y = layer(given, lengths=lengths)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, rtol=8 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)
    trained, backward = layer.forward(given, lengths=lengths)
    np.testing.assert_array_equal(trained, y)
    dx = backward(np.ones_like(y))
    assert dx.dtype == dtype
    if lengths is not None:
        dx = dx.swapaxes(0, 1) if time_major else dx
        assert not dx[0, 2:].any()
        assert dx[0, :2].any()
    if dtype == np.float64:
        fa.testing.check_gradients(layer, given, lengths=lengths)
    assert layer.output_shape(given.shape) == y.shape


@pytest.mark.parametrize("kind", POOLING)
def test_what_is_beyond_the_lengths_does_not_count(kind):
    x = X.copy()
    x[0, 2:], x[2, 1:] = np.nan, np.inf
    layer = kind()
    y, backward = layer.forward(x, lengths=LENGTHS)
    np.testing.assert_array_equal(y, layer(X, lengths=LENGTHS))
    assert np.isfinite(backward(np.ones_like(y))).all()


def test_max_pooling_of_a_tie_goes_to_the_first():
    y, backward = MaxPooling().forward(np.array([[[2.0], [7.0], [7.0]]]))
    assert y == 7
    np.testing.assert_array_equal(backward([[1.0]])[0, :, 0], [0, 1, 0])
    tie_and_nan = np.array([[[2.0, 5.0], [7.0, np.nan], [7.0, 8.0]]])  # equal to their greatest are two, as without
    _, backward = MaxPooling().forward(tie_and_nan)
    np.testing.assert_array_equal(backward([[1.0, 2.0]]), [[[0, 0], [1, 2], [0, 0]]])
    _, backward = MaxPooling().forward(np.array([[[2.0], [7.0], [7.0]]]), lengths=[1])
    np.testing.assert_array_equal(backward([[1.0]])[0, :, 0], [1, 0, 0])
    y, backward = MaxPooling().forward(np.full((1, 3, 1), -np.inf), lengths=[2])
    assert y == -np.inf
    np.testing.assert_array_equal(backward([[1.0]])[0, :, 0], [1, 0, 0])


@pytest.mark.parametrize("kind", [MeanPooling, MaxPooling])
@pytest.mark.parametrize("width", [1, 3, 16, 129, 300])
@pytest.mark.parametrize("time_major", [False, True])
def test_pooling_against_numpy(kind, width, time_major, dtype, isa, n_threads):
    rng = np.random.default_rng(width)
    x = rng.normal(size=(5, 70, width)).astype(dtype)
    lengths = np.array([70, 1, 33, 32, 64])
    given = np.ascontiguousarray(x.swapaxes(0, 1)) if time_major else x
    dy = rng.normal(size=(5, width)).astype(dtype)
    for steps in (None, lengths):
        y, backward = kind(time_major).forward(given, lengths=steps)
        dx = backward(dy).swapaxes(0, 1) if time_major else backward(dy)
        for b, n in enumerate([70] * 5 if steps is None else lengths):
            of = x[b, :n].astype(np.float64)
            wanted = np.zeros((70, width))
            if kind is MaxPooling:
                np.testing.assert_array_equal(y[b], of.max(axis=0))
                wanted[of.argmax(axis=0), np.arange(width)] = dy[b]
                np.testing.assert_array_equal(dx[b], wanted)
            else:
                eps = np.finfo(dtype).eps
                np.testing.assert_allclose(y[b], of.mean(axis=0), rtol=0, atol=20 * eps * np.abs(of).mean())
                wanted[:n] = dy[b] / n
                np.testing.assert_allclose(dx[b], wanted, rtol=2 * eps)


def test_pooling_of_strided_and_wider_arrays(dtype):
    x = np.random.default_rng(0).normal(size=(3, 9, 8, 4)).astype(dtype)
    for view in (x[::-1, ::2], x[..., ::2], np.asfortranarray(x), x.transpose(0, 1, 3, 2)):
        for kind in (MeanPooling, MaxPooling):
            y, backward = kind().forward(view)
            dense, back = kind().forward(np.ascontiguousarray(view))
            np.testing.assert_array_equal(y, dense)
            np.testing.assert_array_equal(backward(y), back(y))
            np.testing.assert_allclose(y, (view.max if kind is MaxPooling else view.mean)(axis=1), rtol=1e-5)
    assert MeanPooling()(x[:, :, 0, 0]).shape == (3,)
    assert MaxPooling()(np.zeros((0, 4, 2), dtype)).shape == (0, 2)


def test_pooling_core_refuses(dtype):
    x, y = np.zeros((2, 5, 3), dtype), np.zeros((2, 3), dtype)
    for wrong in (np.zeros((2, 5, 6), dtype)[..., ::2], x[0], x.astype(">f4"), x.astype(np.int32)):
        with pytest.raises((ValueError, TypeError), match=r"expected|wrong number"):
            core.forward(False, wrong, None, y)
    with pytest.raises(ValueError, match="lengths: expected each from 1 to 5, got 6"):
        core.forward(True, x, np.array([1, 6]), y)
    with pytest.raises(ValueError, match="lengths: expected one for each of 2 sequences"):
        core.forward(True, x, np.array([1]), y)
    with pytest.raises(ValueError, match="y: expected"):
        core.forward(True, x, None, np.zeros((2, 4), dtype))
    with pytest.raises(ValueError, match="dx: expected shape"):
        core.backward(True, x, None, y, y, np.zeros((2, 4, 3), dtype))


@pytest.mark.parametrize("kind", POOLING)
def test_pooling_refuses(kind):
    for bad in (np.zeros(3), np.zeros((2, 0, 3))):
        with pytest.raises(ValueError, match=r"x: expected shape \(B, T, ...\) with a step or more"):
            kind()(bad)
    with pytest.raises(ValueError, match="lengths: expected each from 1 to T = 5, got 6 for sequence 1"):
        kind()(X, lengths=[1, 6, 2])
    with pytest.raises(ValueError, match="lengths: expected one for each of the 3 sequences"):
        kind()(X, lengths=[1, 2])


@pytest.mark.parametrize("kind", POOLING)
def test_a_classifier_of_ragged_sequences(kind, tmp_path):
    model = Sequential(LSTM(4, 6, dtype="float64", rng=0), kind(), Dense(6, 2, dtype="float64", rng=1))
    fa.testing.check_gradients(model, X, lengths=LENGTHS)
    y = model.predict(X, batch_size=2, lengths=LENGTHS)
    for b, n in enumerate(LENGTHS):
        np.testing.assert_allclose(y[b], model(X[b : b + 1, :n])[0], rtol=1e-11)
    fa.save(model, tmp_path / "m.safetensors")
    np.testing.assert_allclose(fa.load(tmp_path / "m.safetensors")(X, lengths=LENGTHS), y, rtol=1e-12)


# -- TimeDistributed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("time_major", [False, True])
def test_time_distributed(lengths, time_major):
    inner = Sequential(Reshape((2, 2)), Flatten(), Dense(4, 3, "tanh", dtype="float64", rng=0))
    layer = TimeDistributed(inner, time_major=time_major)
    x = X.swapaxes(0, 1) if time_major else X
    y = layer(x, lengths=lengths)
    by_batch = y.swapaxes(0, 1) if time_major else y
    for b, n in enumerate([5] * 3 if lengths is None else lengths):
        np.testing.assert_allclose(by_batch[b, :n], inner(X[b, :n]), rtol=1e-12)
        assert not by_batch[b, n:].any()
    np.testing.assert_allclose(layer.forward(x, lengths=lengths)[0], y, rtol=1e-12)
    fa.testing.check_gradients(layer, x, lengths=lengths)
    assert layer.output_shape(x.shape) == y.shape
    y, backward = layer.forward(x, lengths=lengths)
    assert backward(y, input_gradient=False) is None


def test_batch_normalisation_of_the_steps_that_are_there():
    inner = BatchNorm(4, dtype="float64")
    layer = TimeDistributed(inner)
    x = X.copy()
    x[0, 2:] = x[2, 1:] = np.nan
    y, backward = layer.forward(x, lengths=LENGTHS)
    there = np.arange(5) < LENGTHS[:, None]
    np.testing.assert_allclose(y[there].mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(y[there].std(0), 1, rtol=1e-4)
    np.testing.assert_allclose(inner.running_mean.value, 0.1 * X[there].mean(0), rtol=1e-12)
    assert np.isfinite(backward(np.ones_like(y))).all()
    fa.testing.check_gradients(layer, X, lengths=LENGTHS)


def test_copies_and_refusals():
    layer = TimeDistributed(Dense(4, 2, dtype="float64", rng=0))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(twin(X), layer(X))
    with pytest.raises(TypeError, match="inner: expected a layer, got 'relu' of type str"):
        TimeDistributed("relu")
    with pytest.raises(ValueError, match=r"x: expected shape \(B, T, ...\), got \(4,\)"):
        layer(np.zeros(4))


# -- shapes -----------------------------------------------------------------------------------------------------------


def test_flatten_and_reshape(dtype, tmp_path):
    x = X.astype(dtype)
    assert Flatten()(x).shape == (3, 20)
    assert Flatten()(np.zeros((0, 2, 3))).shape == (0, 6)
    assert Flatten()(np.zeros(4)).shape == (4, 1)
    model = Sequential(Flatten(), Reshape((2, -1, 5)), Flatten())
    np.testing.assert_array_equal(model(x), x.reshape(3, 20))
    y, backward = model.forward(x)
    assert backward(y).shape == x.shape
    fa.testing.check_gradients(model, X)
    fa.save(model, tmp_path / "m.safetensors")
    assert repr(fa.load(tmp_path / "m.safetensors")) == "Sequential(Flatten(), Reshape(shape=(2, -1, 5)), Flatten())"
    with pytest.raises(ValueError, match=r"x: expected rows of 8 numbers for shape \(2, 4\), got \(3, 5, 4\)"):
        Reshape((2, 4))(x)
    for bad, error in (((-1, -1), ValueError), ((2.5,), TypeError), (3, TypeError), ((-2,), ValueError)):
        with pytest.raises(error, match="shape"):
            Reshape(bad)
    stream = Sequential(Reshape((2, 2))).stream(3)
    assert stream.step(x[:, 0]) is stream.step(x[:, 1])
