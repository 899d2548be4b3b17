"""Ctrl-C between batches instead of within one."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class InterruptGuard:
    """While active, the first Ctrl-C only sets ``pending``; a second one raises KeyboardInterrupt at once.

    Does nothing outside the main thread and where the program has a SIGINT handler of its own.

    Examples
    --------
    >>> from fastact.training.interrupts import InterruptGuard
    >>> with InterruptGuard() as guard:
    ...     guard.check()  # raises KeyboardInterrupt if Ctrl-C came since
    """

    def __init__(self) -> None:
        self.pending = False
        self._active = False

    def __enter__(self) -> InterruptGuard:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, self.handle)
            self._active = True
        return self

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler; serves other signals as well."""
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True

    def check(self) -> None:
        """Raise the KeyboardInterrupt that has been held back."""
        if self.pending:
            raise KeyboardInterrupt

    def __exit__(self, *exception: object) -> None:
        if self._active:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._active = False
