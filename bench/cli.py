"""``fastact bench``: measure here and now, side by side, and print tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import fastact as fa

from . import catalogue, roofline, tables, timing, worker
from .peers import PEERS

SCHEMA = 1  # of the JSON file


def _counts(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int]:
    if value is None:
        cores = fa.threads.available_cores()
        return [1] if cores == 1 else [1, cores]
    try:
        counts = [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"expected whole numbers such as 1,2, got {value!r}") from None
    if min(counts) < 1:
        raise click.BadParameter(f"expected numbers of threads from 1 on, got {value!r}")
    return counts


def environment(threads: int) -> dict[str, str]:
    """The variables by which every library uses so many threads."""
    names = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "BLIS_NUM", "VECLIB_MAXIMUM", "NUMEXPR_NUM", "NUMEXPR_MAX")
    variables = {f"{name}_THREADS": str(threads) for name in names}
    if threads == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    return {**os.environ, **variables}


def measure(threads: int, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What `worker.run` yields, from a process of its own that has exactly so many cores.

    Raises
    ------
    click.ClickException
        If that process fails; with the last lines that it wrote.
    """
    # With this process's path: `-m` would put the current folder first, and a checkout there would shadow the package.
    code = f"import sys; sys.path[:] = {sys.path!r}; from {worker.__name__} import main; main()"
    command = [sys.executable, "-c", code, json.dumps({**options, "threads": threads})]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(threads),
            preexec_fn=timing.affinity(threads),
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
        finally:
            if process.poll() is None:
                process.terminate()
            process.stdout.close()
            status = process.wait()
        if status:
            errors.seek(0)
            last = "".join(errors.readlines()[-12:])
            raise click.ClickException(f"the measuring process for {threads} threads failed ({status}):\n{last}")


@click.command()
@click.argument("section", type=click.Choice([*worker.SECTIONS, "all"]), default="all")
@click.option("--threads", callback=_counts, metavar="N,N...", help="Thread counts.  [default: 1 and all cores]")
@click.option("--dtype", type=click.Choice(["float32", "float64", "both"]), default="float32", show_default=True)
@click.option("--peers", is_flag=True, help="Also the other libraries that are installed.")
@click.option(
    "--peer",
    "chosen",
    multiple=True,
    type=click.Choice(list(PEERS), case_sensitive=False),
    help="Only this peer; may be repeated.",
)
@click.option("--activation", "names", multiple=True, metavar="NAME", help="Only this activation; may be repeated.")
@click.option("--only", multiple=True, metavar="TEXT",
              help="Of lstm, recurrent, stacks, variants, rounded and streams only rows with this in name and shape, "
              "as 'GRU training T=20 B=1 '; may be repeated.")  # fmt: skip
@click.option("--quick", "level", flag_value="quick", help="A few rows in a few seconds.")
@click.option("--full", "--all", "level", flag_value="full",
              help="Every activation, 60 sampled products, the whole recurrent grid, longer repeats.")  # fmt: skip
@click.option("--tiny", "level", flag_value="tiny", hidden=True)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path),
              help="Draw the activations beside a copy and the best of the others there (matplotlib).")  # fmt: skip
@click.option("--roofline", "roofline_path", type=click.Path(dir_okay=False, path_type=Path),
              help="Draw the share of the roofline of recurrent layers by shape there (matplotlib).")  # fmt: skip
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the ratios there (matplotlib).")
def bench(
    section: str,
    threads: list[int],
    dtype: str,
    peers: bool,
    chosen: tuple[str, ...],
    names: tuple[str, ...],
    only: tuple[str, ...],
    level: str | None,
    json_path: Path | None,
    picture: Path | None,
    roofline_path: Path | None,
    plot: Path | None,
) -> None:
    """Measure activations, products, layers, losses and training against NumPy and other libraries.

    Every row is checked for equal results, then timed in turns; the figure is the minimum. In brackets stands how many
    times faster fastact was; "!" marks where it was slower.
    """
    unknown = [name for name in names if name not in fa.activations]
    if unknown:
        raise click.BadParameter(f"expected activations out of {', '.join(fa.activations)}, got {unknown[0]!r}")
    for path in (json_path, picture, roofline_path, plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.BadParameter(f"expected a file in a folder that exists, got {str(path)!r}")
    options = {
        "sections": list(worker.SECTIONS) if section == "all" else [section],
        "dtypes": ["float32", "float64"] if dtype == "both" else [dtype],
        "level": level or "default",
        "with_peers": list(chosen) or peers,
        "names": list(names) or None,
        "only": list(only),
    }
    machines: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    try:
        for count in threads:
            _one_process(count, options, machines, rows)
    finally:
        if json_path is not None and machines:
            document = {"schema": SCHEMA, "machines": machines, "rows": rows}
            json_path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for text in tables.summary(rows):
        click.echo(text)
    pictures = (
        ("--plot", plot, tables.draw),
        ("--picture", picture, catalogue.draw),
        ("--roofline", roofline_path, roofline.draw),
    )
    for option, path, draw in pictures:
        if path is not None:
            try:
                draw(rows, path)
            except ModuleNotFoundError as missing:
                raise click.ClickException(f"{option} needs matplotlib: pip install matplotlib ({missing})") from None
            except ValueError as error:
                raise click.ClickException(f"{option}: {error}") from None


def _one_process(
    count: int, options: dict[str, Any], machines: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> None:
    """Measure with one thread count, printing rows as they come."""
    columns: list[str] = []
    before = None
    for item in measure(count, options):
        if "machine" in item:
            machines.append(item["machine"])
            click.echo("\n" + "\n".join(tables.machine_lines(item["machine"])))
            continue
        if "columns" in item:
            columns = item["columns"]
            continue
        row = item["row"]
        rows.append(row)
        if (row["section"], row["dtype"]) != before:
            before = row["section"], row["dtype"]
            click.echo(tables.heading(row, columns))
        click.echo(tables.line(row, columns))
