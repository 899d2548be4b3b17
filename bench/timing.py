"""Fair timing of contenders side by side, and what the machine can do at that moment.

The rules: every contender does the same work on the same data with the same threads; results are compared before any
timing; contenders take turns, so that a drift of the machine meets all of them; the figure is the minimum over repeats;
and before a turn on more than one thread there is a pause, because an idle OpenMP worker of the contender before spins
for a while and would take a core away.
"""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastact._core import probe, runtime

Run = Callable[[], Any]
"""A piece of work that is set up: a call does it once."""

# Seconds. An idle OpenBLAS worker spins for 2^28 ticks of the clock, about 0.1 s: after a pause of 0.05 s the first
# calls of the next contender were measured at 8 to 16 ms instead of 0.04.
PAUSE = 0.15
NEAR_NS = 150  # two threads that share a cache meet in 50-60 ns, those that do not in 250-280


def as_arrays(result: Any) -> list[NDArray[Any]]:
    """The arrays in what a contender returned: a single one, or a sequence of them, of any library that NumPy reads."""
    items = result if isinstance(result, (list, tuple)) else [result]
    return [np.asarray(item.detach() if hasattr(item, "detach") else item) for item in items]


@dataclass
class Contender:
    """One way to do a case's work: `run` does it once, `arrays` gives its results for the check."""

    name: str
    run: Run
    arrays: Callable[[Any], Sequence[NDArray[Any]]] = as_arrays


CHECKED_CALLS = 3


def first_results(run: Run) -> Callable[[Any], list[NDArray[Any]]]:
    """`arrays` of a contender whose calls go on from each other: the results of the first few, so that a wrong
    gradient, update or state shows."""

    def arrays(result: Any) -> list[NDArray[Any]]:
        found = [np.array(array) for array in as_arrays(result)]
        for _ in range(CHECKED_CALLS - 1):
            found += [np.array(array) for array in as_arrays(run())]
        return found

    return arrays


def contenders(runs: Mapping[str, Run | None], in_turn: bool = False) -> list[Contender]:
    """Those that have the work at all, by name; `in_turn` where each call goes on from the one before."""
    return [
        Contender(name, run, first_results(run) if in_turn else as_arrays)
        for name, run in runs.items()
        if run is not None
    ]


@dataclass
class Case:
    """One row of a table.

    `work` units are done by a call (elements, operations, or 1), shown as `unit`; `limit_ns` is the time the hardware
    needs at least, by `limit` ("copy" or "FMA"). `tolerance` bounds the largest difference from the expected arrays
    (default: the first contender's) as a share of the largest magnitude in each.
    """

    section: str
    name: str
    shape: str
    dtype: str
    contenders: list[Contender]
    work: float
    unit: str
    tolerance: float
    limit_ns: float | None = None
    limit: str = ""
    expected: Sequence[NDArray[Any]] | None = None


@dataclass
class Row:
    """What was measured of a case; `--json` writes these as they are."""

    section: str
    name: str
    shape: str
    dtype: str
    threads: int
    unit: str
    work: float
    limit_ns: float | None
    limit: str
    barrier_ns: float | None
    times_ns: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # (seconds, loss) of training runs


def _difference(got: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> float:
    """Largest difference, as a share of the largest magnitude of each expected array."""
    if len(got) != len(expected):
        raise ValueError(f"results: expected {len(expected)} arrays, got {len(got)}")
    worst = 0.0
    for a, b in zip(got, expected, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"results: expected shape {b.shape}, got {a.shape}")
        if b.size:
            largest = float(np.max(np.abs(b), initial=0, where=np.isfinite(b))) or 1.0
            a = a.astype(np.float64)
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            difference = float(np.max(np.abs(np.subtract(a, b, out=np.zeros(b.shape), where=~same))))
            worst = max(worst, difference / largest if np.isfinite(difference) else np.inf)
    return worst


def shortest(run: Run, seconds: float) -> float:
    """Shortest time of a call within so many seconds, in nanoseconds; short calls are timed in bunches."""
    clock = time.perf_counter_ns
    once = _timed(run)
    if once < 1_000_000:
        once = min(once, *(_timed(run) for _ in range(5)))  # a first call may take 100 times as long: no bunches then
    bunch = max(1, int(20_000 / max(once, 1)))
    best = float(once)
    end = clock() + int(seconds * 1e9)
    calls = 0
    while clock() < end or calls < 2:
        before = clock()
        for _ in range(bunch):
            run()
        best = min(best, (clock() - before) / bunch)
        calls += 1
        if once > 1e9:  # a second a call: one repeat a turn is enough
            break
    return best


def measure(case: Case, threads: int, rounds: int = 3, seconds: float = 0.03) -> Row:
    """Check that all contenders agree, then time them in turns.

    A contender that fails or differs is reported in `failed` and not timed; the others are.
    """
    row = Row(
        case.section,
        case.name,
        case.shape,
        case.dtype,
        threads,
        case.unit,
        case.work,
        case.limit_ns,
        case.limit,
        barrier_ns() if threads > 1 else None,
    )
    expected = case.expected
    running = []
    for contender in case.contenders:
        try:
            arrays = [np.array(a) for a in contender.arrays(contender.run())]
            if expected is None:
                expected = [a.astype(np.float64) for a in arrays]
            error = _difference(arrays, expected)
        except Exception as failure:  # a peer may lack an operation or a dtype; its row says so
            row.failed[contender.name] = f"{type(failure).__name__}: {failure}".splitlines()[0][:200]
            continue
        row.errors[contender.name] = error
        if error <= case.tolerance:
            running.append(contender)
        else:
            row.failed[contender.name] = f"differs by {error:.2g} of the largest value, more than {case.tolerance:.2g}"
    for _ in range(rounds):
        for contender in running:
            if threads > 1 and seconds:
                time.sleep(PAUSE)
            best = shortest(contender.run, seconds)
            row.times_ns[contender.name] = min(best, row.times_ns.get(contender.name, best))
    return row


def _best(run: Run, repeats: int) -> float:
    return min(_timed(run) for _ in range(repeats))


def _timed(run: Run) -> float:
    start = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - start


@functools.cache
def peak(dtype: str, threads: int) -> float:
    """Multiply-add peak in operations per nanosecond (GF/s), measured once a process."""
    double = np.dtype(dtype) == np.float64
    best = 0.0
    for _ in range(30):
        start = time.perf_counter_ns()
        operations = probe.multiply_add(double, 200_000, threads)
        best = max(best, operations / (time.perf_counter_ns() - start))
    return best


@functools.cache
def copy_ns(n: int, dtype: str, threads: int) -> float:
    """Shortest time to copy n elements, with plain or non-temporal stores, measured once a process."""
    if n == 0:
        return 0.0
    source = np.ones(n, dtype)
    room = np.zeros(n + 64, dtype)
    start = -room.ctypes.data % 64 // room.itemsize
    to = room[start : start + n]
    times = max(1, 200_000 // n)
    runs = [functools.partial(probe.copy, source, to, stream, threads, times) for stream in (False, True)]
    return min(_best(run, 10) for run in runs) / times


def barrier_ns() -> float | None:
    """Time in which two spinning threads meet, or None where no two run at once.

    Two virtual cores are either near (about 55 ns) or far apart (about 260 ns), and which one changes within minutes.
    """
    rounds = 1000
    if not probe.meet(rounds):
        return None
    return _best(lambda: probe.meet(rounds), 3) / rounds


def machine(threads: int, dtypes: Sequence[str], versions: dict[str, str]) -> dict[str, Any]:
    """The facts that figures depend on."""
    import fastact

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[call-overload, index]
    barrier = barrier_ns() if threads > 1 else None
    return {
        "cpu": _cpu_name(),
        "cores": fastact.threads.available_cores(),
        "threads": threads,
        "instruction_set": runtime.isa_active(),
        "versions": {"fastact": fastact.__version__, "NumPy": np.__version__, **versions},
        "blas": f"{blas.get('name', '?')} {blas.get('version', '')}".strip(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "peak_gflops": {dtype: peak(dtype, threads) for dtype in dtypes},
        "copy_gbytes_per_s": 2 * 4 * (1 << 23) / copy_ns(1 << 23, "float32", threads),
        "barrier_ns": barrier,
        "state": None if barrier is None else "near" if barrier < NEAR_NS else "far",
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def affinity(threads: int) -> Callable[[], None] | None:
    """What a child process calls first so that every contender in it has exactly that many cores."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))[:threads]
    return lambda: os.sched_setaffinity(0, cores)
