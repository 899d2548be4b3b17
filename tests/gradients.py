"""Central differences in float64, to hold backward passes against; import it as ``from gradients import ...``."""

from __future__ import annotations

import numpy as np

STEP = 2e-4  # five-point stencil: truncation ~ STEP^4 / 30 * f''''' ~ 5e-17, rounding ~ 2 eps / STEP ~ 2e-12
TOLERANCE = 1e-8  # of the largest entry, and the budget of a float64 kernel of 4 ULP over a few thousand terms


def numeric_gradient(function, array, set_array=None, step=STEP):
    """Gradient of the scalar ``function()`` by the entries of ``array``.

    ``array`` is changed in place, entry by entry; where it cannot be written (a Parameter), ``set_array(new)`` is
    called with a changed copy instead.
    """
    work = np.array(array, np.float64) if set_array else array
    assert work.dtype == np.float64
    gradient = np.empty(work.shape)
    for index in np.ndindex(work.shape):
        kept = work[index]
        values = []
        for offset in (-2, -1, 1, 2):
            work[index] = kept + offset * step
            if set_array:
                set_array(work)
            values.append(function())
        gradient[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        work[index] = kept
        if set_array:
            set_array(work)
    return gradient


def row_gradient(f, x, dy):
    """The gradient of sum(dy f(x)); its short step seldom meets a kink."""
    return numeric_gradient(lambda: (dy * f(x)).sum(), x, step=1e-6)


def assert_gradient(name, got, expected, tolerance=TOLERANCE):
    """Equal to ``tolerance`` times the largest entry, or 1 if that is larger."""
    assert got is not None, f"{name}: no gradient"
    assert got.shape == expected.shape, f"{name}: shape {got.shape}, expected {expected.shape}"
    scale = max(1.0, np.abs(expected).max(initial=0))
    error = np.abs(got - expected).max(initial=0)
    assert error <= tolerance * scale, f"{name}: off by {error:.3g} at a scale of {scale:.3g}\n{got}\n{expected}"


def check_gradients(layer, x, *, forward=None, state=None, seed=0, tolerance=TOLERANCE):
    """Hold every gradient of ``layer`` at ``x`` against central differences of sum(y * weights).

    Parameters
    ----------
    layer : Layer
        With float64 parameters; each must have been given values that tell its parts apart.
    x : array
        float64 (its gradient is checked too), or integer.
    forward : callable, optional
        ``forward(x) -> (y, backward)`` in place of ``layer.forward``.
    state : array or tuple of arrays, optional
        Initial state of a recurrent layer: passed on, its final value enters the sum, its gradient is checked.
    """
    rng = np.random.default_rng(seed)
    arrays = () if state is None else tuple(state) if isinstance(state, tuple) else (state,)
    arrays = tuple(np.array(a, np.float64) for a in arrays)
    x = np.array(x)

    def packed(parts):
        return tuple(parts) if isinstance(state, tuple) else parts[0]

    def run():
        call = forward or layer.forward
        return call(x) if state is None else call(x, state=packed(arrays))

    y, backward = run()
    assert y.dtype == np.float64
    weights = rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1, 1], y.shape)
    state_weights = tuple(rng.uniform(0.5, 1.5, a.shape) for a in arrays)

    def total():
        y, backward = run()
        value = np.sum(y * weights)
        if state is not None:
            final = backward.state if isinstance(state, tuple) else (backward.state,)
            value += sum(np.sum(f * w) for f, w in zip(final, state_weights, strict=True))
        return value

    layer.zero_grad()
    dx = backward(weights) if state is None else backward(weights, dstate=packed(state_weights))
    got = {name: p.grad.copy() for name, p in layer.parameters().items()}

    if np.issubdtype(x.dtype, np.floating):
        assert_gradient("x", dx, numeric_gradient(total, x), tolerance)
    if state is not None:
        dstate = backward.dstate if isinstance(state, tuple) else (backward.dstate,)
        for i, (a, d) in enumerate(zip(arrays, dstate, strict=True)):
            assert_gradient(f"state {i}", d, numeric_gradient(total, a), tolerance)
    for name, p in layer.parameters().items():

        def put(new, p=p):
            p.value = new

        assert_gradient(name, got[name], numeric_gradient(total, p.value, put), tolerance)
