"""What the pictures of figures have in common: which rows are drawn, reproducible files, the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .tables import Row

Draw = Callable[[Sequence[Row], Path], None]


def foremost(rows: Sequence[Row], sections: Sequence[str], rank: Callable[[Row], tuple[Any, ...]]) -> list[Row]:
    """The timed rows of these sections that stand first by ``rank``.

    Raises
    ------
    ValueError
        Where there is none.
    """
    timed = [row for row in rows if row["section"] in sections and "fastact" in row["times_ns"]]
    if not timed:
        raise ValueError(f"rows: expected figures of the section {' or '.join(sections)}, got none; run it first")
    best = min(map(rank, timed))
    return [row for row in timed if rank(row) == best]


def threads_of(row: Row) -> str:
    return f"{row['threads']} thread{'s' * (row['threads'] > 1)}"


@contextmanager
def picture(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """A matplotlib figure that is written to ``path``: the same bytes for the same rows.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "fastact", "svg.fonttype": "none"}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        vector = path.suffix == ".svg"
        figure.savefig(path, dpi=120, **({"metadata": {"Date": None, "Creator": None}} if vector else {}))


def draw_file(draw: Draw) -> None:
    """Draw a picture from a JSON file of figures, both named on the command line."""
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: python -m fastact.bench.{Path(sys.argv[0]).stem} FIGURES.json PICTURE.svg")
    document = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    draw(document["rows"], Path(sys.argv[2]))
