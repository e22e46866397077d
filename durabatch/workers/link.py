"""
The worker's end of the two pipes: one thread that reads what the coordinator wants and sends what is finished while an item still runs.

Writing blocks, under a lock, by whichever thread has something to send: a coordinator that reads slowly slows its workers down. The
coordinator must therefore never block on writing to a worker. When it is gone, the process and its children end at once.
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import threading
import time
import traceback
from collections.abc import Callable
from typing import Protocol

from durabatch.workers.backlog import Backlog, Waiting
from durabatch.workers.outcomes import Outcomes
from durabatch.workers.promises import Promises
from durabatch.workers.protocol import (
    Ask,
    Busy,
    Collect,
    Dispatch,
    FrameBuffer,
    FromWorker,
    Interrupt,
    Recorded,
    Release,
    Released,
    Start,
    Stop,
    ToWorker,
    Tune,
    decode_to_worker,
    encode,
)
from durabatch.workers.surroundings import end_relatives, set_aside

__all__ = ["FLUSH_AFTER_S", "FLUSH_BYTES", "LOST", "Link", "Model", "end", "widen"]

#: A result waits no longer than this for company before it is sent.
FLUSH_AFTER_S = 0.05
#: Results of this many bytes together are sent without waiting.
FLUSH_BYTES = 256 * 1024
READ_BYTES = 256 * 1024
#: Room in the outbound pipe, so that a flush rarely waits for its reader; asked for, not needed.
PIPE_BYTES = 1024 * 1024
#: How long a flush in progress may hold up the end once the coordinator is gone: nobody may be left to read it.
FREEZE_S = 5.0
#: Exit status when the coordinator is gone or the pipes are unusable.
LOST = 70


class Model(Protocol):
    """What runs the items of a worker, in one of the ways there are."""

    def run(self) -> None:
        """Run items until there will be no more; every one of each dispatch is sent or given back on return."""
        ...

    def close(self) -> None:
        """Close what the handler asked for."""
        ...

    def tune(self, timeout_s: float | None, concurrency: int) -> None:
        """Have another timeout and another concurrency. Called by the link's thread."""
        ...

    def busy(self) -> int | None:
        """Return the item that holds up all others right now, 0 when that cannot be told; None when nothing does. Called by the link's thread."""
        ...

    def become_copy(self) -> None:
        """Told in a process that a handler forked off: it records nothing and runs no further item."""
        ...


class Link:
    """
    Both pipes of a worker.

    Attributes:
        backlog: Filled here, emptied by the model.
        promises: Undo entries on their way to the coordinator and back.
        start: There once ``started`` is set.
        is_asleep: Whether the thread waits for nothing but the pipe and has to be woken for a first result.
        is_frozen: Cells stay as they are from here on: the process is about to end.
    """

    def __init__(self, inbound: int, outbound: int) -> None:
        self.backlog = Backlog()
        self.promises = Promises(self.send)
        self.started = threading.Event()
        self.start: Start | None = None
        self.is_asleep = False
        self.is_frozen = False
        self._inbound = inbound
        self._outbound = outbound
        self._wake_read, self._wake_write = map(set_aside, os.pipe())
        self._sending = threading.Lock()
        self._model: Model | None = None
        self._tuned: Tune | None = None
        #: What has ended, of each dispatch that is not finished. Changed and copied in single steps.
        self._open: dict[int, Outcomes] = {}
        self._is_copy = False
        widen(outbound)

    def open(self) -> None:
        """Start the thread. Processes that a handler forks off let go of the pipes from here on."""
        os.register_at_fork(after_in_child=self._become_copy)
        threading.Thread(target=self._serve, name="durabatch-link", daemon=True).start()

    def attach(self, model: Model) -> None:
        """Tell *model* from here on what the coordinator wants changed, and what it has wanted so far."""
        self._model = model
        if self._tuned is not None:
            model.tune(self._tuned.timeout_s, self._tuned.concurrency)

    def send(self, message: FromWorker) -> None:
        """Send one message; it is in the pipe on return."""
        with self._sending:
            self._write(message)

    def settle(self, outcomes: Outcomes, leave: Callable[[], None], *, finished: bool) -> None:
        """
        Send everything finished, between two items, and leave the cell.

        In this order: when the pipe cannot be written to, the cell still shows the item that may have broken it. Both happen under the lock,
        so that an interruption that came before keeps the cell as it was.
        """
        if self._is_copy:
            os._exit(0)
        with self._sending:
            self._flush(outcomes, finished=finished)
            leave()

    def rest(self, leave: Callable[[], None]) -> None:
        """
        Leave a cell whose item has ended and has no successor, unless an interruption came before.

        The item's outcome was added before: if the interruption comes now, it still sends it.
        """
        if not self.is_frozen:
            leave()

    def added(self, outcomes: Outcomes) -> None:
        """Told after an outcome was added: it is sent within the flush time, or at once when much has gathered."""
        if self.is_asleep:
            self.wake()
        if outcomes.waiting_bytes >= FLUSH_BYTES:
            with self._sending:
                self._flush(outcomes, finished=False)

    def finish(self, outcomes: Outcomes) -> None:
        """Send what is left of a dispatch of which every item has ended or come back."""
        with self._sending:
            self._flush(outcomes, finished=True)

    def wake(self) -> None:
        """Have the thread look for results to send within the flush time."""
        self.is_asleep = False
        os.write(self._wake_write, b"w")

    def _serve(self) -> None:
        try:
            self._loop()
        except BaseException:  # noqa: BLE001 - a worker without this thread would neither hear nor be heard
            traceback.print_exc()
            end(LOST)

    def _loop(self) -> None:
        poll = select.poll()
        poll.register(self._inbound, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        frames = FrameBuffer()
        due: float | None = None
        while True:
            due = self._due(due)
            events = poll.poll(None if due is None else max(0.0, due - time.monotonic()) * 1000)
            self.is_asleep = False
            for descriptor, _ in events:
                if descriptor == self._wake_read:
                    os.read(self._wake_read, READ_BYTES)
                else:
                    self._read(frames)
            if due is not None and time.monotonic() >= due:
                due = None
                with self._sending:
                    self._flush_all()

    def _due(self, due: float | None) -> float | None:
        """Return when to flush: None when there is nothing to, and the runner then knows that it has to wake us."""
        if not self._has_outcomes():
            self.is_asleep = True
            # A result may have been added just before the flag was up.
            if not self._has_outcomes():
                return None
            self.is_asleep = False
        return time.monotonic() + FLUSH_AFTER_S if due is None else due

    def _has_outcomes(self) -> bool:
        return any(list(self._open.values()))

    def _read(self, frames: FrameBuffer) -> None:
        data = os.read(self._inbound, READ_BYTES)
        if not data:
            self._freeze(FREEZE_S)
            end(LOST)
        for body in frames.feed(data):
            self._obey(decode_to_worker(body))

    def _obey(self, message: ToWorker) -> None:
        match message:
            case Dispatch():
                self._accept(message)
            case Release(limit=limit):
                self._release(limit)
            case Tune():
                self._tuned = message
                if self._model is not None:
                    self._model.tune(message.timeout_s, message.concurrency)
            case Collect():
                self.backlog.ask(gc.collect)
            case Ask():
                self.send(Busy(None if self._model is None else self._model.busy()))
            case Recorded():
                self.promises.answer(message)
            case Interrupt():
                self._interrupt()
            case Stop():
                self.backlog.stop()
            case Start():
                self.start = message
                self.promises.max_undo_bytes = message.max_undo_bytes
                self.started.set()

    def _accept(self, dispatch: Dispatch) -> None:
        assert self.start is not None
        outcomes = Outcomes(self.start.worker, self.start.inline_bytes, dispatch.dispatch_id)
        waiting = Waiting(dispatch, outcomes)
        if not waiting.open_count:
            self.finish(outcomes)
            return
        self._open[dispatch.dispatch_id] = outcomes
        self.backlog.add(waiting)

    def _release(self, limit: int | None) -> None:
        with self._sending:
            items, gone = self.backlog.release(limit)
            self._write(Released(items))
            for dispatch_id in gone:
                self._flush(self._open[dispatch_id], finished=True)

    def _interrupt(self) -> None:
        self._freeze(-1)
        while self._has_outcomes():
            self._flush_all()
        end(0)

    def _freeze(self, timeout_s: float) -> None:
        """
        Keep the cells as they are until the process ends: nothing new is started, and the lock is never given back.

        An item whose children are about to be killed may come to some end by that; it must not look finished.

        Args:
            timeout_s: How long to wait for a flush in progress; -1 as long as it takes.
        """
        self.is_frozen = True
        self.backlog.release()
        self._sending.acquire(timeout=timeout_s)

    def _flush_all(self) -> None:
        for outcomes in list(self._open.values()):
            self._flush(outcomes, finished=False)

    def _flush(self, outcomes: Outcomes, *, finished: bool) -> None:
        if finished or outcomes:
            self._write(outcomes.take(finished=finished))
        if finished:
            self._open.pop(outcomes.dispatch_id, None)

    def _write(self, message: FromWorker) -> None:
        rest = memoryview(encode(message))
        try:
            while rest:
                rest = rest[os.write(self._outbound, rest) :]
        except OSError:
            end(LOST)

    def _become_copy(self) -> None:
        self._is_copy = True
        for descriptor in (self._inbound, self._outbound, self._wake_read, self._wake_write):
            os.close(descriptor)
        if self._model is not None:
            self._model.become_copy()


def widen(pipe: int) -> None:
    """Give a pipe more room where the system has a way and the user's quota allows it."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            return


def end(status: int) -> None:
    """End this process and its children now; nothing of the interpreter is torn down."""
    try:
        end_relatives()
    finally:
        os._exit(status)
