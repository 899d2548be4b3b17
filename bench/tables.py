"""Rows as text and as pictures: figures, ratios to fastact, and the hardware's limit beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]  # the fields of timing.Row

EQUAL = 0.95  # a ratio that counts as equal: two runs of one program differ by as much
EQUAL_IN_MEMORY = 0.90  # from 32M elements on
EQUAL_IN_CALLS = 1 / 1.2  # beside a NumPy ufunc that does less arithmetic
ORDER = ("fastact", "NumPy", "PyTorch", "ONNX Runtime", "JAX", "SciPy", "numexpr", "scikit-learn")
SECTIONS = {
    "activations": "Activations",
    "calls": "Calls on 16 elements",
    "values": "Special values (limit: ordinary ones)",
    "product": "Matrix product",
    "normalization": "Normalisation layers",
    "losses": "Losses",
    "attention": "Attention",
    "lstm": "LSTM, one layer, time-major",
    "recurrent": "Recurrent layers, time-major",
    "stacks": "Two recurrent layers, and both ways",
    "variants": "Variants of the recurrent cells (limit: the plain cell)",
    "rounded": "Recurrent layers with rounded weights (limit: float32 weights)",
    "streams": "Streams, one step a call",
    "training": "Training steps",
    "convergence": "Wall time to equal validation loss",
}
_CELL = 16
_LABEL = 44


def figure(row: Row, nanoseconds: float) -> float:
    """A time in the row's unit: GF/s is work over time, ns/element time over work, ms and us the time of a call."""
    if row["unit"] == "GF/s":
        return float(row["work"] / nanoseconds)
    return float(nanoseconds / row["work"] / {"ms": 1e6, "us": 1e3}.get(row["unit"], 1))


def ratio(row: Row, contender: str) -> float | None:
    """How many times fastact is faster than the contender; None where either was not timed."""
    times = row["times_ns"]
    if "fastact" not in times or contender not in times:
        return None
    return float(times[contender] / times["fastact"])


def losing(row: Row) -> list[tuple[str, float]]:
    """The contenders that beat fastact by more than what counts as equal."""
    bar = EQUAL_IN_MEMORY if row["section"] == "activations" and row["work"] >= 1 << 25 else EQUAL
    bar = EQUAL_IN_CALLS if row["section"] == "calls" else bar
    ratios = ((name, ratio(row, name)) for name in row["times_ns"] if name != "fastact")
    return [(name, r) for name, r in ratios if r is not None and r < bar]


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """The facts above a process's tables."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    peak = ", ".join(f"{value:.0f} GF/s in {dtype}" for dtype, value in machine["peak_gflops"].items())
    barrier = machine["barrier_ns"]
    state = "" if barrier is None else f"; two threads meet in {barrier:.0f} ns ({machine['state']})"
    count = machine["threads"]
    return [
        f"{machine['cpu']}, {machine['instruction_set']}, {versions} ({machine['blas']})",
        f"{count} thread{'s' * (count > 1)}: multiply-add peak {peak}; "
        f"copy {machine['copy_gbytes_per_s']:.0f} GB/s read + write{state}",
    ]


def contenders_of(rows: Iterable[Row]) -> list[str]:
    """Everybody timed in these rows: fastact, NumPy, then the peers."""
    names = {name for row in rows for name in row["times_ns"]}
    return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def heading(row: Row, columns: Sequence[str]) -> str:
    """Title and column names of a section's table."""
    threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
    cells = "".join(f"{name:>9}" if name == "fastact" else f"{name + ' (x)':>{_CELL}}" for name in columns)
    title = f"{SECTIONS[row['section']]}, {row['dtype']}, {threads}, {row['unit']}"
    return f"\n{title}\n{'':{_LABEL}}{cells}{'limit (reached)':>18}"


def line(row: Row, columns: Sequence[str]) -> str:
    """One row: fastact's figure, each contender's with its time over fastact's ("!" where fastact loses), the limit."""
    lost = {name for name, _ in losing(row)}
    text = f"{row['name'] + '  ' + row['shape']:{_LABEL}}"
    for name in columns:
        time = row["times_ns"].get(name)
        width = 9 if name == "fastact" else _CELL
        if time is None:
            text += f"{'failed' if name in row['failed'] else '-':>{width}}"
        elif name == "fastact":
            text += f"{_number(figure(row, time)):>{width}}"
        else:
            r = ratio(row, name)
            beside = "" if r is None else f" ({r:.2f}){'!' if name in lost else ' '}"
            text += f"{_number(figure(row, time)) + beside:>{width}}"
    if row["limit_ns"]:
        reached = row["limit_ns"] / row["times_ns"]["fastact"] if "fastact" in row["times_ns"] else None
        share = "" if reached is None else f" ({reached:.0%})"
        text += f"{_number(figure(row, row['limit_ns'])) + share:>18}"
    for name, reason in row["failed"].items():
        text += f"\n    {name}: {reason}"
    return text


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """Where fastact loses, cell by cell, and the geometric mean of the ratios to each contender."""
    compared = [
        (row, name, r) for row in rows for name in row["times_ns"] if name != "fastact" and (r := ratio(row, name))
    ]
    if not compared:
        return
    lost = [(row, name, r) for row in rows for name, r in losing(row)]
    yield f"\nfastact is as fast as the other or faster in {len(compared) - len(lost)} of {len(compared)} comparisons."
    for name in contenders_of(rows):
        ratios = [r for _, other, r in compared if other == name]
        if ratios:
            mean = 1.0
            for r in ratios:
                mean *= r ** (1 / len(ratios))
            yield f"  {mean:.2f} times {name} in the geometric mean (from {min(ratios):.2f} to {max(ratios):.2f})"
    if lost:
        yield "Slower:"
    for row, name, r in sorted(lost, key=lambda item: item[2]):
        threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
        yield f"  {r:.2f} of {name}  {row['name']}  {row['shape']}  {row['dtype']}, {threads}"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Ratios to fastact as bars, one panel a section, into a picture file.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sections = [s for s in SECTIONS if any(row["section"] == s for row in rows)]
    names = [name for name in contenders_of(rows) if name != "fastact"]
    groups = {section: [row for row in rows if row["section"] == section] for section in sections}
    picture = Figure(figsize=(10, 1 + sum(0.6 + 0.3 * len(group) for group in groups.values())), layout="constrained")
    FigureCanvasAgg(picture)
    panels = picture.subplots(len(sections), 1, squeeze=False, height_ratios=[2 + len(groups[s]) for s in sections])
    for section, panel in zip(sections, panels[:, 0], strict=True):
        group = groups[section]
        height = 0.8 / len(names)
        for number, name in enumerate(names):
            values = [ratio(row, name) or float("nan") for row in group]
            places = [place + number * height for place in range(len(group))]
            panel.barh(places, values, height, label=name, color=f"C{ORDER.index(name) if name in ORDER else 9}")
        panel.axvline(1, color="black", linewidth=1)
        panel.set_xscale("log")
        panel.set_yticks([place + 0.4 - height / 2 for place in range(len(group))])
        panel.set_yticklabels([f"{row['name']} {row['shape']}, {row['threads']} thr" for row in group], fontsize=7)
        panel.invert_yaxis()
        panel.set_title(f"{SECTIONS[section]}: times of the others over fastact's", fontsize=10)
        panel.legend(fontsize=7)
    picture.savefig(path, dpi=120)
