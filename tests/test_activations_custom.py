"""Activations of Python functions, and entries scaled and shifted: calls, gradients, layers, pickles, files."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from gradients import check_gradients

import fastact as fa
from fastact._core import compositions

SIZES = [0, 1, 3, 7, 8, 17, 33, 97, 16_384, 16_385, 50_001]


def bell(x, width=1.0):
    """exp(-(x / width)^2)."""
    return np.exp(-((x / width) ** 2))


def bell_1(x, width=1.0):
    return -2 * x / width**2 * bell(x, width)


def bell_2(x, width=1.0):
    return (4 * x * x / width**4 - 2 / width**2) * bell(x, width)


def bump(**options):
    return fa.Activation.from_functions(bell, bell_1, bell_2, name="bump", check=True, width=1.0, **options)


def samples(shape, dtype, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 2).astype(dtype)


SCALED = {
    "tanh": fa.tanh.scaled(input_scale=2 / 3, output_scale=1.7159),
    "gelu": fa.gelu.scaled(input_scale=-0.5, input_shift=0.25, output_scale=2.0, output_shift=-1.0),
    "leaky_relu": fa.leaky_relu.with_params(alpha=0.3).scaled(input_shift=0.1, output_scale=3.0),
    "bump": bump().scaled(input_scale=0.5, output_shift=1.0),
}
EVERY = {"functions": bump(), **SCALED}


def plain(name, order, x):
    """What EVERY[name] stands for, written out in float64."""
    x = np.float64(x)
    if name == "functions":
        return (bell, bell_1, bell_2)[order](x)
    inner, (b, c, a, d) = bump(), (0.5, 0.0, 1.0, 1.0)
    if name != "bump":
        inner, (b, c, a, d) = EVERY[name].inner, EVERY[name].parameters.values()
    u = b * x + c
    return a * inner(u) + d if order == 0 else a * b**order * inner.derivative(u, order)


every = pytest.mark.parametrize("name", EVERY)


@every
@pytest.mark.parametrize("n", SIZES)
def test_values(name, n, dtype):
    f, x, dy = EVERY[name], samples(n, dtype), samples(n, dtype, 1)
    close = {"rtol": 64 * np.finfo(dtype).eps, "atol": 16 * np.finfo(dtype).eps}
    y = f(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, plain(name, 0, x), **close)
    np.testing.assert_allclose(f.backward(dy, x=x), dy * plain(name, 1, x), **close)
    for order in (1, 2):
        got = f.derivative(x, order)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, plain(name, order, x), **close)


@every
def test_layouts_and_options(name, n_threads, dtype):
    f, x = EVERY[name], samples((201, 40), dtype)
    want = f(x)
    for view in (np.s_[::-1], np.s_[:, ::3], np.s_[5], np.s_[:0], np.s_[2, 3]):
        np.testing.assert_array_equal(f(x[view]), want[view])
    np.testing.assert_array_equal(f(np.asfortranarray(x)), want)
    a = x.copy()
    assert f(a, out=a) is a
    np.testing.assert_array_equal(a, want)
    a = x.ravel().copy()
    f(a[1:], out=a[:-1])
    np.testing.assert_array_equal(a[:-1], want.ravel()[1:])
    out = np.full_like(x, 7)
    assert f(x, out=out, where=x > 0) is out
    np.testing.assert_array_equal(out, np.where(x > 0, want, 7))
    assert f(x, dtype=np.float64).dtype == np.float64
    np.testing.assert_array_equal(f.backward(x, x=x[:1]), f.backward(x, x=np.broadcast_to(x[:1], x.shape)))
    for kind in "?bhiefd":
        assert f(x.astype(kind)).dtype == np.sin(x.astype(kind)).dtype
    assert float(f(1.5)) == f(np.array([1.5]))[0]
    np.testing.assert_array_equal(f([1, 2]), f(np.array([1.0, 2.0])))


@every
def test_other_arrays(name):
    f, x = EVERY[name], samples((4, 6), np.float32)
    masked = np.ma.array(x, mask=x > 1)
    np.testing.assert_array_equal(f(masked).mask, x > 1)
    np.testing.assert_allclose(f(masked).compressed(), f(x)[x <= 1], rtol=1e-5, atol=1e-6)
    dask, xarray, pandas = map(pytest.importorskip, ("dask.array", "xarray", "pandas"))
    for make in (lambda a: dask.from_array(a, chunks=2), xarray.DataArray, pandas.DataFrame):
        y = f(make(x))
        assert type(y) is type(make(x))
        np.testing.assert_allclose(np.asarray(y), f(x), rtol=1e-5, atol=1e-6)
        dx = f.backward(make(x), x=make(x))
        np.testing.assert_allclose(np.asarray(dx), f.backward(x, x=x), rtol=1e-5, atol=1e-6)


@every
def test_in_layers(name):
    f = EVERY[name]
    x = np.random.default_rng(0).normal(size=(3, 5)) + 0.017  # away from the kink
    check_gradients(fa.nn.Activation(f), x)
    layer = fa.nn.Dense(5, 4, activation=f, dtype=np.float64, rng=0)
    check_gradients(layer, x)
    np.testing.assert_allclose(layer(x), f(x @ layer.weight.value.T + layer.bias.value), rtol=1e-13, atol=1e-14)


@every
def test_copies(name):
    f = EVERY[name]
    for twin in (copy.deepcopy(f), pickle.loads(pickle.dumps(f)), copy.copy(f)):
        assert twin == f
        assert hash(twin) == hash(f)
        np.testing.assert_array_equal(twin(np.arange(3.0)), f(np.arange(3.0)))
    assert f != fa.tanh
    assert fa.tanh != f
    for parameter in f.parameters:
        assert f != f.with_params(**{parameter: 0.77})


def test_parameters():
    f = bump()
    x = samples(5, np.float64)
    np.testing.assert_array_equal(f(x, width=2.0), bell(x, 2.0))
    wide = f.with_params(width=2.0)
    np.testing.assert_array_equal(wide.derivative(x, 2), bell_2(x, 2.0))
    assert pickle.loads(pickle.dumps(wide)) == wide
    assert SCALED["tanh"](x, output_scale=0.0).tolist() == [0.0] * 5
    slopes = np.array([0.5, 1.0, 2.0, -1.0, 0.0])
    np.testing.assert_array_equal(fa.tanh.scaled()(x, input_scale=slopes), fa.tanh(slopes * x))
    twice = fa.tanh.scaled(input_scale=2, input_shift=1, output_scale=3, output_shift=4)
    twice = twice.scaled(input_scale=0.5, input_shift=-1, output_scale=-1, output_shift=0.25)
    np.testing.assert_allclose(twice(x), -(3 * np.tanh(2 * (0.5 * x - 1) + 1) + 4) + 0.25, rtol=1e-13)
    assert twice.inner is fa.tanh
    assert twice.range == (-6.75, -0.75)
    assert (fa.tanh.scaled(output_scale=2).odd, twice.odd) == (True, False)
    exact = fa.tanh.precise.scaled(input_scale=0.5)
    np.testing.assert_array_equal(exact(x), fa.tanh.precise(0.5 * x))
    wide = bump().with_params(width=2.0).scaled(input_scale=3)
    np.testing.assert_array_equal(wide.derivative(x), 3 * bell_1(3 * x, 2.0))
    assert repr(fa.tanh.scaled(input_scale=2)) == "Activation('tanh').scaled(input_scale=2.0)"


def test_ufuncs_of_compositions():
    """Another process finds them by name."""
    tanh = compositions.scaled(fa.tanh.index)["forward"]
    assert pickle.loads(pickle.dumps(tanh)) is tanh
    assert compositions.scaled_tanh_scaled_forward is compositions.scaled(fa.scaled_tanh.index)["forward"]
    with pytest.raises(AttributeError, match="no attribute 'tanh_scaled_tables'"):
        _ = compositions.tanh_scaled_tables


def test_overlap_is_as_a_loop_would_have_it():
    """x[1:] from x[:-1] in one array: each element reads what the one before wrote, however NumPy hands it over."""
    f = fa.tanh.scaled(input_scale=0.9, output_shift=0.1)
    a = np.linspace(0.2, 1.2, 3000)
    want = f(a[:-1].copy())
    np.testing.assert_array_equal(f(a[:-1], out=a[1:]), want)


def test_files(tmp_path):
    x = samples((2, 3), np.float32)
    f = fa.leaky_relu.with_params(alpha=0.3).scaled(input_shift=0.1, output_scale=3.0)
    model = fa.nn.Sequential(fa.nn.Dense(3, 4, activation=f, rng=0), fa.nn.Activation(SCALED["tanh"]))
    fa.save(model, tmp_path / "m.safetensors")
    twin = fa.load(tmp_path / "m.safetensors")
    assert twin[0].activation == f
    np.testing.assert_array_equal(twin(x), model(x))
    for g in (bump(), bump().scaled(input_scale=2.0)):
        with pytest.raises(TypeError, match="is made of Python functions; model files hold data, never code"):
            fa.save(fa.nn.Activation(g), tmp_path / "n.safetensors")


def test_check_finds_wrong_derivatives():
    make = fa.Activation.from_functions
    with pytest.raises(ValueError, match=r"bump: df: expected .* at x = .*, the slope of f by differences, got"):
        make(bell, lambda x: -bell_1(x), name="bump", check=True)
    with pytest.raises(ValueError, match=r"bump: d2f: expected"):
        make(bell, bell_1, bell_1, name="bump", check=True)
    f = make(bell, lambda x: bell_1(x) * (np.abs(x) < 8), name="bump")
    f.check()
    make(bell, lambda x: np.where(x > 3, np.nan, bell_1(x)), name="bump").check(np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="got nan"):
        make(bell, lambda x: np.where(x > 3, np.nan, bell_1(x)), name="bump", check=True)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: fa.Activation.from_functions(bell, None),
            TypeError,
            "df: expected a function of an array, got None",
        ),
        (lambda: fa.Activation.from_functions(bell, bell_1, 3), TypeError, "d2f: expected a function"),
        (
            lambda: fa.Activation.from_functions(bell, bell_1, name="gelu"),
            ValueError,
            "name: expected one that",
        ),
        (
            lambda: fa.Activation.from_functions(bell, bell_1, width="a"),
            TypeError,
            "width: expected a real number",
        ),
        (
            lambda: fa.Activation.from_functions(bell, bell_1).derivative([1.0], 2),
            TypeError,
            "bell.derivative: order 2 needs d2f",
        ),
        (
            lambda: fa.Activation.from_functions(lambda x: x[:1], np.cos, name="cut")(np.ones(3)),
            ValueError,
            r"cut: f: expected a result of the shape of x \(3,\), got \(1,\)",
        ),
        (lambda: SCALED["tanh"](1j), TypeError, r"tanh.scaled: x: expected real numbers .* got dtype complex128"),
        (lambda: SCALED["tanh"](np.array([None])), TypeError, "expected real numbers"),
        (lambda: SCALED["tanh"].backward(1.0), TypeError, "backward: x: expected the input of the forward call"),
        (lambda: SCALED["tanh"].backward(1.0, y=1.0), TypeError, "its output is not enough"),
        (lambda: SCALED["tanh"].backward([1, 2], x=[1, 2, 3]), ValueError, r"got dy \(2,\), x \(3,\)"),
        (lambda: SCALED["tanh"](np.ones(3), out=np.ones(2)), ValueError, r"out: expected shape \(3,\), got \(2,\)"),
        (lambda: SCALED["tanh"](np.ones(3), gain=2), TypeError, "expected parameters among: input_scale"),
        (lambda: SCALED["tanh"](np.ones(3), axis=0), TypeError, "takes no axis"),
        (lambda: SCALED["tanh"].derivative(np.ones(3), 3), ValueError, "order: expected 1 or 2, got 3"),
        (lambda: fa.softmax.scaled(input_scale=2), TypeError, "softmax.scaled: expected an activation of each element"),
        (lambda: fa.tanh.scaled(input_scale="a"), TypeError, "input_scale: expected a real number"),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
