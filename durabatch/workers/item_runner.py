"""
One item: show it in the cell, call the handler, encode what it returns, keep the outcome. The same code runs in workers and inline.

Whatever a handler raises ends its item and nothing else. The wall clock is read once per dispatch; instants and durations of items come
from the monotonic clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from time import monotonic_ns, time_ns

from durabatch.codec import encode_value
from durabatch.verdicts import Verdict
from durabatch.workers.allowance import Allowance
from durabatch.workers.backlog import Waiting
from durabatch.workers.cells import WORK
from durabatch.workers.context import Context
from durabatch.workers.failure import failure_of
from durabatch.workers.handlers import Handlers
from durabatch.workers.outcomes import Outcomes
from durabatch.workers.promises import Promises
from durabatch.workers.protocol import Start, Task, Work

__all__ = ["ItemRunner"]


class ItemRunner:
    """
    Runs items one after the other, in one thread; outcomes gather in those of the dispatch.

    Args:
        start: What the coordinator says about run, limits and worker number.
        handlers: The loaded handler with what belongs to it.
        allowance: What a command may take.
        window: Where the item shows, see ``Cells.window``; None shows it nowhere.
        restore: Called before every item, to take back what the handler before it changed in the process; None for inline runs.
        promises: Where undo entries are recorded; None where none can be.
    """

    def __init__(
        self,
        start: Start,
        handlers: Handlers,
        *,
        allowance: Allowance | None = None,
        window: memoryview | None = None,
        restore: Callable[[], None] | None = None,
        promises: Promises | None = None,
    ) -> None:
        self.outcomes = Outcomes(start.worker, start.inline_bytes)
        self._worker = start.worker
        self._run_name = start.run_name
        self._limit_bytes = start.max_result_bytes
        self._handlers = handlers
        self._allowance = allowance or Allowance()
        self._window = memoryview(bytearray(WORK.size)) if window is None else window
        self._restore = restore
        self._resource = handlers.resources.open
        self._wall_offset_us = 0
        self._is_copy = False
        self._ends_s: dict[int, float] = {}
        self._blobs: dict[int, bytes] = {}
        self._all_promises = promises
        self._choose("run")

    def begin(self, waiting: Waiting) -> None:
        """Say which dispatch the next items are of."""
        self.outcomes = waiting.outcomes
        self._ends_s = waiting.ends_s
        self._wall_offset_us = (time_ns() - monotonic_ns()) // 1000
        self._blobs = waiting.blobs
        if waiting.task != self._task:
            self._choose(waiting.task)

    def run(self, batch_id: int, work: Work) -> None:
        """Run one item. Its outcome is in ``outcomes`` on return, while the cell still shows it: the next item or ``leave`` changes that."""
        item_id, number, key, payload = work
        if self._restore is not None:
            self._restore()
        begun = monotonic_ns()
        begun_us = begun // 1000
        started_at_us = begun_us + self._wall_offset_us
        WORK.pack_into(self._window, 0, item_id, self.outcomes.dispatch_id, number, started_at_us, begun_us, item_id)
        context = returned = None
        try:
            if self._takes_context:
                context = Context(item_id, key, number, self._run_name, self._resource, self._promises, self.outcomes.dispatch_id)
                if self._is_special:
                    context._limit = partial(self._allowance.end, begun / 1e9, self._ends_s.get(item_id))
                    context._old = self._blobs.get(item_id)
            returned = self._call(payload, context)
            if context is not None and context._undo_log is not None:
                context._end(has_failed=False)
            value = encode_value(returned, limit_bytes=self._limit_bytes)
            duration_us = (monotonic_ns() - begun) // 1000
        except BaseException as error:  # noqa: BLE001 - SystemExit, KeyboardInterrupt and GeneratorExit end the item like any other exception
            duration_us = (monotonic_ns() - begun) // 1000
            self._fail(returned if isinstance(returned, Verdict) else error, work, context, started_at_us, duration_us)
            return
        if self._is_copy:
            os._exit(0)
        if context is not None and context.spent is not None:
            self.outcomes.spend(item_id, context.spent)
        self.outcomes.succeed(batch_id, work, started_at_us, duration_us, value)

    def leave(self) -> None:
        """Show that no item runs."""
        WORK.pack_into(self._window, 0, 0, 0, 0, 0, 0, 0)

    def become_copy(self) -> None:
        """
        Told in a process that a handler forked off: it may finish the handler, but it records nothing and runs no further item.

        Its parent is the worker and goes on with the same item.
        """
        self._is_copy = True

    def _choose(self, task: Task) -> None:
        handler = self._handlers.of(task)
        self._task: Task = task
        self._call = handler.call
        self._takes_context = handler.takes_context
        #: Neither a function of the user's that is called with an item, nor a check.
        self._is_special = handler.is_command or task == "undo"
        self._promises = self._all_promises if task == "run" else None

    def _fail(self, error: BaseException, work: Work, context: Context | None, started_at_us: int, duration_us: int) -> None:
        if self._is_copy:
            os._exit(1)
        if context is not None:
            context._end(has_failed=True)
            if context.spent is not None:
                self.outcomes.spend(work[0], context.spent)
        self.outcomes.fail(
            failure_of(
                error, work, worker=self._worker, started_at_us=started_at_us, duration_us=duration_us, task=self._task
            )
        )  # fmt: skip
