"""Shared fixtures: every available instruction set, thread counts, dtypes; and no shadowing by the source folder.

``python -m pytest`` puts the checkout first on the path, where ``fastact/`` has no compiled core unless it was built in
place. The tests are for the installed package, so that entry goes before anything is imported.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _ROOT]

import numpy as np  # noqa: E402
import pytest  # noqa: E402

import fastact as fa  # noqa: E402
from fastact._core import runtime  # noqa: E402


def pytest_addoption(parser):
    parser.addoption(
        "--budget", type=float, metavar="SECONDS", help="take the tests in random order and skip what is left then"
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--budget") is not None:
        day = int(time.time() // 86400)  # another order, hence other tests, every day; the same all day
        random.Random(day).shuffle(items)
        config.stash[_DEADLINE] = time.monotonic() + config.getoption("--budget")


def pytest_runtest_setup(item):
    if time.monotonic() > item.config.stash.get(_DEADLINE, float("inf")):
        pytest.skip("the budget is used up")


_DEADLINE = pytest.StashKey[float]()


@pytest.fixture(scope="session", autouse=True)
def _elsewhere(tmp_path_factory):
    """A Python started by a test has the current folder on its path: let that not be the checkout either."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session", autouse=True)
def _heeds_ctrl_c():
    """A shell starts what it puts in the background with SIGINT ignored; the tests of Ctrl-C need it, children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=runtime.isa_available())
def isa(request):
    """Run the test once for each instruction set that this machine has."""
    before = runtime.isa_active()
    runtime.isa_select(request.param)
    yield request.param
    runtime.isa_select(before)


@pytest.fixture
def every_isa():
    """For tests that compare instruction sets: ``for name in every_isa`` selects one after the other."""

    def selected():
        for name in runtime.isa_available():
            runtime.isa_select(name)
            yield name

    before = runtime.isa_active()
    yield selected()
    runtime.isa_select(before)


@pytest.fixture(params=[1, 2, 3])
def n_threads(request):
    before = runtime.set_region_ns(300.0)  # a quiet machine's: the parallel path is taken from about 5 us of work on
    with fa.num_threads(request.param):
        yield request.param
    runtime.set_region_ns(before)


@pytest.fixture(params=[np.float32, np.float64], ids=["f32", "f64"])
def dtype(request):
    return np.dtype(request.param)
