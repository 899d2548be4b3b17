"""docs/activations and docs/accuracy.md are what their tools would write now; the text needs no matplotlib."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

import fastact as fa

ROOT = Path(__file__).resolve().parent.parent


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages, accuracy = tool("activation_pages"), tool("accuracy")


def test_pages_are_current():
    kept = pages.FOLDER / "speed.json"
    want = pages.texts(json.loads(kept.read_text()) if kept.exists() else None)
    stale = [name for name, text in want.items() if (pages.FOLDER / name).read_text(encoding="utf-8") != text]
    assert not stale, "run tools/activation_pages.py"
    assert {path.name for path in pages.FOLDER.glob("*.md")} == set(want)


def test_every_function_has_its_page_and_the_elementwise_ones_a_picture():
    for f in pages.every():
        text = (pages.FOLDER / f"{f.name}.md").read_text(encoding="utf-8")
        assert f.formula in text
        for picture in re.findall(r"\]\((\w+\.svg)\)", text):
            drawn = (pages.FOLDER / picture).read_text(encoding="utf-8")
            assert drawn.rstrip().endswith("</svg>")
            assert len(drawn) < 20_000
        assert (f"{f.name}.svg" in text) != f.rowwise
    assert sum(path.stat().st_size for path in pages.FOLDER.iterdir()) < 2_000_000


def test_the_errors_of_every_function_are_measured_and_within_their_bounds():
    results = json.loads(accuracy.RESULTS.read_text())
    for tier in accuracy.TIERS:
        assert set(results[tier]) == set(accuracy.listed(tier)), "run tools/accuracy.py"
        for name, f in accuracy.listed(tier).items():
            for dtype, figures in results[tier][name].items():
                assert all(figure["ulp"] <= bound for figure, bound in zip(figures, f.ulp[dtype], strict=True)), name
                assert all((figure["near"] or 0) <= 4 for figure in figures), name
    assert accuracy.TABLE.read_text(encoding="utf-8") == accuracy.table(results), "run tools/accuracy.py --table"


def document():
    """Two rows of a benchmark's JSON file."""
    row = {
        "section": "activations", "name": "gelu forward", "shape": "1M", "dtype": "float32", "threads": 2, "work": 1000,
        "limit_ns": 64.0, "times_ns": {"fastact": 100.0, "NumPy": 900.0, "PyTorch": 250.0},
    }  # fmt: skip
    machine = {"cpu": "some CPU", "instruction_set": "avx2", "versions": {"fastact": "0", "NumPy": "2.0"}}
    alone = {**row, "name": "gelu backward", "times_ns": {"fastact": 200.0}}
    failed = {**row, "name": "relu forward", "times_ns": {"NumPy": 1.0}}
    return {"machines": [machine], "rows": [row, alone, failed, {**row, "section": "product"}]}


def test_speed_comes_from_a_benchmark():
    speed = pages.condensed(document())
    assert json.loads(pages.compact(speed)) == json.loads(json.dumps(speed))
    text = pages.page(fa.gelu, speed)
    assert "some CPU, avx2; NumPy 2.0." in text
    assert "| forward | 1M | float32 | 2 | 0.100 | 0.064 | PyTorch: 2.50 times as long |" in text
    assert "| backward | 1M | float32 | 2 | 0.200 | 0.064 |  |" in text
    assert "## Speed" not in pages.page(fa.relu, speed)


def test_pictures_are_the_same_each_time(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        pages.draw(fa.hard_swish, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    x, y = pages.curve(fa.step, 0)
    assert y[x < 0].max() == 0 < y[x > 0].min()  # and a gap between
    assert y[x == 0] != y[x == 0]
