"""One process that measures: given its arguments as JSON, ``main`` prints a line of JSON a row.

Thread counts are set in the environment before any library loads, so each count has a process of its own (the command
starts them); that also keeps one library's sleeping threads out of the next count's figures.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import fastact as fa

from . import (
    activations,
    attention,
    calls,
    convergence,
    losses,
    normalization,
    peers,
    product,
    recurrent,
    shapes,
    timing,
    training,
    values,
)

SECTIONS = (
    *("activations", "calls", "values", "product", "normalization", "losses", "attention"),
    *("lstm", "recurrent", "stacks", "variants", "rounded", "streams", "training", "convergence"),
)
WITHOUT_NUMPY = ("recurrent", "stacks", "variants", "rounded", "streams", "convergence", "losses", "attention")
FLOAT32_ALONE = ("rounded", "convergence")


@dataclass(frozen=True)
class Level:
    """How much is measured, and for how long: `rounds` turns of `seconds` for each contender."""

    rounds: int
    seconds: float
    activations: tuple[str, ...] | None  # None: the whole catalogue
    sizes: dict[str, int]
    rows: list[shapes.RowsShape]
    products: list[shapes.ProductShape]
    lstms: list[shapes.RecurrentShape]
    recurrent: list[shapes.RecurrentShape]
    stacks: list[shapes.RecurrentShape]
    variants: list[shapes.RecurrentShape]
    rounded: list[shapes.RecurrentShape]
    streams: list[shapes.RecurrentShape]
    mlps: list[shapes.MLPShape]
    language_models: list[shapes.LanguageModelShape]
    norms: list[shapes.NormShape]
    losses: list[shapes.NormShape | shapes.CTCShape]
    attention: list[shapes.AttentionShape]
    runs: list[shapes.DigitsRun | shapes.TextRun]


_FIXED_PRODUCTS = shapes.SQUARES + shapes.LAYOUTS + shapes.SKINNY + shapes.FEW_BY_LARGE + shapes.LARGE_RESULT
_DEFAULT = Level(
    rounds=2,
    seconds=0.03,
    activations=activations.MAIN,
    sizes=shapes.ACTIVATION_SIZES,
    rows=shapes.ROWS_SHAPES,
    products=_FIXED_PRODUCTS + shapes.sampled_products(8),
    lstms=shapes.LSTM_SHAPES,
    recurrent=shapes.RECURRENT_SHAPES,
    stacks=shapes.STACK_SHAPES,
    variants=shapes.VARIANT_SHAPES,
    rounded=shapes.ROUNDED_SHAPES,
    streams=shapes.STREAM_SHAPES,
    mlps=shapes.MLP_SHAPES,
    language_models=[shapes.LANGUAGE_MODEL],
    norms=shapes.NORM_SHAPES,
    losses=shapes.LOSS_SHAPES,
    attention=shapes.ATTENTION_SHAPES,
    runs=shapes.TRAINING_RUNS,
)
LEVELS = {
    "tiny": Level(
        rounds=1,
        seconds=0,
        activations=None,
        sizes=shapes.TINY_ACTIVATION_SIZES,
        rows=shapes.TINY_ROWS_SHAPES,
        products=shapes.TINY_PRODUCTS,
        lstms=shapes.TINY_LSTM_SHAPES,
        recurrent=shapes.TINY_LSTM_SHAPES,
        stacks=shapes.TINY_LSTM_SHAPES,
        variants=shapes.TINY_LSTM_SHAPES,
        rounded=shapes.TINY_LSTM_SHAPES,
        streams=shapes.TINY_LSTM_SHAPES,
        mlps=shapes.TINY_MLP_SHAPES,
        language_models=[shapes.TINY_LANGUAGE_MODEL],
        norms=shapes.TINY_NORM_SHAPES,
        losses=shapes.TINY_LOSS_SHAPES,
        attention=shapes.TINY_ATTENTION_SHAPES,
        runs=shapes.TINY_TRAINING_RUNS,
    ),
    "quick": replace(
        _DEFAULT,
        rounds=1,
        seconds=0.02,
        sizes=shapes.QUICK_ACTIVATION_SIZES,
        rows=[],
        products=shapes.QUICK_PRODUCTS,
        lstms=shapes.QUICK_LSTM_SHAPES,
        recurrent=shapes.QUICK_RECURRENT_SHAPES,
        stacks=shapes.STACK_SHAPES[:1],
        variants=shapes.VARIANT_SHAPES[:1],
        rounded=shapes.ROUNDED_SHAPES[:1],
        streams=shapes.STREAM_SHAPES[:2],
        mlps=shapes.MLP_SHAPES[-1:],
        language_models=[],
        norms=shapes.NORM_SHAPES[-1:],
        losses=shapes.LOSS_SHAPES[:1],
        attention=shapes.ATTENTION_SHAPES[:1],
        runs=shapes.TRAINING_RUNS[:1],
    ),
    "default": _DEFAULT,
    "full": replace(
        _DEFAULT,
        rounds=5,
        seconds=0.05,
        activations=None,
        products=_FIXED_PRODUCTS + shapes.sampled_products(60),
        recurrent=shapes.RECURRENT_GRID,
    ),
}


def cases(
    section: str,
    level: Level,
    dtype: str,
    threads: int,
    others: list[peers.Peer],
    names: tuple[str, ...] | None,
    only: tuple[str, ...] = (),
) -> Iterator[timing.Case]:
    """The rows of a section."""
    chosen = names or level.activations or tuple(fa.activations)
    if section == "activations":
        yield from activations.cases(chosen, level.sizes, level.rows, dtype, threads, others)
    elif section == "calls":
        yield from calls.cases(chosen, dtype, others)
    elif section == "values":
        yield from values.cases(chosen, dtype, threads)
    elif section == "product":
        yield from product.cases(level.products, dtype, threads, others)
    elif section == "lstm":
        yield from recurrent.cases(section, ("LSTM",), level.lstms, dtype, threads, others, only)
    elif section in ("recurrent", "stacks"):
        measured = level.recurrent if section == "recurrent" else level.stacks
        yield from recurrent.cases(section, tuple(shapes.GATES), measured, dtype, threads, others, only)
    elif section == "variants":
        yield from recurrent.variant_cases(level.variants, dtype, only)
    elif section == "rounded":
        yield from recurrent.rounded_cases(tuple(shapes.GATES), level.rounded, dtype, only)
    elif section == "streams":
        yield from recurrent.stream_cases(tuple(shapes.GATES), level.streams, dtype, threads, others, only)
    elif section == "normalization":
        yield from normalization.cases(level.norms, dtype, threads, others)
    elif section == "losses":
        yield from losses.cases(level.losses, dtype, threads, others)
    elif section == "attention":
        yield from attention.cases(level.attention, dtype, threads, others)
    else:
        yield from training.cases(level.mlps, level.language_models, dtype, threads, others)


def rows(
    section: str,
    level: Level,
    dtype: str,
    threads: int,
    others: list[peers.Peer],
    names: tuple[str, ...] | None,
    only: tuple[str, ...],
) -> Iterator[timing.Row]:
    """What is measured of a section."""
    if section == "convergence":
        if dtype == "float32":
            yield from convergence.rows(level.runs, level.rounds, threads, others)
        return
    for case in cases(section, level, dtype, threads, others, names, only):
        yield timing.measure(case, threads, level.rounds, level.seconds)


def run(
    sections: tuple[str, ...] = SECTIONS,
    threads: int = 1,
    dtypes: tuple[str, ...] = ("float32",),
    level: str = "default",
    with_peers: bool | tuple[str, ...] = False,
    names: tuple[str, ...] | None = None,
    only: tuple[str, ...] = (),
) -> Iterator[dict[str, Any]]:
    """Measure in this process.

    Parameters
    ----------
    sections : names out of SECTIONS
    threads : int
    dtypes : names of dtypes
    level : name out of LEVELS
    with_peers : bool or names
        All installed peers, none, or those named.
    names : activations to measure instead of the level's, optional
    only : texts, one of which must be in the name and shape of a row of lstm, recurrent, stacks, variants, rounded and
        streams

    Yields
    ------
    dict
        {"machine": facts} first; at each section {"columns": names of contenders}; {"row": fields of timing.Row} for
        each case.
    """
    with fa.num_threads(threads):
        wanted = tuple(peers.PEERS) if with_peers is True else with_peers or ()
        others = list(peers.installed(threads, wanted))
        yield {"machine": timing.machine(threads, dtypes, {peer.name: peer.version for peer in others})}
        chosen = LEVELS[level]
        for section in sections:
            numpy = [] if section in WITHOUT_NUMPY else ["NumPy"]
            yield {"columns": ["fastact", *numpy, *(peer.name for peer in others if peer.offers(section))]}
            for dtype in dtypes:
                for row in rows(section, chosen, dtype, threads, others, names, only):
                    yield {"row": dataclasses.asdict(row)}


def main() -> None:
    """Read the arguments of `run` as JSON and print what it yields."""
    options: Any = {key: tuple(v) if isinstance(v, list) else v for key, v in json.loads(sys.argv[1]).items()}
    for item in run(**options):
        print(json.dumps(item), flush=True)


if __name__ == "__main__":
    main()
