"""Residual, Concatenate, Bidirectional, and one layer called on several inputs."""

from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest

import fastact as fa
from fastact.nn import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Bidirectional,
    Concatenate,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Layer,
    LayerNorm,
    Residual,
    Sequential,
)


def dense(i, o, activation=None, rng=0):
    return Dense(i, o, activation, dtype="float64", rng=rng)


def lstm(i, h, rng=0, **options):
    return LSTM(i, h, dtype="float64", rng=rng, **options)


X = np.random.default_rng(0).normal(size=(3, 5, 4))
LENGTHS = np.array([2, 5, 3])

MODELS = {
    "residual": lambda: Residual(Sequential(LayerNorm(4, dtype="float64"), dense(4, 6, "tanh"), dense(6, 4))),
    "residual dropout": lambda: Residual(Sequential(dense(4, 4), Dropout(0.5, rng=0))),
    "residual of a residual": lambda: Residual(Residual(dense(4, 4, "tanh"))),
    "residual lstm": lambda: Residual(lstm(4, 4)),
    "concatenate": lambda: Concatenate(dense(4, 3, "tanh"), Activation("sigmoid"), lstm(4, 2)),
    "concatenate one": lambda: Concatenate(dense(4, 3)),
    "bidirectional lstm": lambda: Bidirectional(lstm(4, 3)),
    "bidirectional sum": lambda: Bidirectional(lstm(4, 3), lstm(4, 3, rng=1), merge="sum"),
    "bidirectional mean": lambda: Bidirectional(GRU(4, 3, dtype="float64", rng=0), merge="mean"),
    "bidirectional mixed": lambda: Bidirectional(lstm(4, 3), RNN(4, 2, dtype="float64", rng=0)),
    "bidirectional stacks": lambda: Bidirectional(
        Sequential(lstm(4, 3), Dropout(0.3, rng=0), lstm(3, 2, rng=1)), Sequential(lstm(4, 3, rng=2), dense(3, 2))
    ),
    "bidirectional last": lambda: Bidirectional(lstm(4, 3, return_sequences=False)),
    "nested": lambda: Sequential(Concatenate(Residual(lstm(4, 4)), dense(4, 2)), Bidirectional(lstm(6, 2))),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients(name):
    fa.testing.check_gradients(MODELS[name](), X)


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name]().takes_lengths])
def test_gradients_and_values_with_lengths(name):
    model = MODELS[name]()
    fa.testing.check_gradients(model, X, lengths=LENGTHS)
    y = model(X, lengths=LENGTHS)
    for b, n in enumerate(LENGTHS):
        alone = model(X[b : b + 1, :n])[0]
        np.testing.assert_allclose(y[b, :n] if y.ndim == 3 else y[b], alone, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", MODELS)
def test_inference_training_copies_and_files_agree(name, tmp_path):
    model = MODELS[name]()
    expected = model(X)
    if "dropout" not in name and "stacks" not in name:
        np.testing.assert_allclose(model.forward(X)[0], expected, rtol=1e-12, atol=1e-14)
    fa.save(model, tmp_path / "m.safetensors")
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fa.load(tmp_path / "m.safetensors")):
        np.testing.assert_array_equal(twin(X), expected)
        assert list(twin.parameters()) == list(model.parameters())
    y, backward = model.forward(X)
    assert backward(np.ones_like(y), input_gradient=False) is None
    assert model.output_shape(X.shape) == y.shape


@pytest.mark.parametrize("name", MODELS)
def test_what_a_call_holds_is_free_without_the_garbage_collector(name):
    model = MODELS[name]()
    gc.collect()
    gc.disable()
    try:
        for use in (True, False):
            y, backward = model.forward(X)
            if use:
                backward(np.ones_like(y))
            del y, backward
            assert gc.collect() == 0
    finally:
        gc.enable()


def test_values():
    inner = dense(4, 4, "tanh")
    np.testing.assert_allclose(Residual(inner)(X), X + inner(X), rtol=1e-15)
    a, b = dense(4, 3), dense(4, 2, rng=1)
    model = Concatenate(a, b)
    np.testing.assert_array_equal(model(X), np.concatenate([a(X), b(X)], axis=-1))
    assert list(model.parameters()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert repr(Concatenate(Flatten())) == "Concatenate(Flatten())"
    first, second = lstm(4, 3), lstm(4, 3, rng=1)
    for merge, merged in (("sum", lambda a, b: a + b), ("mean", lambda a, b: (a + b) / 2)):
        expected = merged(first(X), second(X[:, ::-1])[:, ::-1])
        np.testing.assert_allclose(Bidirectional(first, second, merge=merge)(X), expected, rtol=1e-12, atol=1e-15)
    assert next(iter(Bidirectional(first, second).parameters())) == "forward_layer.weight_ih_l0"


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_bidirectional_equals_the_recurrent_layers_own(lengths):
    own = lstm(4, 3, bidirectional=True)
    state = own.state_dict()
    ways = Bidirectional(lstm(4, 3)), Bidirectional(lstm(4, 3), lstm(4, 3))  # by reverse=True, by mirrored arrays
    assert ways[0].backward_layer.reverse
    for model in ways:
        for name, array in state.items():
            layer = model.backward_layer if name.endswith("_reverse") else model.forward_layer
            layer.parameters()[name.removesuffix("_reverse")].value = array
        np.testing.assert_allclose(model(X, lengths=lengths), own(X, lengths=lengths), rtol=1e-12, atol=1e-15)


def test_bidirectional_time_major():
    model = Bidirectional(lstm(4, 3, time_major=True), lstm(4, 3, rng=1, time_major=True))
    other = Bidirectional(lstm(4, 3), lstm(4, 3, rng=1))
    y = model(X.swapaxes(0, 1), lengths=LENGTHS)
    np.testing.assert_allclose(y.swapaxes(0, 1), other(X, lengths=LENGTHS), rtol=1e-12, atol=1e-15)
    fa.testing.check_gradients(model, X.swapaxes(0, 1), lengths=LENGTHS)


def test_states_go_in_and_come_out():
    model = Sequential(Residual(lstm(4, 4)), Concatenate(dense(4, 2), lstm(4, 3, rng=1)))
    assert model.stateful
    whole, backward_whole = model.forward(X)
    dy = np.random.default_rng(1).normal(size=whole.shape)
    backward_whole(dy)
    expected = {name: p.grad.copy() for name, p in model.parameters().items()}
    model.zero_grad()
    first, first_backward = model.forward(X[:, :2])
    second, second_backward = model.forward(X[:, 2:], state=first_backward.state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-12, atol=1e-14)
    second_backward(dy[:, 2:])
    first_backward(dy[:, :2], dstate=second_backward.dstate)
    for name, p in model.parameters().items():
        np.testing.assert_allclose(p.grad, expected[name], rtol=1e-11, atol=1e-13, err_msg=name)
    result = model.run(X[:, :2])
    np.testing.assert_allclose(model.run(X[:, 2:], state=result.state).y, second, rtol=1e-12, atol=1e-14)
    for bad in ((), (None, None), 3):
        with pytest.raises(ValueError, match="state: expected a tuple of 1, one for each recurrent layer"):
            model[0].forward(X, state=bad)


def test_residual_streams():
    model = Sequential(Residual(lstm(4, 4)), Residual(dense(4, 4)))
    y, stream = model(X), model.stream(3)
    for t in range(5):
        np.testing.assert_allclose(stream.step(X[:, t]), y[:, t], rtol=1e-12, atol=1e-15)
    state = stream.state
    again = stream.step(X[:, 0]).copy()
    stream.state = state
    np.testing.assert_array_equal(stream.step(X[:, 0]), again)
    stream.reset()
    np.testing.assert_allclose(stream.step(X[:, 0]), y[:, 0], rtol=1e-12, atol=1e-15)


def test_embeddings_side_by_side():
    model = Concatenate(Embedding(5, 2, dtype="float64", rng=0), Embedding(5, 3, dtype="float64", rng=1))
    y, backward = model.forward([[0, 4], [2, 2]])
    assert y.shape == (2, 2, 5)
    assert backward(y) is None
    fa.testing.check_gradients(model, np.array([[0, 4], [2, 2]]))


def test_refusals():
    with pytest.raises(TypeError, match=r"Residual: expected layers, got 3 of type int"):
        Residual(3)
    with pytest.raises(ValueError, match="layers: expected one or more"):
        Concatenate()
    with pytest.raises(ValueError, match=r"merge: expected one of concat, sum, mean, got 'mul'"):
        Bidirectional(lstm(4, 3), merge="mul")
    with pytest.raises(ValueError, match=r"Residual: expected outputs of one shape, got \(3, 5, 4\) and \(3, 5, 2\)"):
        Residual(dense(4, 2))(X)
    with pytest.raises(ValueError, match="but for the last axis"):
        Concatenate(dense(4, 2), Flatten())(X)
    with pytest.raises(ValueError, match="forward_layer: expected one that goes forwards, got bidirectional=True"):
        Bidirectional(lstm(4, 3, bidirectional=True))
    with pytest.raises(ValueError, match="backward_layer: expected a layer, as a Sequential holds layers"):
        Bidirectional(Sequential(lstm(4, 3)))
    with pytest.raises(ValueError, match="lengths: expected None, as Residual has no layer that takes lengths"):
        Residual(dense(4, 4))(X, lengths=LENGTHS)
    with pytest.raises(TypeError, match="expected layers, got None"):
        Bidirectional(None)


# -- one layer, several inputs ----------------------------------------------------------------------------------------


class Siamese(Layer):
    """The squared distance of two inputs, x (B, 2, N), after one and the same net."""

    def __init__(self, net):
        self.net = net

    def forward(self, x):
        a, back_a = self.net.forward(np.ascontiguousarray(x[:, 0]))
        b, back_b = self.net.forward(np.ascontiguousarray(x[:, 1]))

        def backward(dy):
            d = 2 * (a - b) * dy[:, None]
            return np.stack([back_a(d), back_b(-d)], axis=1)

        return ((a - b) ** 2).sum(1), backward


def test_a_layer_called_on_several_inputs_adds_its_gradients_up():
    net = Sequential(dense(4, 6, "tanh"), dense(6, 3))
    model = Siamese(net)
    fa.testing.check_gradients(model, np.random.default_rng(0).normal(size=(5, 2, 4)))
    assert model.num_parameters == net.num_parameters
    x = np.random.default_rng(0).normal(size=(5, 2, 4))
    pairs = [net.forward(x[:, k]) for k in (0, 1, 0)]
    net.zero_grad()
    for y, backward in reversed(pairs):  # in any order
        backward(np.ones_like(y))
    total = net[0].weight.grad.copy()
    net.zero_grad()
    for k in (0, 1, 0):
        y, backward = net.forward(x[:, k])
        backward(np.ones_like(y))
    np.testing.assert_allclose(total, net[0].weight.grad, rtol=1e-12)
