"""
Async handlers in the calling process: on a loop of their own, which runs for a while whenever the coordinator waits.

In a notebook a loop runs already in this thread; there the slices of ours run in threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from durabatch.workers.allowance import Allowance
from durabatch.workers.backlog import Backlog
from durabatch.workers.handlers import Handlers
from durabatch.workers.outcomes import Outcomes
from durabatch.workers.protocol import Start
from durabatch.workers.tasks import Tasks

__all__ = ["Looped"]

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
    ) -> None:
        self.tasks = Tasks(self, backlog, start, handlers, allowance, windows)
        self.report_finished = finish
        self.stop_timer: asyncio.TimerHandle | None = None

    def set_up(self) -> None:
        """Do the handler's own set-up."""
        in_free_thread(self.tasks.set_up)

    def work(self, timeout_s: float) -> None:
        """Run items until some have ended, or for *timeout_s*."""
        in_free_thread(lambda: self.tasks.turn(timeout_s))
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
        in_free_thread(self.tasks.close)

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


def in_free_thread(call: Callable[[], None]) -> None:
    """Call in this thread, or in another one when a loop runs in this one already; what it raises comes through."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        call()
        return
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised again, in the thread that waits
            raised.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
