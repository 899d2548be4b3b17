"""Bad input, of every kind of activation: an error that names the argument, what was expected and what came."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastact as fa

CUSTOM = fa.Activation.from_functions(lambda x, a: a * x, lambda x, a: a + 0 * x, name="custom", a=2.0)
KINDS = {
    "from x": fa.gelu,
    "from y": fa.tanh,
    "parameters": fa.elu,
    "prelu": fa.prelu,
    "rrelu": fa.rrelu,
    "scaled": fa.tanh.scaled(input_scale=2),
    "custom": CUSTOM,
    "row": fa.softmax,
    "masked": fa.sparsemax,
    "to a number": fa.logsumexp,
    "maxout": fa.maxout,
    "gumbel": fa.gumbel_softmax,
    "gated": fa.glu,
}
ELEMENTWISE = [kind for kind, f in KINDS.items() if not f.rowwise]
ROWWISE = [kind for kind, f in KINDS.items() if f.rowwise]
every_kind = pytest.mark.parametrize("f", KINDS.values(), ids=KINDS)
X = np.linspace(-2, 2, 8).reshape(2, 4)
REAL = "x: expected real numbers"


def refused(call, kinds, *words):
    """The message of the exception, which has these words in this order."""
    with pytest.raises(kinds) as caught:
        call()
    message = str(caught.value)
    assert re.search(".*".join(words), message, re.DOTALL), message
    return message


def given(f, x=X):
    """What backward needs."""
    return {"x": x} if f.backward_from == "x" else {"y": f(x)}


# ------------------------------------------------------------------------------------------------ names and parameters


@pytest.mark.parametrize(
    "take", [fa.nn.Activation, lambda name: fa.nn.Dense(2, 2, name), lambda name: fa.activations[name]]
)
def test_unknown_names(take):
    refused(
        lambda: take("gleu"), (ValueError, KeyError), "activation: expected one of", "got 'gleu'; did you mean .*'gelu'"
    )
    refused(lambda: take("qqq"), (ValueError, KeyError), "activation: expected one of linear, ", "got 'qqq'")


@every_kind
def test_unknown_parameters(f):
    known = ", ".join(f.parameters) or "none"
    words = f"{f.name}: expected parameters among: {known}; got 'nosuch'"
    refused(lambda: f(X, nosuch=1), TypeError, words)
    refused(lambda: f.backward(f(X), **given(f), nosuch=1), TypeError, words)
    refused(lambda: f.with_params(nosuch=1), TypeError, words)


@pytest.mark.parametrize("kind", [kind for kind, f in KINDS.items() if f.parameters])
@pytest.mark.parametrize("value", ["a", None, 1j, [[1], [1, 2]], object()], ids=repr)
def test_parameters_that_are_no_numbers(kind, value):
    f = KINDS[kind]
    name = next(iter(f.parameters))
    for call in (lambda: f(X, **{name: value}), lambda: f.with_params(**{name: value})):
        refused(call, (TypeError, ValueError), f"{name}: expected")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fa.softmax(X, temperature=0), "temperature: expected a finite number above 0, got 0"),
        (
            lambda: fa.softmax(X, temperature=[1.0, np.nan]),
            r"temperature: expected .* got \[1.0, nan\]|temperature: ex",
        ),
        (lambda: fa.softmin.with_params(temperature=-1), "temperature: expected a finite number above 0, got -1"),
        (lambda: fa.gumbel_softmax(X, temperature=np.inf), "temperature: expected"),
        (lambda: fa.maxout(X, pieces=0), "pieces: expected a whole number of at least 1, got 0"),
        (lambda: fa.maxout(X, pieces=1.5), "pieces: expected a whole number of at least 1, got 1.5"),
        (lambda: fa.maxout(X, pieces=3), r"x: expected a multiple of 3, the pieces, along axis 1, got shape \(2, 4\)"),
        (lambda: fa.rrelu(X, lower=1), "lower, upper: expected lower <= upper, got 1 and 0.333"),
        (lambda: fa.glu(X[:, :3]), r"glu: x: expected an even length along axis 1, got shape \(2, 3\)"),
    ],
)
def test_parameters_out_of_their_domain(call, words):
    refused(call, ValueError, words)


# ------------------------------------------------------------------------------------------------------------- arrays


@every_kind
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (X.astype(object), "got dtype object"),
        (X + 1j, "got dtype complex128"),
        (X.astype(np.longdouble), f"got dtype {np.dtype(np.longdouble)}"),
        (X.astype(str), "got dtype <U"),
        (np.zeros((2, 4), "M8[s]"), r"got dtype datetime64\[s\]"),
        (np.zeros((2, 4), "V8"), r"got dtype (\|V8|void)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_of_no_real_numbers(f, bad, words):
    if np.longdouble == np.float64 and bad.dtype == np.longdouble:
        pytest.skip("long double is float64 here")
    name = "softmax" if f is fa.gumbel_softmax and bad.dtype == np.longdouble else f.name
    refused(lambda: f(bad), TypeError, f"{name}: {REAL}", words, r"use astype\(np.float64\)")
    operand = f.backward_from if f.backward_from != "either" else "x"
    refused(lambda: f.backward(f(X), **{operand: bad}), TypeError, f"{operand}: expected real numbers", words)
    if not f.rowwise:
        refused(lambda: f.derivative(bad), TypeError, f"{f.name}.derivative: {REAL}", words)
    if bad.shape == f(X).shape:
        refused(lambda: f.backward(bad, **given(f)), TypeError, "dy: expected real numbers", words)


@every_kind
def test_what_is_no_array(f):
    refused(lambda: f([[1.0], [1.0, 2.0]]), ValueError, "x: expected an array, got a ragged sequence")
    for bad in (None, "abc", object()):
        refused(
            lambda bad=bad: f(bad), (TypeError, ValueError), "x: expected (real numbers|at least one dimension)", "got"
        )


@every_kind
def test_backward_without_what_it_needs(f):
    dy = f(X)
    if f.backward_from == "either":
        refused(lambda: f.backward(dy), TypeError, f"{f.name}.backward: expected x= .* or y= .* got neither; pass what")
        return
    other = {"y": dy} if f.backward_from == "x" else {"x": X}
    for wrong in ({}, other):
        refused(
            lambda wrong=wrong: f.backward(dy, **wrong), TypeError, f"{f.name}.backward: (x: )?expected", "forward call"
        )


@every_kind
def test_shapes_that_do_not_match(f):
    words = r"\.backward: (dy: expected the shape of y|expected shapes that broadcast together)", r"\(3, 5\)"
    refused(lambda: f.backward(np.ones((3, 5)), **given(f)), ValueError, *words)
    if not f.rowwise and f is not KINDS["scaled"]:
        for name in f.parameters:
            if f is not fa.rrelu and f is not CUSTOM:
                words = r"expected shapes that broadcast together, got x \(2, 4\)", rf"{name} \(3,\)"
                refused(lambda name=name: f(X, **{name: np.ones(3)}), ValueError, *words)


# ------------------------------------------------------------------------------------------ out=, where=, dtype=, axis=


@every_kind
def test_out(f):
    shape, whole = f(X).shape, f.backward(f(X), **given(f)).shape
    read_only = np.zeros(shape)
    read_only.flags.writeable = False
    for bad, kind, words in (
        (np.empty((7, 7)), ValueError, r"out: expected shape \(2.*\), got \(7, 7\)"),
        ([1, 2], TypeError, "out: expected an array, got list; leave it out"),
        (np.zeros(shape, int), TypeError, "out: expected an array of floats, got dtype int64"),
        (read_only, ValueError, "out: expected an array that can be written, got a read-only one"),
    ):
        if f is fa.maxout and bad is not read_only and kind is ValueError:
            bad = np.empty(7)
            words = words.replace(r"\(7, 7\)", r"\(7,\)")
        refused(lambda bad=bad: f(X, out=bad), kind, words)
    assert not read_only.any()
    for bad, kind, words in (
        (np.empty((7, 7)), ValueError, r"\.backward: out: expected shape \(2, 4\), got \(7, 7\)"),
        (np.zeros(whole, int), TypeError, r"\.backward: out: expected an array of floats, got dtype int64"),
    ):
        refused(lambda bad=bad: f.backward(f(X), **given(f), out=bad), kind, words)


@every_kind
@pytest.mark.parametrize("dtype", [int, complex, "nosuch", object, np.longdouble, 7])
def test_dtype(f, dtype):
    if np.dtype(np.longdouble) == np.float64 and dtype is np.longdouble:
        pytest.skip("long double is float64 here")
    words = "dtype: expected float16, float32 or float64, got"
    refused(lambda: f(X, dtype=dtype), TypeError, words)
    refused(lambda: f.backward(f(X), **given(f), dtype=dtype), TypeError, r"\.backward: " + words)


@every_kind
def test_where(f):
    if f is fa.glu:
        refused(lambda: f(X, where=X > 0), TypeError, "glu: takes no where=")
        return
    refused(lambda: f(X, where="abc", out=None), TypeError, "where: expected booleans, got dtype <U3; use where != 0")
    refused(lambda: f(X, where=X), TypeError, "where: expected booleans, got dtype float64")
    words = r"where: expected a shape that broadcasts to (x )?\(2, 4\), got \(3,\)"
    refused(lambda: f(X, where=np.ones(3, bool), out=np.empty_like(f(X))), ValueError, words)


@pytest.mark.parametrize("kind", [*ROWWISE, "prelu"])
def test_axis(kind):
    f = KINDS[kind]
    refused(lambda: f(X, axis=7), ValueError, r"axis: expected -2 to 1 for x of shape \(2, 4\), got 7")
    for bad in ("a", 0.5, True, [0]):
        refused(lambda bad=bad: f(X, axis=bad), TypeError, "axis: expected an integer, got", re.escape(repr(bad)))
    refused(lambda: f.backward(f(X), **given(f), axis=-3), ValueError, "axis: expected -.* got -3")
    if f.rowwise and f is not fa.gumbel_softmax:
        refused(lambda: f(np.float64(1)), ValueError, r"x: expected at least one dimension, got a scalar")


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_axis_of_what_has_none(kind):
    f = KINDS[kind]
    if f is not fa.prelu:
        refused(lambda: f(X, axis=0), TypeError, "axis: .* acts on each element and takes no axis; leave it out")
        refused(lambda: f.backward(X, x=X, axis=0), TypeError, "axis: .* acts on each element and takes no axis")


@every_kind
def test_order(f):
    if f.rowwise:
        words = (
            rf"{f.name}\.derivative: (the derivative of a row is a matrix|an output has two inputs); use",
            "backward",
        )
        refused(lambda: f.derivative(X), TypeError, *words)
        return
    for bad in (0, 3, "1", None):
        words = rf"\.derivative: order: expected 1 or 2, got {bad!r}"
        refused(lambda bad=bad: f.derivative(X, order=bad), ValueError, words)
