"""Write docs/activations: a page and a picture for each activation, and an index, all from what the library knows.

    python tools/activation_pages.py                        # text and pictures (needs matplotlib)
    python tools/activation_pages.py --bench figures.json   # also the speed, from `fastact bench activations --json`
    python tools/activation_pages.py --text                 # without the pictures

The facts are those of `fastact info` (fastact/_facts.py). What the pages take from a benchmark is kept beside them in
speed.json, so that the text can be made again without measuring.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fastact as fa
from fastact._facts import facts

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "activations"
FORMULAS = {"f": "f(x)  ", "f'": "f'(x) ", "f''": "f''(x)", "dx": "dx    "}
APART = {"name", "note", "also", *FORMULAS}  # not in the table of facts
COLORS = {"f": "#1f77b4", "f'": "#d62728", "f''": "#2ca02c"}
REACH = 5.0  # the pictures go from -5 to 5
AS_FAST = 0.95  # a ratio that counts as equal
TOP = 4.0  # and no further than this up and down


def every() -> Iterator[fa.Activation]:
    """All activations, those that draw random numbers last."""
    yield from fa.activations.values()
    yield from fa.activations.unlisted.values()


# ---- text -----------------------------------------------------------------------------------------------------------


def texts(speed: dict[str, Any] | None) -> dict[str, str]:
    """All pages by file name; ``speed`` as ``condensed`` makes it."""
    pages = {f"{f.name}.md": page(f, speed) for f in every()}
    return {"README.md": index(speed), **pages}


def page(f: fa.Activation, speed: dict[str, Any] | None) -> str:
    """The page of one activation, as Markdown."""
    known = facts(f)
    told = dict(known)
    lines = [f"# {f.name}", ""]
    if "also" in told:
        lines += [f"Also {told['also']}.", ""]
    lines += ["```", *(f"{FORMULAS[label]} = {text}" for label, text in known if label in FORMULAS), "```", ""]
    if "note" in told:
        lines += [told["note"], ""]
    if not f.rowwise:
        lines += [f"![{f.name}, its first and its second derivative]({f.name}.svg)", ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {label} | {escaped(text)} |" for label, text in known if label not in APART]
    lines += [""]
    if f.ulp:
        lines += ["These errors are bounds, at the default parameters: [what was measured](../accuracy.md).", ""]
    lines += speed_lines(f.name, speed)
    lines += ["[All activations](README.md)", ""]
    return "\n".join(lines)


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


def index(speed: dict[str, Any] | None) -> str:
    """The table of all activations, and where one of them is slower than another library."""
    lines = [
        "# Activations",
        "",
        "Made by `tools/activation_pages.py` from what `fastact info NAME` tells. Phi and phi are the normal "
        "distribution and its density; a halved row is (a, b).",
        "",
        "| function | f(x) | range | monotonic | kinks at | Lipschitz | saturated, \\|f'\\| < 0.001 | ULP of f, f', f'' |",  # noqa: E501
        "|---|---|---|---|---|---|---|---|",
    ]
    for f in every():
        told = dict(facts(f))
        low, high = f.range
        cells = [f"[{f.name}]({f.name}.md)", f"`{f.formula}`", f"{low:.4g} to {high:.4g}"]
        if f.rowwise:
            cells += ["", "", "", "of rows", ""]
        else:
            cells += [told["monotonic"], ", ".join(f"{x:g}" for x in f.kinks), told["Lipschitz"].partition(":")[0]]
            cells += [told["saturated"].partition(" where ")[2], ", ".join(f"{bound:g}" for bound in f.ulp["float32"])]
        lines.append(f"| {' | '.join(map(escaped, cells))} |")
    if speed is not None:
        slower = [
            f"{name} {kind}, {elements}: {best[1]:.2f} of {best[0]}"
            for name, rows in speed["rows"].items()
            for kind, elements, _, _, _, _, *best in rows
            if best and best[1] < AS_FAST
        ]
        lines += ["", "## Speed", "", f"{speed['machine']}. Each page has the figures.", ""]
        lines += ["![Nanoseconds an element beside a copy and the fastest other library](../images/activations.svg)"]
        lines += ["", "Slower than another library there:", "", *(f"- {row}" for row in slower or ["none"])]
    return "\n".join([*lines, ""])


# ---- speed ----------------------------------------------------------------------------------------------------------


def condensed(document: dict[str, Any]) -> dict[str, Any]:
    """Of the JSON file of a benchmark: the machine, and by activation what the pages show."""
    machine = document["machines"][0]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if name != "fastact")
    rows: dict[str, list[Any]] = {}
    for row in document["rows"]:
        if row["section"] != "activations" or "fastact" not in row["times_ns"]:
            continue
        name, _, kind = row["name"].partition(" ")
        ns = row["times_ns"]["fastact"] / row["work"]
        others = {peer: time / row["work"] for peer, time in row["times_ns"].items() if peer != "fastact"}
        peer = min(others, key=lambda name: others[name], default=None)
        rows.setdefault(name, []).append(
            [kind, row["shape"], row["dtype"], row["threads"], round(ns, 3), round(row["limit_ns"] / row["work"], 3)]
            + ([] if peer is None else [peer, round(others[peer] / ns, 2)])
        )
    return {"machine": f"{machine['cpu']}, {machine['instruction_set']}; {versions}", "rows": rows}


def speed_lines(name: str, speed: dict[str, Any] | None) -> list[str]:
    rows = (speed or {"rows": {}})["rows"].get(name)
    if not rows:
        return []
    assert speed is not None
    lines = [
        "## Speed",
        "",
        f"Nanoseconds an element, beside a copy of as many arrays and the fastest other library. {speed['machine']}.",
        "",
        "| | elements | | threads | fastact | copy | best of the others |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, shape, dtype, threads, ns, limit, *peer in rows:
        other = f"{peer[0]}: {peer[1]:.2f} times as long" if peer else ""
        lines.append(f"| {kind} | {shape} | {dtype} | {threads} | {ns:.3f} | {limit:.3f} | {other} |")
    return [*lines, ""]


# ---- pictures -------------------------------------------------------------------------------------------------------


def curve(f: fa.Activation, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of f or a derivative, with a gap at each kink where it jumps."""
    x = np.linspace(-REACH, REACH, 401)
    near = [kink + offset for kink in f.kinks if abs(kink) < REACH for offset in (-1e-9, 0.0, 1e-9)]
    x = np.unique(np.concatenate([x[[all(abs(a - kink) > 1e-6 for kink in f.kinks) for a in x]], near]))
    y = f(x) if order == 0 else f.derivative(x, order=order)
    for kink in f.kinks:
        at = np.flatnonzero(x == kink)
        if at.size and abs(y[at[0] + 1] - y[at[0] - 1]) > 1e-3:
            y[at[0]] = math.nan
    return x, y


def draw(f: fa.Activation, path: Path) -> None:
    """f, f' and f'' over [-5, 5] as an SVG file that depends on nothing but the function and matplotlib's version."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "fastact", "svg.fonttype": "none", "path.simplify_threshold": 0.3}):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        shown = []
        for order, (label, color) in enumerate(COLORS.items()):
            x, y = curve(f, order)
            shown.append(y[np.isfinite(y)])
            axes.plot(x, np.clip(y, -2 * TOP, 2 * TOP), label=label, color=color, linewidth=1.8 - 0.3 * order)
        low, high = max(-TOP, min(y.min() for y in shown)), min(TOP, max(y.max() for y in shown))
        margin = 0.06 * (high - low)
        axes.set(xlim=(-REACH, REACH), ylim=(low - margin, high + margin), title=f.name)
        axes.axhline(0, color="gray", linewidth=0.6)
        axes.axvline(0, color="gray", linewidth=0.6)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


# ---- command --------------------------------------------------------------------------------------------------------


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description="Write docs/activations.")
    parser.add_argument("--bench", type=Path, help="JSON file of `fastact bench activations`")
    parser.add_argument("--text", action="store_true", help="no pictures")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True, parents=True)
    kept = FOLDER / "speed.json"
    if options.bench is not None:
        kept.write_text(compact(condensed(json.loads(options.bench.read_text()))), encoding="utf-8")
    speed = json.loads(kept.read_text()) if kept.exists() else None
    written = texts(speed)
    for name, text in written.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for path in FOLDER.glob("*.md"):
        if path.name not in written:
            warnings.warn(f"{path} is of no activation any more", stacklevel=1)
    if not options.text:
        for f in every():
            if not f.rowwise:
                draw(f, FOLDER / f"{f.name}.svg")


def compact(speed: dict[str, Any]) -> str:
    """JSON with one line a row."""
    body = ",\n".join(
        f" {json.dumps(name)}: [\n  {(',' + chr(10) + '  ').join(map(json.dumps, rows))}]"
        for name, rows in speed["rows"].items()
    )
    return f'{{"machine": {json.dumps(speed["machine"])}, "rows": {{\n{body}\n}}}}\n'


if __name__ == "__main__":
    main()
