"""Initial weights, and ``seed``, which feeds every ``rng=None``.

An initialiser is a function of a shape: ``layer.weight.value = fa.init.he_normal(layer.weight.shape)``. Shapes are
those of ``Parameter``s, (out, in) and (out, in, ...), so fan_in, the numbers that one output sums up, is the product of
all but the first. The layers' defaults are PyTorch's distributions. Numbers are drawn in float64 and rounded, so that a
float32 and a float64 layer of one seed have the same weights to rounding.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact._arguments import as_entry, as_number

Array = npt.NDArray[Any]
Rng = np.random.Generator | int | None

_shared: np.random.Generator | None = None  # made at first use: `import fastact` draws nothing


class _Local(threading.local):
    allowance: int | None = None  # bytes that `skipped` may still hand out; None outside it
    seeded: seeded | None = None  # the innermost `with seeded(...)` of this thread


_local = _Local()


def seed(value: int | None) -> None:
    """Restart the generator behind every ``rng=None``.

    Parameters
    ----------
    value : int or None
        Non-negative; None takes fresh entropy from the system.

    Examples
    --------
    >>> import fastact as fa
    >>> fa.seed(0)
    >>> a = fa.nn.Dense(2, 2).weight.value
    >>> fa.seed(0)
    >>> bool((fa.nn.Dense(2, 2).weight.value == a).all())
    True
    """
    global _shared
    _shared = generator(value, "seed")


def generator(rng: Rng = None, name: str = "rng") -> np.random.Generator:
    """The generator that an ``rng=`` argument means: itself, one of that seed, or for None the shared one.

    Within ``seeded``, None means the generator of that.

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or a negative seed.
    """
    global _shared
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None and name == "rng":
        if _local.seeded is not None:
            return _local.seeded.generator
        if _shared is None:
            _shared = np.random.default_rng()
        return _shared
    if rng is not None and (isinstance(rng, bool) or not isinstance(rng, (int, np.integer))):
        raise TypeError(f"{name}: expected a non-negative integer, a numpy.random.Generator or None, got {rng!r}")
    if rng is not None and rng < 0:
        raise ValueError(f"{name}: expected a non-negative integer, got {rng}")
    return np.random.default_rng(rng)


class seeded:  # as a function is named: ``with seeded(...)``; a class enters in a third of the time
    """In this thread, ``rng=None`` means one generator of these seeds, which is made when it is asked for.

    A Trainer surrounds each forward pass with it. The draws of an update (dropout) then follow from the seed and the
    number of the update alone: a resumed run makes the same ones, and no state of a generator has to be kept.

    Examples
    --------
    >>> from fastact import init
    >>> with init.seeded(3, 7):
    ...     a = init.generator().random()
    >>> with init.seeded(3, 7):
    ...     b = init.generator().random()
    >>> a == b
    True
    """

    __slots__ = ("_before", "_generator", "_seeds")

    def __init__(self, *seeds: int) -> None:
        self._seeds = seeds
        self._generator: np.random.Generator | None = None
        self._before: seeded | None = None

    def __enter__(self) -> None:
        self._before, _local.seeded = _local.seeded, self

    def __exit__(self, *exception: object) -> None:
        _local.seeded = self._before

    @property
    def generator(self) -> np.random.Generator:
        if self._generator is None:
            self._generator = np.random.default_rng(self._seeds)
        return self._generator


@contextmanager
def skipped(allowance: int) -> Iterator[None]:
    """In this thread, initialisers draw nothing and give zeros: for layers whose weights are loaded next.

    ``allowance`` bounds their total in bytes, so that a damaged description of a model cannot ask for all memory.
    """
    before, _local.allowance = _local.allowance, allowance
    try:
        yield
    finally:
        _local.allowance = before


def _zeros_if_skipped(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array | None:
    if _local.allowance is None:
        return None
    _local.allowance -= math.prod(shape) * np.dtype(dtype).itemsize
    if _local.allowance < 0:
        raise ValueError(f"shape: weights of shape {shape} are larger than what is there to load")
    return np.zeros(shape, dtype)


def uniform(shape: tuple[int, ...], bound: float, dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Uniform on [-bound, bound)."""
    zeros = _zeros_if_skipped(shape, dtype)
    return generator(rng).uniform(-bound, bound, shape).astype(dtype, copy=False) if zeros is None else zeros


def normal(shape: tuple[int, ...], std: float = 1.0, dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Normal with mean 0."""
    zeros = _zeros_if_skipped(shape, dtype)
    return generator(rng).normal(0.0, std, shape).astype(dtype, copy=False) if zeros is None else zeros


def fan_in_uniform(shape: tuple[int, ...], fan_in: int, dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Uniform on [-k, k), k = 1 / sqrt(fan_in): the default of ``torch.nn.Linear`` and, with H, of ``torch.nn.LSTM``.

    It is what ``kaiming_uniform_(a=sqrt(5))`` amounts to. Its variance is 1 / (3 fan_in), a sixth of what He et al.
    (2015, arXiv:1502.01852, eq. 10) derive for ReLU.
    """
    return uniform(shape, 1.0 / max(fan_in, 1) ** 0.5, dtype, rng)


# ---- by the variance that signals and gradients keep ----------------------------------------------------------------


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of shape (out, in, ...): what an output sums up, and what an input goes to.

    Raises
    ------
    ValueError
        For fewer than two axes.
    """
    if len(shape) < 2:
        raise ValueError(f"shape: expected two axes or more, (out, in, ...), got {shape}; biases have `constant`")
    rest = math.prod(shape[2:])
    return shape[1] * rest, shape[0] * rest


def variance_scaling(
    shape: tuple[int, ...],
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "normal",
    dtype: npt.DTypeLike = np.float32,
    rng: Rng = None,
) -> Array:
    """Mean 0 and variance scale / fan: with inputs of variance 1, outputs of variance ``scale``.

    Parameters
    ----------
    shape : tuple of int
        (out, in, ...).
    mode : "fan_in", "fan_out" or "fan_avg"
        Signals keep their variance forward with the first, gradients backward with the second.
    distribution : "normal", "uniform" or "truncated_normal"
        The last is a normal one without what is beyond two standard deviations, widened to the same variance, as in
        Keras and JAX.

    Examples
    --------
    >>> import fastact as fa
    >>> w = fa.init.variance_scaling((400, 100), 2.0, rng=0)
    >>> round(float(w.var() * 100), 1)
    2.0
    """
    fan_in, fan_out = fans(shape)
    fan = _chosen({"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}, mode, "mode")
    std = math.sqrt(as_number(scale, "scale", 0.0, above=True) / max(fan, 1))
    draw = {
        "normal": lambda: normal(shape, std, dtype, rng),
        "uniform": lambda: uniform(shape, std * math.sqrt(3), dtype, rng),
        "truncated_normal": lambda: truncated_normal(shape, std / TRUNCATED_STD, dtype=dtype, rng=rng),
    }
    return _chosen(draw, distribution, "distribution")()


def _chosen(choices: dict[str, Any], name: str, argument: str) -> Any:
    if name not in choices:
        raise ValueError(f"{argument}: expected one of {', '.join(choices)}, got {name!r}")
    return choices[name]


def glorot_uniform(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Variance 2 / (fan_in + fan_out), uniform (Glorot and Bengio 2010, eq. 16): tanh, sigmoid; Keras's default."""
    return variance_scaling(shape, 1.0, "fan_avg", "uniform", dtype, rng)


def glorot_normal(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Variance 2 / (fan_in + fan_out), normal; PyTorch's ``xavier_normal_``, not truncated as in Keras."""
    return variance_scaling(shape, 1.0, "fan_avg", "normal", dtype, rng)


def he_uniform(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Variance 2 / fan_in, uniform (He et al. 2015, arXiv:1502.01852, eq. 10): ReLU and its kin pass on half of it."""
    return variance_scaling(shape, 2.0, "fan_in", "uniform", dtype, rng)


def he_normal(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Variance 2 / fan_in, normal; PyTorch's ``kaiming_normal_``, not truncated as in Keras."""
    return variance_scaling(shape, 2.0, "fan_in", "normal", dtype, rng)


def lecun_uniform(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Variance 1 / fan_in, uniform (LeCun et al. 1998, Efficient BackProp): SELU."""
    return variance_scaling(shape, 1.0, "fan_in", "uniform", dtype, rng)


def lecun_normal(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Variance 1 / fan_in, normal."""
    return variance_scaling(shape, 1.0, "fan_in", "normal", dtype, rng)


def gain(activation: Any) -> float:
    """Standard deviation of the input's weights, times sqrt(fan_in), that keeps variance through an activation.

    1 / sqrt(E[f(z)^2]) for normal z: sqrt(2) for relu, about 1 for selu, 1.59 for tanh (PyTorch's ``calculate_gain``
    rounds it to 5/3), by quadrature for any other.

    Parameters
    ----------
    activation : str or Activation

    Examples
    --------
    >>> import fastact as fa
    >>> round(fa.init.gain("relu") ** 2, 6), round(fa.init.gain("selu"), 6)
    (2.0, 1.0)
    """
    from fastact._activations import as_activation

    f = as_activation(activation, keeps_shape=True)
    z = np.linspace(-12.0, 12.0, 48_001)
    density = np.exp(-0.5 * z * z)
    power = float(np.sum(np.square(np.asarray(f(z), np.float64)) * density) / np.sum(density))
    if not 0 < power < math.inf:
        raise ValueError(f"activation: expected one that passes on some variance, got {f.name}")
    return power**-0.5


def for_activation(
    shape: tuple[int, ...], activation: Any, dtype: npt.DTypeLike = np.float32, rng: Rng = None
) -> Array:
    """Normal with variance gain(activation)^2 / fan_in: `he_normal` for relu, `lecun_normal` for selu.

    What comes out of the next layer's activation is then as large as this one's.
    """
    return variance_scaling(shape, gain(activation) ** 2, "fan_in", "normal", dtype, rng)


# ---- others ---------------------------------------------------------------------------------------------------------

TRUNCATED_STD = 0.8796256610342398  # of a standard normal one within two standard deviations


def truncated_normal(
    shape: tuple[int, ...],
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    dtype: npt.DTypeLike = np.float32,
    rng: Rng = None,
) -> Array:
    """Normal with mean 0, drawn again where it is outside low to high standard deviations."""
    if not low < high:
        raise ValueError(f"low, high: expected low < high, got {low!r} and {high!r}")
    zeros = _zeros_if_skipped(shape, dtype)
    if zeros is not None:
        return zeros
    source = generator(rng)
    drawn = source.standard_normal(shape)
    flat = drawn.reshape(-1)
    outside = np.flatnonzero((flat < low) | (flat > high))
    for _ in range(1000):
        if not outside.size:
            break
        flat[outside] = source.standard_normal(outside.size)
        outside = outside[(flat[outside] < low) | (flat[outside] > high)]
    if outside.size:
        raise ValueError(f"low, high: expected a range that a normal number falls into, got {low!r} to {high!r}")
    return (drawn * std).astype(dtype, copy=False)


def orthogonal(shape: tuple[int, ...], scale: float = 1.0, dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """Orthonormal rows, or columns if there are fewer of those, times ``scale`` (Saxe et al. 2014, arXiv:1312.6120).

    Uniform over all such matrices. For the recurrent weights of a cell, stack one (H, H) for each gate.

    Examples
    --------
    >>> import numpy as np
    >>> import fastact as fa
    >>> w = fa.init.orthogonal((3, 5), dtype=np.float64, rng=0)
    >>> bool(np.allclose(w @ w.T, np.eye(3)))
    True
    """
    fans(shape)
    zeros = _zeros_if_skipped(shape, dtype)
    if zeros is not None:
        return zeros
    rows, columns = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(generator(rng).standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)  # else a sign would hang on the method of the decomposition
    return np.ascontiguousarray(scale * (q if rows >= columns else q.T), dtype).reshape(shape)


def identity(shape: tuple[int, ...], scale: float = 1.0, dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """``scale`` on the diagonal, 0 elsewhere; recurrent weights of ReLU (Le et al. 2015, arXiv:1504.00941)."""
    if len(shape) != 2:
        raise ValueError(f"shape: expected two axes, got {shape}")
    return np.asarray(scale * np.eye(*shape), dtype)


def constant(shape: tuple[int, ...], value: float = 0.0, dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """``value`` everywhere: 0.01 to 0.1 in the bias of a ReLU lets every unit be active in the beginning."""
    return np.full(shape, value, dtype)


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """0 everywhere; for biases. In a matrix, all units would remain the same."""
    return np.zeros(shape, dtype)


def ones(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, rng: Rng = None) -> Array:
    """1 everywhere."""
    return np.ones(shape, dtype)


# ---- by name -----------------------------------------------------------------------------------------------------

Initializer = Callable[..., Array]

_NAMED = (glorot_uniform, glorot_normal, he_uniform, he_normal, lecun_uniform, lecun_normal, truncated_normal)
INITIALIZERS: dict[str, Initializer] = {
    f.__name__: f for f in (*_NAMED, normal, orthogonal, identity, constant, zeros, ones)
}


def drawn(spec: str | float | Initializer, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, rng: Rng) -> Array:
    """What a layer's ``weight_init`` or ``bias_init`` means: a name of this module, a number, or a function of yours.

    Raises
    ------
    ValueError
        For an unknown name, with the nearest ones, or a function that gives another shape.
    TypeError
        For anything else.
    """
    skipped_zeros = _zeros_if_skipped(shape, dtype)
    if skipped_zeros is not None:
        return skipped_zeros
    if isinstance(spec, str):
        return as_entry(spec, INITIALIZERS, name)(shape, dtype=dtype, rng=rng)
    if callable(spec):
        value = np.asarray(spec(shape, dtype=dtype, rng=rng), dtype)
        if value.shape != shape:
            raise ValueError(f"{name}: expected a function that gives an array of shape {shape}, got {value.shape}")
        return value
    return constant(shape, as_number(spec, name, -math.inf), dtype)
