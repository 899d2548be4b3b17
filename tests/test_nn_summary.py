"""``Layer.summary`` and ``fa.testing.check_gradients``; the examples in the layers' docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import fastact as fa
from fastact import nn
from fastact.nn import LSTM, BatchNorm, Dense, Dropout, Embedding, Flatten, Layer, LayerNorm, Residual, Sequential

MODULES = sorted(module.name for module in pkgutil.iter_modules(nn.__path__, "fastact.nn."))


@pytest.mark.parametrize("module", [*MODULES, "fastact.testing"])
def test_examples(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


# -- summary ----------------------------------------------------------------------------------------------------------


def test_a_table_of_a_model():
    shared = Dense(8, 8, "relu", rng=0)
    model = Sequential(
        Embedding(10, 8, rng=0),
        Residual(Sequential(LayerNorm(8), shared)),
        shared,
        LSTM(8, 4, rng=0),
        Dense(4, 3, rng=0),
    )
    model[0].freeze()
    found = model.summary((None, 6))
    rows = {row.name: row for row in found.rows}
    assert [row.kind for row in found.rows] == [
        "Sequential", "Embedding", "Residual", "Sequential", "LayerNorm", "Dense", "Dense", "LSTM", "Dense",
    ]  # fmt: skip
    assert [row.depth for row in found.rows] == [0, 1, 1, 2, 3, 3, 1, 1, 1]
    assert rows["3"].output_shape == (None, 6, 4)
    assert rows["4"].output_shape == (None, 6, 3)
    assert rows["2"].shared
    assert rows["2"].parameters == 0
    assert sum(row.parameters for row in found.rows) == found.parameters == model.num_parameters
    assert found.trainable == model.num_parameters - 80
    assert found.nbytes == 4 * model.num_parameters
    lines = str(found).splitlines()
    assert lines[3] == "  0: Embedding         (None, 6, 8)   80 frozen"
    assert lines[-1].endswith(f"{found.trainable} trained, 80 frozen")
    assert len({line.index("(None") for line in lines if "(None" in line}) == 1


def test_summary_of_fewer_levels_and_other_models():
    model = Sequential(Sequential(Dense(4, 3, rng=0), BatchNorm(3)), Flatten(), Dropout())
    assert [row.parameters for row in model.summary((2, 4), depth=1).rows] == [0, 21, 0, 0]
    assert [row.parameters for row in model.summary((2, 4), depth=0).rows] == [21]
    assert str(model.summary((2, 4))).endswith("21 parameters (84 bytes); 6 in buffers")
    assert model.summary((2, 4)).rows[0].output_shape == (2, 3)

    class Own(Layer):
        def __init__(self):
            self.add_parameter("scale", np.ones(3, np.float32))
            self.inner = Dense(3, 5, rng=0)

        def forward(self, x):
            y, backward = self.inner.forward(x * self.scale.value)
            return y, backward

    rows = Sequential(Own()).summary((7, 3)).rows
    assert [(row.name, row.output_shape, row.parameters) for row in rows[1:]] == [
        ("0", (7, 5), 3),
        ("inner", (7, 5), 20),
    ]


class Mixer(Layer):
    """Calls one layer twice, one with two arguments, one never; has a state that forward moves."""

    def __init__(self):
        self.parts = {"first": Sequential(Dense(3, 4, rng=0), Dropout()), "norm": BatchNorm(4)}
        self.attend = nn.Attention(4, kdim=2, vdim=2, rng=0)
        self.never = Dense(9, 9, rng=0)

    def forward(self, x):
        y = self.parts["first"].forward(x[:, :2])[0] + self.parts["first"](x[:, 1:])
        y = self.parts["norm"].forward(y)[0]
        return self.attend(y, x[..., :2]), None


def test_summary_of_a_layer_of_ones_own_changes_nothing():
    layer = Mixer()
    before, drawn = layer.state_dict(), fa.init.generator().bit_generator.state
    text = str(layer.summary((None, 3, 3)))
    rows = {row.name: row.output_shape for row in layer.summary((5, 3, 3)).rows}
    assert rows == {
        "": (5, 2, 4),
        "parts.first": (5, 2, 4),
        "0": (5, 2, 4),
        "1": (5, 2, 4),
        "parts.norm": (5, 2, 4),
        "attend": None,
        "out_proj": None,
        "never": None,
    }
    assert "(None, 2, 4)" in text
    assert "?" in text
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert fa.init.generator().bit_generator.state == drawn
    assert type(layer.parts["norm"]) is BatchNorm


def test_summary_refuses_a_shape_that_does_not_fit():
    model = Sequential(Dense(4, 3, rng=0), Dense(5, 2, rng=0))
    with pytest.raises(ValueError, match=r"in layer 1, Dense\(in_features=5.*x: expected shape \(\.\.\., 5\)"):
        model.summary((None, 4))
    for bad in ((), 4, None):
        with pytest.raises(ValueError, match="input_shape: expected a tuple that begins with the batch axis"):
            model.summary(bad)
    with pytest.raises(TypeError, match=r"input_shape\[1\]: expected an integer, got None"):
        model.summary((None, None))


SHAPED = {
    "Dense": (nn.Dense(4, 3, rng=0), (2, 5, 4)),
    "Embedding": (nn.Embedding(4, 3, rng=0), (2, 5)),
    "softmax": (nn.Activation("softmax"), (2, 5, 4)),
    "glu": (nn.Activation("glu"), (2, 5, 4)),
    "PReLU": (nn.PReLU(4), (2, 5, 4)),
    "LayerNorm": (nn.LayerNorm(4), (2, 5, 4)),
    "GRU": (nn.GRU(4, 3, bidirectional=True, rng=0), (2, 5, 4)),
    "GRU none": (nn.GRU(4, 3, bidirectional=True, merge="none", rng=0), (2, 5, 4)),
    "GRU last": (nn.GRU(4, 3, time_major=True, return_sequences=False, rng=0), (5, 2, 4)),
    "Dropout": (nn.Dropout(), (2, 5, 4)),
    "Reshape": (nn.Reshape((10, -1)), (2, 5, 4)),
}


@pytest.mark.parametrize("name", SHAPED)
def test_output_shapes_are_those_of_calls(name):
    layer, shape = SHAPED[name]
    x = np.zeros(shape, np.int64 if name == "Embedding" else np.float32)
    assert layer.output_shape(shape) == layer(x).shape


# -- check_gradients --------------------------------------------------------------------------------------------------


class Wrong(Dense):
    """A Dense whose gradient of one number is off."""

    def __init__(self, i, o, where, by=1e-3):
        super().__init__(i, o, "tanh", dtype="float64", rng=0)
        self.where, self.by = where, by

    def forward(self, x):
        y, backward = super().forward(x)

        def wrong(dy):
            dx = backward(dy)
            name, *index = self.where
            if name == "x":
                dx[tuple(index)] += self.by
            else:
                getattr(self, name).grad[tuple(index)] += self.by
            return dx

        return y, wrong


@pytest.mark.parametrize("sizes", [(3, 4), (30, 40)])  # each entry, and random directions
@pytest.mark.parametrize("where", [("x", 1, 2), ("weight", 2, 1), ("bias", 3)])
def test_a_wrong_gradient_is_found_and_named(sizes, where):
    x = np.random.default_rng(0).normal(size=(20, sizes[0]))
    fa.testing.check_gradients(Dense(*sizes, "tanh", dtype="float64", rng=0), x)
    name, *index = where
    with pytest.raises(AssertionError, match=rf"^{name}\[{', '.join(map(str, index))}\]: backward gives .*differences"):
        fa.testing.check_gradients(Wrong(*sizes, where), x)
    with pytest.raises(AssertionError, match=rf"{name}.*backward gives nan"):
        fa.testing.check_gradients(Wrong(*sizes, where, np.nan), x)
    fa.testing.check_gradients(Wrong(*sizes, where), x, atol=2e-3)


def test_missing_gradients_are_found():
    class Silent(Layer):
        def __init__(self):
            self.add_parameter("scale", np.ones(2))

        def forward(self, x):
            return x * self.scale.value, lambda dy: dy * self.scale.value

    with pytest.raises(AssertionError, match=r"scale\[\d\]: backward gives 0, differences give"):
        fa.testing.check_gradients(Silent(), np.ones((3, 2)))

    class Lost(Layer):
        def forward(self, x):
            return x + 1, lambda dy: None

    with pytest.raises(AssertionError, match=r"x: expected a gradient of the shape of x, \(3, 2\), got None"):
        fa.testing.check_gradients(Lost(), np.ones((3, 2)))


def test_the_layer_is_as_before():
    fa.seed(5)
    model = Sequential(Dense(3, 4, dtype="float64"), BatchNorm(4, dtype="float64"), Dropout(0.5), Dropout(0.5, rng=1))
    fa.seed(7)
    expected = np.random.default_rng(7).random()
    before = model.state_dict()
    x = np.random.default_rng(0).normal(size=(6, 3))
    given = x.copy()
    fa.testing.check_gradients(model, x)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    np.testing.assert_array_equal(x, given)
    assert fa.init.generator().random() == expected


def test_check_gradients_refuses():
    with pytest.raises(TypeError, match=r'expected float64 parameters, got weight of float32.*dtype="float64"'):
        fa.testing.check_gradients(Dense(2, 2, rng=0), np.ones((2, 2)))
    with pytest.raises(TypeError, match="layer: expected a fastact layer or model, got int"):
        fa.testing.check_gradients(3, np.ones(2))
    with pytest.raises(TypeError, match="x: expected an array of real numbers"):
        fa.testing.check_gradients(Dropout(), "text")
