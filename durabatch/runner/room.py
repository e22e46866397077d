"""
A full disk is a pause: what could not be written is written when there is room again, and nothing else happens meanwhile.

Workers go on until their pipes are full and then wait, so what they hold is bounded. A signal ends the wait and the run with the error.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable
from typing import TypeVar

from durabatch.clock import monotonic_s
from durabatch.errors import LedgerFullError, OutputFullError
from durabatch.ledger.paths import shown

__all__ = ["Room"]

#: Seconds between two tries, and between two reminders.
PAUSE_S, REMIND_S = 0.25, 60.0

_T = TypeVar("_T")


class Room:
    """
    Waits for room on the disk of a ledger.

    Args:
        wake: Descriptor that becomes readable when a signal came.
        is_told_to_stop: Whether a signal came.
        note: Tells the person something.

    Attributes:
        waited_s: Seconds that were waited in all.
    """

    def __init__(self, path: str, *, wake: int, is_told_to_stop: Callable[[], bool], note: Callable[[str], None]) -> None:
        self.path = path
        self.wake = wake
        self.is_told_to_stop = is_told_to_stop
        self.note = note
        self.waited_s = 0.0

    def until_done(self, act: Callable[[], _T]) -> _T:
        """
        Call *act*, again and again as long as the disk is too full for it, and return what it returns.

        Args:
            act: Does something; after LedgerFullError or OutputFullError it can be done again.

        Raises:
            LedgerFullError, OutputFullError: The disk is full and a signal came.
        """
        begun_s: float | None = None
        told_s = 0.0
        while True:
            try:
                done = act()
            except (LedgerFullError, OutputFullError):
                now_s = monotonic_s()
                begun_s = begun_s or now_s
                if self.is_told_to_stop():
                    raise
                if now_s - told_s > REMIND_S:
                    told_s = now_s
                    self.note(self.words())
                self.pause()
                continue
            if begun_s is not None:
                self.waited_s += monotonic_s() - begun_s
                self.note("there is room on the disk again; going on")
            return done

    def pause(self) -> None:
        """Wait a moment, or until somebody wakes us."""
        if self.wake in select.select([self.wake], [], [], PAUSE_S)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 1 << 12)

    def words(self) -> str:
        """Return what a person is told."""
        found = os.statvfs(os.path.dirname(self.path) or ".")
        free_kib = found.f_bavail * found.f_frsize >> 10
        return f"the disk of {shown(self.path)} is full ({free_kib:,} KiB free): the run waits until there is room, nothing is lost (Ctrl-C ends it)"
