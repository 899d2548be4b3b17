"""Activation objects: calls, parameters, errors, copies, documentation."""

from __future__ import annotations

import copy
import doctest
import inspect
import pickle

import numpy as np
import pytest

import fastact as fa
from fastact import _activations, reference
from fastact._activations import as_activation

pytestmark = pytest.mark.sanitise

NAMES = list(fa.activations)
ELEMENTWISE = [name for name in NAMES if not fa.activations[name].rowwise]
PARAMETRIC = [name for name in ELEMENTWISE if fa.activations[name].parameters]
FOUNDING = "linear step sigmoid tanh relu leaky_relu elu softplus silu gelu gelu_tanh hard_tanh scaled_tanh"


def samples(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype) * 3


# ------------------------------------------------------------------------------------------------------ catalogue


def test_every_activation_has_a_name_at_top_level():
    assert {*FOUNDING.split(), "softmax", "log_softmax"} <= set(NAMES)
    for name, f in fa.activations.items():
        assert getattr(fa, name) is f is fa.activations[name]
        assert f.name == name
        assert isinstance(f.ufunc, np.ufunc) or not f.keeps_shape
    assert set(reference.activations) == set(NAMES)
    assert "gelu" in fa.activations
    assert "gleu" not in fa.activations


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(KeyError, match="'sigmod'; did you mean 'sigmoid'"):
        fa.activations["sigmod"]
    with pytest.raises(ValueError, match=r"activation: expected one of .* got 'tanhh'; did you mean 'tanh'"):
        as_activation("tanhh")
    with pytest.raises(TypeError, match="activation: expected a name, an Activation or None, got int"):
        as_activation(3)
    with pytest.raises(TypeError, match="got function"):
        as_activation(lambda x: x)
    assert as_activation("tanh") is fa.tanh
    assert as_activation(None) is fa.linear
    bound = fa.leaky_relu.with_params(alpha=0.3)
    assert as_activation(bound) is bound


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles_are_the_same_object(name):
    f = fa.activations[name]
    assert pickle.loads(pickle.dumps(f)) is f
    assert copy.copy(f) is f
    assert copy.deepcopy(f) is f
    for ufunc in f.ufuncs.values():
        assert pickle.loads(pickle.dumps(ufunc)) is ufunc
        assert copy.deepcopy(ufunc) is ufunc
        assert ufunc.__doc__


@pytest.mark.parametrize("name", [f"{name}.precise" for name in fa.activations.precise])
def test_precise_tier(name):
    f = fa.activations[name]
    default = fa.activations[name.removesuffix(".precise")]
    test_copies_and_pickles_are_the_same_object(name)
    test_documentation(name)
    assert f.name == name
    assert name not in list(fa.activations)
    assert default.precise is f is f.precise is as_activation(name)
    assert f != default
    assert (f.parameters, f.formula, f.backward_from) == (default.parameters, default.formula, default.backward_from)
    x = samples(100, np.float32)
    np.testing.assert_array_equal(f(x[::2]), f(x)[::2])  # the ufunc and the direct way
    np.testing.assert_array_equal(f.ufunc(x, *f.parameters.values()), f(x))
    np.testing.assert_array_equal(f.derivative(x[::2]), f.derivative(x)[::2])


def test_precise_tier_of_bound_aliased_and_other_activations():
    bound = fa.softplus.with_params(beta=2)
    assert bound.precise == fa.softplus.precise.with_params(beta=2) != bound
    assert pickle.loads(pickle.dumps(bound.precise)) == bound.precise == bound.precise.precise
    x = samples(50, np.float64)
    np.testing.assert_array_equal(bound.precise(x), fa.softplus.precise(x, beta=2))
    assert fa.activations["exp.precise"] is fa.exponential.precise
    layer = fa.nn.Dense(3, 4, activation=fa.gelu.precise, rng=0, dtype="float32")
    z = samples((5, 3), np.float32)
    linear = fa.nn.Dense(3, 4, rng=0, dtype="float32")
    np.testing.assert_array_equal(layer(z), fa.gelu.precise(linear(z)))
    assert not hasattr(fa.softmax, "precise")
    for name in ("softmax.precise", "nix.precise", ".precise"):
        assert name not in fa.activations
        with pytest.raises(ValueError, match="activation: expected one of"):
            as_activation(name)


def test_bound_activations():
    f = fa.leaky_relu.with_params(alpha=np.float32(0.5))
    assert f.parameters == {"alpha": 0.5}
    assert fa.leaky_relu.parameters == {"alpha": 0.01}
    assert f == fa.leaky_relu.with_params(alpha=0.5) != fa.leaky_relu
    assert hash(f) == hash(fa.leaky_relu.with_params(alpha=0.5))
    assert f.with_params(alpha=0.01) == fa.leaky_relu
    assert fa.leaky_relu.with_params() is fa.leaky_relu
    assert pickle.loads(pickle.dumps(f)) == f == copy.deepcopy(f)
    assert repr(f) == "Activation('leaky_relu', alpha=0.5)"
    x = samples(100, np.float32)
    np.testing.assert_array_equal(f(x), np.where(x > 0, x, x / 2))
    np.testing.assert_array_equal(f(x[::2]), f(x)[::2])  # the ufunc knows the bound value, too
    np.testing.assert_array_equal(f.backward(x, x=x), np.where(x > 0, x, x / 2))
    np.testing.assert_array_equal(f.derivative(x[::-1]), np.where(x > 0, 1, 0.5)[::-1])
    np.testing.assert_array_equal(f(x, alpha=0.25), np.where(x > 0, x, x / 4))
    with pytest.raises(TypeError):
        f.parameters["alpha"] = 3
    with pytest.raises(TypeError, match="alpha: expected a real number, got an array"):
        fa.leaky_relu.with_params(alpha=[1, 2])
    with pytest.raises(TypeError, match=r"leaky_relu: expected parameters among: alpha; got 'slope'"):
        fa.leaky_relu.with_params(slope=1)


@pytest.mark.parametrize("name", NAMES)
def test_documentation(name):
    f = fa.activations[name]
    assert f.formula in f.__doc__
    parameters = inspect.signature(f).parameters
    assert {k: parameters[k].default for k in f.parameters} == dict(f.parameters)
    for heading in ("Parameters", "Returns", "Notes"):
        assert f"{heading}\n{'-' * len(heading)}\n" in f.__doc__
    found = doctest.DocTestParser().get_doctest(f.__doc__, {}, name, None, 0)
    assert doctest.DocTestRunner(verbose=False).run(found).failed == 0


def test_module_doctests():
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    for module in (_activations, reference):
        assert doctest.testmod(module, optionflags=options).failed == 0


# ---------------------------------------------------------------------------------------------------- dtypes, scalars


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("kind", ["e", "f", "d", "?", "b", "B", "h", "H", "i", "l", "Q", ">f4", ">f8"])
def test_dtypes_promote_as_in_sin(name, kind):
    f = fa.activations[name]
    x = np.array([0, 1, 3]).astype(kind)
    for y in (f(x), f.derivative(x), f.backward(x, x=x)):
        assert y.dtype == np.sin(x).dtype
    np.testing.assert_array_equal(f(x), f(x.astype(np.sin(x).dtype.newbyteorder("="))))
    assert f(x[1]).dtype == np.sin(x[1]).dtype


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_scalars_and_sequences(name):
    f = fa.activations[name]
    assert isinstance(f(0.5), np.float64)
    assert isinstance(f(3), np.float64)
    assert isinstance(f(np.float32(0.5)), np.float32)
    assert isinstance(f(np.array(0.5)), np.float64)
    np.testing.assert_array_equal(f([1, 2.5]), f(np.array([1, 2.5])))
    assert f(np.array(0.5), out=np.empty(())).shape == ()


@pytest.mark.parametrize("name", PARAMETRIC)
def test_scalar_parameters_never_promote(name):
    f = fa.activations[name]
    for dtype in (np.float16, np.float32, np.float64):
        x = samples(5, dtype)
        for scalar in (2, 2.0, np.float64(2), np.float32(2), np.int64(2), np.array(2.0), True):
            params = dict.fromkeys(f.parameters, scalar)
            for a in (x, x[::2], x[:1][0]):
                assert f(a, **params).dtype == dtype
                assert f.derivative(a, **params).dtype == dtype
                assert f.backward(a, x=a, **params).dtype == dtype
        np.testing.assert_array_equal(
            f(x, **dict.fromkeys(f.parameters, np.float64(2))), f(x, **dict.fromkeys(f.parameters, 2))
        )


@pytest.mark.parametrize(
    ("parameters", "want"),  # as Keras's relu and its ReLU layer document them
    [
        ({}, [0, 0, 0, 5, 10]),
        ({"negative_slope": 0.5}, [-5, -2.5, 0, 5, 10]),
        ({"max_value": 5.0}, [0, 0, 0, 5, 5]),
        ({"threshold": 5.0}, [0, 0, 0, 0, 10]),
        ({"max_value": 8.0, "negative_slope": 0.5, "threshold": 1.0}, [-5.5, -3, -0.5, 5, 8]),
    ],
    ids=str,
)
def test_clipped_relu_reaches_every_relu_of_keras(parameters, want, dtype):
    x = np.array([-10, -5, 0, 5, 10], dtype)
    np.testing.assert_array_equal(fa.clipped_relu(x, **parameters), np.array(want, dtype))
    f = fa.clipped_relu.with_params(**parameters)
    h = 0.25
    slope = (f(x + h) - f(x - h)) / (2 * h)
    smooth = ~np.isin(x, [parameters.get("threshold", 0), parameters.get("max_value", np.inf)])
    np.testing.assert_array_equal(f.derivative(x)[smooth], slope[smooth])
    assert f(-np.inf) == (-np.inf if "negative_slope" in parameters else 0)
    assert f(np.inf) == parameters.get("max_value", np.inf)


def test_array_parameters_broadcast():
    x = samples((4, 3), np.float32)
    slopes = np.array([0.25, 0.5, 2], np.float32)
    y = fa.leaky_relu(x, alpha=slopes)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, np.where(x > 0, x, slopes * x))
    np.testing.assert_array_equal(fa.leaky_relu(x, alpha=[0.25, 0.5, 2]), np.where(x > 0, x, np.float64(slopes) * x))
    np.testing.assert_array_equal(fa.leaky_relu.backward(x, x=x, alpha=slopes), np.where(x > 0, 1, slopes) * x)
    with pytest.raises(
        ValueError, match=r"leaky_relu: expected shapes that broadcast together, got x \(4, 3\), alpha \(2,\)"
    ):
        fa.leaky_relu(x, alpha=[1, 2])


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_out_where_dtype(name):
    f = fa.activations[name]
    x = samples((5, 7), np.float32)
    want = f(x)
    out = np.full_like(x, 7)
    assert f(x, out=out) is out
    np.testing.assert_array_equal(out, want)
    mask = x > 0.5
    out = np.full_like(x, 7)
    f(x, out=out, where=mask)
    np.testing.assert_array_equal(out, np.where(mask, want, 7))
    wide = f(x, dtype=np.float64)
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide, f(x.astype(np.float64)))
    np.testing.assert_array_equal(f(x, out=np.empty((2, 5, 7), np.float32)), np.stack([want, want]))
    np.testing.assert_array_equal(f(x, out=np.empty(x.shape)), want)
    narrow = f(x.astype(np.float64), out=np.empty_like(x))
    np.testing.assert_array_equal(narrow, f(x.astype(np.float64)).astype(np.float32))
    for call in (
        lambda a, out: f(a, out=out),
        lambda a, out: f.backward(a, x=x, out=out),
        lambda a, out: f.derivative(a, out=out),
    ):
        copied = x.copy()
        fresh = call(x, np.empty_like(x))
        assert call(copied, copied) is copied
        np.testing.assert_array_equal(copied, fresh)


def test_backward_broadcasts_and_promotes():
    x, dy = samples((4, 3), np.float32), samples(3, np.float64)
    dx = fa.tanh.backward(dy, x=x)
    assert dx.dtype == np.float64
    assert dx.shape == (4, 3)
    np.testing.assert_array_equal(dx, dy * fa.tanh.derivative(x.astype(np.float64)))
    y = fa.tanh(x)
    np.testing.assert_array_equal(fa.tanh.backward(x, x=x, y=y), fa.tanh.backward(x, x=x))  # x is the more exact


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: fa.sigmoid(x, alpha=1), TypeError, "sigmoid: expected parameters among: none; got 'alpha'"),
        (lambda x: fa.elu(x, beta=1), TypeError, "elu: expected parameters among: alpha; got 'beta'"),
        (lambda x: fa.elu(x, alpha="a"), TypeError, "alpha: expected a real number or an array of them, got 'a'"),
        (lambda x: fa.elu(x, alpha=1j), TypeError, "alpha: expected a real number"),
        (lambda x: fa.elu(x, alpha=None), TypeError, "alpha: expected a real number"),
        (lambda x: fa.sigmoid(x.astype(object)), TypeError, r"sigmoid: x: expected real numbers .* got dtype object"),
        (lambda x: fa.sigmoid(x + 1j), TypeError, "x: expected real numbers .* got dtype complex128"),
        (lambda x: fa.sigmoid(x.astype(np.longdouble)), TypeError, "x: expected real numbers .* got dtype float128"),
        (lambda x: fa.sigmoid("no"), TypeError, "x: expected real numbers"),
        (lambda x: fa.sigmoid(None), TypeError, "x: expected real numbers .* got dtype object"),
        (lambda x: fa.sigmoid([[1], [1, 2]]), ValueError, "x: expected an array, got a ragged sequence"),
        (lambda x: fa.sigmoid(x, out=np.zeros(3)), ValueError, r"out: expected shape \(7,\), got \(3,\)"),
        (lambda x: fa.sigmoid(x, out=np.zeros(7, int)), TypeError, "out: expected an array of floats, got dtype int64"),
        (lambda x: fa.sigmoid(x, out=[1]), TypeError, "sigmoid: out: expected an array, got list"),
        (lambda x: fa.sigmoid(x, dtype="int64"), TypeError, "dtype: expected float16, float32 or float64, got 'int64'"),
        (lambda x: fa.sigmoid(x, axis=0), TypeError, "axis: sigmoid acts on each element and takes no axis"),
        (lambda x: fa.sigmoid.backward(x), TypeError, "sigmoid.backward: expected x= .* or y= .* got neither"),
        (lambda x: fa.sigmoid.backward(x, x=x[:3]), ValueError, r"broadcast together, got dy \(7,\), x \(3,\)"),
        (lambda x: fa.sigmoid.backward(x, x=x, axis=0), TypeError, "axis: sigmoid"),
        (lambda x: fa.sigmoid.backward(x + 0j, x=x), TypeError, "sigmoid.backward: dy: expected real numbers"),
        (lambda x: fa.gelu.backward(x), TypeError, "gelu.backward: x: expected the input of the forward call"),
        (lambda x: fa.sigmoid.derivative(x, order=3), ValueError, "sigmoid.derivative: order: expected 1 or 2, got 3"),
        (lambda x: fa.sigmoid.derivative(x, order="1"), ValueError, "order: expected 1 or 2, got '1'"),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call(np.arange(7.0))


def test_read_only_output_is_refused_and_left_alone():
    out = np.zeros(4)
    out.flags.writeable = False
    for shape in (4, (2, 4)):
        with pytest.raises(ValueError, match="read-only"):
            fa.sigmoid(np.ones(shape), out=out if shape == 4 else np.broadcast_to(out, shape))
    assert not out.any()


# ---------------------------------------------------------------------------------------------------- other containers


class Tagged(np.ndarray):
    pass


def test_subclasses_pass_through():
    x = samples(20, np.float32)
    y = fa.sigmoid(x.view(Tagged))
    assert type(y) is Tagged
    np.testing.assert_array_equal(y.view(np.ndarray), fa.sigmoid(x))
    assert type(fa.sigmoid.backward(x.view(Tagged), x=x)) is Tagged


@pytest.mark.filterwarnings("ignore")
def test_masked_arrays():
    x = np.ma.array(samples((3, 5), np.float64), mask=np.arange(15).reshape(3, 5) % 4 == 1)
    y = fa.sigmoid(x)
    assert isinstance(y, np.ma.MaskedArray)
    np.testing.assert_array_equal(y.mask, x.mask)
    np.testing.assert_array_equal(y.compressed(), fa.sigmoid(x.compressed()))
    y = fa.leaky_relu(x, alpha=0.5)
    np.testing.assert_array_equal(y.compressed(), fa.leaky_relu(x.compressed(), alpha=0.5))


class Foreign:
    """A duck array with its own idea of ufuncs."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return ufunc.__name__, method, len(inputs), sorted(kwargs)


def test_other_libraries_see_the_ufunc():
    assert fa.sigmoid(Foreign()) == ("sigmoid", "__call__", 1, [])
    assert fa.leaky_relu(Foreign(), alpha=0.5) == ("leaky_relu", "__call__", 2, [])
    assert fa.gelu.backward(Foreign(), x=np.ones(3)) == ("gelu_backward", "__call__", 2, [])
