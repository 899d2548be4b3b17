"""A formula of the catalogue as another library is given it: NumPy, with temporaries, or numexpr, in one pass.

`x / (1 + exp(-x))` is Python text over x, dy, y and the parameters. Conditions become `where`, and constants names of
the arrays' own type, as a float64 constant would make float64 of float32.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np

# What formulas use that the libraries lack, in terms of what they have.
_MEANINGS = {
    "sigmoid": "(1 / (1 + exp(-({0}))))",
    "max": "where(({0}) > ({1}), {0}, {1})",
    "min": "where(({0}) < ({1}), {0}, {1})",
    "sign": "where(({0}) > 0, 1, -1)",
    "atan": "arctan({0})",
}
_MISSING = {"erf", "erfc", "Phi", "phi"}
NUMPY = {name: getattr(np, name) for name in ("exp", "log", "sqrt", "tanh", "cosh", "arctan", "abs", "where")}


class _Rewritten(ast.NodeTransformer):
    """Conditions and calls in other words; numbers, but for exponents, by name."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.constants: dict[str, Any] = {}

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        parts = [self.visit(part) for part in (node.test, node.body, node.orelse)]
        return ast.Call(ast.Name("where", ast.Load()), parts, [])

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        operands = [self.visit(part) for part in (node.left, *node.comparators)]
        pairs = [ast.Compare(a, [op], [b]) for a, op, b in zip(operands, node.ops, operands[1:], strict=False)]
        if len(pairs) == 1:
            return pairs[0]
        return ast.BinOp(pairs[0], ast.BitAnd(), pairs[1])  # 0 < x < 1

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if isinstance(node.op, ast.Pow):
            return ast.BinOp(self.visit(node.left), node.op, node.right)
        self.generic_visit(node)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        name = f"c{len(self.constants)}"
        self.constants[name] = self.dtype.type(node.value)
        return ast.Name(name, ast.Load())


def translated(
    formula: str, parameters: dict[str, float], dtype: Any, before: str = ""
) -> tuple[str, dict[str, Any]] | None:
    """The expression behind ``before``, and its constants; None where it needs what neither library has (erf).

    Examples
    --------
    >>> from fastact.bench.formulas import translated
    >>> translated("1 if u > 0 else alpha, u = 2 * x", {"alpha": 0.25}, "float64")[0]
    'where(c0 * x > c1, c2, alpha)'
    """
    expression, *letters = re.split(r", (?=\w+ = )", formula)
    for letter in reversed(letters):
        name, _, meaning = letter.partition(" = ")
        expression = re.sub(rf"\b{name}\b", f"({meaning})", expression)
    if _MISSING & set(re.findall(r"\w+", expression)):
        return None
    expression, dtype = f"{before}({expression})", np.dtype(dtype)
    rewritten = _Rewritten(dtype)
    tree = rewritten.visit(_in_other_words(ast.parse(expression, mode="eval")))
    constants = {"pi": dtype.type(np.pi), **{name: dtype.type(value) for name, value in parameters.items()}}
    return ast.unparse(ast.fix_missing_locations(tree)), constants | rewritten.constants


def _in_other_words(tree: ast.Expression) -> ast.Expression:
    """Calls of `_MEANINGS` written out, innermost first."""

    class Written(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            self.generic_visit(node)
            assert isinstance(node.func, ast.Name)
            meaning = _MEANINGS.get(node.func.id)
            if meaning is None:
                return node
            text = meaning.format(*(ast.unparse(ast.fix_missing_locations(part)) for part in node.args))
            return ast.parse(text, mode="eval").body

    return Written().visit(tree)
