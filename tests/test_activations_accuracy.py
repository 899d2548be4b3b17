"""Every elementwise activation, in both tiers: stated error in ulp, landmarks, special values, its reference twin."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import bit_patterns, errors, exact
from oracle import error as error_in_ulp

import fastact as fa
from fastact import reference

DEFAULT = [name for name in fa.activations if not fa.activations[name].rowwise]
PRECISE = [f"{name}.precise" for name in DEFAULT if fa.activations[name].precise.ulp != fa.activations[name].ulp]
NAMES = DEFAULT + PRECISE  # the precise tier of the others is the default one
ORDERS = (0, 1, 2)
F32_STRIDE = 9973  # a prime: 430,000 of the 2^32 patterns
EXACT = np.array([0.5, 2.0])  # parameters by which a product is exact, so that budgets hold for them too
# Tails, where results turn subnormal or vanish, and everything between.
F64_POINTS = np.concatenate(
    [
        s * np.concatenate([np.geomspace(1e-310, 1e-3, 12), np.linspace(0.013, 12, 90), np.linspace(12, 60, 40)])
        for s in (1.0, -1.0)
    ]
    + [np.array([-745.1, -744.0, -709.7, -708.3, -300.0, -100.0, 100.0, 300.0, 709.5, 745.0, 1e4, -1e4, 1e300, -1e300])]
)


def evaluate(name, order, x, **params):
    f = fa.activations[name]
    return f(x, **params) if order == 0 else f.derivative(x, order=order, **params)


def twin(name, order, x, *params):
    r = reference.activations[name.removesuffix(".precise")]
    with np.errstate(all="ignore"):
        return (r.forward, r.derivative1, r.derivative2)[order](x, *params)


def formulas(name):
    """Whose value, f' and f'' the kernels stand for."""
    f = fa.activations[name]
    return [f.formula, f.surrogate or f.formula, f.surrogate or f.formula]


def rounded_parameters(name, dtype):
    """Defaults, rounded to the loop's dtype as the kernel sees them."""
    return {k: float(np.dtype(dtype).type(v)) for k, v in fa.activations[name].parameters.items()}


def allowed(name, order, dtype, x, largest):
    """Error allowed in ulp and, near an interior zero of a derivative, in units of that derivative's largest value."""
    row = fa.activations[name]
    near = np.zeros(np.shape(x), bool)
    for zero in row.zeros[order - 1] if order else ():
        near |= (x > min(zero / 1.4, zero * 1.4)) & (x < max(zero / 1.4, zero * 1.4))
    return np.full(np.shape(x), row.ulp[np.dtype(dtype).name][order]), np.where(
        near, 4 * np.finfo(dtype).eps * largest, 0
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NAMES)
def test_float32_sweep(name, order):
    """All exponents and signs, against the float64 twin."""
    check_float32(name, order, bit_patterns(np.float32, F32_STRIDE))


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NAMES)
def test_float32_dense_sweep(name, order):
    check_float32(name, order, bit_patterns(np.float32, 127))


def check_float32(name, order, x):
    want = twin(name, order, x, *rounded_parameters(name, np.float32).values())
    got = evaluate(name, order, x)
    largest = np.max(np.abs(twin(name, order, np.linspace(-8, 8, 4001))))
    budget, absolute = allowed(name, order, np.float32, x, largest)
    off = errors(got, want)
    with np.errstate(invalid="ignore"):  # signalling NaN among the patterns
        fail = (off > budget) & ~(np.abs(got.astype(np.float64) - want) <= absolute)
    worst = np.argmax(np.where(fail, off, -1))
    assert not fail.any(), (
        f"{fail.sum()} of {x.size}; worst {off[worst]} ulp at {x[worst]!r}: {got[worst]!r}, {want[worst]!r}"
    )


@pytest.mark.parametrize("name", NAMES)
def test_float64_against_mpmath(name):
    """The formula of the table and its exact derivatives, at 300 points."""
    row, parameters = fa.activations[name], fa.activations[name].parameters
    x = np.array([v for v in F64_POINTS if v not in row.kinks])
    got = [evaluate(name, order, x) for order in ORDERS]
    for order in ORDERS:
        largest = np.max(np.abs(twin(name, order, np.linspace(-8, 8, 4001))))
        budget, absolute = allowed(name, order, np.float64, x, largest)
        for i, value in enumerate(x):
            want = exact(formulas(name)[order], value, parameters)[order]
            off = error_in_ulp(float(got[order][i]), want)
            assert off <= budget[i] or abs(got[order][i] - want) <= absolute[i], (
                order,
                value,
                off,
                got[order][i],
                want,
            )


@pytest.mark.parametrize("name", DEFAULT)
def test_reference_is_right(name):
    """The twin itself against mpmath: float32 tests lean on it. Its tails lose x^2 / 2 ulp to the rounded argument."""
    row, parameters = fa.activations[name], fa.activations[name].parameters
    x = np.array([v for v in F64_POINTS[::3] if v not in row.kinks and abs(v) < 1e4])
    for order in ORDERS:
        found = twin(name, order, x)
        largest = np.max(np.abs(twin(name, order, np.linspace(-8, 8, 4001))))
        for value, got in zip(x, found, strict=True):
            want = exact(formulas(name)[order], value, parameters)[order]
            assert abs(got - want) <= 1e-15 * largest or error_in_ulp(float(got), want) < 2000, (
                order,
                value,
                got,
                want,
            )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_on_every_instruction_set(name, order, isa, dtype):
    from fastact._core import runtime

    stride = F32_STRIDE if dtype == np.float32 else 2**64 // 200_003
    x = bit_patterns(dtype, stride)
    x = np.concatenate([x, np.linspace(-40, 40, 100_001, dtype=dtype)])
    here = evaluate(name, order, x)
    runtime.isa_select("scalar")
    np.testing.assert_array_equal(bits(here), bits(evaluate(name, order, x)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_beside_large_arguments(name, order, isa, dtype):
    """Moderate arguments have a shorter body of exponentials, many elements two loops: the values are the same."""
    x = np.concatenate([np.linspace(-45, 45, 4097, dtype=dtype), np.linspace(-620, 620, 4097, dtype=dtype)])
    mixed = np.stack([x, np.resize(np.array([800, -800, np.nan, np.inf], dtype), x.shape)], axis=1)
    for parameters in ({}, {k: v * 1.37 for k, v in fa.activations[name].parameters.items()}):
        alone, among = (evaluate(name, order, a, **parameters) for a in (x, mixed))
        np.testing.assert_array_equal(bits(alone), bits(among[:, 0]))
        few = [evaluate(name, order, part, **parameters) for part in np.array_split(x, len(x) // 50)]
        np.testing.assert_array_equal(bits(alone), bits(np.concatenate(few)))


def bits(a):
    """Bit patterns, all NaN alike: which NaN comes out of two is the CPU's business."""
    a = np.where(np.isnan(a), np.nan, a).astype(a.dtype)
    return a.view(f"u{a.itemsize}")


@pytest.mark.parametrize("name", NAMES)
def test_landmarks(name, isa, dtype):
    f = fa.activations[name]
    for x, y in f.landmarks:
        for size in (1, 70):
            np.testing.assert_array_equal(f(np.full(size, x, dtype)), np.full(size, y, dtype))


@pytest.mark.parametrize("name", NAMES)
def test_limits_nan_and_signed_zeros(name, isa, dtype):
    f = fa.activations[name]
    x = np.array([-np.inf, -np.finfo(dtype).max, -0.0, 0.0, np.finfo(dtype).max, np.inf, np.nan], dtype)
    for order in ORDERS:
        with np.errstate(over="ignore"):
            want = twin(name, order, x, *rounded_parameters(name, dtype).values()).astype(dtype)
        got = evaluate(name, order, x)
        assert np.isnan(got[-1]), (order, got)
        budget, _ = allowed(name, order, dtype, x, 1)
        off = errors(got[:-1], want[:-1].astype(np.float64))
        assert (off <= budget[:-1]).all(), (order, got, want)
    if name in PRECISE:  # what the default tier makes of them
        default = evaluate(name.removesuffix(".precise"), 0, x[:-1])
        np.testing.assert_array_equal(np.copysign(1, f(x[:-1]))[[0, 5]], np.copysign(1, default)[[0, 5]])
    if f.odd:
        assert np.signbit(f(x[2:3]))[0] == (name != "sign")  # +0 there, as numpy.sign has it
        assert not np.signbit(f(x[3:4]))[0]
        positive = bit_patterns(dtype, F32_STRIDE if dtype == np.float32 else 2**64 // 20_011)
        positive = np.abs(positive[~np.isnan(positive) & (positive != 0)])
        np.testing.assert_array_equal(bits(f(-positive)), bits(-f(positive)))


@pytest.mark.parametrize("name", NAMES)
def test_range_and_monotonicity(name, dtype):
    f = fa.activations[name]
    x = np.unique(bit_patterns(dtype, F32_STRIDE if dtype == np.float32 else 2**64 // 200_003))
    x = np.sort(x[~np.isnan(x)])
    y = f(x).astype(np.float64)
    low, high = f.range
    assert (y >= np.float64(dtype.type(low))).all()
    assert (y <= np.float64(dtype.type(high))).all()
    if f.monotonic:
        steps = np.diff(y[np.isfinite(y)])
        assert (steps >= -f.ulp[dtype.name][0] * np.finfo(dtype).eps * np.abs(y[np.isfinite(y)][1:])).all()


@pytest.mark.parametrize("name", NAMES)
def test_no_flags_are_raised(name, isa, dtype):
    x = np.concatenate([bit_patterns(dtype, (2**32 if dtype == np.float32 else 2**64) // 5_003), np.zeros(5, dtype)])
    with np.errstate(all="raise"):
        for view in (x, x[::2]):  # the direct way and the ufunc loop
            evaluate(name, 0, view)
            evaluate(name, 1, view)
            evaluate(name, 2, view)
            fa.activations[name].backward(view, x=view)


@pytest.mark.parametrize("name", NAMES)
def test_backward_from_x(name, isa, dtype):
    """dy f'(x), whose derivative is held to its budget above; here only the product's rounding counts."""
    x = np.linspace(-15, 15, 20_011).astype(dtype)
    dy = np.random.default_rng(0).normal(size=x.size).astype(dtype)
    f = fa.activations[name]
    got = f.backward(dy, x=x)
    product = dy.astype(np.float64) * f.derivative(x, order=1).astype(np.float64)
    assert errors(got, product).max() <= 0.5 + (dtype == np.float64) * 0.5  # float64: the product here is rounded, too


@pytest.mark.parametrize("name", [n for n in NAMES if fa.activations[n].backward_from == "either"])
def test_backward_from_y(name, isa, dtype):
    """Counted against the derivative as a function of the given y."""
    f = fa.activations[name]
    rng = np.random.default_rng(1)
    y = f(np.concatenate([np.linspace(-20, 20, 20_011), rng.normal(size=999) * 1e-3]).astype(dtype))
    dy = rng.normal(size=y.size).astype(dtype)
    slope = reference.activations[name.removesuffix(".precise")].derivative1_from_y(
        y, *rounded_parameters(name, dtype).values()
    )
    crossing = 2 if name in PRECISE else 1  # an ulp of the derivative is up to two of the product
    budget = crossing * f.ulp[dtype.name][1] + 0.5 + (2.0 if dtype == np.float64 else 0.0)  # the twin's own rounding
    got = f.backward(dy, y=y)
    off = errors(got, dy * np.float64(slope))
    assert off.max() <= budget, (y[off.argmax()], off.max())


@pytest.mark.parametrize("name", [n for n in NAMES if fa.activations[n].backward_from == "x"])
def test_backward_from_y_is_refused(name):
    with pytest.raises(TypeError, match=r"x: expected the input"):
        fa.activations[name].backward(np.ones(3), y=np.ones(3))


@pytest.mark.parametrize("name", [n for n in NAMES if fa.activations[n].parameters])
@pytest.mark.parametrize("order", ORDERS)
def test_other_parameters(name, order, dtype):
    """Powers of two multiply exactly, so the stated budget holds for them; scalars and arrays give the same bits."""
    f = fa.activations[name]
    names = list(f.parameters)
    for i in range(2):
        values = [float(EXACT[(i + k) % 2]) * (-1 if n == "low" else 1) for k, n in enumerate(names)]
        params = dict(zip(names, values, strict=True))
        if dtype == np.float32:
            x = np.linspace(-30, 30, 10_007).astype(dtype)
            want = twin(name, order, x, *values)
            off = errors(evaluate(name, order, x, **params), want)
        else:
            x = np.linspace(-29.87, 30.01, 61)
            exactly = [exact(formulas(name)[order], v, params)[order] for v in x]
            off = np.array(list(map(error_in_ulp, evaluate(name, order, x, **params).tolist(), exactly)))
            want = np.array(exactly, np.float64)
        got = evaluate(name, order, x, **params)
        fail = off > f.ulp[dtype.name][order]
        if order and f.zeros[order - 1]:  # they move with the parameters
            fail &= np.abs(got - want) > 4 * np.finfo(dtype).eps * np.max(np.abs(want))
        assert not fail.any(), (params, x[fail], got[fail], want[fail])
        arrays = {k: np.full(x.shape, v, dtype) for k, v in params.items()}
        np.testing.assert_array_equal(bits(evaluate(name, order, x, **arrays)), bits(got))
        np.testing.assert_array_equal(
            bits(evaluate(name, order, x, **{k: np.float64(v) for k, v in params.items()})), bits(got)
        )


@pytest.mark.parametrize(
    ("name", "order", "parameter"),
    [("gaussian", 0, "beta"), ("gaussian", 1, "beta"), ("erf", 1, "amplitude"), ("window", 1, "radius")],
)
def test_small_factors_of_a_gaussian(name, order, parameter, isa, dtype):
    """exp(-u^2) of moderate u times little: a subnormal result is rounded once, and the same beside what is far."""
    f = fa.activations[name]
    u = np.linspace(2, 10.5, 2001) if dtype == np.float32 else np.linspace(15, 27.3, 61)
    for power in (-62, -20, -4, -3):
        factor = 2.0**power
        exactly = {"slope": 1.0} if name == "erf" else {}
        parameters = f.parameters | exactly | {parameter: 1 / factor if parameter == "radius" else factor}
        x = (u / factor if parameter == "radius" else u).astype(dtype)
        got = evaluate(name, order, x, **parameters)
        if dtype == np.float32:
            off = errors(got, twin(name, order, x, *parameters.values()))
        else:
            want = [exact(formulas(name)[order], v, parameters)[order] for v in x]
            off = np.array(list(map(error_in_ulp, got.tolist(), want)))
        assert off.max() <= f.ulp[np.dtype(dtype).name][order], (power, x[off.argmax()], off.max())
        beside = np.stack([x, np.full_like(x, np.inf)], axis=1)
        np.testing.assert_array_equal(bits(got), bits(evaluate(name, order, beside, **parameters)[:, 0]))


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_those_of_the_function(name):
    """Central differences of the float64 kernel itself, away from kinks: no formula involved."""
    f = fa.activations[name]
    value = fa.gaussian if f.surrogate else f
    h = 1e-4
    x = np.linspace(-4.03, 4.01, 401)
    x = x[np.all([np.abs(x - k) > 4 * h for k in (*f.kinks, 99)], axis=0)]

    def slope(g):
        return (g(x - 2 * h) - 8 * g(x - h) + 8 * g(x + h) - g(x + 2 * h)) / (12 * h)

    np.testing.assert_allclose(f.derivative(x, order=1), slope(value), rtol=1e-11, atol=1e-10)
    np.testing.assert_allclose(
        f.derivative(x, order=2), slope(lambda v: f.derivative(v, order=1)), rtol=1e-11, atol=1e-10
    )


@pytest.mark.parametrize("name", DEFAULT)
def test_precise_tier_is_within_1_1_ulp(name, dtype):
    f = fa.activations[name]
    assert max(f.precise.ulp[dtype.name]) <= (3 if name == "gelu" else 1.1)  # beside its root
    if name not in [n.removesuffix(".precise") for n in PRECISE]:
        x = np.linspace(-9, 9, 1001).astype(dtype)
        np.testing.assert_array_equal(f.precise(x), f(x))


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "silu", "gelu", "gelu_tanh", "softplus", "mish"])
def test_precise_tier_is_nearer(name, dtype):
    """A result rounded once from the exact value is off by a quarter of an ulp on average."""
    x = np.random.default_rng(2).normal(0, 3, 400).astype(dtype)
    f = fa.activations[name]
    want = [exact(f.formula, float(v), f.parameters)[0] for v in x]
    spacing = np.spacing(np.abs(np.array(want, np.float64)).astype(dtype)).tolist()

    def mean_error(y):
        return np.mean([float(abs(a - b) / u) for a, b, u in zip(y.tolist(), want, spacing, strict=True)])

    precise, default = mean_error(f.precise(x)), mean_error(f(x))
    assert precise < 0.28 < default, (precise, default)
