"""Largest error of the float64 activation kernels against mpmath, in units of the last place.

    python tools/ulp_mpmath.py [--points N] [--precise] [name ...]

Uses the installed fastact on the instruction set in force. The reference is the formula of the table with two exact
derivatives, at a precision that is raised until it settles (tests/oracle.py). Points: normal, uniform over the tails,
log-uniform magnitudes into the subnormals, the known hard inputs and the edges of the tables' pieces. Exit code 1 if a
stated budget is exceeded.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import fastact as fa
from fastact._core import activations as table

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from oracle import error, exact

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=4000)
    parser.add_argument("--precise", action="store_true", help="the precise tier")
    parser.add_argument("names", nargs="*", default=[row["name"] for row in table.describe_all()])
    arguments = parser.parse_args()
    failed = False
    for name in arguments.names:
        f = fa.activations[name].precise if arguments.precise else fa.activations[name]
        kinks = {0.0, *f.kinks}
        x = np.array([v for v in sample(arguments.points) if v not in kinks])
        got = [f(x), f.derivative(x), f.derivative(x, order=2)]
        for order in range(3):
            formula = f.surrogate if order and f.surrogate else f.formula
            worst, at, near = 0.0, 0.0, 0.0
            for point, value in zip(x.tolist(), got[order].tolist(), strict=True):
                want = exact(formula, point, f.parameters)[order]
                if order and any(1 / 1.4 < point / zero < 1.4 for zero in f.zeros[order - 1]):
                    near = max(near, float(abs(value - want)) * 2.0**52)
                elif (off := error(value, want)) > worst:
                    worst, at = off, point
            budget = f.ulp["float64"][order]
            over = worst > budget or near > 4
            failed |= over
            print(
                f"{name:17} f{chr(39) * order:2} {worst:7.3f} ulp at {at!r:24} budget {budget}"
                + (f"  near zero {near:.3f} eps" if near else "")
                + (" OVER" if over else ""),
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
