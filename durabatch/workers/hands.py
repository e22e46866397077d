"""
The model for sync handlers and for commands: one after the other in the main thread, or several at once in threads.

With one at a time nothing is locked per item. Several threads take items one by one, across dispatches; each has a cell of its own.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial

from durabatch.workers.allowance import Allowance, lift_cpu_limit, set_cpu_limit
from durabatch.workers.backlog import Taken
from durabatch.workers.handlers import Handlers
from durabatch.workers.item_runner import ItemRunner
from durabatch.workers.link import FLUSH_BYTES, LOST, Link, end
from durabatch.workers.protocol import Start

__all__ = ["Hands"]


class Hands:
    """
    Runs items of a worker until the coordinator says that there will be no more.

    Args:
        link: Where they come from and their ends go to.
        start: What the coordinator says.
        handlers: What to call, with its resources set up.
        allowance: Limits that ``tune`` changes.
        windows: The worker's cells; with one of them there is never more than one item at a time.
        restore: See :class:`ItemRunner`.
    """

    def __init__(
        self,
        link: Link,
        start: Start,
        handlers: Handlers,
        allowance: Allowance,
        windows: Sequence[memoryview],
        restore: Callable[[], None],
    ) -> None:
        self.concurrency = min(start.concurrency, len(windows))
        self._link = link
        self._allowance = allowance
        self._cpu_limit_s = None if handlers.handler.is_command else start.cpu_limit_s
        if self._cpu_limit_s is not None:
            restore = partial(self._restore_and_limit, restore, self._cpu_limit_s)
        self._resources = handlers.resources
        self._runners = [
            ItemRunner(start, handlers, allowance=allowance, window=window, restore=restore, promises=link.promises) for window in windows
        ]
        self._threads: dict[int, threading.Thread] = {}
        self._staffing = threading.Lock()

    def run(self) -> None:
        """Run items; every one of each dispatch is sent or given back on return."""
        self.run_in_turn()
        if not self._link.backlog.is_over():
            self.run_at_once()

    def run_in_turn(self) -> None:
        """Run dispatches until there are no more, or until several items are wanted at once."""
        link, runner = self._link, self._runners[0]
        leave = runner.leave if self._cpu_limit_s is None else self._leave_unlimited
        while (waiting := link.backlog.next(self._is_single)) is not None:
            outcomes = waiting.outcomes
            runner.begin(waiting)
            for batch_id, items in waiting.slices:
                while items:
                    try:
                        work = items.popleft()
                    except IndexError:
                        # Given back between the look and the step.
                        break
                    runner.run(batch_id, work)
                    if link.is_asleep:
                        link.wake()
                    if outcomes.waiting_bytes >= FLUSH_BYTES:
                        link.settle(outcomes, leave, finished=False)
            link.settle(outcomes, leave, finished=True)

    def run_at_once(self) -> None:
        """Run items in threads until there are no more; there is no way back to the main thread."""
        self._grow()
        while threads := list(self._threads.values()):
            threads[0].join()

    def tune(self, timeout_s: float | None, concurrency: int) -> None:
        """Have another timeout and another concurrency; a thread that is too many ends after its item."""
        self._allowance.timeout_s = timeout_s
        # Processor time is counted for the process: more than one item at a time could not be told apart.
        self.concurrency = max(1, min(concurrency, len(self._runners))) if self._cpu_limit_s is None else 1
        if self._threads:
            self._grow()
        self._link.backlog.nudge()

    def busy(self) -> int | None:
        """Return None: an item holds up nobody but its thread."""
        return None

    def become_copy(self) -> None:
        """See ``ItemRunner.become_copy``."""
        for runner in self._runners:
            runner.become_copy()

    def close(self) -> None:
        """Close what the handler asked for."""
        self._resources.close()

    def _restore_and_limit(self, restore: Callable[[], None], limit_s: float) -> None:
        restore()
        set_cpu_limit(limit_s)

    def _leave_unlimited(self) -> None:
        lift_cpu_limit()
        self._runners[0].leave()

    def _is_single(self) -> bool:
        return self.concurrency == 1

    def _grow(self) -> None:
        """Start the threads that are wanted and not there."""
        with self._staffing:
            for number in range(self.concurrency):
                if number not in self._threads:
                    # The process does not wait for them: its end is the end of what they do.
                    thread = threading.Thread(target=self._serve, args=(number,), name=f"durabatch-{number + 1}", daemon=True)
                    self._threads[number] = thread
                    thread.start()

    def _serve(self, number: int) -> None:
        try:
            while not self._is_done(number):
                self._work(number)
        except BaseException:  # noqa: BLE001 - an item that nobody ends would hold the run up for ever
            traceback.print_exc()
            end(LOST)

    def _is_done(self, number: int) -> bool:
        """Return whether the thread ends, which is noted in the same step: from then on it may be started anew."""
        with self._staffing:
            is_done = number >= self.concurrency or self._link.backlog.is_over()
            if is_done:
                del self._threads[number]
            return is_done

    def _work(self, number: int) -> None:
        """Run items in one thread as long as there are any and the thread is wanted."""
        link, backlog, runner = self._link, self._link.backlog, self._runners[number]
        stays = partial(self._is_wanted, number)
        while (taken := backlog.take(stays) or self._rest(runner, stays)) is not None:
            waiting, batch_id, work = taken
            if runner.outcomes is not waiting.outcomes:
                runner.begin(waiting)
            runner.run(batch_id, work)
            link.added(waiting.outcomes)
            if backlog.ended(waiting):
                link.rest(runner.leave)
                link.finish(waiting.outcomes)

    def _rest(self, runner: ItemRunner, stays: Callable[[], bool]) -> Taken | None:
        self._link.rest(runner.leave)
        return self._link.backlog.take(stays, wait=True)

    def _is_wanted(self, number: int) -> bool:
        return number < self.concurrency
