"""
INT, TERM and HUP: the first asks to drain, the second to interrupt, the third ends the process.

The Python handlers only count and write a byte that wakes the coordinator: they never raise, so a commit is never cut off from its
report. A HUP that was ignored when we started (nohup) stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any, Self

__all__ = ["Signals"]

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """
    The signals that came, while the context is open. In any thread but the main one it hears nothing.

    Args:
        patience: The signal with this number ends the process at once: the third, or the second of an inline run, which cannot
            interrupt its own handler. The ledger is consistent then, and the next start recovers.

    Attributes:
        count: How many came.
        first: The first of them; decides the exit code.
    """

    def __init__(self, *, patience: int = 3) -> None:
        self.patience = patience
        self.count = 0
        self.first: int | None = None
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        os.set_blocking(self.write_end, False)
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Start to listen."""
        if threading.current_thread() is threading.main_thread():
            for number in WATCHED:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self.note)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before.clear()
        os.close(self.read_end)
        os.close(self.write_end)

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Count one signal."""
        self.count += 1
        self.first = self.first or number
        if self.count >= self.patience:
            os._exit(128 + self.first)
        with contextlib.suppress(OSError):
            os.write(self.write_end, b"s")

    def wake(self) -> None:
        """Wake the coordinator, as a signal does; OSError when it is awake anyway."""
        os.write(self.write_end, b"w")

    @property
    def exit_code(self) -> int:
        """128 and the number of the first signal."""
        return 128 + (self.first or signal.SIGINT)

    @property
    def name(self) -> str:
        """Name of the first signal."""
        return signal.Signals(self.first or signal.SIGINT).name
