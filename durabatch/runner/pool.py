"""
The worker processes: started, spoken to, listened to, ended. No ledger here, and no decision.

Nothing blocks: the coordinator's ends of the pipes are non-blocking, and what does not fit into a pipe waits in memory until the worker
reads. A worker is dead when its outbound pipe is at its end, whatever killed it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from durabatch.runner.strays import RUN_MARKER, end_group, end_sessions
from durabatch.workers.cells import Cell, Cells
from durabatch.workers.link import widen
from durabatch.workers.protocol import (
    FrameBuffer,
    FromWorker,
    Interrupt,
    Promise,
    ProtocolError,
    Start,
    Stop,
    ToWorker,
    decode_from_worker,
    encode,
)
from durabatch.workers.spawn import spawn_argv

__all__ = ["Arrived", "Died", "Event", "Pool", "ProcessPool", "awaits_commit", "size_of"]

READ_BYTES = 1 << 20
#: What is kept of a worker's output to explain its death.
TAIL_BYTES = 4096
#: Exit status of a worker that the system could not make.
CANNOT_START = 71
#: What handlers print is kept in the log file up to here.
LOG_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Arrived:
    """A worker sent a message, of so many bytes on the pipe."""

    worker: int
    message: FromWorker
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Died:
    """
    A worker's process has ended and everything that it had sent was delivered before.

    Attributes:
        status: Exit status; negative: the signal that ended it.
        cells: What it was running.
        was_ready: It had imported the handler.
        tail: The end of what it printed.
        why: What is known of the reason, when we ended it ourselves.
        peak_rss_bytes: The most memory that it, or a process that it waited for, had resident; None when it never was a process.
    """

    worker: int
    status: int
    cells: tuple[Cell, ...]
    was_ready: bool
    tail: str
    peak_rss_bytes: int | None = None
    why: str | None = None


Event = Arrived | Died


def size_of(events: list[Event]) -> int:
    """Return the bytes that came with *events*."""
    return sum(event.size_bytes for event in events if isinstance(event, Arrived))


def awaits_commit(events: list[Event]) -> bool:
    """Tell whether somebody waits until what came is on disk: an item that is about to have an effect."""
    return any(isinstance(event, Arrived) and isinstance(event.message, Promise) for event in events)


class Pool(Protocol):
    """What the coordinator needs of a set of workers."""

    #: True when items run inside this process, which therefore cannot do anything else meanwhile.
    inline: bool

    def start(self, number: int) -> None:
        """Start the worker *number*, counted from 1; it answers Ready, Refused, or dies."""
        ...

    def send(self, worker: int, message: ToWorker) -> None:
        """Hand *message* to a worker; to one that is gone it is dropped, and its Died event tells so."""
        ...

    def poll(self, timeout_s: float) -> list[Event]:
        """Return what has arrived, waiting up to *timeout_s* for the first."""
        ...

    def running(self, worker: int) -> list[Cell]:
        """Return what a worker runs right now, as its cells show it."""
        ...

    def pids(self) -> dict[int, int]:
        """Return the process of each worker; nothing for items that run inside this process."""
        ...

    def terminate(self, worker: int) -> None:
        """Ask the processes of one worker to end (SIGTERM); its Died event follows when they obey."""
        ...

    def kill_one(self, worker: int) -> None:
        """End one worker now, with everything that it started; its Died event follows."""
        ...

    def interrupt(self) -> None:
        """Have every worker stop at once; each sends what is finished, and its Died event follows."""
        ...

    def kill(self) -> None:
        """End every worker now; their Died events follow."""
        ...

    def close(self, grace_s: float) -> None:
        """End all workers: ask, and kill those that are there after *grace_s*. None is left on return."""
        ...


@dataclass(slots=True)
class WorkerProcess:
    """One process and our ends of its pipes."""

    number: int
    process: subprocess.Popen[bytes]
    inbound: int
    outbound: int
    printed: int
    frames: FrameBuffer = field(default_factory=FrameBuffer)
    unsent: bytearray = field(default_factory=bytearray)
    tail: bytes = b""
    is_ready: bool = False


class ProcessPool:
    """
    Workers as processes of their own session.

    Args:
        make_start: Returns the Start frame for a worker number.
        cells: The side file in which they show what they run; cell *n*-1 belongs to worker *n*.
        lock: Descriptor that holds the workers' lock, inherited by each of them.
        log_path: File for what handlers print.
        marker: Stands in the environment of workers and of what they start, by which all of it is found at the end.
        wake: Descriptor that becomes readable when a signal came; ``poll`` returns then.
    """

    inline = False

    def __init__(
        self, make_start: Callable[[int], Start], *, cells: Cells, lock: int, log_path: str, marker: str, wake: int | None = None
    ) -> None:
        self.make_start = make_start
        self.cells = cells
        self.lock = lock
        self.marker = marker
        self.environment = {**os.environ, RUN_MARKER: marker}
        self.workers: dict[int, WorkerProcess] = {}
        self.selector = selectors.DefaultSelector()
        self.log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self.events: list[Event] = []
        self.is_closed = False
        #: Workers that ended while the pool is being closed; what they left behind is looked for once, at its end.
        self.buried: set[int] = set()
        self.pid = os.getpid()
        if wake is not None:
            self.selector.register(wake, selectors.EVENT_READ, None)

    def start(self, number: int) -> None:
        """Start worker *number*."""
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        our_print, their_print = os.pipe()
        theirs = (their_in, their_out, self.lock)
        try:
            process = subprocess.Popen(
                spawn_argv(*theirs), pass_fds=theirs, stdin=subprocess.DEVNULL, stdout=their_print, stderr=their_print,
                start_new_session=True, env=self.environment,
            )  # fmt: skip
        except OSError as error:
            for descriptor in (our_in, our_out, our_print):
                os.close(descriptor)
            self.events.append(Died(number, CANNOT_START, (), was_ready=False, tail=f"cannot start a process: {error.strerror or error}"))
            return
        finally:
            for descriptor in (their_in, their_out, their_print):
                os.close(descriptor)
        for descriptor in (our_in, our_out, our_print):
            os.set_blocking(descriptor, False)
        widen(our_out)
        worker = WorkerProcess(number, process, inbound=our_out, outbound=our_in, printed=our_print)
        self.workers[number] = worker
        self.selector.register(our_in, selectors.EVENT_READ, (worker, self.read_frames))
        self.selector.register(our_print, selectors.EVENT_READ, (worker, self.read_print))
        self.send(number, self.make_start(number))

    def send(self, worker: int, message: ToWorker) -> None:
        """Hand *message* to a worker."""
        found = self.workers.get(worker)
        if found is None:
            return
        was_empty = not found.unsent
        found.unsent += encode(message)
        if was_empty:
            self.write(found)
            if found.unsent:
                self.selector.register(found.inbound, selectors.EVENT_WRITE, (found, self.write_more))

    def write(self, worker: WorkerProcess) -> None:
        """Write as much as the pipe takes; a worker that is gone takes everything."""
        try:
            while worker.unsent:
                done = os.write(worker.inbound, worker.unsent[:READ_BYTES])
                del worker.unsent[:done]
        except BlockingIOError:
            return
        except OSError:
            worker.unsent.clear()

    def write_more(self, worker: WorkerProcess) -> None:
        """Go on writing to a worker that has room again."""
        self.write(worker)
        if not worker.unsent:
            self.selector.unregister(worker.inbound)

    def poll(self, timeout_s: float) -> list[Event]:
        """Return what has arrived."""
        for key, _ in self.selector.select(timeout_s):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, READ_BYTES)
            elif key.fd in self.selector.get_map():
                worker, act = key.data
                act(worker)
        events, self.events = self.events, []
        return events

    def read_frames(self, worker: WorkerProcess) -> None:
        """Take what a worker sent; the end of the pipe, or bytes that are no frame, are its end."""
        try:
            data = os.read(worker.outbound, READ_BYTES)
        except BlockingIOError:
            return
        try:
            messages = [Arrived(worker.number, decode_from_worker(body), len(body)) for body in worker.frames.feed(data)]
        except ProtocolError:
            self.bury(worker, "the result pipe of the worker was damaged")
            return
        worker.is_ready = worker.is_ready or bool(messages)
        self.events += messages
        if not data:
            self.bury(worker)

    def read_print(self, worker: WorkerProcess) -> None:
        """Keep the end of what a worker prints, and put all of it into the log while that has room."""
        try:
            data = os.read(worker.printed, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.selector.unregister(worker.printed)
            return
        worker.tail = (worker.tail + data)[-TAIL_BYTES:]
        if os.fstat(self.log).st_size < LOG_BYTES:
            with contextlib.suppress(OSError):
                os.write(self.log, data)

    def bury(self, worker: WorkerProcess, why: str | None = None) -> None:
        """Make sure that a worker and everything it started are gone, and report it."""
        if worker.printed in self.selector.get_map():
            self.read_print(worker)
        # The result pipe is at its end, so nothing that it still does can count.
        end_group(worker.process.pid)
        if self.is_closed:
            self.buried.add(worker.process.pid)
        else:
            end_sessions({worker.process.pid})
        status, peak_rss_bytes = reap(worker.process)
        cells = tuple(self.cells.of_worker(worker.number))
        self.forget(worker)
        tail = worker.tail.decode(errors="replace")
        self.events.append(Died(worker.number, status, cells, worker.is_ready, tail.strip(), peak_rss_bytes, why))

    def forget(self, worker: WorkerProcess) -> None:
        """Close our ends of a worker's pipes."""
        registered = self.selector.get_map()
        for descriptor in (worker.inbound, worker.outbound, worker.printed):
            if descriptor in registered:
                self.selector.unregister(descriptor)
            os.close(descriptor)
        self.workers.pop(worker.number, None)

    def running(self, worker: int) -> list[Cell]:
        """Return what a worker runs right now."""
        return self.cells.of_worker(worker)

    def pids(self) -> dict[int, int]:
        """Return the process of each worker."""
        return {number: worker.process.pid for number, worker in self.workers.items()}

    def terminate(self, worker: int) -> None:
        """Ask the processes of one worker to end."""
        if worker in self.workers:
            end_group(self.workers[worker].process.pid, signal.SIGTERM)

    def kill_one(self, worker: int) -> None:
        """End one worker now; what it sent before is still delivered."""
        if worker in self.workers:
            end_group(self.workers[worker].process.pid)

    def interrupt(self) -> None:
        """Have every worker stop at once; each sends what is finished and ends."""
        for number in list(self.workers):
            self.send(number, Interrupt())

    def kill(self) -> None:
        """End every worker now; what they sent before is still delivered."""
        for number in list(self.workers):
            self.kill_one(number)

    def close(self, grace_s: float) -> None:
        """End all workers; a second call, or one in a forked child, finds nothing to do."""
        if self.is_closed or os.getpid() != self.pid:
            return
        self.is_closed = True
        for number in list(self.workers):
            self.send(number, Stop())
        deadline = time.monotonic() + grace_s
        while self.workers and (left := deadline - time.monotonic()) > 0:
            self.poll(min(left, 0.2))
        for worker in list(self.workers.values()):
            self.bury(worker)
        end_sessions(self.buried, marker=self.marker)
        os.close(self.log)
        self.selector.close()


def reap(process: subprocess.Popen[bytes]) -> tuple[int, int | None]:
    """Wait for a process that is ending; return its exit status (negative: a signal) and the most bytes that it had resident."""
    try:
        _, waited, usage = os.wait4(process.pid, 0)
    except ChildProcessError:
        return process.wait(), None
    process.returncode = os.waitstatus_to_exitcode(waited)
    # In kibibytes, except on macOS; see getrusage(2).
    return process.returncode, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
