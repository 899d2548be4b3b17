"""``check_gradients``: whether the backward pass of a layer is the derivative of its forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact import init
from fastact._arguments import Array, as_number, as_real, as_size
from fastact.nn.base import Layer

__all__ = ["check_gradients"]

EVERY = 256  # entries of an array up to which each is checked; of more, PROJECTIONS random directions
PROJECTIONS = 4


def check_gradients(
    layer: Layer,
    x: npt.ArrayLike,
    *,
    eps: float = 1e-3,
    rtol: float = 1e-7,
    atol: float = 1e-8,
    seed: int = 0,
    **forward_kwargs: Any,
) -> None:
    """Hold the gradients of x and of all parameters against differences of the forward pass, in float64.

    A random weighted sum of the output takes the place of a loss. Its derivative by each entry of an array is found
    from four evaluations (the five-point stencil), or, for arrays of more than 256 entries, its derivative in four
    random directions; where one of those is wrong, the worst entry is searched for.

    Parameters
    ----------
    layer : Layer
        With float64 parameters; frozen ones are left out. At the end it is as before, but for its gradients.
    x : array
        Real numbers, or integers, which have no gradient. Away from kinks, such as relu's at 0.
    eps : float
        Step of the differences: their error is about eps^4 / 30 of the fifth derivative and 1e-16 / eps of the sum.
    rtol, atol : float
        Most error: atol + rtol times the greatest entry of a gradient, or the length of the gradient for a direction.
    seed : int
        Of the weighted sum and the directions. Random layers (dropout) draw the same numbers in every evaluation.
    **forward_kwargs
        Further arguments of ``layer.forward``, such as ``lengths``.

    Raises
    ------
    AssertionError
        Naming the array, the place and both derivatives at the worst entry.
    TypeError
        If a parameter is not float64: nothing can be told from differences in float32.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> layer = fa.nn.Dense(3, 2, "tanh", dtype="float64", rng=0)
    >>> fa.testing.check_gradients(layer, np.random.default_rng(0).normal(size=(4, 3)))
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"layer: expected a fastact layer or model, got {type(layer).__name__}")
    for name, parameter in layer.parameters().items():
        if parameter.dtype != np.float64:
            raise TypeError(
                f"layer: expected float64 parameters, got {name} of {parameter.dtype}; make the layer with "
                'dtype="float64" for this check'
            )
    step = as_number(eps, "eps", 0.0, above=True)
    tolerance = as_number(rtol, "rtol", 0.0), as_number(atol, "atol", 0.0)
    rng = np.random.default_rng(as_size(seed, "seed", least=0))
    given = as_real(x, "x")
    inputs = given.astype(np.float64) if given.dtype.kind == "f" else given.copy()

    with _unchanged(layer) as rewind:
        rewind()
        y, backward = layer.forward(inputs, **forward_kwargs)
        weights = rng.uniform(0.5, 1.5, np.shape(y)) * rng.choice([-1.0, 1.0], np.shape(y))

        def total() -> float:
            rewind()
            return float(np.sum(layer.forward(inputs, **forward_kwargs)[0] * weights))

        layer.zero_grad()
        dx = backward(weights)
        gradients = {name: p.grad.copy() for name, p in layer.parameters().items() if p.trainable}
        if given.dtype.kind == "f":
            if dx is None or np.shape(dx) != inputs.shape:
                got = "None" if dx is None else f"one of shape {np.shape(dx)}"
                raise AssertionError(f"x: expected a gradient of the shape of x, {inputs.shape}, got {got}")

            def put_x(new: Array) -> None:
                inputs[...] = new

            _check("x", inputs, dx, put_x, total, rng, step, tolerance)
        for name, gradient in gradients.items():
            parameter = layer.parameters()[name]

            def put(new: Array, parameter: Any = parameter) -> None:
                parameter.value = new

            _check(name, parameter.value, gradient, put, total, rng, step, tolerance)


def _check(
    name: str,
    array: Array,
    analytic: Array,
    put: Callable[[Array], None],
    total: Callable[[], float],
    rng: np.random.Generator,
    step: float,
    tolerance: tuple[float, float],
) -> None:
    start = array.copy()
    analytic = np.asarray(analytic, np.float64)

    def along(direction: Array) -> float:
        """The derivative in this direction, by the five-point stencil."""
        h = step * min(1.0, 10 / float(np.linalg.norm(direction)))
        values = []
        for k in (-2, -1, 1, 2):
            put(start + k * h * direction)
            values.append(total())
        put(start)
        return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)

    def at(entries: Array) -> Array:
        """1 at these entries."""
        direction = np.zeros(start.size)
        direction[entries] = 1
        return direction.reshape(start.shape)

    rtol, atol = tolerance
    bound = atol + rtol * float(np.max(np.abs(analytic), initial=0))
    if not np.isfinite(analytic).all():
        place = int(np.flatnonzero(~np.isfinite(analytic))[0])
    elif start.size <= EVERY:
        numeric = np.array([along(at(np.array([k]))) for k in range(start.size)])
        error = np.abs(numeric - analytic.reshape(-1))
        if not (error > bound).any() and np.isfinite(error).all():
            return
        place = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
    else:
        length = atol * start.size**0.5 + rtol * float(np.linalg.norm(analytic))
        for _ in range(PROJECTIONS):
            direction = rng.standard_normal(start.shape)
            error_along = abs(along(direction) - float(np.sum(direction * analytic)))
            if not error_along <= length:
                break
        else:
            return
        entries = np.arange(start.size)  # halved, going where the error is greater
        while len(entries) > 1:
            halves = np.array_split(entries, 2)
            masks = [at(half) * direction for half in halves]
            errors = [abs(along(mask) - float(np.sum(mask * analytic))) for mask in masks]
            entries = halves[0] if not errors[0] <= errors[1] else halves[1]
        place = int(entries[0])
    index = tuple(int(k) for k in np.unravel_index(place, start.shape))
    raise AssertionError(
        f"{name}{list(index)}: backward gives {analytic[index]:.9g}, differences give "
        f"{along(at(np.array([place]))):.9g}; allowed is a difference of {bound:.2g}"
    )


@contextmanager
def _unchanged(layer: Layer) -> Iterator[Callable[[], None]]:
    """Give a function that sets all random generators and buffers of a layer to where they are now."""
    sources = {id(rng): rng for _, inner in layer._tree() for rng in _generators(inner)}
    shared = init.generator()
    sources[id(shared)] = shared
    states = [(rng, rng.bit_generator.state) for rng in sources.values()]
    buffers = [(held, held.value.copy()) for held in layer.buffers().values()]
    parameters = [(held, held.value.copy()) for held in layer.parameters().values()]

    def rewind() -> None:
        for rng, state in states:
            rng.bit_generator.state = state
        for held, value in buffers:
            held.value = value

    try:
        yield rewind
    finally:
        rewind()
        for held, value in parameters:
            held.value = value


def _generators(layer: Layer) -> list[np.random.Generator]:
    return [value for value in vars(layer).values() if isinstance(value, np.random.Generator)]
