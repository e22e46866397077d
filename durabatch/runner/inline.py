"""
``--workers 0``: the handler runs in the calling process, for debuggers and notebooks.

It looks like a pool of one worker to the coordinator. What it runs stands in a cell like everywhere, so a kill is recovered alike.
"""

from __future__ import annotations

import os
from collections import deque

from durabatch import process
from durabatch.clock import monotonic_s
from durabatch.loading import LoadedHandler
from durabatch.runner.pool import Arrived, Event
from durabatch.workers.backlog import Backlog
from durabatch.workers.cells import Cells
from durabatch.workers.item_runner import ItemRunner
from durabatch.workers.protocol import Dispatch, Flush, Ready, Release, Released, Start, ToWorker

__all__ = ["InlinePool"]

#: Seconds of items between two ticks of the coordinator; one item may take longer.
SLICE_S = 0.05


class InlinePool:
    """One worker without a process."""

    inline = True

    def __init__(self, start: Start, handler: LoadedHandler, cells: Cells) -> None:
        self.window = cells.window(0)
        self.runner = ItemRunner(start, handler, window=self.window)
        self.backlog = Backlog()
        self.events: deque[Event] = deque()
        cells.occupy(0, os.getpid(), process.start_ticks(os.getpid()) or 0)
        self.waiting = 0

    def start(self, number: int) -> None:
        """Report that items may come."""
        self.events.append(Arrived(number, Ready(os.getpid())))

    def send(self, worker: int, message: ToWorker) -> None:
        """Take a dispatch, or give unstarted items back."""
        if isinstance(message, Dispatch):
            self.backlog.add(message)
            self.waiting += 1
        elif isinstance(message, Release):
            items, gone = self.backlog.release(message.limit)
            self.waiting -= len(gone)
            self.events.append(Arrived(worker, Released(items)))
            self.events.extend(Arrived(worker, Flush(dispatch_id, [], [], [], [], finished=True)) for dispatch_id in gone)

    def poll(self, timeout_s: float) -> list[Event]:  # noqa: ARG002 - there is nobody to wait for
        """Run items for a while, unless something is to be reported already."""
        if not self.events and self.waiting:
            self.run_dispatch()
        events = list(self.events)
        self.events.clear()
        return events

    def run_dispatch(self) -> None:
        """Run one dispatch; what does not fit into the time slice is given back to be claimed again."""
        found = self.backlog.next()
        if found is None:
            return
        self.waiting -= 1
        until = monotonic_s() + SLICE_S
        self.runner.begin(found.dispatch_id)
        for batch_id, works in found.slices:
            while works and monotonic_s() < until:
                self.runner.run(batch_id, works.popleft())
        self.runner.leave()
        unstarted = found.give_back(None)
        if unstarted:
            self.events.append(Arrived(1, Released({found.dispatch_id: unstarted})))
        self.events.append(Arrived(1, self.runner.outcomes.take(found.dispatch_id, finished=True)))

    def interrupt(self) -> None:
        """Give back what was not run: between two items there is nothing to interrupt."""
        self.kill()

    def kill(self) -> None:
        """Give back what was not run."""
        self.send(1, Release())

    def close(self, grace_s: float) -> None:  # noqa: ARG002 - there is nobody to wait for
        """Give back what was not run, and let go of the cells."""
        self.kill()
        self.window.release()
