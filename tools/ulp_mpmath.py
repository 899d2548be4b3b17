"""Largest error of the float64 activation kernels against mpmath, in units of the last place.

    python tools/ulp_mpmath.py [--points N] [name ...]

Uses the installed fastact on the instruction set in force. The references are written from the definitions, in a form
that loses nothing in the tails, at 45 digits. Points: normal, uniform over the tails, log-uniform magnitudes into the
subnormals, the known hard inputs and the edges of the tables' pieces. Exit code 1 if a stated budget is exceeded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
from mpmath import mp, mpf

import fastact as fa
from fastact._core import activations as table

mp.dps = 45

HARD = [
    59.3060379,
    -5.84652185,
    -87.633,
    -91.859,
    -13.178,
    -10.105,
    -13.357,
    -4.157,
    -3.211,
    -7.322,
    0.0621,
    0.0625,
    8.1445,
    18.2,
    0.31,
    0.34,
    -0.788552,
    -1.0354,
    -16.99,
    -28.3,
    2.93e-38,
    -745.0,
    -744.5,
    -38.4,
    -37.5,
    -21.5,
    -21.2,
    19.06,
    36.7,
    37.5,
    -708.4,
    -709.9,
    -0.7517915,
    1.41421356,
    5e-324,
    1e-310,
    6.890625,
]


def decay(x: mpf) -> mpf:
    return mp.exp(-abs(x))


def sigmoid(x: mpf, order: int) -> mpf:
    e = decay(x)
    if order == 0:
        return 1 / (1 + mp.exp(-x))
    if order == 1:
        return e / (1 + e) ** 2
    magnitude = e * mp.expm1(-abs(x)) / (1 + e) ** 3
    return magnitude if x > 0 else -magnitude


def tanh(x: mpf, order: int) -> mpf:
    return mp.tanh(x) if order == 0 else 2 ** (order + 1) * sigmoid(2 * x, order)


def gelu(x: mpf, order: int) -> mpf:
    phi = mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)
    if order == 2:
        return phi * (2 - x * x)
    tail = mp.erfc(-x / mp.sqrt(2)) / 2
    return x * tail if order == 0 else tail + x * phi


def gated(v: mpf, v1: mpf, v2: mpf, x: mpf, order: int) -> mpf:
    """x sigmoid(v(x)) and its derivatives."""
    s, s1, s2 = (sigmoid(v, k) for k in range(3))
    return [x * s, s + x * s1 * v1, 2 * s1 * v1 + x * (s2 * v1 * v1 + s1 * v2)][order]


def silu(x: mpf, order: int) -> mpf:
    return gated(x, mpf(1), mpf(0), x, order)


def gelu_tanh(x: mpf, order: int) -> mpf:
    c0 = 2 * mp.sqrt(2 / mp.pi)
    c1 = c0 * mpf("0.044715")
    return gated(x * (c0 + c1 * x * x), c0 + 3 * c1 * x * x, 6 * c1 * x, x, order)


def elu(x: mpf, order: int) -> mpf:
    if x > 0:
        return [x, mpf(1), mpf(0)][order]
    return mp.expm1(x) if order == 0 else mpf(0) if order == 2 and x == 0 else mp.exp(x)


def softplus(x: mpf, order: int) -> mpf:
    return max(x, mpf(0)) + mp.log1p(decay(x)) if order == 0 else sigmoid(x, order - 1)


def scaled_tanh(x: mpf, order: int) -> mpf:
    slope = mpf(2 / 3)
    return mpf(1.7159) * slope**order * tanh(slope * x, order)


REFERENCES: dict[str, Callable[[mpf, int], mpf]] = {
    f.__name__: f for f in (sigmoid, tanh, elu, softplus, silu, gelu, gelu_tanh, scaled_tanh)
}


def sample(points: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    edges = np.arange(-64, 65) * (7 / 64)
    return np.concatenate(
        [
            rng.normal(0, 2, points // 4),
            rng.uniform(-7, 7, points // 4),
            rng.uniform(-40, 40, points // 4),
            rng.uniform(-800, 800, points // 8),
            rng.choice([-1, 1], points // 8) * 10 ** rng.uniform(-320, 3, points // 8),
            HARD,
            np.negative(HARD),
            edges,
            np.nextafter(edges, 9),
        ]
    )


def ulps(got: float, want: mpf) -> float:
    exponent = max(int(mp.frexp(want)[1]), -1021) if want else -1021
    return float(abs(mpf(got) - want) / mp.ldexp(1, exponent - 53))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=4000)
    parser.add_argument("names", nargs="*", default=list(REFERENCES))
    arguments = parser.parse_args()
    x = sample(arguments.points)
    zeros = {row["name"]: row["zeros"] for row in table.describe_all()}
    failed = False
    for name in arguments.names:
        activation = fa.activations[name]
        for order in range(3):
            y = activation(x) if order == 0 else activation.derivative(x, order=order)
            zero = zeros[name][order - 1] if order else 0.0
            worst, at, near = 0.0, 0.0, 0.0
            for point, value in zip(x.tolist(), y.tolist(), strict=True):
                want = REFERENCES[name](mpf(point), order)
                if zero and zero / 1.4 < abs(point) < zero * 1.4:
                    near = max(near, float(abs(mpf(value) - want)) * 2.0**52)
                elif (error := ulps(value, want)) > worst:
                    worst, at = error, point
            budget = activation.ulp["float64"][order]
            over = worst > budget or near > 4
            failed |= over
            print(
                f"{name:12} f{chr(39) * order:2} {worst:7.3f} ulp at {at!r:24} budget {budget}"
                + (f"  near zero {near:.3f} eps" if zero else "")
                + (" OVER" if over else ""),
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
