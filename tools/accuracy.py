"""The table of errors in docs/accuracy.md: every float32 input of every elementwise activation, function by function.

    python tools/accuracy.py                   # measure what docs/accuracy.json has not yet, then write the table
    python tools/accuracy.py --again gelu      # measure this one anew
    python tools/accuracy.py --table           # write the table from what is there

Float32: tools/ulp_sweep.c against the float64 kernels, all 2^32 inputs (13 s an order on one core with AVX-512).
Float64: tools/ulp_mpmath.py against mpmath at many points. Results are kept after each function, so that an interrupted
run goes on where it was. The other instruction sets give the same bits (tests/test_activations.py), hence the same
errors.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastact as fa
from fastact._core import runtime
from fastact._files import write_atomically

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "accuracy.json"
TABLE = ROOT / "docs" / "accuracy.md"
ORDERS = ("f", "f'", "f''")
LINE = re.compile(r"(\S+) +(f'*) +([\d.]+) ulp at (\S+)(?:.*near zero ([\d.]+) eps)?")

HEAD = """# Errors of the activations

Largest error of every elementwise activation at default parameters, in units in the last place (ulp) of the true value.
Float32: all 2^32 inputs, measured against the float64 kernel. Float64: {points} points each against mpmath: normal,
uniform over the tails, log-uniform into the subnormals, and the inputs known as hard. Where a derivative has a zero
between the tails, an error relative to it means nothing next to that zero: there the figure is in eps times the
largest value near it, after the plus sign. In brackets the stated bound, which the tests hold. Measured with {isa};
every other instruction set gives the same bits. Made by `tools/accuracy.py`.

| | float32 f | f' | f'' | float64 f | f' | f'' |
|---|---|---|---|---|---|---|
"""


def names() -> list[str]:
    """All elementwise activations of the catalogue, in its order."""
    return [name for name, activation in fa.activations.items() if activation.ulp]


def measured(text: str, name: str) -> list[dict[str, Any]]:
    """The three orders of one function out of what a sweep printed."""
    found = {}
    for line in text.splitlines():
        match = LINE.match(line)
        if match and match[1] == name:
            found[match[2]] = {"ulp": float(match[3]), "at": match[4], "near": float(match[5]) if match[5] else None}
    if set(found) != set(ORDERS):
        raise SystemExit(f"{name}: expected figures for {', '.join(ORDERS)}, got:\n{text}")
    return [found[order] for order in ORDERS]


def measure(name: str, isa: str, stride: int, points: int) -> dict[str, Any]:
    sweep = ["sh", str(ROOT / "tools" / "ulp_sweep.sh"), isa, str(stride), name]
    mpmath = [sys.executable, str(ROOT / "tools" / "ulp_mpmath.py"), "--points", str(points), name]
    outputs = []
    for command in (sweep, mpmath):
        process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if process.returncode:
            raise SystemExit(f"{name}: over its budget, or the sweep failed:\n{process.stdout}{process.stderr}")
        outputs.append(process.stdout)
    return {"float32": measured(outputs[0], name), "float64": measured(outputs[1], name)}


def row(name: str, figures: dict[str, Any]) -> str:
    cells = []
    for dtype in ("float32", "float64"):
        for order, figure in enumerate(figures[dtype]):
            near = f" + {figure['near']:.2f} eps" if figure["near"] else ""
            cells.append(f"{figure['ulp']:.2f}{near} ({fa.activations[name].ulp[dtype][order]:g})")
    return f"| {name} | {' | '.join(cells)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="these only")
    parser.add_argument("--again", action="store_true", help="measure even what is there")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--stride", type=int, default=1, help="every so many float32 (1: all; others are not kept)")
    parser.add_argument("--points", type=int, default=50_000, help="of float64")
    options = parser.parse_args()
    isa = runtime.isa_active()
    kept: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"isa": isa, "functions": {}}
    for name in () if options.table else options.names or names():
        if name in kept["functions"] and not options.again:
            continue
        figures = measure(name, isa, options.stride, options.points)
        print(row(name, figures), end="", flush=True)
        if options.stride == 1:
            kept["functions"][name] = figures
            kept |= {"isa": isa, "points": options.points}
            write_atomically(RESULTS, (json.dumps(kept, indent=1) + "\n").encode())
    table = HEAD.format(isa=kept["isa"], points=f"{kept.get('points', 0):,}")
    table += "".join(row(name, kept["functions"][name]) for name in names() if name in kept["functions"])
    write_atomically(TABLE, table.encode())


if __name__ == "__main__":
    main()
