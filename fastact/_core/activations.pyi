from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

KINDS: tuple[str, ...]
ROWS: dict[str, tuple[int, str]]

def describe(index: int) -> dict[str, Any]: ...
def describe_all() -> list[dict[str, Any]]: ...

class Caller:
    name: str
    index: int
    rowwise: bool
    parameter_names: tuple[str, ...]
    ufunc: np.ufunc
    ufuncs: dict[str, np.ufunc]
    def __new__(
        cls,
        name: str,
        index: int,
        rowwise: bool,
        parameters: Mapping[str, float],
        doc: Callable[[str], str] | None = None,
        base: Caller | None = None,
        facts: dict[str, Any] | None = None,
    ) -> Caller: ...
    def __call__(
        self, x: Any, out: Any = None, *, where: Any = True, dtype: Any = None, axis: Any = None, **params: Any
    ) -> Any: ...
    def backward(
        self,
        dy: Any,
        x: Any = None,
        y: Any = None,
        out: Any = None,
        *,
        where: Any = True,
        dtype: Any = None,
        axis: Any = None,
        **params: Any,
    ) -> Any: ...
    def derivative(
        self, x: Any, order: int = 1, out: Any = None, *, where: Any = True, dtype: Any = None, **params: Any
    ) -> Any: ...
    def reduce_rows(self, x: Any, dy: Any, out: Any, axis: Any, n: int, keepdims: bool) -> Any: ...
