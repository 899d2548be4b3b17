"""``History``: what each epoch of training measured."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from fastact._files import PathLike, write_atomically


class History(Mapping[str, list[Any]]):
    """Measurements by name, one entry an epoch: ``history["loss"][-1]`` is the latest training loss.

    Of a Trainer: ``epoch`` and ``step`` (counted from 1 and over all fits), ``loss``, ``val_loss``, for classifiers
    ``accuracy`` and ``val_accuracy``, and ``seconds``. None stands where an epoch did not measure something.

    Examples
    --------
    >>> from fastact.training import History
    >>> history = History()
    >>> history.append({"epoch": 1, "loss": 0.5})
    >>> history["loss"], len(history), history.epochs
    ([0.5], 2, 1)
    """

    def __init__(self, columns: Mapping[str, list[Any]] | None = None) -> None:
        self._columns: dict[str, list[Any]] = {name: list(column) for name, column in (columns or {}).items()}

    def __getitem__(self, name: str) -> list[Any]:
        try:
            return self._columns[name]
        except KeyError:
            raise KeyError(f"{name}: history holds {', '.join(self._columns) or 'nothing yet'}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def epochs(self) -> int:
        """Number of rows."""
        return max(map(len, self._columns.values()), default=0)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one epoch."""
        before = self.epochs
        for name in row:
            if name not in self._columns:  # what an epoch adds must not grow with the number of those before
                self._columns[name] = [None] * before
        for name, column in self._columns.items():
            column.append(row.get(name))

    def last(self) -> dict[str, Any]:
        """The latest row."""
        return {name: column[-1] for name, column in self._columns.items()} if self.epochs else {}

    def to_dict(self) -> dict[str, list[Any]]:
        """Plain lists that JSON takes; a number that is not finite becomes None."""
        return {
            name: [None if isinstance(v, float) and not math.isfinite(v) else v for v in column]
            for name, column in self._columns.items()
        }

    def save(self, path: PathLike) -> None:
        """Write it as JSON."""
        write_atomically(path, (json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n").encode())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self._columns == other._columns

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        latest = ", ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.last().items())
        return f"History({latest})"
