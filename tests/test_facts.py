"""What `fastact info` and the pages say of an activation: derivatives that are those of the twin."""

from __future__ import annotations

import doctest
import json
import math
import re

import numpy as np
import pytest
from click.testing import CliRunner

import fastact as fa
from fastact import _facts, reference
from fastact._facts import facts
from fastact.cli import main

EVERY = [*fa.activations, *fa.activations.unlisted]
ELEMENTWISE = [name for name in EVERY if not fa.activations.named(name).rowwise]
WORDS = {
    "exp": math.exp, "log": math.log, "sqrt": math.sqrt, "tanh": math.tanh, "cosh": math.cosh, "pi": math.pi,
    "sigmoid": lambda x: math.exp(min(x, 0)) / (math.exp(min(x, 0)) + math.exp(-max(x, 0))),
    "sign": lambda x: (x > 0) - (x < 0),
    "Phi": lambda x: math.erfc(-x / math.sqrt(2)) / 2,
    "phi": lambda x: math.exp(-x * x / 2) / math.sqrt(2 * math.pi),
}  # fmt: skip
POINTS = [k / 8 + 0.01 for k in range(-56, 56)]


def evaluate(formula, x, y, parameters):
    """The value of a formula such as ``1 / (1 + u**2), u = slope * x``."""
    expression, *letters = re.split(r", (?=\w+ = )", formula)
    names = {**WORDS, **parameters, "x": x, "y": y}
    for letter in letters:
        name, _, meaning = letter.partition(" = ")
        names[name] = eval(meaning, names)
    return eval(expression, names)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize(
    "values", [{}, {"alpha": 0.7, "beta": 1.3, "slope": 0.4, "amplitude": 1.1, "b": 2.0, "scale": 0.6}]
)
def test_formulas_are_the_derivatives_of_the_twin(name, values):
    f = fa.activations.named(name)
    parameters = {**f.parameters, **{key: value for key, value in values.items() if key in f.parameters}}
    x = np.array(POINTS)
    if name == "rrelu":
        twin = reference.activations["leaky_relu"]
        args = [sum(parameters.values()) / 2]
    else:
        twin, args = reference.activations[name], list(parameters.values())
    y = twin.forward(x, *args)
    kinks = np.array([] if values else f.kinks)  # formulas hold there, too
    for order, formula in enumerate(reference.derivatives[name], 1):
        want = (twin.derivative1, twin.derivative2)[order - 1]
        for points, of in ((x, y), (kinks, twin.forward(kinks, *args))):
            got = [evaluate(formula, float(a), float(b), parameters) for a, b in zip(points, of, strict=True)]
            np.testing.assert_allclose(got, want(points, *args), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", EVERY)
def test_facts(name):
    f = fa.activations.named(name)
    lines = facts(f)
    labels = [label for label, _ in lines]
    assert ("name", name) in lines
    assert ("f", f.formula) in lines
    assert f.note in dict(lines).get("note", "")
    assert ("f'" in labels) != f.rowwise
    assert ("dx" in labels) == f.rowwise
    assert labels.count("accuracy") == len(f.ulp)
    for key in f.parameters:
        assert f"{key} = " in dict(lines)["defaults"]


def test_every_derivative_has_a_formula_and_none_is_left_over():
    assert set(reference.derivatives) == set(EVERY)


def test_what_facts_say():
    def of(name):
        return dict(facts(fa.activations.named(name)))

    assert of("sigmoid")["saturated"] == "|f'| < 0.001 where x < -6.906 or x > 6.906"
    assert of("sigmoid")["Lipschitz"] == "0.25"
    assert of("sigmoid")["range"] == "0 to 1, bounded"
    assert of("sigmoid")["exactly"] == "f(-inf) = 0, f(0) = 0.5, f(inf) = 1"
    assert of("silu")["saturated"].count(" or ") == 0  # its minimum is no saturation
    assert of("relu")["smooth"].startswith("but for x = 0")
    assert of("window")["gradient"].startswith("of exp(")
    assert of("prelu")["backward"] == "from the input x"
    assert of("softmax")["defaults"] == "temperature = 1"


def test_the_command_says_the_same_and_the_speed():
    run = CliRunner().invoke(main, ["info", "shrink", "--json"])  # an alias
    assert run.exit_code == 0
    told = json.loads(run.stdout)
    speeds = told.pop("speed")
    want = facts(fa.hard_shrink)
    assert told == {label: [text for other, text in want if other == label] for label, _ in want}
    assert [re.match(r"(\w+) [\d.]+ ns an element, [\d.]+ times a copy", text).group(1) for text in speeds] == [
        "forward", "backward",
    ]  # fmt: skip
    run = CliRunner().invoke(main, ["info", "--json"])
    assert run.exit_code == 2
    assert "--json: expected the name of an activation" in run.output


def test_doctests():
    assert doctest.testmod(_facts).failed == 0
