"""What is known of an activation, as labelled lines: one account for ``fastact info`` and for the pages of ``docs``."""

from __future__ import annotations

import math

from fastact import _analysis, reference
from fastact._activations import Activation

_SOURCES = {"x": "the input x", "y": "the output y", "either": "the input x or the output y"}


def facts(activation: Activation) -> list[tuple[str, str]]:
    """Pairs (label, text), in the order in which to show them; a label may come twice.

    Examples
    --------
    >>> import fastact as fa
    >>> from fastact._facts import facts
    >>> facts(fa.tanh)[1:3]
    [('f', 'tanh(x)'), ("f'", '1 - y**2')]
    """
    lines = [("name", activation.name)]
    if activation.aliases:
        lines.append(("also", ", ".join(activation.aliases)))
    lines.append(("f", activation.formula))
    lines += _gradient(activation)
    if activation.note:
        lines.append(("note", activation.note))
    lines.append(("defaults", _defaults(activation)))
    low, high = activation.range
    bounded = {2: "bounded", 1: "bounded on one side", 0: "not bounded"}[math.isfinite(low) + math.isfinite(high)]
    lines.append(("range", f"{low:.6g} to {high:.6g}, {bounded}"))
    if activation.rowwise:
        lines.append(
            ("acts on", "rows along axis=, by default the last; f' is a matrix, and backward gives dy times it")
        )
    else:
        lines += _shape(activation)
    lines.append(("backward", f"from {_SOURCES[activation.backward_from]}"))
    tiers = {"accuracy": activation.ulp}
    if activation.ulp and not activation.name.endswith(".precise"):
        tiers["precise"] = activation.precise.ulp
    for label, bounds in tiers.items():
        for dtype, (forward, first, second) in bounds.items():
            lines.append((label, f"{dtype}: f within {forward:g} ULP, f' {first:g}, f'' {second:g}"))
    return lines


def _gradient(activation: Activation) -> list[tuple[str, str]]:
    """f' and f'', or of a row function what its backward pass computes."""
    formulas = reference.derivatives[activation.name]
    if activation.rowwise:
        return [("dx", formulas[0])]
    lines = [(f"f{prime}", formula) for prime, formula in zip(("'", "''"), formulas, strict=True)]
    return lines + ([("gradient", f"of {activation.surrogate}, in place of f's")] if activation.surrogate else [])


def _defaults(activation: Activation) -> str:
    return ", ".join(f"{key} = {value:.6g}" for key, value in activation.parameters.items()) or "no parameters"


def _shape(activation: Activation) -> list[tuple[str, str]]:
    """Of an elementwise function, at the default parameters."""
    kinks = ", ".join(f"{x:g}" for x in activation.kinks)
    ends = [(low, high) for low, high in _analysis.saturation(activation) if high - low > 0.1]  # no mere extremum
    flat = " or ".join(interval(*pair) for pair in ends)
    steepest = _analysis.lipschitz(activation)
    exact = ", ".join(f"f({x:g}) = {y:g}" for x, y in activation.landmarks)
    return [
        ("monotonic", "yes" if activation.monotonic else "no"),
        ("odd", "yes" if activation.odd else "no"),
        ("smooth", f"but for x = {kinks}, where f, f' or f'' jumps" if kinks else "everywhere"),
        ("Lipschitz", f"{steepest:.4g}" if math.isfinite(steepest) else "none: it jumps, or its slope has no bound"),
        ("saturated", f"|f'| < {_analysis.SLOPE:g} where {flat}" if flat else "nowhere"),
        ("exactly", exact),
    ]


def interval(low: float, high: float) -> str:
    """The interval as a condition on x."""
    low, high = (0.0 if abs(end) < 1e-9 else end for end in (low, high))  # bisection ends just beside a kink
    if math.isinf(low) and math.isinf(high):
        return "x is any number"
    if math.isinf(low):
        return f"x < {high:.4g}"
    return f"x > {low:.4g}" if math.isinf(high) else f"{low:.4g} < x < {high:.4g}"
