"""
One item: show it in the cell, call the handler, encode what it returns, keep the outcome. The same code runs in workers and inline.

Whatever a handler raises ends its item and nothing else. The wall clock is read once per dispatch; instants and durations of items come
from the monotonic clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic_ns, time_ns

from durabatch import loading
from durabatch.codec import encode_value
from durabatch.loading import LoadedHandler
from durabatch.workers import command
from durabatch.workers.cells import WORK
from durabatch.workers.context import Context
from durabatch.workers.failure import failure_of
from durabatch.workers.outcomes import Outcomes
from durabatch.workers.protocol import Start, Work

__all__ = ["ItemRunner", "load_handler"]


def load_handler(start: Start, end_leftovers: Callable[[], None] | None = None) -> LoadedHandler:
    """
    Return the handler a Start names: a function with its params bound, or a command.

    Args:
        end_leftovers: Kills processes that a command left behind; None, for inline runs, leaves them alone.

    Raises:
        HandlerImportError: It cannot be imported or used.
    """
    if start.handler["kind"] == "command":
        return command.load(start.handler, max_output_bytes=start.max_result_bytes, end_leftovers=end_leftovers)
    return loading.load(start.handler, start.params)


class ItemRunner:
    """
    Runs items one after the other; outcomes gather in ``outcomes`` until somebody takes them.

    Args:
        start: What the coordinator says about run, limits and worker number.
        handler: The loaded handler, see :func:`load_handler` and ``loading.from_function``.
        window: Where the item shows, see ``Cells.window``; None shows it nowhere.
        restore: Called before every item, to take back what the handler before it changed in the process; None for inline runs.
    """

    def __init__(
        self, start: Start, handler: LoadedHandler, *, window: memoryview | None = None, restore: Callable[[], None] | None = None
    ) -> None:
        self.outcomes = Outcomes(start.worker, start.inline_bytes)
        self._start = start
        self._call = handler.call
        self._takes_context = handler.takes_context
        self._limit_bytes = start.max_result_bytes
        self._window = memoryview(bytearray(WORK.size)) if window is None else window
        self._restore = restore
        self._dispatch_id = 0
        self._wall_offset_ns = 0
        self._is_copy = False

    def begin(self, dispatch_id: int) -> None:
        """Say which dispatch the next items are of. Outcomes of the one before have been taken."""
        self._dispatch_id = dispatch_id
        self._wall_offset_ns = time_ns() - monotonic_ns()

    def run(self, batch_id: int, work: Work) -> None:
        """Run one item. Its outcome is in ``outcomes`` on return, while the cell still shows it: the next item or ``leave`` changes that."""
        item_id, number, key, payload = work
        if self._restore is not None:
            self._restore()
        begun = monotonic_ns()
        started_at_us = (begun + self._wall_offset_ns) // 1000
        WORK.pack_into(self._window, 0, item_id, self._dispatch_id, number, started_at_us, item_id)
        try:
            context = Context(item_id, key, number, self._start.run_name) if self._takes_context else None
            value = encode_value(self._call(payload, context), limit_bytes=self._limit_bytes)
            duration_us = (monotonic_ns() - begun) // 1000
        except BaseException as error:  # noqa: BLE001 - SystemExit, KeyboardInterrupt and GeneratorExit end the item like any other exception
            self._fail(error, work, started_at_us, (monotonic_ns() - begun) // 1000)
            return
        if self._is_copy:
            os._exit(0)
        self.outcomes.succeed(batch_id, work, started_at_us, duration_us, value)

    def leave(self) -> None:
        """Show that no item runs."""
        WORK.pack_into(self._window, 0, 0, 0, 0, 0, 0)

    def become_copy(self) -> None:
        """
        Told in a process that a handler forked off: it may finish the handler, but it records nothing and runs no further item.

        Its parent is the worker and goes on with the same item.
        """
        self._is_copy = True

    def _fail(self, error: BaseException, work: Work, started_at_us: int, duration_us: int) -> None:
        if self._is_copy:
            os._exit(1)
        start = self._start
        self.outcomes.fail(failure_of(error, work, worker=start.worker, started_at_us=started_at_us, duration_us=duration_us))
