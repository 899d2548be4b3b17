"""Dense, Embedding, Activation and Sequential: values against the reference, gradients against differences, errors."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gradients import check_gradients

import fastact as fa
from fastact import reference
from fastact.errors import BackwardError
from fastact.nn import LSTM, Activation, Backward, Dense, Embedding, Layer, RunResult, Sequential

# Those whose backward is the derivative of their forward: not the window's, which has a surrogate.
ACTIVATIONS = [
    None,
    *(
        name
        for name, f in fa.activations.items()
        if name not in ("linear", "step", "hardmax") and f.keeps_shape and not f.surrogate
    ),
]
LEADING = [(5,), (1,), (0,), (), (2, 3), (2, 0), (2, 1, 3)]


def chain(dtype=np.float64):
    """One layer at three places, a chain in a chain, every kind of layer."""
    shared = Dense(4, 4, "tanh", dtype=dtype, rng=1)
    return Sequential(
        Embedding(5, 4, dtype=dtype, rng=0),
        shared,
        Activation("silu"),
        shared,
        Sequential(shared, Dense(4, 3, "gelu", bias=False, dtype=dtype, rng=2)),
    )


# -- Dense -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_dense_gradients(activation, bias):
    layer = Dense(3, 4, activation, bias=bias, dtype="float64", rng=0)
    check_gradients(layer, np.random.default_rng(1).normal(size=(5, 3)))


@pytest.mark.parametrize("leading", LEADING)
def test_dense_any_leading_shape(leading, dtype):
    layer = Dense(3, 4, "tanh", dtype=dtype, rng=0)
    x = np.random.default_rng(1).normal(size=(*leading, 3)).astype(dtype)
    y, backward = layer.forward(x)
    assert y.shape == (*leading, 4)
    assert y.dtype == dtype
    np.testing.assert_allclose(layer(x), y, rtol=8 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)
    assert backward(np.ones_like(y)).shape == x.shape
    if dtype == np.float64:
        check_gradients(layer, x)


@pytest.mark.parametrize(("rows", "i", "o"), [(1, 1, 1), (7, 17, 9), (33, 65, 31), (128, 97, 64)])
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "silu"])
def test_dense_against_the_reference(rows, i, o, activation, dtype, isa):
    rng = np.random.default_rng(rows)
    layer = Dense(i, o, activation, dtype=dtype, rng=0)
    x, dy = rng.normal(size=(rows, i)).astype(dtype), rng.normal(size=(rows, o)).astype(dtype)
    y, backward = layer.forward(x)
    dx = backward(dy)
    w, b = layer.weight.value, layer.bias.value
    expected_y = reference.dense(x, w, b, activation or "linear")
    expected_dx, expected_dw, expected_db = reference.dense_backward(dy, x, w, b, activation or "linear")
    # Each result is a sum of n products plus a few ulp of the activation; every derivative here is below 1.1.
    eps = np.finfo(dtype).eps
    bounds = {
        "y": (y, expected_y, (i + 8) * (np.abs(x) @ np.abs(w).T + np.abs(b) + 1)),
        "dx": (dx, expected_dx, (i + o + 16) * 2 * (np.abs(dy) @ np.abs(w)) * (1 + np.abs(x).max() * i)),
        "dw": (layer.weight.grad, expected_dw, (i + rows + 16) * 2 * (np.abs(dy).T @ np.abs(x)) * (1 + i)),
        "db": (layer.bias.grad, expected_db, (i + rows + 16) * 2 * np.abs(dy).sum(0) * (1 + i)),
    }
    for name, (got, expected, bound) in bounds.items():
        assert got.dtype == dtype
        assert (np.abs(got - expected) <= eps * bound).all(), name


def test_dense_converts_x_and_takes_any_layout():
    layer = Dense(3, 4, "tanh", rng=0)
    x = np.random.default_rng(1).integers(-3, 3, (6, 3))
    y, trained = layer(x.astype(np.float32)), layer.forward(x.astype(np.float32))[0]
    backing = np.zeros((12, 6), np.float32)
    backing[::2, ::2] = x
    # Another layout may have another order of the product's sums: some roundings of terms up to 3.
    few = 8 * np.finfo(np.float32).eps
    for same, atol in (
        (x, 0),
        (x.astype(np.float64), 0),
        (x.astype(np.float16), 0),
        (x.tolist(), 0),
        (np.asfortranarray(x.astype("f4")), few),
        (backing[::2, ::2], few),
    ):
        np.testing.assert_allclose(layer(same), y, rtol=0, atol=atol)
        again, backward = layer.forward(same)
        np.testing.assert_allclose(again, trained, rtol=0, atol=atol)
        assert backward(y.tolist()).dtype == np.float32
    frozen = x.astype(np.float32)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(layer(frozen), y)


def test_dense_inference_follows_every_change_of_the_weights(isa):
    model = Sequential(Dense(5, 7, rng=0))
    layer, x = model[0], np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)

    def check():
        expected = x @ layer.weight.value.T + layer.bias.value
        np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())

    check()
    layer.weight[2] = 1
    check()
    layer.weight.value = np.ones((7, 5))
    check()
    model.flatten()
    check()
    model.flat_parameters = model.flat_parameters * 3
    check()
    model.arena.values[:] = np.arange(model.arena.size)
    model.arena.bump()
    check()
    layer.weight = Dense(5, 7, rng=3).weight
    check()
    layer.weight = Dense(5, 7, rng=4).weight  # of the same version
    check()
    assert list(model.parameters()) == ["0.weight", "0.bias"]


def test_dense_gradients_add_up():
    layer = Dense(3, 2, dtype="float64", rng=0)
    x = np.ones((4, 3))
    for times in (1, 2, 3):
        y, backward = layer.forward(x)
        backward(np.ones_like(y))
        assert (layer.weight.grad == 4 * times).all()
        assert (layer.bias.grad == 4 * times).all()
    layer.zero_grad()
    assert not layer.weight.grad.any()


def test_input_gradient_false_saves_dx_only():
    for layer, x in (
        (Dense(3, 2, rng=0), np.ones((4, 3), np.float32)),
        (Sequential(Dense(3, 2, rng=0)), np.ones((4, 3))),
    ):
        y, backward = layer.forward(x)
        assert backward(np.ones_like(y), input_gradient=False) is None
        assert next(iter(layer.parameters().values())).grad.any()


def test_dense_same_bits_for_any_number_of_threads(dtype):
    layer = Dense(200, 300, "tanh", dtype=dtype, rng=0)
    x = np.random.default_rng(0).normal(size=(257, 200)).astype(dtype)
    found = []
    for n in (1, 2, 3):
        with fa.num_threads(n):
            layer.zero_grad()
            y, backward = layer.forward(x)
            dx = backward(y)
            found.append((y, dx, layer.weight.grad.copy(), layer.bias.grad.copy()))
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 4)), ValueError, r"x: expected shape \(\.\.\., 3\), the layer's in_features, got \(2, 4\)"),
        (np.float32(1), ValueError, r"got \(\)"),
        (np.zeros((2, 3), complex), TypeError, "x: expected an array of real numbers, got dtype complex128"),
        (None, TypeError, "x: expected an array of real numbers"),
        ("abc", TypeError, "x: expected an array of real numbers"),
    ],
)
def test_dense_refuses_x(x, error, message):
    layer = Dense(3, 2, rng=0)
    for call in (layer, layer.forward, layer.predict):
        with pytest.raises(error, match=message):
            call(x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 2), ValueError, "in_features: expected an integer of at least 1, got 0"),
        ((2, -1), ValueError, "out_features: expected an integer of at least 1"),
        ((2.5, 2), TypeError, "in_features: expected an integer, got 2.5"),
        ((2, 2, "sigmiod"), ValueError, "sigmoid"),
        ((2, 2, None, True, "float16"), TypeError, "dtype: expected float32 or float64"),
        ((2, 2, None, True, "nonsense"), TypeError, "dtype: expected float32 or float64"),
    ],
)
def test_dense_refuses_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Dense(*arguments)


# -- Backward --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda: Dense(3, 3, rng=0), lambda: Sequential(Dense(3, 3, rng=0)), lambda: Activation("tanh")]
)
def test_backward_is_single_use_and_checks_dy_first(make):
    layer = make()
    y, backward = layer.forward(np.ones((2, 3), np.float32))
    for bad, error in ((np.ones((3, 2)), ValueError), (np.ones((2, 3), complex), TypeError), (1.0, ValueError)):
        with pytest.raises(error, match="dy: expected"):
            backward(bad)
    assert not any(p.grad.any() for p in layer.parameters().values())
    backward(np.ones_like(y))
    with pytest.raises(BackwardError, match="second"):
        backward(np.ones_like(y))


@pytest.mark.parametrize("use", [True, False])
def test_backward_frees_what_it_holds_without_the_garbage_collector(use):
    model = chain()
    gc.disable()
    try:
        y, backward = model.forward(np.array([1, 2]))
        held = weakref.ref(backward._run[1][1]._run)
        assert held() is not None
        if use:
            backward(np.ones_like(y))
        del backward
        assert held() is None
    finally:
        gc.enable()


def test_layers_keep_nothing_of_a_call():
    for layer, x in ((Dense(3, 2, "gelu", rng=0), np.ones((2, 3))), (Embedding(4, 2, rng=0), np.array([1]))):
        layer(x)
        before = dict(vars(layer))
        layer(x[:1])
        y, backward = layer.forward(x)
        backward(y)
        assert vars(layer) == before


# -- Embedding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (0,), (), (2, 3), (2, 0), (2, 1, 3)])
def test_embedding_values_and_gradients(shape):
    rng = np.random.default_rng(0)
    layer = Embedding(7, 3, dtype="float64", rng=0)
    x = rng.integers(0, 7, shape)
    np.testing.assert_array_equal(layer(x), layer.weight.value[x])
    np.testing.assert_array_equal(layer.forward(x)[0], layer.weight.value[x])
    check_gradients(layer, x)


@pytest.mark.parametrize("width", [1, 7, 16, 17, 33])
def test_embedding_gradient_against_the_reference(width, dtype, isa):
    rng = np.random.default_rng(0)
    layer = Embedding(6, width, dtype=dtype, rng=0)
    x = rng.integers(0, 5, (9, 13))
    y, backward = layer.forward(x)
    dy = rng.normal(size=y.shape).astype(dtype)
    backward(dy)
    expected = reference.embedding_backward(x, dy, 6)
    bound = 117 * np.finfo(dtype).eps * reference.embedding_backward(x, np.abs(dy), 6)
    assert (np.abs(layer.weight.grad - expected) <= bound).all()


def test_embedding_repeated_indices_add_up(dtype):
    layer = Embedding(3, 17, dtype=dtype, rng=0)
    y, backward = layer.forward([2, 0, 2, 2])
    assert y.dtype == dtype
    assert backward(np.ones_like(y)) is None
    np.testing.assert_array_equal(layer.weight.grad, np.repeat([[1], [0], [3]], 17, axis=1))


@pytest.mark.parametrize("kind", ["u1", "i2", "u4", "i8", "u8", ">i8", "list", "strided", "read-only"])
def test_embedding_takes_any_integers(kind):
    layer = Embedding(9, 3, rng=0)
    x = np.array([[8, 0, 3], [1, 1, 7]])
    same = {"list": x.tolist(), "strided": np.repeat(x, 2, axis=1)[:, ::2], "read-only": x.copy()}.get(kind)
    if same is None:
        same = x.astype(kind)
    elif kind == "read-only":
        same.flags.writeable = False
    y, backward = layer.forward(same)
    np.testing.assert_array_equal(y, layer.weight.value[x])
    backward(np.ones((2, 3, 3))[:, ::-1])
    np.testing.assert_array_equal(layer.weight.grad.sum(1), 3 * np.bincount(x.ravel(), minlength=9))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([0, 3, 5, 9], IndexError, r"x: expected indices from 0 to 4 \(num_embeddings is 5\), got 5 at position 2"),
        ([[0, 1], [-1, 2]], IndexError, r"got -1 at position \(1, 0\)"),
        (np.array(7), IndexError, "got 7"),
        ([0.0, 1.0], TypeError, r"x: expected integer indices, got dtype float64.*astype"),
        ([True], TypeError, "expected integer indices, got dtype bool"),
        (["a"], TypeError, "expected integer indices"),
        (np.array([2**64 - 1], np.uint64), IndexError, "expected indices from 0 to 4"),
    ],
)
def test_embedding_refuses_x(x, error, message):
    layer = Embedding(5, 2, rng=0)
    for call in (layer, layer.forward):
        with pytest.raises(error, match=message):
            call(x)


# -- Activation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ACTIVATIONS[1:])
def test_activation_layer(function):
    x = np.random.default_rng(0).normal(size=(3, 5))
    layer = Activation(function)
    np.testing.assert_array_equal(layer(x), fa.activations[function](x))
    check_gradients(layer, x)


def test_activation_layer_takes_functions_with_parameters_and_integers():
    layer = Activation(fa.leaky_relu.with_params(alpha=0.5))
    y, backward = layer.forward(np.array([-2, 2]))
    np.testing.assert_array_equal(y, [-1, 2])
    np.testing.assert_array_equal(backward([1, 1]), [0.5, 1])
    with pytest.raises(TypeError, match="x: expected an array of real numbers"):
        layer.forward(np.array([1j]))


# -- Sequential ------------------------------------------------------------------------------------------------------


def test_sequential_gradients_with_a_layer_at_three_places():
    check_gradients(chain(), np.array([[0, 1, 1], [4, 0, 1]]))
    assert chain().num_parameters == 20 + 20 + 12


def test_sequential_behaves_as_a_tuple():
    model = chain()
    assert len(model) == 5
    assert model[-1] is model.layers[4]
    assert list(model)[1] is model[3]
    part = model[1:4]
    assert isinstance(part, Sequential)
    assert part[0] is model[1]
    assert bool(Sequential())
    x = np.ones(3)
    assert Sequential()(x) is x
    with pytest.raises(IndexError):
        model[5]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("relu", r"got 'relu' of type str at place 1; as a layer: fa.nn.Activation"),
        ([Dense(2, 2, rng=0)], r"unpack it: Sequential\(\*layers\)"),
        (np.tanh, "Activation"),
        (3, "got 3 of type int at place 1"),
    ],
)
def test_sequential_refuses_what_is_no_layer(layer, message):
    with pytest.raises(TypeError, match=message):
        Sequential(Dense(2, 2, rng=0), layer)


def test_an_error_says_in_which_layer():
    model = Sequential(Dense(2, 3, rng=0), Dense(4, 2, rng=0))
    for call in (model, model.forward, model.run):
        with pytest.raises(ValueError, match=r"in layer 1, Dense\(in_features=4.*x: expected shape \(\.\.\., 4\)"):
            call(np.ones((1, 2)))


class Accumulator(Layer):
    """A recurrent layer that can be checked by hand: y_t = h_t = h_{t-1} + a x_t, over axis 1 of x (B, T)."""

    stateful = True

    def __init__(self, a):
        self.add_parameter("a", np.array([a], np.float64))

    class Backward(Backward):
        __slots__ = ("dstate", "state")

        def __call__(self, dy, input_gradient=True, dstate=None):
            dy = self._check(dy)
            dx, self.dstate = self._begin()(dy, 0 if dstate is None else dstate)
            return dx if input_gradient else None

    def forward(self, x, /, state=None):
        a = self.a
        y = np.cumsum(a.value * x, axis=1) + (0 if state is None else state[:, None])

        def run(dy, dstate):
            dh = np.cumsum(dy[:, ::-1], axis=1)[:, ::-1] + np.reshape(dstate, (-1, 1))
            a.grad[0] += (dh * x).sum()
            return a.value * dh, dh[:, 0]

        backward = self.Backward(run, y.shape, y.dtype)
        backward.state = y[:, -1]
        return y, backward

    def run(self, x, /, state=None):
        y, backward = self.forward(x, state=state)
        return RunResult(y, backward.state)


def test_sequential_passes_states_of_recurrent_members():
    model = Sequential(
        Activation("tanh"), Accumulator(0.5), Dense(6, 6, dtype="float64", rng=0), Sequential(Accumulator(2.0))
    )
    assert model.stateful
    rng = np.random.default_rng(0)
    x, state = rng.normal(size=(2, 6)), (rng.normal(size=2), (rng.normal(size=2),))
    y, backward = model.forward(x, state=state)
    assert len(backward.state) == 2
    result = model.run(x, state=state)
    np.testing.assert_allclose(result.y, y, rtol=1e-14)
    np.testing.assert_array_equal(result.state[0], backward.state[0])
    np.testing.assert_allclose(result.state[1][0], backward.state[1][0], rtol=1e-14)
    np.testing.assert_allclose(model(x), model.forward(x, state=(None, None))[0], rtol=1e-13)
    assert (model(x) != y).any()

    def flat_forward(x, state):
        y, backward = model.forward(x, state=(state[0], (state[1],)))

        class Flat:
            state = (backward.state[0], backward.state[1][0])

            def __call__(self, dy, dstate):
                dx = backward(dy, dstate=(dstate[0], (dstate[1],)))
                self.dstate = (backward.dstate[0], backward.dstate[1][0])
                return dx

        return y, Flat()

    check_gradients(model, x, forward=flat_forward, state=(state[0], state[1][0]))
    for bad in ((1,), np.zeros(2), (None,) * 3):
        with pytest.raises(ValueError, match="state: expected a tuple of 2, one for each"):
            model.forward(x, state=bad)
    _, backward = model.forward(x)
    with pytest.raises(ValueError, match="dstate: expected a tuple of 2"):
        backward(y, dstate=(None,))
    with pytest.raises(ValueError, match="state: expected a tuple of 0, one for each"):
        chain().forward(np.array([1]), state=(1,))


def test_language_model_in_stretches_equals_one_pass(dtype):
    """Embedding, LSTM, Dense: states carried over by backward.state and run, gradients carried back by dstate."""
    model = Sequential(
        Embedding(7, 3, dtype=dtype, rng=0), LSTM(3, 5, dtype=dtype, rng=1), Dense(5, 7, dtype=dtype, rng=2)
    )
    x = np.random.default_rng(0).integers(0, 7, (2, 8))
    tolerance = {"rtol": 100 * np.finfo(dtype).eps, "atol": 100 * np.finfo(dtype).eps}
    whole, backward = model.forward(x)
    dy = np.random.default_rng(1).normal(size=whole.shape).astype(dtype)
    assert backward(dy) is None
    expected = {name: p.grad.copy() for name, p in model.parameters().items()}

    model.zero_grad()
    first, first_backward = model.forward(x[:, :3])
    second, second_backward = model.forward(x[:, 3:], state=first_backward.state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, **tolerance)
    second_backward(dy[:, 3:])
    first_backward(dy[:, :3], dstate=second_backward.dstate)
    for name, p in model.parameters().items():
        np.testing.assert_allclose(p.grad, expected[name], **tolerance, err_msg=name)

    result = model.run(x[:, :3])
    np.testing.assert_allclose(model.run(x[:, 3:], state=result.state).y, whole[:, 3:], **tolerance)
    np.testing.assert_allclose(model.predict(x, batch_size=1), whole, **tolerance)
    if dtype == np.float64:
        check_gradients(model, x)


def test_a_user_layer_with_a_plain_function_as_backward():
    class Double(Layer):
        def forward(self, x):
            return 2 * x, lambda dy: 2 * dy

    model = Sequential(Double(), Dense(2, 2, dtype="float64", rng=0), Double())
    check_gradients(model, np.random.default_rng(0).normal(size=(3, 2)))
    y, backward = model.forward(np.ones((3, 2)))
    assert backward(y, input_gradient=False) is None
    np.testing.assert_array_equal(model(np.ones((3, 2))), y)
    with pytest.raises(NotImplementedError, match="Layer defines no forward"):
        Layer()(1)


# -- predict, repr ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 1, 3, 7, 100])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_predict(batch_size, rows):
    model = chain(np.float32)
    x = np.random.default_rng(0).integers(0, 5, (rows, 2))
    y = model.predict(x, batch_size)
    assert y.shape == (rows, 2, 3)
    np.testing.assert_allclose(y, model(x), rtol=1e-5)
    np.testing.assert_array_equal(model.predict(x.tolist() if rows else x, batch_size), y)


def test_predict_refuses():
    for bad, error in ((0, ValueError), (-3, ValueError), (2.0, TypeError), (True, ValueError)):
        with pytest.raises(error, match="batch_size: expected an integer"):
            chain().predict([1], batch_size=bad)
    with pytest.raises(ValueError, match="x: expected at least one axis"):
        chain().predict(1, batch_size=2)


def test_repr_and_config():
    layer = Dense(3, 2, fa.leaky_relu, bias=False, dtype="float64", rng=0)
    assert repr(layer) == "Dense(in_features=3, out_features=2, activation='leaky_relu', bias=False, dtype='float64')"
    twin = Dense.from_config(layer.config())
    assert twin.config() == layer.config()
    assert repr(Embedding(3, 2, rng=0)) == "Embedding(num_embeddings=3, embedding_dim=2, dtype='float32')"
    assert repr(Sequential(Activation("relu"))) == "Sequential(Activation(function='relu'))"

    class Lost(Layer):
        def __init__(self, size):
            pass

    with pytest.raises(TypeError, match="Lost: expected an attribute 'size'"):
        Lost(3).config()
    assert repr(Lost(3)) == "Lost()"


# -- threads, PyTorch -------------------------------------------------------------------------------------------------


def test_inference_is_re_entrant():
    model = Sequential(Dense(9, 17, "gelu", rng=0), Dense(17, 5, "softmax", rng=1))
    x = np.random.default_rng(0).normal(size=(8, 33, 9)).astype(np.float32)
    expected = [model(part) for part in x]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            model[0].weight.value = model[0].weight.value  # a new version: the packs are made anew, by several at once
            for got, right in zip(pool.map(model, x), expected, strict=True):
                np.testing.assert_array_equal(got, right)


def test_a_state_dict_of_pytorch_gives_the_same_values_and_gradients():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(
        torch.nn.Embedding(7, 3), torch.nn.Linear(3, 5), torch.nn.GELU(), torch.nn.Linear(5, 4, bias=False)
    ).double()
    ours = Sequential(
        Embedding(7, 3, dtype="float64"),
        Dense(3, 5, dtype="float64"),
        Activation("gelu"),
        Dense(5, 4, bias=False, dtype="float64"),
    )
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).integers(0, 7, (6, 2))
    y, backward = ours.forward(x)
    expected = theirs(torch.from_numpy(x))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-12, atol=1e-14)
    dy = np.random.default_rng(1).normal(size=y.shape)
    backward(dy)
    expected.backward(torch.from_numpy(dy))
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(ours.parameters()[name].grad, p.grad.numpy(), rtol=1e-11, atol=1e-13, err_msg=name)
