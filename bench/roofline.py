"""The share of the roofline that recurrent layers reach, in one picture: a panel a T and kind, B across, (I, H) down.

`fastact bench recurrent --full --roofline roofline.svg` draws it; from a JSON file of earlier figures
`python -m fastact.bench.roofline figures.json roofline.svg` does. The roofline here is the multiply-add peak: with few
rows the weights' way from the caches is below it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    timed = [row for row in rows if row["section"] in SECTIONS and "fastact" in row["times_ns"]]
    if not timed:
        return []

    def rank(row: Row) -> tuple[Any, ...]:
        cell = row["name"].split()[0]
        return SECTIONS.index(row["section"]), cell != "LSTM", cell, row["dtype"], -row["threads"]

    best = min(map(rank, timed))
    return [row for row in timed if rank(row) == best]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw those rows into a picture file.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    ValueError
        Where no recurrent layer was measured.
    """
    import matplotlib
    from matplotlib.figure import Figure

    cell = chosen(rows)
    if not cell:
        raise ValueError("rows: expected figures of the section recurrent or lstm, got none; run it first")
    first = cell[0]
    steps = sorted({sizes(row)["T"] for row in cell})
    batches = sorted({sizes(row)["B"] for row in cell})
    widths = sorted({(sizes(row)["H"], sizes(row)["I"]) for row in cell})
    with matplotlib.rc_context({"svg.hashsalt": "fastact", "svg.fonttype": "none"}):
        size = (1.6 + 0.42 * len(batches) * len(steps) + 0.3 * len(steps), 1.2 + 2 * (0.5 + 0.22 * len(widths)))
        figure = Figure(figsize=size, layout="constrained")
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
        threads = f"{first['threads']} thread{'s' * (first['threads'] > 1)}"
        title = f"{first['name'].split()[0]}, {first['dtype']}, {threads}: percent of the multiply-add peak"
        figure.suptitle(title, fontsize=10)
        vector = path.suffix == ".svg"
        figure.savefig(path, dpi=120, **({"metadata": {"Date": None, "Creator": None}} if vector else {}))


def _panel(panel: Any, shares: list[list[float]]) -> None:
    """One map of shares with its numbers."""
    panel.imshow(shares, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for y, line in enumerate(shares):
        for x, value in enumerate(line):
            if value == value:
                color = "black" if value > 0.6 else "white"
                panel.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=5, color=color)
    panel.tick_params(length=0)


def main() -> None:
    """Draw a picture from a JSON file."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m fastact.bench.roofline FIGURES.json PICTURE.svg")
    document = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    draw(document["rows"], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
