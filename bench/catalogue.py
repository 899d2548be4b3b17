"""The catalogue in one picture: a bar a function, beside a copy of as many arrays and the fastest other library.

`fastact bench activations --all --peers --picture activations.svg` draws it; from a JSON file of earlier figures
`python -m fastact.bench.catalogue figures.json activations.svg` does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .tables import Row, contenders_of

KINDS = ("forward", "backward")
SIZES = ("1M", "16K", "32M")  # the first that was measured is drawn
COLORS = ("#4c72b0", "#dd8452")


def chosen(rows: Sequence[Row]) -> list[Row]:
    """The rows of one cell: one dtype, size and number of threads, float32, 1M and 1 if they are there."""
    timed = [row for row in rows if row["section"] == "activations" and "fastact" in row["times_ns"]]
    if not timed:
        return []

    def rank(row: Row) -> tuple[Any, ...]:
        size = SIZES.index(row["shape"]) if row["shape"] in SIZES else len(SIZES)
        return row["dtype"], size, row["threads"], row["shape"]

    best = min(map(rank, timed))
    return [row for row in timed if rank(row) == best]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw those rows into a picture file, forward and backward side by side, in the order of the catalogue.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    ValueError
        Where no activation was measured.
    """
    import matplotlib
    from matplotlib.figure import Figure

    cell = chosen(rows)
    if not cell:
        raise ValueError("rows: expected figures of the section activations, got none; run it first")
    names = list(dict.fromkeys(row["name"].partition(" ")[0] for row in cell))
    first = cell[0]
    with matplotlib.rc_context({"svg.hashsalt": "fastact", "svg.fonttype": "none"}):
        figure = Figure(figsize=(11, 1.4 + 0.19 * len(names)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, kind, color in zip(panels, KINDS, COLORS, strict=True):
            _panel(
                panel, {row["name"].partition(" ")[0]: row for row in cell if row["name"].endswith(kind)}, names, color
            )
            panel.set_title(kind, fontsize=10)
        panels[0].set_yticks(range(len(names)), names, fontsize=7)
        panels[0].invert_yaxis()
        figure.legend(*panels[0].get_legend_handles_labels(), fontsize=7, loc="outside lower center", ncols=3)
        threads = f"{first['threads']} thread{'s' * (first['threads'] > 1)}"
        figure.suptitle(f"Nanoseconds an element, {first['shape']} elements, {first['dtype']}, {threads}", fontsize=11)
        vector = path.suffix == ".svg"
        figure.savefig(path, dpi=120, **({"metadata": {"Date": None, "Creator": None}} if vector else {}))


def _panel(panel: Any, rows: dict[str, Row], names: Sequence[str], color: str) -> None:
    """fastact's bars, a line where a copy ends, and a mark for the best of the others."""
    places, ours, limits, others, labels = [], [], [], [], []
    for place, name in enumerate(names):
        if name not in rows:
            continue
        row = rows[name]
        times = {peer: row["times_ns"][peer] / row["work"] for peer in contenders_of([row])}
        places.append(place)
        ours.append(times.pop("fastact"))
        limits.append(row["limit_ns"] / row["work"])
        best = min(times, key=lambda peer: times[peer], default="")
        others.append(times.get(best, float("nan")))
        labels.append(best)
    panel.barh(places, ours, 0.75, color=color, label="fastact")
    panel.plot(limits, places, "|", color="black", markersize=6, label="a copy of as many arrays")
    panel.plot(others, places, "D", color="#555555", markersize=2.5, label="the fastest other, by name")
    for place, value, label in zip(places, others, labels, strict=True):
        if label:
            panel.annotate(label, (value, place), (4, 0), textcoords="offset points", va="center", fontsize=5)
    panel.set_xscale("log")
    panel.margins(y=0.01)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="x", which="both", labelsize=7)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter("{x:.1g}")


def main() -> None:
    """Draw a picture from a JSON file."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m fastact.bench.catalogue FIGURES.json PICTURE.svg")
    document = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    draw(document["rows"], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
