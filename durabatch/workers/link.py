"""
The worker's end of the two pipes: one thread that reads what the coordinator wants and sends what is finished while an item still runs.

Writing blocks, under a lock, by whichever thread has something to send: a coordinator that reads slowly slows its workers down. The
coordinator must therefore never block on writing to a worker. When it is gone, the process and its children end at once.
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
import traceback

from durabatch.workers.backlog import Backlog
from durabatch.workers.item_runner import ItemRunner
from durabatch.workers.protocol import (
    Dispatch,
    Flush,
    FrameBuffer,
    FromWorker,
    Interrupt,
    Release,
    Released,
    Start,
    Stop,
    ToWorker,
    decode_to_worker,
    encode,
)
from durabatch.workers.surroundings import end_relatives, set_aside

__all__ = ["FLUSH_AFTER_S", "FLUSH_BYTES", "Link", "end", "widen"]

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


class Link:
    """
    Both pipes of a worker.

    ``backlog`` is filled here; ``start`` is there once ``started`` is set. ``attach`` gives the runner whose outcomes are sent.
    """

    def __init__(self, inbound: int, outbound: int) -> None:
        self.backlog = Backlog()
        self.started = threading.Event()
        self.start: Start | None = None
        #: Whether the thread waits for nothing but the pipe and has to be woken for a first result.
        self.is_asleep = False
        self._inbound = inbound
        self._outbound = outbound
        self._wake_read, self._wake_write = map(set_aside, os.pipe())
        self._sending = threading.Lock()
        self._runner: ItemRunner | None = None
        self._dispatch_id = 0
        self._is_copy = False
        widen(outbound)

    def open(self) -> None:
        """Start the thread. Processes that a handler forks off let go of the pipes from here on."""
        os.register_at_fork(after_in_child=self._become_copy)
        threading.Thread(target=self._serve, name="durabatch-link", daemon=True).start()

    def attach(self, runner: ItemRunner) -> None:
        """Send the outcomes of *runner* from here on."""
        self._runner = runner

    def begin(self, dispatch_id: int) -> None:
        """Say which dispatch the outcomes are of from here on. All of the one before are sent."""
        with self._sending:
            self._dispatch_id = dispatch_id

    def send(self, message: FromWorker) -> None:
        """Send one message; it is in the pipe on return."""
        with self._sending:
            self._write(message)

    def settle(self, *, finished: bool) -> None:
        """
        Send everything finished, between two items: the cell is left first.

        Both happen under the lock, so that an interruption that came before keeps the cell as it was.
        """
        if self._is_copy or self._runner is None:
            os._exit(0)
        with self._sending:
            self._runner.leave()
            self._flush(finished=finished)

    def wake(self) -> None:
        """Have the thread look for results to send within the flush time."""
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
                    self._flush(finished=False)

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
        return self._runner is not None and bool(self._runner.outcomes)

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
                self.backlog.add(message)
            case Release(limit=limit):
                self._release(limit)
            case Interrupt():
                self._interrupt()
            case Stop():
                self.backlog.stop()
            case Start():
                self.start = message
                self.started.set()

    def _release(self, limit: int | None) -> None:
        with self._sending:
            items, gone = self.backlog.release(limit)
            self._write(Released(items))
            for dispatch_id in gone:
                self._write(Flush(dispatch_id, [], [], [], [], finished=True))

    def _interrupt(self) -> None:
        self._freeze(-1)
        while self._has_outcomes():
            self._flush(finished=False)
        end(0)

    def _freeze(self, timeout_s: float) -> None:
        """
        Keep the cell as it is until the process ends: nothing new is started, and the lock is never given back.

        An item whose children are about to be killed may come to some end by that; it must not look finished.

        Args:
            timeout_s: How long to wait for a flush in progress; -1 as long as it takes.
        """
        self.backlog.release()
        self._sending.acquire(timeout=timeout_s)

    def _flush(self, *, finished: bool) -> None:
        if self._runner is not None and (finished or self._runner.outcomes):
            self._write(self._runner.outcomes.take(self._dispatch_id, finished=finished))

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
        if self._runner is not None:
            self._runner.become_copy()


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
