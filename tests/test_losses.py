"""Losses as users call them: gradients against central differences, the reference and PyTorch; messages."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from gradients import assert_gradient, numeric_gradient

import fastact as fa
from fastact import reference
from fastact.errors import BackwardError
from fastact.losses import CrossEntropy, Loss, MeanSquaredError, as_loss


def classes(rng, shape, number):
    return rng.integers(0, number, shape)


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (2, 5, 7), (2, 1, 3, 9), (6,)])
def test_cross_entropy_gradient_is_the_derivative(isa, shape):
    rng = np.random.default_rng(1)
    z = 3 * rng.standard_normal(shape)
    target = classes(rng, shape[:-1], shape[-1])
    loss, backward = CrossEntropy().forward(z, target)
    assert loss == pytest.approx(reference.cross_entropy(z, target)[0], rel=1e-14)
    numeric = numeric_gradient(lambda: CrossEntropy().forward(z, target)[0], z)
    assert_gradient("prediction", backward(), numeric)


def test_cross_entropy_gradient_with_ignored_positions():
    rng = np.random.default_rng(2)
    z = rng.standard_normal((4, 3, 5))
    target = classes(rng, (4, 3), 5)
    target[1] = -100
    loss = CrossEntropy(ignore_index=-100)
    value, backward = loss.forward(z, target)
    assert value == pytest.approx(reference.cross_entropy(z, target, -100)[0], rel=1e-14)
    assert_gradient("prediction", backward(), numeric_gradient(lambda: loss.forward(z, target)[0], z))


@pytest.mark.parametrize("shape", [(), (1,), (5, 3), (2, 3, 4)])
def test_squared_error_gradient_is_the_derivative(isa, shape):
    rng = np.random.default_rng(3)
    prediction, target = rng.standard_normal((2, *shape))
    prediction = np.array(prediction)
    loss, backward = MeanSquaredError().forward(prediction, target)
    assert loss == pytest.approx(reference.squared_error(prediction, target)[0], rel=1e-14)
    numeric = numeric_gradient(lambda: MeanSquaredError().forward(prediction, target)[0], prediction)
    assert_gradient("prediction", backward(), numeric)


@pytest.mark.parametrize("layout", ["fortran", "reversed", "strided", "swapped bytes", "read-only", "unaligned"])
def test_any_layout_gives_the_same_bits(dtype, layout):
    rng = np.random.default_rng(4)
    z = rng.standard_normal((6, 8)).astype(dtype)
    target = classes(rng, 6, 8)
    loss, backward = CrossEntropy().forward(z, target)
    other = {
        "fortran": lambda: np.asfortranarray(z),
        "reversed": lambda: z[::-1].copy()[::-1],
        "strided": lambda: np.repeat(z, 2, 1)[:, ::2],
        "swapped bytes": lambda: z.astype(z.dtype.newbyteorder()),
        "read-only": lambda: np.frombuffer(z.tobytes(), dtype).reshape(z.shape),
        "unaligned": lambda: np.frombuffer(b"x" + z.tobytes(), dtype, offset=1).reshape(z.shape),
    }[layout]()
    for t in (target, target.astype(np.uint8), target[::-1].copy()[::-1], list(map(int, target))):
        loss2, backward2 = CrossEntropy().forward(other, t)
        assert loss2 == loss
    np.testing.assert_array_equal(backward2(), backward())
    mse, mse_backward = MeanSquaredError().forward(z, z[::-1])
    mse2, mse_backward2 = MeanSquaredError().forward(other, other[::-1])
    assert mse == mse2
    np.testing.assert_array_equal(mse_backward(), mse_backward2())


def test_backward_is_single_use():
    _, backward = MeanSquaredError().forward(np.ones(3), np.zeros(3))
    backward()
    with pytest.raises(BackwardError, match="second"):
        backward()


def test_gradients_of_two_calls_are_two_arrays():
    loss = CrossEntropy()
    _, first = loss.forward(np.zeros((2, 2)), [0, 1])
    _, second = loss.forward(np.ones((2, 2)), [1, 1])
    assert not np.shares_memory(first(), second())


def test_measure_counts():
    z = np.array([[2.0, 1], [0, 1], [5, 4]])
    assert CrossEntropy(ignore_index=7).measure(z, [0, 7, 1])[1:] == (2, 1)
    assert MeanSquaredError().measure(z, z).size == 6


def test_against_pytorch(dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    z = (3 * rng.standard_normal((20, 31))).astype(dtype)
    target = classes(rng, 20, 31)
    target[3] = -100
    tensor = torch.tensor(z, requires_grad=True)
    value = torch.nn.functional.cross_entropy(tensor, torch.tensor(target))
    value.backward()
    loss, backward = CrossEntropy(ignore_index=-100).forward(z, target)
    tolerance = 20 * float(np.finfo(dtype).eps)
    assert loss == pytest.approx(float(value.detach()), rel=tolerance)
    np.testing.assert_allclose(backward(), tensor.grad.numpy(), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("prediction", "target", "error", "words"),
    [
        (np.zeros((2, 3)), [0, 3], ValueError, ["0 <= class < 3", "got 3 at position 1"]),
        (np.zeros((2, 3)), [-1, 0], ValueError, ["got -1 at position 0"]),
        (np.zeros((2, 2, 3)), [[0, 1], [9, 2]], ValueError, ["got 9 at position (1, 0)"]),
        (np.zeros((2, 3)), [0.0, 1.0], TypeError, ["integers", "float64", "astype(np.int64)"]),
        (np.zeros((2, 3)), np.eye(3, dtype=int)[:2], ValueError, ["(2,)", "(2, 3)", "argmax"]),
        (np.zeros((2, 3)), [0, 1, 2], ValueError, ["(2,)", "(3,)"]),
        (np.zeros((2, 5, 3)), np.zeros(10, int), ValueError, ["(2, 5)", "reshape"]),
        (np.zeros((2, 3), int), [0, 1], TypeError, ["float32 or float64", "int64"]),
        (np.zeros((0, 3)), np.zeros(0, int), ValueError, ["at least one element"]),
        (np.zeros(()), 0, ValueError, ["shape"]),
    ],
)
def test_cross_entropy_refuses(prediction, target, error, words):
    with pytest.raises(error) as caught:
        CrossEntropy().forward(prediction, target)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("prediction", "target", "error", "words"),
    [
        (np.zeros((3, 1)), np.zeros(3), ValueError, ["(3, 1)", "(3,)", "reshape((3, 1))"]),
        (np.zeros(3), np.zeros(4), ValueError, ["(3,)", "(4,)"]),
        (np.zeros(3), ["a", "b", "c"], TypeError, ["target", "real numbers"]),
        (np.zeros(3), np.zeros(3, complex), TypeError, ["target", "complex"]),
    ],
)
def test_squared_error_refuses(prediction, target, error, words):
    with pytest.raises(error) as caught:
        MeanSquaredError().forward(prediction, target)
    for word in words:
        assert word in str(caught.value)


def test_by_name():
    assert type(as_loss("cross_entropy")) is CrossEntropy
    assert type(as_loss("mse")) is type(as_loss("mean_squared_error")) is MeanSquaredError
    own = CrossEntropy(3)
    assert as_loss(own) is own
    with pytest.raises(ValueError, match="did you mean 'cross_entropy'"):
        as_loss("crossentropy")
    with pytest.raises(TypeError, match=r"write CrossEntropy\(\)"):
        as_loss(CrossEntropy)
    with pytest.raises(TypeError, match=r"fa\.losses\.Loss"):
        as_loss(3)
    with pytest.raises(ValueError, match="ignore_index: expected an integer of 64 bits"):
        CrossEntropy(ignore_index=2**63)
    with pytest.raises(TypeError, match="ignore_index"):
        CrossEntropy(ignore_index="pad")


def test_copies_and_pickles():
    loss = CrossEntropy(ignore_index=4)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(other) == repr(loss) == "CrossEntropy(ignore_index=4)"


def test_own_loss_needs_measure():
    with pytest.raises(NotImplementedError, match="measure"):
        Loss().forward(np.ones(2), np.ones(2))


def test_uniform_logits_cost_the_logarithm_of_the_classes():
    for number in (1, 2, 128):
        assert fa.losses.CrossEntropy().forward(np.zeros((3, number)), [0, 0, 0])[0] == pytest.approx(math.log(number))
