"""How many threads fastact uses: one policy for every kernel.

Strongest first: ``with num_threads(n)`` (this thread only), ``set_num_threads(n)`` (the process), ``OMP_NUM_THREADS``,
and the cores that the process may really use: its CPU affinity, cut down to the container's CPU quota. Whatever the
limit, a call goes parallel only where the measured cost of doing so pays. A forked child runs on one thread.
"""

from __future__ import annotations

import math
import os
from types import TracebackType

from fastact._core import runtime


def available_cores() -> int:
    """Cores that this process may really use: CPU affinity, limited by the cgroup's quota (rounded up)."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def _cgroup_quota() -> float | None:
    """CPUs that the container's quota allows, from cgroup v2 or v1, or None without one."""
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        with open("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") as file:
            quota_us = int(file.read())
        with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us") as file:
            return quota_us / int(file.read()) if quota_us > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _checked(n: int, name: str) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"{name}: expected a whole number of threads >= 1, got {n!r}")
    n = n.__index__()
    if not 1 <= n <= 4096:
        raise ValueError(f"{name}: expected a number of threads from 1 to 4096, got {n}")
    return n


def set_num_threads(n: int | None) -> None:
    """Set the most threads that a call may use, for the whole process.

    Parameters
    ----------
    n : int or None
        At least 1. None takes the setting back, so that ``OMP_NUM_THREADS`` and the cores decide again.

    Examples
    --------
    >>> import fastact as fa
    >>> fa.set_num_threads(1)
    >>> fa.get_num_threads()
    1
    >>> fa.set_num_threads(None)
    """
    runtime.set_process_limit(0 if n is None else _checked(n, "n"))


def get_num_threads() -> int:
    """Most threads that a call from this thread may use now."""
    return runtime.get_limit()


class num_threads:
    """Context manager: at most ``n`` threads for calls made by this thread inside the block.

    Parameters
    ----------
    n : int
        At least 1.

    Examples
    --------
    >>> import fastact as fa
    >>> with fa.num_threads(1):
    ...     fa.get_num_threads()
    1
    """

    def __init__(self, n: int) -> None:
        self._n = _checked(n, "n")
        self._before: list[int] = []

    def __enter__(self) -> num_threads:
        self._before.append(runtime.set_local_limit(self._n))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        runtime.set_local_limit(self._before.pop())


runtime.set_default_limit(available_cores())
