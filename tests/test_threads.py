"""Thread policy: precedence of the settings, serial where threads don't pay, children of fork and of spawn."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastact as fa
from fastact import threads
from fastact._core import runtime

needs_openmp = pytest.mark.skipif(not runtime.has_openmp(), reason="this build has no OpenMP")


@pytest.fixture(autouse=True)
def _unset():
    yield
    fa.set_num_threads(None)


@needs_openmp
def test_precedence(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert fa.get_num_threads() == 5
    fa.set_num_threads(4)
    assert fa.get_num_threads() == 4
    with fa.num_threads(3):
        assert fa.get_num_threads() == 3
        with fa.num_threads(2):
            assert fa.get_num_threads() == 2
        assert fa.get_num_threads() == 3
    assert fa.get_num_threads() == 4
    fa.set_num_threads(None)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert fa.get_num_threads() == threads.available_cores()


@needs_openmp
@pytest.mark.parametrize("text", ["", "zero", "-3", "0"])
def test_nonsense_in_the_environment_is_ignored(monkeypatch, text):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert fa.get_num_threads() == threads.available_cores()


@needs_openmp
def test_context_belongs_to_its_thread():
    seen = []
    with fa.num_threads(7):
        other = threading.Thread(target=lambda: seen.append(fa.get_num_threads()))
        other.start()
        other.join()
        assert fa.get_num_threads() == 7
    assert seen == [threads.available_cores()]


@pytest.mark.parametrize("bad", [0, -1, 5000])
def test_out_of_range(bad):
    with pytest.raises(ValueError, match=f"got {bad}"):
        fa.set_num_threads(bad)


@pytest.mark.parametrize("bad", [1.5, "2", True])
def test_wrong_type(bad):
    with pytest.raises(TypeError, match="whole number"):
        fa.num_threads(bad)


@needs_openmp
def test_small_work_stays_serial_and_large_work_does_not():
    with fa.num_threads(2):
        assert runtime.threads_for_work(1_000, 100) == 1
        assert runtime.threads_for_work(1e9, 100) == 2
        assert runtime.threads_for_work(1e9, 1) == 1


def test_cgroup_quota_is_read(monkeypatch):
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: 0.5)
    assert threads.available_cores() == 1
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: None)
    assert threads.available_cores() >= 1


USE = """
import numpy as np, fastact as fa
a = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
x = np.linspace(-5, 5, 1 << 20, dtype=np.float32)
def use():
    with fa.num_threads(2):
        return float(fa.matmul(a, a).sum()) + float(fa.gelu(x).sum())
"""


def work(_=None) -> float:
    """A call of each parallel family, large enough for two threads."""
    scope: dict = {}
    exec(USE, scope)
    return scope["use"]()


def test_fork_after_use_does_not_hang():
    """GNU OpenMP's workers don't survive a fork: the child must run serially, and give the same numbers."""
    code = (
        USE
        + """
import os, sys
here = use()
pid = os.fork()
if pid == 0:
    from fastact._core import runtime
    os._exit(0 if use() == here and runtime.get_limit() == 1 else 3)
_, status = os.waitpid(pid, 0)
assert use() == here
sys.exit(os.waitstatus_to_exitcode(status))
"""
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, (done.returncode, done.stderr)


@pytest.mark.parametrize("method", [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()])
def test_multiprocessing(method, tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(f"""
import multiprocessing as mp
{USE}
def job(_):
    return use()
if __name__ == "__main__":
    here = use()
    with mp.get_context({method!r}).Pool(2) as pool:
        assert pool.map_async(job, range(4)).get(timeout=50) == [here] * 4
""")
    command = [sys.executable, "-W", "ignore", str(script)]
    done = subprocess.run(command, timeout=90, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_calls_from_many_python_threads_agree():
    expected = work()
    results: list[float] = []
    pool = [threading.Thread(target=lambda: results.append(work())) for _ in range(6)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join(timeout=60)
    assert results == [expected] * 6


def test_region_cost_is_measured_once():
    first = runtime.region_ns()
    assert first == runtime.region_ns()
    assert np.isfinite(first)
