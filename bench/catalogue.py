"""The catalogue in one picture: a bar a function, beside a copy of as many arrays and the fastest other library.

`fastact bench activations --all --peers --picture activations.svg` draws it; from a JSON file of earlier figures
`python -m fastact.bench.catalogue figures.json activations.svg` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .pictures import draw_file, foremost, picture, threads_of
from .tables import Row, contenders_of

KINDS = ("forward", "backward")
SIZES = ("1M", "16K", "32M")  # the first that was measured is drawn
COLORS = ("#4c72b0", "#dd8452")


def chosen(rows: Sequence[Row]) -> list[Row]:
    """The rows of one cell: one dtype, size and number of threads, float32, 1M and 1 if they are there."""

    def rank(row: Row) -> tuple[Any, ...]:
        size = SIZES.index(row["shape"]) if row["shape"] in SIZES else len(SIZES)
        return row["dtype"], size, row["threads"], row["shape"]

    return foremost(rows, ["activations"], rank)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw those rows into a picture file, forward and backward side by side, in the order of the catalogue.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    ValueError
        Where no activation was measured.
    """
    cell = chosen(rows)
    names = list(dict.fromkeys(row["name"].partition(" ")[0] for row in cell))
    first = cell[0]
    with picture(path, (11, 1.4 + 0.19 * len(names))) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for panel, kind, color in zip(panels, KINDS, COLORS, strict=True):
            of_kind = {row["name"].partition(" ")[0]: row for row in cell if row["name"].endswith(kind)}
            _panel(panel, of_kind, names, color)
            panel.set_title(kind, fontsize=10)
        panels[0].set_yticks(range(len(names)), names, fontsize=7)
        panels[0].invert_yaxis()
        figure.legend(*panels[0].get_legend_handles_labels(), fontsize=7, loc="outside lower center", ncols=3)
        title = f"Nanoseconds an element, {first['shape']} elements, {first['dtype']}, {threads_of(first)}"
        figure.suptitle(title, fontsize=11)


def _panel(panel: Any, rows: dict[str, Row], names: Sequence[str], color: str) -> None:
    """fastact's bars, a line where a copy ends, and a mark for the best of the others."""
    from matplotlib.ticker import LogLocator

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
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter("")
    panel.margins(y=0.01)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="x", which="both", labelsize=7)


if __name__ == "__main__":
    draw_file(draw)
