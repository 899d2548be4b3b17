"""numexpr: the whole formula, the catalogue's own, in one pass over blocks, on threads."""

from __future__ import annotations

import fastact as fa
from fastact import reference

from .. import formulas
from ..timing import Run
from .base import Array, Peer


class Numexpr(Peer):
    name = "numexpr"

    def __init__(self, threads: int) -> None:
        import numexpr

        numexpr.set_num_threads(threads)
        self.numexpr = numexpr
        self.version = numexpr.__version__

    def _run(self, formula: str, activation: str, arrays: dict[str, Array], out: Array) -> Run | None:
        parameters = dict(fa.activations[activation].parameters)
        translated = formulas.translated(formula, parameters, out.dtype, "dy * " if "dy" in arrays else "")
        if translated is None:
            return None
        expression, constants = translated
        names = arrays | constants
        return lambda: self.numexpr.evaluate(expression, local_dict=names, global_dict={}, out=out)

    def forward(self, activation: str, x: Array, out: Array, axis: int = -1) -> Run | None:
        if fa.activations[activation].rowwise:
            return None
        return self._run(fa.activations[activation].formula, activation, {"x": x}, out)

    def backward(self, activation: str, x: Array, y: Array, dy: Array, out: Array, axis: int = -1) -> Run | None:
        if fa.activations[activation].rowwise:
            return None
        return self._run(reference.derivatives[activation][0], activation, {"x": x, "y": y, "dy": dy}, out)
