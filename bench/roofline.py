"""The share of the roofline that recurrent layers reach, in one picture: a panel a T and kind, B across, (I, H) down.

`fastact bench recurrent --full --roofline roofline.svg` draws it; from a JSON file of earlier figures
`python -m fastact.bench.roofline figures.json roofline.svg` does. The roofline here is the multiply-add peak: with few
rows the weights' way from the caches is below it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .pictures import draw_file, foremost, picture, threads_of
from .tables import Row

SECTIONS = ("recurrent", "lstm")
KINDS = ("inference", "training")


def sizes(row: Row) -> dict[str, int]:
    """The letters of a row's shape."""
    return {letter: int(n) for letter, n in re.findall(r"(\w)=(\d+)", row["shape"])}


def share(row: Row) -> float:
    return float(row["limit_ns"] / row["times_ns"]["fastact"])


def chosen(rows: Sequence[Row]) -> list[Row]:
    """The rows of one cell, dtype and number of threads: LSTM, float32 and the most threads if they are there."""

    def rank(row: Row) -> tuple[Any, ...]:
        cell = row["name"].split()[0]
        return SECTIONS.index(row["section"]), cell != "LSTM", cell, row["dtype"], -row["threads"]

    return foremost(rows, SECTIONS, rank)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw those rows into a picture file.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    ValueError
        Where no recurrent layer was measured.
    """
    cell = chosen(rows)
    first = cell[0]
    steps = sorted({sizes(row)["T"] for row in cell})
    batches = sorted({sizes(row)["B"] for row in cell})
    widths = sorted({(sizes(row)["H"], sizes(row)["I"]) for row in cell})
    size = (1.6 + 0.42 * len(batches) * len(steps) + 0.3 * len(steps), 1.2 + 2 * (0.5 + 0.22 * len(widths)))
    with picture(path, size) as figure:
        panels = figure.subplots(2, len(steps), sharex=True, sharey=True, squeeze=False)
        for down, kind in enumerate(KINDS):
            for across, T in enumerate(steps):
                shares = [[float("nan")] * len(batches) for _ in widths]
                for row in cell:
                    at = sizes(row)
                    if row["name"].endswith(kind) and at["T"] == T:
                        shares[widths.index((at["H"], at["I"]))][batches.index(at["B"])] = share(row)
                _panel(panels[down, across], shares)
                panels[down, across].set_title(f"{kind}, T={T}", fontsize=8)
        for panel in panels[:, 0]:
            panel.set_yticks(range(len(widths)), [f"I={i} H={h}" for h, i in widths], fontsize=6)
        for panel in panels[-1]:
            panel.set_xticks(range(len(batches)), [f"{b}" for b in batches], fontsize=6)
            panel.set_xlabel("B", fontsize=7)
        title = f"{first['name'].split()[0]}, {first['dtype']}, {threads_of(first)}: percent of the multiply-add peak"
        figure.suptitle(title, fontsize=10)


def _panel(panel: Any, shares: list[list[float]]) -> None:
    """One map of shares with its numbers."""
    panel.imshow(shares, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for y, line in enumerate(shares):
        for x, value in enumerate(line):
            if value == value:
                color = "black" if value > 0.6 else "white"
                panel.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=5, color=color)
    panel.tick_params(length=0)


if __name__ == "__main__":
    draw_file(draw)
