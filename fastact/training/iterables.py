"""Batches from wherever they come: a generator, a function that makes one, a list or loader that can be read again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastact.training.batches import Batch, Seeds


class IterableData:
    """Ready batches: (x, y), (x, y, weight) or (x, y, weight, lengths).

    Parameters
    ----------
    source : iterable, iterator or callable
        A function is called anew for each epoch, and an iterable read anew; an iterator goes on where it stands.
    steps : int, optional
        Batches in an epoch; without, as many as there are.
    name : str
        What the caller calls it, for messages.
    """

    rows = None

    def __init__(
        self, source: Iterable[Any] | Callable[[], Iterable[Any]], steps: int | None = None, name: str = "x"
    ) -> None:
        self.source, self.steps, self.name = source, steps, name

    @property
    def once(self) -> bool:
        """Whether it can be read only once."""
        return not callable(self.source) and iter(self.source) is self.source

    def split(self, fraction: float) -> tuple[IterableData, IterableData]:
        raise ValueError(
            f"validation: expected data of their own, (x, y) or an iterable of batches, where {self.name} is an "
            f"iterable of batches, got the fraction {fraction!r}"
        )

    def batches(self, batch_size: int | None = None, seeds: Seeds = None, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from number ``first`` on; those before are read and passed over, unless ``once``.

        Raises
        ------
        ValueError
            If they end too early.
        TypeError
            For what is no batch.
        """
        batches = iter(self.source() if callable(self.source) else self.source)
        number = 0 if not self.once else first
        while self.steps is None or number < self.steps:
            try:
                item = next(batches)
            except StopIteration:
                break
            number += 1
            if number > first:
                yield self._as_batch(item, number)
        if number < (self.steps or 1):
            hint = "; pass a function that makes a new one, lambda: ..., to read it every epoch" if self.once else ""
            wanted = f"{self.steps} batches" if self.steps else "a batch or more"
            raise ValueError(
                f"{self.name}: expected {wanted} in an epoch, it ended after {number}; "
                f"the updates before are made{hint}"
            )

    def _as_batch(self, item: Any, number: int) -> Batch:
        if not isinstance(item, (tuple, list)) or not 2 <= len(item) <= 4:
            got = f"{len(item)} parts" if isinstance(item, (tuple, list)) else type(item).__name__
            raise TypeError(
                f"{self.name}: expected batches (x, y), (x, y, weight) or (x, y, weight, lengths), got {got} as batch "
                f"{number}"
            )
        return Batch(*item)

    def first_bad(self) -> str | None:
        """Nothing: what has been read is gone."""
        return None


def is_batches(x: Any) -> bool:
    """Whether ``x`` (given without y) can be read as batches."""
    return callable(x) or (isinstance(x, Iterable) and not hasattr(x, "dtype"))
