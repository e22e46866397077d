"""
Async handlers in the calling process: on a loop of their own, which runs for a while whenever the coordinator waits.

In a notebook a loop runs already in this thread; there the slices of ours run in threads, and this thread does for them meanwhile what only
it can do: undo entries are recorded in the thread that the ledger belongs to.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

from durabatch.workers.allowance import Allowance
from durabatch.workers.backlog import Backlog
from durabatch.workers.handlers import Handlers
from durabatch.workers.outcomes import Outcomes
from durabatch.workers.promises import Promises
from durabatch.workers.protocol import Promise, Recorded, Start
from durabatch.workers.tasks import Tasks

__all__ = ["Looped"]

_T = TypeVar("_T")

#: After the end of an item the coordinator waits so long for others.
TOGETHER_S = 0.05


class Looped:
    """Async handlers, several items at once."""

    def __init__(
        self,
        backlog: Backlog,
        start: Start,
        handlers: Handlers,
        allowance: Allowance,
        windows: Sequence[memoryview],
        finish: Callable[[Outcomes], None],
        record: Callable[[Promise], Recorded] | None,
    ) -> None:
        self.home = Home()
        promises = None if record is None else Promises(lambda promise: self.home.call(record, promise), max_undo_bytes=start.max_undo_bytes)
        self.tasks = Tasks(self, backlog, start, handlers, allowance, windows, promises=promises)
        self.report_finished = finish
        self.stop_timer: asyncio.TimerHandle | None = None

    def set_up(self) -> None:
        """Do the handler's own set-up."""
        self.home.serve(self.tasks.set_up)

    def work(self, timeout_s: float) -> None:
        """Run items until some have ended, or for *timeout_s*."""
        self.home.serve(lambda: self.tasks.turn(timeout_s))
        if self.stop_timer is not None:
            self.stop_timer.cancel()
            self.stop_timer = None

    def tune(self, timeout_s: float | None, concurrency: int) -> None:
        """Have another timeout and another concurrency."""
        self.tasks.tune(timeout_s, concurrency)

    def cut_off(self) -> None:
        """Cancel what is running; it is reported as interrupted."""
        self.tasks.cut_off()

    def close(self) -> None:
        """Close what the handlers left running and asked for."""
        self.home.serve(self.tasks.close)

    def added(self, outcomes: Outcomes) -> None:  # noqa: ARG002 - all are looked through after the slice
        """Let the coordinator have its turn soon."""
        if self.stop_timer is None:
            self.stop_timer = self.tasks.loop.call_later(TOGETHER_S, self.tasks.loop.stop)

    def finish(self, outcomes: Outcomes) -> None:
        """Report a dispatch that is finished; the coordinator has its turn at once when nothing else is running."""
        self.report_finished(outcomes)
        self.tasks.loop.call_soon(self.stop_when_idle)

    def stop_when_idle(self) -> None:
        """Give the turn back when nothing runs."""
        if not self.tasks.running:
            self.tasks.loop.stop()

    def rest(self, leave: Callable[[], None]) -> None:
        """Leave a cell whose item has ended."""
        leave()


class Home:
    """The thread of the coordinator, in which a loop may run that is not ours."""

    def __init__(self) -> None:
        self._own = threading.get_ident()
        #: What is to be called in it; None when nothing will come any more.
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def serve(self, work: Callable[[], None]) -> None:
        """Do *work* in this thread, or in another one when a loop runs in this one already; what it raises comes through."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            work()
            return

        def whole() -> None:
            try:
                work()
            finally:
                self._calls.put(None)

        outcome = Outcome(whole)
        thread = threading.Thread(target=outcome.make)
        thread.start()
        while (call := self._calls.get()) is not None:
            call()
        thread.join()
        outcome.result()

    def call(self, record: Callable[[Promise], Recorded], promise: Promise) -> Recorded:
        """Return what *record* returns for *promise*, called in the coordinator's thread; from another one only while that one serves it."""
        if threading.get_ident() == self._own:
            return record(promise)
        answer, is_there = Outcome(lambda: record(promise)), threading.Event()

        def whole() -> None:
            answer.make()
            is_there.set()

        self._calls.put(whole)
        is_there.wait()
        return answer.result()


class Outcome(Generic[_T]):
    """What a call comes to, for another thread than that which makes it."""

    def __init__(self, call: Callable[[], _T]) -> None:
        self._call = call
        self._value: list[_T] = []
        self._error: BaseException | None = None

    def make(self) -> None:
        """Make the call."""
        try:
            self._value.append(self._call())
        except BaseException as error:  # noqa: BLE001 - raised again, in the thread that waits
            self._error = error

    def result(self) -> _T:
        """Return what the call returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._value[0]
