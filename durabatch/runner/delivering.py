"""
Whoever wants to be called about finished batches is called in a thread of its own: however long that takes, the run goes on.

    finished, on disk  →  called, in order  →  marked as delivered by the coordinator

A batch is marked after the call has returned, so a crash in between calls again: at least once for each. The first call that fails ends
the calls, and the run; the batch is delivered again when the run goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from durabatch.clock import monotonic_s
from durabatch.errors import RunHaltedError
from durabatch.output.rows import members
from durabatch.runner.request import BatchOutput
from durabatch.runner.shell import ShellCommand, status_text

__all__ = ["BatchCommand", "Deliverer", "EndCommand", "Failure", "deliverer_of"]

#: What a command reads of each item, as batch files have it.
MEMBERS = ("key", "state", "value", "error", "attempts")
#: Seconds for a group of processes to end after it was killed.
KILL_S = 1.0

Call = Callable[[BatchOutput], object]


@dataclass(frozen=True, slots=True)
class Failure:
    """The call that failed: the number of its batch, and what it raised."""

    number: int
    error: BaseException

    @property
    def reason(self) -> str:
        """What stands on the run."""
        if isinstance(self.error, RunHaltedError):
            return self.error.what
        return f"on_batch of batch {self.number}: {type(self.error).__name__}: {self.error}"


class BatchCommand:
    """Gives a batch to the command of ``--on-batch``, as JSON lines on its stdin."""

    def __init__(self, command: ShellCommand) -> None:
        self.command = command

    def __call__(self, batch: BatchOutput) -> None:
        """
        Run the command to its end.

        Raises:
            RunHaltedError: It ended with another exit code than 0, or could not be started.
        """
        variables = {"DURABATCH_RUN": batch.run, "DURABATCH_BATCH": str(batch.number)}
        if batch.path is not None:
            variables["DURABATCH_OUTPUT_FILE"] = str(batch.path)
        try:
            status = self.command.run((members(result, MEMBERS) + "\n" for result in batch.results), variables)
        except OSError as error:
            raise self.failed(batch.number, error.strerror or str(error)) from error
        if status:
            raise self.failed(batch.number, status_text(status))

    def failed(self, number: int, why: str) -> RunHaltedError:
        """Return the error for a command that failed."""
        return RunHaltedError(f"--on-batch of batch {number}: {why} ({self.command.text})", "Mend it and start the same command again.")


class EndCommand:
    """
    Tells the command of ``--on-end`` how the run went; whether it succeeds changes nothing but a note.

    Args:
        summary: What it reads, as JSON.
        output: Where the results went.
    """

    def __init__(self, command: ShellCommand, summary: dict[str, Any], output: str | None, note: Callable[[str], None]) -> None:
        self.command = command
        self.summary = summary
        self.output = output
        self.note = note

    def __call__(self) -> None:
        """Run the command to its end; what interrupts us ends it."""
        variables = {"DURABATCH_RUN": str(self.summary["run"])}
        if self.output is not None:
            variables["DURABATCH_OUTPUT_FILE"] = self.output
        try:
            status = self.command.run((to_json(self.summary).decode(), "\n"), variables)
        except OSError as error:
            self.note(f"--on-end: {error.strerror or error} ({self.command.text})")
        except BaseException:
            self.command.end(signal.SIGTERM)
            raise
        else:
            if status:
                self.note(f"--on-end: {status_text(status)} ({self.command.text})")


def deliverer_of(
    on_batch: Callable[[BatchOutput], None] | None, command: str | None, ledger: str, wake: Callable[[], None] | None
) -> Deliverer | None:
    """Return what calls the caller's function and then a command about each batch; None when neither is given."""
    shell = ShellCommand(command, os.path.dirname(ledger)) if command is not None else None
    calls: list[Call] = [] if on_batch is None else [on_batch]
    calls += [] if shell is None else [BatchCommand(shell)]
    return Deliverer(tuple(calls), command=shell, wake=wake) if calls else None


class Deliverer:
    """
    Makes the calls, one after the other, in the order in which batches are handed to it.

    Args:
        calls: Who is called about each batch, in this order.
        command: The one of them that runs processes, if one does.
        wake: Called in the thread after each batch, until ``close``.

    Attributes:
        failure: The call that failed; nobody is called any more.
        is_held: No further call is begun.
    """

    def __init__(self, calls: tuple[Call, ...], *, command: ShellCommand | None = None, wake: Callable[[], None] | None = None) -> None:
        self.calls = calls
        self.command = command
        self.wake = wake
        self.changed = threading.Condition()
        self.waiting: deque[tuple[int, BatchOutput]] = deque()
        self.current: int | None = None
        self.done: list[int] = []
        self.failure: Failure | None = None
        self.is_closed = self.is_held = False
        self.pid = os.getpid()
        self.thread: threading.Thread | None = None

    @property
    def outstanding(self) -> set[int]:
        """The batches that were handed over and are not marked: those that wait, the one at hand, those that are done."""
        with self.changed:
            return {*(batch_id for batch_id, _ in self.waiting), *self.done, *([] if self.current is None else [self.current])}

    @property
    def is_idle(self) -> bool:
        """Whether nobody is being called, nor will be without another batch."""
        with self.changed:
            return self.current is None and (not self.waiting or self.failure is not None)

    def hand_over(self, batch_id: int, batch: BatchOutput) -> None:
        """Have everybody called about a batch, after those handed over before."""
        with self.changed:
            self.waiting.append((batch_id, batch))
            self.changed.notify_all()
        if self.thread is None:
            self.thread = threading.Thread(target=self.work, name="durabatch-on-batch", daemon=True)
            self.thread.start()

    def delivered(self) -> list[int]:
        """Return the batches that everybody was called about, and that ``forget`` was not told of."""
        with self.changed:
            return list(self.done)

    def forget(self, batch_ids: list[int]) -> None:
        """Forget batches that are marked now."""
        with self.changed:
            del self.done[: len(batch_ids)]

    def wait(self, timeout_s: float) -> None:
        """Wait until a call has returned, but no longer than that; not at all when none is made or one has returned already."""
        with self.changed:
            if self.done or self.failure is not None or (self.current is None and not self.waiting):
                return
            self.changed.wait(timeout_s)

    def drop(self) -> None:
        """Begin no further call; the batches that wait are delivered another time."""
        with self.changed:
            self.is_held = True
            self.waiting.clear()

    def work(self) -> None:
        """Call, in the thread, until everything is closed or a call fails."""
        while (batch := self.next()) is not None:
            try:
                for call in self.calls:
                    call(batch)
            except BaseException as error:  # noqa: BLE001 - the coordinator raises it, in its own thread
                self.returned(Failure(batch.number, error))
                return
            self.returned(None)

    def next(self) -> BatchOutput | None:
        """Wait for the next batch and return it; None when there will be none."""
        with self.changed:
            while not self.waiting and not self.is_closed:
                self.changed.wait()
            if self.is_closed:
                return None
            self.current, batch = self.waiting.popleft()
            return batch

    def returned(self, failure: Failure | None) -> None:
        """Note how the call about the batch at hand has ended, and wake the coordinator."""
        with self.changed:
            if failure is None and self.current is not None:
                self.done.append(self.current)
            self.current, self.failure = None, failure
            self.changed.notify_all()
            if self.wake is not None and not self.is_closed:
                with contextlib.suppress(OSError):
                    self.wake()

    def end(self, grace_s: float) -> None:
        """End the call at hand, as far as it is a command: kindly at first, and by force after *grace_s*. Nobody is called any more."""
        self.drop()
        if self.command is None:
            return
        for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_S)):
            if not self.is_idle:
                self.command.end(number)
                self.wait_idle(patience_s)

    def wait_idle(self, timeout_s: float) -> None:
        """Wait until nobody is being called, but no longer than that."""
        until_s = monotonic_s() + timeout_s
        with self.changed:
            while self.current is not None and (left_s := until_s - monotonic_s()) > 0:
                self.changed.wait(left_s)

    def close(self) -> None:
        """Have the thread end once the call at hand has returned; a call that never returns is left behind, and a command killed."""
        with self.changed:
            self.is_closed = True
            self.waiting.clear()
            self.changed.notify_all()
        if self.command is not None and not self.is_idle:
            self.command.end(signal.SIGKILL)
        if self.thread is not None and self.thread.is_alive() and os.getpid() == self.pid:
            self.thread.join(KILL_S if self.current is None else 0)
