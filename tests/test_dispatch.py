"""The choice of instruction set: best by default, lowered on request, refused with a list of what is there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import fastact as fa
from fastact._core import runtime


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("FASTACT_MAX_ISA", "OMP_NUM_THREADS")} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd="/", timeout=120)


def test_best_is_chosen_by_default():
    done = run_python("from fastact._core import runtime as r; print(r.isa_active() == r.isa_available()[-1])")
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("name", runtime.isa_available())
def test_variable_lowers_the_set(name):
    done = run_python("import fastact as fa; fa.show_config()", FASTACT_MAX_ISA=name.upper())
    assert f"instruction set: {name}" in done.stdout, done.stderr


def test_unavailable_set_is_an_error_that_lists_what_is_there():
    done = run_python("import fastact", FASTACT_MAX_ISA="sse9")
    assert done.returncode != 0
    for part in ("FASTACT_MAX_ISA", "sse9", *runtime.isa_available()):
        assert part in done.stderr


def test_scalar_is_always_there():
    assert runtime.isa_names()[0] == "scalar"
    assert "scalar" in runtime.isa_available()


def test_each_set_runs_its_own_code(isa):
    assert runtime.isa_active() == isa
    lanes = {"scalar": (1, 1), "neon": (4, 2), "avx2": (8, 4), "avx512": (16, 8)}
    assert runtime.lanes() == lanes[isa]


def test_selecting_an_unknown_set_changes_nothing():
    before = runtime.isa_active()
    with pytest.raises(ValueError, match="sse9"):
        runtime.isa_select("sse9")
    assert runtime.isa_active() == before


def test_show_config_prints_the_facts(capsys):
    fa.show_config()
    text = capsys.readouterr().out
    for part in ("fastact", "numpy", "instruction set", "OpenMP", "cores", "threads"):
        assert part in text
