"""
The model for async handlers: many tasks on one loop in the main thread, in workers and inline.

A task runs the handler's own coroutine, with nothing around it: what there is to do before and after is done by plain calls, so that an
item costs little more than its task. Only a worker for an async handler imports this module, and with it asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic_ns, time_ns
from typing import Any, Protocol

import msgspec

from durabatch.codec import encode_value
from durabatch.errors import UndoError
from durabatch.loading import LoadedHandler
from durabatch.verdicts import Verdict
from durabatch.workers.allowance import Allowance
from durabatch.workers.async_resources import AsyncResources
from durabatch.workers.attempts import Alarm, Attempt
from durabatch.workers.awaiting import AsyncUndoLog, on_loop
from durabatch.workers.backlog import Backlog, Taken, Waiting
from durabatch.workers.cells import WORK
from durabatch.workers.context import Context
from durabatch.workers.failure import failure_of, timeout_text
from durabatch.workers.handlers import Handlers
from durabatch.workers.outcomes import Outcomes
from durabatch.workers.promises import Promises, UndoLog
from durabatch.workers.protocol import Failure, Start, Work

__all__ = ["Desk", "Tasks"]

NOTHING = (0, 0, 0, 0, 0, 0)
#: An alarm that rings so much too late has been held up.
LATE_S = 0.05


class Desk(Protocol):
    """Where ends of items go: the link of a worker, or the pool of an inline run."""

    def added(self, outcomes: Outcomes) -> None:
        """Told after an outcome was added."""
        ...

    def finish(self, outcomes: Outcomes) -> None:
        """Told when every item of a dispatch has ended or come back."""
        ...

    def rest(self, leave: Callable[[], None]) -> None:
        """Leave a cell whose item has ended, unless an interruption came before."""
        ...


class Tasks:
    """
    Runs items on one loop.

    Args:
        desk: Where the ends of items go.
        backlog: Where items come from.
        start: What the coordinator says.
        handlers: What to call.
        allowance: Limits that ``tune`` changes.
        windows: The cells: no more items than these run at once.
        restore: See :class:`~durabatch.workers.item_runner.ItemRunner`.
        promises: Where undo entries are recorded, from here on by handlers on this loop; None where none can be.
    """

    def __init__(
        self,
        desk: Desk,
        backlog: Backlog,
        start: Start,
        handlers: Handlers,
        allowance: Allowance,
        windows: Sequence[memoryview],
        restore: Callable[[], None] | None = None,
        promises: Promises | None = None,
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self.running: set[Attempt] = set()
        self.concurrency = min(start.concurrency, len(windows))
        self._desk = desk
        self._backlog = backlog
        self._worker, self._run_name, self._limit_bytes = start.worker, start.run_name, start.max_result_bytes
        self._grace_s = start.term_grace_s
        self._handlers = handlers
        self._allowance = allowance
        self._windows = windows
        self._restore = restore
        self._promises = None if promises is None else on_loop(promises, self.loop)
        #: Cells without an item, the one to be used next at the end.
        self._free = list(range(len(windows)))[::-1]
        self._latest: Waiting | None = None
        self._wall_offset_us = 0
        self._alarm = Alarm(self.loop, self._expire)
        self._executor: ThreadPoolExecutor | None = None
        self._broken: BaseException | None = None
        self._is_copy = False

    def set_up(self) -> None:
        """Set the resources up, and take items from here on; HandlerImportError when that fails."""
        self.loop.run_until_complete(self._resources.start())
        self._backlog.notice = self._notice

    def run(self) -> None:
        """Run items until there will be no more; every one of each dispatch is sent or given back on return."""
        self._notice()
        while self.running or not self._backlog.is_over():
            self.turn()

    def turn(self, seconds: float | None = None) -> None:
        """Run the loop until it is stopped, or for *seconds*."""
        timer = None if seconds is None else self.loop.call_later(seconds, self.loop.stop)
        try:
            # The two that go through a loop; the item that raised them has ended with them all the same.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                self.loop.run_forever()
        finally:
            if self._is_copy:
                os._exit(0)
        if timer is not None:
            timer.cancel()
        if self._broken is not None:
            raise self._broken

    def fill(self) -> None:
        """Begin as many items as there are and as may run; stop the loop when nothing is left to do."""
        while self._free and (taken := self._backlog.take(self._has_room)) is not None:
            self._begin(self._free.pop(), taken)
        if not self.running and self._backlog.is_over():
            # What called this may still have something to send.
            self.loop.call_soon(self.loop.stop)

    def tune(self, timeout_s: float | None, concurrency: int) -> None:
        """Have another timeout, also for what is running, and another concurrency."""
        self._soon(partial(self._tune, timeout_s, concurrency))

    def busy(self) -> int | None:
        """
        Return the item whose code keeps the loop from its other work, 0 when it is code of nobody that is known; None when the loop is free.

        The loop is held up when the time of an attempt is over and it could not even say so. Called by another thread.
        """
        late_s = monotonic_ns() / 1e9 - LATE_S
        if not any(attempt.end is not None and attempt.end[0] < late_s and attempt.ended_by is None for attempt in list(self.running)):
            return None
        now = asyncio.current_task(self.loop)
        return next((attempt.work[0] for attempt in list(self.running) if attempt.task is now), 0)

    def cut_off(self) -> None:
        """End what is running as interrupted: it is cancelled, and its ends do not count any more."""
        for attempt in list(self.running):
            failure = self._failure(attempt, asyncio.CancelledError(), attempt.duration_us)
            cut = msgspec.structs.replace(failure, outcome="interrupted", error_type="", error_group="", kinds=[])
            attempt.waiting.outcomes.fail(cut)
            self._forget(attempt)
            self._leave(attempt.slot)
            if self._backlog.ended(attempt.waiting):
                self._desk.finish(attempt.waiting.outcomes)
            if attempt.task is not None:
                attempt.task.cancel()

    def become_copy(self) -> None:
        """
        Told in a process that a handler forked off, in the middle of a step of its task: that step may end, and nothing else is done.

        What the loop would do next is done by the parent.
        """
        self._is_copy = True
        ready = getattr(self.loop, "_ready", None)
        if ready is not None:
            ready.clear()
        self.loop.stop()

    def close(self) -> None:
        """Cancel what the handlers left running, close the resources, and the loop."""
        self._backlog.notice = lambda: None
        if self._promises is not None:
            self._promises.close()
        for part in (self._cancel_rest(), self._resources.stop(), self.loop.shutdown_asyncgens()):
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                self.loop.run_until_complete(part)
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        self.loop.close()

    @property
    def _resources(self) -> AsyncResources:
        assert isinstance(self._handlers.resources, AsyncResources)
        return self._handlers.resources

    def _notice(self) -> None:
        self._soon(self.fill)

    def _soon(self, call: Callable[[], None]) -> None:
        """Have the loop do something; called from any thread. A loop that is closed has nothing left to do."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(call)

    def _has_room(self) -> bool:
        return len(self.running) < self.concurrency

    def _begin(self, slot: int, taken: Taken) -> None:
        waiting, batch_id, work = taken
        if waiting is not self._latest:
            self._latest = waiting
            self._wall_offset_us = (time_ns() - monotonic_ns()) // 1000
        if self._restore is not None:
            self._restore()
        handler = self._handlers.handler if waiting.task == "run" else self._other(waiting, work)
        attempt = Attempt(slot, waiting, batch_id, work, handler)
        begun_us = attempt.begun // 1000
        attempt.started_at_us = begun_us + self._wall_offset_us
        WORK.pack_into(self._windows[slot], 0, work[0], waiting.dispatch_id, work[1], attempt.started_at_us, begun_us, work[0])
        self.running.add(attempt)
        try:
            task = self._task(attempt, handler, work)
        except BaseException as error:  # noqa: BLE001 - an item that cannot even be decoded ends like any other
            self._end(attempt, None, error)
            return
        attempt.task = task
        if self._allowance.timeout_s is not None or waiting.ends_s:
            self._arm(attempt)
        task.add_done_callback(partial(self._done, attempt))

    def _other(self, waiting: Waiting, work: Work) -> LoadedHandler:
        return self._handlers.undoing(work[3]) if waiting.task == "undo" else self._handlers.of(waiting.task)

    def _task(self, attempt: Attempt, handler: LoadedHandler, work: Work) -> asyncio.Future[Any]:
        waiting = attempt.waiting
        if handler.takes_context:
            promises = self._promises if waiting.task == "run" else None
            attempt.context = Context(work[0], work[2], work[1], self._run_name, self._resources.open, promises, waiting.dispatch_id)
            if waiting.task == "undo":
                attempt.context._old = waiting.blobs.get(work[0])
        if handler.is_async:
            return asyncio.Task(handler.call(work[3], attempt.context), loop=self.loop)  # type: ignore[arg-type]
        # A preflight check or an action that is no coroutine: it must not hold up the loop.
        if attempt.context is not None:
            attempt.context._limit = partial(self._allowance.end, attempt.begun / 1e9, waiting.ends_s.get(work[0]))
        if self._executor is None:
            self._executor = ThreadPoolExecutor(len(self._windows))
        return self.loop.run_in_executor(self._executor, handler.call, work[3], attempt.context)

    def _done(self, attempt: Attempt, task: asyncio.Future[Any]) -> None:
        """Record the end of an item and begin the next; called by the loop when its task is done."""
        if attempt.is_over:
            return
        returned = error = None
        try:
            returned = task.result()
        except BaseException as raised:  # noqa: BLE001 - as in ItemRunner.run
            error = raised
        log = None if attempt.context is None else attempt.context._undo_log
        if isinstance(log, AsyncUndoLog) and log.is_busy:
            # A file operation that nobody awaited: what comes after the attempt must not begin beside it.
            error = end_log(log, error)
            log.when_idle(partial(self._end_late, attempt, error))
        else:
            self._end(attempt, returned, error)

    def _end_late(self, attempt: Attempt, error: BaseException | None) -> None:
        if not attempt.is_over:
            self._end(attempt, None, error)

    def _end(self, attempt: Attempt, returned: object, error: BaseException | None) -> None:
        try:
            self._record(attempt, returned, error)
            self._forget(attempt)
            if attempt.task is not None:
                self.fill()
            if self._free and self._free[-1] == attempt.slot:
                self._desk.rest(partial(self._leave, attempt.slot))
            self._desk.added(attempt.waiting.outcomes)
            if self._backlog.ended(attempt.waiting):
                self._desk.finish(attempt.waiting.outcomes)
        except BaseException as broken:  # noqa: BLE001 - the loop would only print it, and the item would never end
            self._broken = broken
            self.loop.stop()

    def _record(self, attempt: Attempt, returned: object, error: BaseException | None) -> None:
        """Add the outcome of an attempt."""
        if self._is_copy:
            os._exit(0)
        outcomes, work = attempt.waiting.outcomes, attempt.work
        duration_us = attempt.duration_us
        value = ""
        if attempt.context is not None and attempt.context._undo_log is not None:
            error = end_log(attempt.context._undo_log, error)
        if error is None:
            try:
                value = encode_value(returned, limit_bytes=self._limit_bytes)
            except BaseException as refused:  # noqa: BLE001 - methods of the value may raise anything
                error = returned if isinstance(returned, Verdict) else refused
        if attempt.context is not None and attempt.context.spent is not None:
            outcomes.spend(work[0], attempt.context.spent)
        if error is None and attempt.ended_by is None:
            outcomes.succeed(attempt.batch_id, work, attempt.started_at_us, duration_us, value)
        else:
            outcomes.fail(self._failure(attempt, error or TimeoutError(), duration_us))

    def _failure(self, attempt: Attempt, error: BaseException, duration_us: int) -> Failure:
        return failure_of(
            error,
            attempt.work,
            worker=self._worker,
            started_at_us=attempt.started_at_us,
            duration_us=duration_us,
            ended_by=attempt.ended_by,
            task=attempt.waiting.task,
        )

    def _forget(self, attempt: Attempt) -> None:
        attempt.is_over = True
        self.running.discard(attempt)
        self._free.append(attempt.slot)

    def _leave(self, slot: int) -> None:
        WORK.pack_into(self._windows[slot], 0, *NOTHING)

    def _arm(self, attempt: Attempt) -> None:
        """Have an attempt ended at its limit. What runs in a thread, a command or a function, is ended in other ways."""
        attempt.end = self._allowance.end(attempt.begun / 1e9, attempt.waiting.ends_s.get(attempt.work[0]))
        if attempt.end is not None and attempt.handler.is_async:
            self._alarm.set(attempt, attempt.end[0])

    def _expire(self, attempt: Attempt) -> None:
        """Cancel an attempt whose time is up. If it does not heed that, it stays in its cell, and the coordinator ends the worker."""
        if attempt.task is None or attempt.task.done() or attempt.end is None:
            return
        _, allowed_s, is_deadline = attempt.end
        attempt.ended_by = timeout_text(allowed_s, deadline=is_deadline)
        if attempt.context is not None:
            attempt.context.cancelled = True
        attempt.task.cancel()

    def _tune(self, timeout_s: float | None, concurrency: int) -> None:
        self._allowance.timeout_s = timeout_s
        self.concurrency = max(1, min(concurrency, len(self._windows)))
        self._alarm.clear()
        for attempt in self.running:
            if attempt.ended_by is None:
                self._arm(attempt)
        self.fill()

    async def _cancel_rest(self) -> None:
        """Cancel every other task there is, and wait for their ends, for a while."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=self._grace_s)


def end_log(log: UndoLog, error: BaseException | None) -> BaseException | None:
    """Close the undo log of an attempt; return *error*, or else what is wrong with the log."""
    try:
        log.end(has_failed=error is not None)
    except UndoError as unawaited:
        return unawaited
    return error
