"""
An item that runs on a loop, and the alarm that goes off when its time is up.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from time import monotonic, monotonic_ns

from durabatch.loading import LoadedHandler
from durabatch.workers.allowance import End
from durabatch.workers.backlog import Waiting
from durabatch.workers.context import Context
from durabatch.workers.protocol import Work

__all__ = ["Alarm", "Attempt"]

#: So many entries of attempts that are over may stay, beside as many as are not.
SPARE_ENTRIES = 1024


class Attempt:
    """
    One item that runs: its place, its times, and what ends it.

    Attributes:
        slot: Its cell.
        begun: When it began, on the monotonic clock, in nanoseconds.
        started_at_us: The same by the wall clock.
        end: When it has to end.
        ended_by: Which limit ended it, in words; None as long as none has.
        is_over: It was recorded.
    """

    __slots__ = (
        "batch_id", "begun", "context", "end", "ended_by", "handler", "is_over", "slot", "started_at_us", "task", "waiting", "work",
    )  # fmt: skip

    def __init__(self, slot: int, waiting: Waiting, batch_id: int, work: Work, handler: LoadedHandler) -> None:
        self.slot = slot
        self.waiting = waiting
        self.batch_id = batch_id
        self.work = work
        self.handler = handler
        self.begun = monotonic_ns()
        self.started_at_us = 0
        self.context: Context | None = None
        self.task: asyncio.Future[object] | None = None
        self.end: End | None = None
        self.ended_by: str | None = None
        self.is_over = False

    @property
    def duration_us(self) -> int:
        """Microseconds since it began."""
        return (monotonic_ns() - self.begun) // 1000


class Alarm:
    """
    Says when the time of an attempt is up.

    One timer of the loop for all of them: most attempts are over long before, and a timer each would cost more than the attempt.

    Args:
        loop: Keeps the time.
        ring: Called with an attempt whose time is up and that is not over.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[Attempt], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._entries: list[tuple[float, int, Attempt]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._most = SPARE_ENTRIES

    def set(self, attempt: Attempt, end_s: float) -> None:
        """Have the alarm go off for *attempt* at *end_s* of the monotonic clock."""
        heapq.heappush(self._entries, (end_s, next(self._numbers), attempt))
        if self._timer is None or end_s < self._timer_s:
            self._wait_until(end_s)
        if len(self._entries) > self._most:
            self._sweep()

    def clear(self) -> None:
        """Forget all of them."""
        self._entries.clear()

    def _wait_until(self, end_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = end_s
        self._timer = self._loop.call_later(max(0.0, end_s - monotonic()), self._look)

    def _look(self) -> None:
        self._timer = None
        entries, now_s = self._entries, monotonic()
        while entries and (entries[0][2].is_over or entries[0][0] <= now_s):
            attempt = heapq.heappop(entries)[2]
            if not attempt.is_over:
                self._ring(attempt)
        if entries:
            self._wait_until(entries[0][0])

    def _sweep(self) -> None:
        """Drop the entries of attempts that are over."""
        self._entries = [entry for entry in self._entries if not entry[2].is_over]
        heapq.heapify(self._entries)
        self._most = 2 * len(self._entries) + SPARE_ENTRIES
