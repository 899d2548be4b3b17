"""Progress of ``fit`` on the terminal: one bar an epoch with loss and samples per second."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

REFRESH = 0.1  # seconds between two drawings; in between an update costs the reading of a clock


class Progress:
    """Bars on stderr, or nothing.

    Parameters
    ----------
    show : bool or None
        None shows them where stderr is a terminal.
    epochs : int
        Number of the last epoch.
    """

    def __init__(self, show: bool | None, epochs: int) -> None:
        self.show = sys.stderr.isatty() if show is None else bool(show)
        self._epochs = epochs
        self._bar: Any = None
        self._pending = 0
        self._next = 0.0

    def begin(self, epoch: int, rows: int | None, done: int) -> None:
        """A new epoch, numbered from 1, of which ``done`` of ``rows`` rows (None: nobody knows) are behind us."""
        if self.show:
            from tqdm import tqdm  # type: ignore[import-untyped]

            self._bar = tqdm(
                total=rows, initial=done, desc=f"epoch {epoch}/{self._epochs}", unit=" samples", unit_scale=True
            )

    def update(self, rows: int, loss: float) -> None:
        """``rows`` more rows are done; ``loss`` is the mean of this epoch so far."""
        if self._bar is None:
            return
        self._pending += rows
        now = time.perf_counter()
        if now >= self._next:
            self._next = now + REFRESH
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            self._bar.update(self._pending)
            self._pending = 0

    def end(self, row: Mapping[str, Any]) -> None:
        """The epoch is done; its measurements stay on the screen."""
        if self._bar is None:
            return
        shown = {k: f"{v:.4f}" for k, v in row.items() if isinstance(v, float) and k != "seconds"}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(self._pending)
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            self._pending = 0
