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
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
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
"""


TIERS = {"default": "Default tier", "precise": "Precise tier (`.precise`)"}


def listed(tier: str) -> dict[str, fa.Activation]:
    """All elementwise activations of one tier, by the name of the default one, in the catalogue's order; prelu is
    leaky_relu."""
    return {n: f if tier == "precise" else fa.activations[n] for n, f in fa.activations.precise.items()}


def figures(text: str, name: str) -> list[dict[str, Any]]:
    """The three orders of one function out of what a sweep printed."""
    found = {}
    for line in text.splitlines():
        match = LINE.match(line)
        if match and match[1] == name:
            found[match[2]] = {"ulp": float(match[3]), "at": match[4], "near": float(match[5]) if match[5] else None}
    if set(found) != set(ORDERS):
        raise SystemExit(f"{name}: expected figures for {', '.join(ORDERS)}, got:\n{text}")
    return [found[order] for order in ORDERS]


def sweep(tier: str, missing: list[str], isa: str, stride: int) -> Iterator[tuple[str, str]]:
    """Every function with what the float32 sweep printed of it, as it comes."""
    command = ["bash", str(ROOT / "tools" / "ulp_sweep.sh"), isa, str(stride), tier, *missing]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        while lines := list(itertools.islice(process.stdout, len(ORDERS))):
            yield lines[0].split()[0], "".join(lines)


def against_mpmath(tier: str, name: str, points: int) -> str:
    command = [sys.executable, str(ROOT / "tools" / "ulp_mpmath.py"), "--points", str(points), name]
    command += ["--precise"] if tier == "precise" else []
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False).stdout


def row(name: str, kept: dict[str, Any], activation: fa.Activation) -> str:
    cells = []
    for dtype in ("float32", "float64"):
        for figure, bound in zip(kept[dtype], activation.ulp[dtype], strict=True):
            near = f" + {figure['near']:.2f} eps" if figure["near"] else ""
            over = " **over**" if figure["ulp"] > bound else ""
            cells.append(f"{figure['ulp']:.2f}{near} ({bound:g}){over}")
    return f"| {name} | {' | '.join(cells)} |\n"


def table(results: dict[str, Any]) -> str:
    """The page, as Markdown, from what docs/accuracy.json has."""
    text = HEAD.format(isa=results["isa"], points=f"{results['points']:,}")
    for tier, title in TIERS.items():
        kept = results.get(tier, {})
        text += f"\n## {title}\n\n| | float32 f | f' | f'' | float64 f | f' | f'' |\n|---|---|---|---|---|---|---|\n"
        text += "".join(row(name, kept[name], f) for name, f in listed(tier).items() if name in kept)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="these only")
    parser.add_argument("--again", action="store_true", help="measure even what is there")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--stride", type=int, default=1, help="every so many float32 (1: all; others are not kept)")
    parser.add_argument("--points", type=int, default=50_000, help="of float64")
    options = parser.parse_args()
    isa = runtime.isa_active()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for tier in () if options.table else TIERS:
        kept = results.setdefault(tier, {})
        missing = [n for n in listed(tier) if n in (options.names or [n]) and (options.again or n not in kept)]
        for name, text in sweep(tier, missing, isa, options.stride) if missing else ():
            found = {"float32": figures(text, name)}
            found["float64"] = figures(against_mpmath(tier, name, options.points), name)
            print(row(name, found, listed(tier)[name]), end="", flush=True)
            if options.stride == 1:
                kept[name] = found
                results |= {"isa": isa, "points": options.points}
                write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    write_atomically(TABLE, table(results).encode())


if __name__ == "__main__":
    main()
