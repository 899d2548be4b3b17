"""What activations are held against: their formula in mpmath with two exact derivatives, and errors in ulp.

The formula is the text of the C table, so this oracle shares nothing with the kernels but that line. Derivatives are
carried along as jets (value, f', f''), and the precision is raised until two evaluations agree to 80 bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import mpmath as mp
import numpy as np

MOST_BITS = 1 << 14  # 1 - tanh^2 wants them; what is still 0 then is 0 in float64


class Jet:
    """(f, f', f'') of a function of x at one x."""

    def __init__(self, f, d1=0, d2=0):
        self.f, self.d1, self.d2 = mp.mpf(f), mp.mpf(d1), mp.mpf(d2)

    def chain(self, f, d1, d2):
        """g(self) for a g with these value and derivatives."""
        return Jet(f, d1 * self.d1, d2 * self.d1**2 + d1 * self.d2)

    def __add__(self, other):
        other = as_jet(other)
        return Jet(self.f + other.f, self.d1 + other.d1, self.d2 + other.d2)

    def __mul__(self, other):
        other = as_jet(other)
        return Jet(
            self.f * other.f,
            self.d1 * other.f + self.f * other.d1,
            self.d2 * other.f + 2 * self.d1 * other.d1 + self.f * other.d2,
        )

    def __truediv__(self, other):
        other = as_jet(other)
        return self * other.chain(1 / other.f, -1 / other.f**2, 2 / other.f**3)

    def __pow__(self, n):
        return self.chain(self.f**n, n * self.f ** (n - 1), n * (n - 1) * self.f ** (n - 2) if n > 1 else 0)

    def __neg__(self):
        return self * -1

    def __abs__(self):
        return self if self.f > 0 else -self

    def __sub__(self, other):
        return self + -as_jet(other)

    def __rsub__(self, other):
        return as_jet(other) + -self

    def __rtruediv__(self, other):
        return as_jet(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other):
        return self.f < as_jet(other).f

    def __gt__(self, other):
        return self.f > as_jet(other).f

    def __le__(self, other):
        return self.f <= as_jet(other).f

    def __ge__(self, other):
        return self.f >= as_jet(other).f


def as_jet(value):
    return value if isinstance(value, Jet) else Jet(value)


def _function(f, d1, d2):
    """An elementary function of jets from its value and derivatives, each a function of (argument, value)."""

    def apply(argument):
        argument = as_jet(argument)
        value = f(argument.f)
        return argument.chain(value, d1(argument.f, value), d2(argument.f, value))

    return apply


def _erfc(x):
    if abs(x) > 1e5:  # mpmath gives up; 10^-4e9 is 0 to anyone
        return mp.mpf(0 if x > 0 else 2)
    return mp.erfc(x)


def _erf(x):
    return mp.erf(x) if abs(x) < 1e5 else mp.sign(x)


def _gauss(x):
    return 2 / mp.sqrt(mp.pi) * mp.exp(-x * x) if abs(x) < 1e5 else mp.mpf(0)


FUNCTIONS = {
    "exp": _function(mp.exp, lambda x, y: y, lambda x, y: y),
    "expm1": _function(mp.expm1, lambda x, y: y + 1, lambda x, y: y + 1),
    "log": _function(mp.log, lambda x, y: 1 / x, lambda x, y: -1 / x**2),
    "log1p": _function(mp.log1p, lambda x, y: 1 / (1 + x), lambda x, y: -1 / (1 + x) ** 2),
    "sqrt": _function(mp.sqrt, lambda x, y: 1 / (2 * y), lambda x, y: -1 / (4 * x * y)),
    "tanh": _function(mp.tanh, lambda x, y: 1 - y * y, lambda x, y: -2 * y * (1 - y * y)),
    "atan": _function(mp.atan, lambda x, y: 1 / (1 + x * x), lambda x, y: -2 * x / (1 + x * x) ** 2),
    "erf": _function(_erf, lambda x, y: _gauss(x), lambda x, y: -2 * x * _gauss(x)),
    "erfc": _function(_erfc, lambda x, y: -_gauss(x), lambda x, y: 2 * x * _gauss(x)),
    "max": max,
    "min": min,
    "abs": abs,
}


@cache
def _evaluate(formula: str, x: float, parameters: tuple[tuple[str, float], ...]) -> tuple[mp.mpf, mp.mpf, mp.mpf]:
    exact_literals = re.sub(r"(?<![\w.])(\d+\.\d*)", r"mpf('\1')", formula)  # 0.044715 is the decimal, not a double
    code, bits, before = compile(exact_literals, formula, "eval"), 128, None
    while True:
        with mp.workprec(bits):
            names = {**FUNCTIONS, "pi": mp.pi, "mpf": mp.mpf, "x": Jet(x, 1, 0)} | {k: mp.mpf(v) for k, v in parameters}
            jet = as_jet(eval(code, {"__builtins__": {}}, names))
            found = (jet.f, jet.d1, jet.d2)
        settled = before and [
            a != 0 and abs(a - b) <= abs(a) * mp.mpf(2) ** -80 for a, b in zip(found, before, strict=True)
        ]
        if settled and all(settled):
            return found
        if bits >= MOST_BITS:
            return tuple(a if good else mp.mpf(0) for a, good in zip(found, settled, strict=True))
        before, bits = found, bits * 4


def exact(formula: str, x: float, parameters: Mapping[str, float]) -> tuple[mp.mpf, mp.mpf, mp.mpf]:
    """(f, f', f'') at ``x``, good to 80 bits relative."""
    return _evaluate(formula, float(x), tuple((name, float(value)) for name, value in parameters.items()))


def ulp(value, dtype) -> np.ndarray:
    """The unit in the last place of ``dtype`` at ``value``; below the smallest normal, that of subnormals."""
    info = np.finfo(dtype)
    magnitude = np.maximum(np.abs(np.asarray(value, np.float64)), float(info.tiny))
    with np.errstate(over="ignore"):
        exponent = np.frexp(magnitude)[1] - 1
    return np.ldexp(1.0, np.maximum(exponent - info.nmant, int(info.minexp) - info.nmant))


def errors(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """|got - want| in ulp of got's dtype, ``want`` in float64; 0 where both are NaN or round to the same infinity."""
    with np.errstate(all="ignore"):
        difference = np.abs(got.astype(np.float64) - want) / ulp(want, got.dtype)
        same = np.isnan(got) & np.isnan(want) | (got == want.astype(got.dtype))
        return np.where(
            same, np.where(np.isfinite(difference), difference, 0), np.where(np.isnan(difference), np.inf, difference)
        )


def error(got: float, want: mp.mpf) -> float:
    """The same for one float64 against one mpmath number."""
    if np.isinf(got):
        return 0.0 if abs(want) >= mp.mpf(2) ** 1024 - mp.mpf(2) ** 970 and (want > 0) == (got > 0) else np.inf
    exponent = mp.frexp(want)[1] - 1 if want else -1022
    with mp.workprec(200):
        return float(abs(mp.mpf(got) - want) / mp.mpf(2) ** (max(exponent, -1022) - 52))


def bit_patterns(dtype, stride: int) -> np.ndarray:
    """Every ``stride``-th bit pattern: all exponents, both signs, subnormals, infinities and NaN."""
    bits = np.dtype(dtype).itemsize * 8
    return np.arange(0, 2**bits, stride, dtype=np.uint64).astype(f"u{bits // 8}").view(dtype)
