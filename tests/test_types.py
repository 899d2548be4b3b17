"""What a checker of types says of code that uses the package: nothing of what is right, and of what is wrong."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

import fastact as fa

RIGHT = """
    from typing import Any

    import numpy as np
    import fastact as fa

    cell = fa.nn.LSTM(3, 4)
    cell.bias_ih_l0.value = np.zeros(16)
    model = fa.nn.Sequential(fa.nn.Dense(4, 3), fa.nn.Dense(3, 2))
    width: int = model[0].out_features
    model[0].weight[:1] = 0.0
    shorter: fa.nn.Sequential = model[:1]

    class Scale(fa.nn.Layer):
        def __init__(self) -> None:
            self.add_parameter("factor", np.ones(3))

        def forward(self, x: Any, scale: float = 1.0) -> tuple[Any, Any]:
            factor = self.factor
            return x * factor.value, lambda dy: dy * factor.value

    class Absolute(fa.losses.Loss):
        def measure(self, prediction: Any, target: Any, gradient: Any = None) -> fa.losses.Measure:
            return fa.losses.Measure(float(np.abs(prediction - target).mean()), float(prediction.size))
"""

WRONG = {
    "fa.nn.Dense(3, 2).foward(np.ones(3))": '"Parameter" not callable',
    "fa.nn.LSTM(3, 4).hiden_size + 1": "Unsupported operand",
    "fa.nn.Dense('3', 2)": "incompatible type",
    "fa.losses.CTC().measure(np.ones((1, 2, 3)), [[1]], lengths=[2])": "Unexpected keyword",
}


@pytest.mark.slow  # 10 s without mypy's cache
def test_mypy(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    home = Path(fa.__file__).parent.parent
    if home.name != "site-packages":  # which mypy knows, and does not want to be told
        monkeypatch.setenv("MYPYPATH", str(home))
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(textwrap.dedent(RIGHT))
    wrong.write_text("\n".join(["import numpy as np, fastact as fa", *WRONG]))
    out, _, _ = api.run([str(right), "--strict"])
    assert "right.py" not in out, out
    out, _, _ = api.run([str(wrong)])
    found = [line for line in out.splitlines() if "error:" in line and "wrong.py" in line]
    for number, (line, words) in enumerate(WRONG.items(), 2):
        assert any(f"wrong.py:{number}:" in each and words in each for each in found), (line, out)
