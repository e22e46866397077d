"""
``--workers 0``: the handler runs in the calling process, for debuggers and notebooks.

It looks like a pool of one worker to the coordinator. What it runs stands in cells like everywhere, so a kill is recovered alike. Ordinary
functions and commands run one after the other (here), async handlers several at once (:mod:`durabatch.runner.inline_loop`); both for a
while at a time, between two ticks of the coordinator.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from durabatch import process
from durabatch.clock import monotonic_s
from durabatch.errors import HandlerImportError
from durabatch.runner.pool import Arrived, Event
from durabatch.workers.allowance import Allowance
from durabatch.workers.backlog import Backlog, Waiting
from durabatch.workers.cells import Cell, Cells
from durabatch.workers.handlers import Handlers, check_cpu_limit, load_handlers
from durabatch.workers.item_runner import ItemRunner
from durabatch.workers.outcomes import Outcomes
from durabatch.workers.promises import Promises
from durabatch.workers.protocol import (
    Dispatch,
    FromWorker,
    Promise,
    Ready,
    Recorded,
    Refused,
    Release,
    Released,
    Start,
    ToWorker,
    Tune,
)

__all__ = ["InlinePool"]

#: Seconds of items between two ticks of the coordinator; one item may take longer.
SLICE_S = 0.05
#: Results of this many bytes together are reported without waiting.
FLUSH_BYTES = 256 * 1024

#: Records an undo entry; it is on disk on return, unless the answer is a refusal.
Recorder = Callable[[Promise], Recorded]


class Lane(Protocol):
    """What runs the items."""

    def set_up(self) -> None:
        """Do the handler's own set-up; HandlerImportError when that fails."""
        ...

    def work(self, timeout_s: float) -> None:
        """Run items for a while; where there are none, wait for *timeout_s*."""
        ...

    def tune(self, timeout_s: float | None, concurrency: int) -> None:
        """Have another timeout and another concurrency."""
        ...

    def cut_off(self) -> None:
        """End what is running as interrupted."""
        ...

    def close(self) -> None:
        """Close what the handler asked for."""
        ...


class Turns:
    """Ordinary functions and commands: one after the other. Nothing of theirs is running while the coordinator has its turn."""

    def __init__(
        self,
        backlog: Backlog,
        start: Start,
        handlers: Handlers,
        allowance: Allowance,
        windows: Sequence[memoryview],
        finish: Callable[[Outcomes], None],
        record: Recorder | None,
    ) -> None:
        self.backlog = backlog
        self.allowance = allowance
        self.resources = handlers.resources
        promises = None if record is None else Promises(in_this_thread(record), max_undo_bytes=start.max_undo_bytes)
        self.runner = ItemRunner(start, handlers, allowance=allowance, window=windows[0], promises=promises)
        self.finish = finish

    def set_up(self) -> None:
        """Do the handler's own set-up."""
        self.resources.set_up()

    def work(self, timeout_s: float) -> None:
        """Run items for a slice of time; where there are none, wait for *timeout_s*."""
        runner, until_s = self.runner, monotonic_s() + SLICE_S
        taken = self.backlog.take()
        if taken is None:
            time.sleep(timeout_s)
            return
        while taken is not None:
            waiting, batch_id, work = taken
            if runner.outcomes is not waiting.outcomes:
                runner.begin(waiting)
            runner.run(batch_id, work)
            if self.backlog.ended(waiting):
                self.finish(waiting.outcomes)
            taken = self.backlog.take() if monotonic_s() < until_s and runner.outcomes.waiting_bytes < FLUSH_BYTES else None
        runner.leave()

    def tune(self, timeout_s: float | None, concurrency: int) -> None:  # noqa: ARG002 - there is one at a time here
        """Have another timeout, which ends commands."""
        self.allowance.timeout_s = timeout_s

    def cut_off(self) -> None:
        """Do nothing: between two items there is nothing to interrupt."""

    def close(self) -> None:
        """Close what the handler asked for."""
        self.resources.close()


class InlinePool:
    """
    One worker without a process.

    Args:
        start: What a worker would be told.
        function: The handler, where it has no name by which it could be found.
        cells: Where the items show.
        record: Records undo entries, always called in the thread that calls ``poll``; None where there can be none.

    Raises:
        HandlerImportError: The handler cannot be used.
        UsageError: A limit cannot be kept here.
    """

    inline = True

    def __init__(self, start: Start, function: Callable[..., object] | None, cells: Cells, record: Recorder | None = None) -> None:
        allowance = Allowance(start.timeout_s, start.term_grace_s, start.cpu_limit_s, start.marker)
        handlers = load_handlers(start, allowance, function=function, own_groups=False)
        check_cpu_limit(start, handlers.handler, inline=True)
        ticks = process.start_ticks(os.getpid()) or 0
        for index in range(start.cell_count):
            cells.occupy(start.cell + index, os.getpid(), ticks)
        self.start_frame = start
        self.windows = [cells.window(start.cell + index) for index in range(start.cell_count)]
        self.backlog = Backlog()
        self.events: list[Event] = []
        #: What has ended, of each dispatch that is not finished.
        self.open: dict[int, Outcomes] = {}
        self.is_closed = False
        self.record = record
        self.lane = self.make_lane(handlers, allowance)

    def make_lane(self, handlers: Handlers, allowance: Allowance) -> Lane:
        """Return what fits the handler."""
        if not handlers.handler.is_async:
            return Turns(self.backlog, self.start_frame, handlers, allowance, self.windows, self.finish, self.record)
        # Here: only an async handler needs a loop.
        from durabatch.runner.inline_loop import Looped

        return Looped(self.backlog, self.start_frame, handlers, allowance, self.windows, self.finish, self.record)

    def start(self, number: int) -> None:  # noqa: ARG002 - there is one
        """Report that items may come, or that the handler's set-up fails."""
        try:
            self.lane.set_up()
        except HandlerImportError as error:
            self.report(Refused(str(error), ""))
        else:
            self.report(Ready(os.getpid()))

    def send(self, worker: int, message: ToWorker) -> None:  # noqa: ARG002 - there is one
        """Take a dispatch, give unstarted items back, or change the limits."""
        match message:
            case Dispatch():
                outcomes = self.open[message.dispatch_id] = Outcomes(
                    self.start_frame.worker, self.start_frame.inline_bytes, message.dispatch_id
                )
                self.backlog.add(Waiting(message, outcomes))
            case Release(limit=limit):
                items, gone = self.backlog.release(limit)
                self.report(Released(items))
                for dispatch_id in gone:
                    self.finish(self.open[dispatch_id])
            case Tune(timeout_s=timeout_s, concurrency=concurrency):
                self.lane.tune(timeout_s, concurrency)

    def poll(self, timeout_s: float) -> list[Event]:
        """Run items for a while, unless something is to be reported already."""
        if not self.events:
            self.lane.work(timeout_s)
            for outcomes in list(self.open.values()):
                if outcomes:
                    self.report(outcomes.take(finished=False))
        events, self.events = self.events, []
        return events

    def finish(self, outcomes: Outcomes) -> None:
        """Report a dispatch of which every item has ended or come back."""
        self.report(outcomes.take(finished=True))
        del self.open[outcomes.dispatch_id]

    def report(self, message: FromWorker) -> None:
        """Have a message returned by the next ``poll``."""
        self.events.append(Arrived(self.start_frame.worker, message))

    def running(self, worker: int) -> list[Cell]:  # noqa: ARG002 - there is one
        """Return nothing: nothing that runs here can be ended from outside."""
        return []

    def pids(self) -> dict[int, int]:
        """Return nothing: there is no process but the caller's."""
        return {}

    def terminate(self, worker: int) -> None:  # noqa: ARG002 - there is one
        """Give back what was not run, and interrupt what is running."""
        self.kill()

    def kill_one(self, worker: int) -> None:  # noqa: ARG002 - there is one
        """Give back what was not run, and interrupt what is running."""
        self.kill()

    def interrupt(self) -> None:
        """Give back what was not run, and interrupt what is running."""
        self.kill()

    def kill(self) -> None:
        """Give back what was not run, and interrupt what is running."""
        self.send(self.start_frame.worker, Release())
        self.lane.cut_off()

    def close(self, grace_s: float) -> None:  # noqa: ARG002 - what is running is cut off
        """Give back what was not run, close what the handler asked for, and let go of the cells; a second call finds nothing to do."""
        if self.is_closed:
            return
        self.is_closed = True
        self.kill()
        self.lane.close()
        for window in self.windows:
            window.release()


def in_this_thread(record: Recorder) -> Recorder:
    """Return *record*, refusing to be called in another thread than this one: the ledger belongs to it, and it waits for the handler."""
    own = threading.get_ident()

    def checked(promise: Promise) -> Recorded:
        if threading.get_ident() != own:
            return Recorded(promise.token, refusal="with workers=0 a handler records in its own thread, not in one that it has started")
        return record(promise)

    return checked
