"""
What a worker was sent and has not started: filled by the thread that reads the pipe, emptied by those that run items.

An item leaves exactly once, to be run (from the front) or to be given back (from the back). A worker that runs one item after the other
takes whole dispatches (``next``) and their items by single steps of a deque, so that no lock is taken per item. One that runs several at
once takes items (``take``) and says of each when it has ended (``ended``), so that the last of a dispatch is known.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from durabatch.workers.outcomes import Outcomes
from durabatch.workers.protocol import Dispatch, Work

__all__ = ["Backlog", "Taken", "Waiting"]


class Waiting:
    """
    The items of one dispatch that are not started, batch by batch.

    Attributes:
        outcomes: Where the ends of its items go.
        slices: Pairs of batch id and items.
        task: What is done with the items.
        blobs: The old contents that undo steps need, packed, by the number of the step.
        ends_s: When, on the monotonic clock, those items have to end that have a deadline of their own.
        open_count: Items that have neither ended nor come back, where items are taken one by one.
    """

    def __init__(self, dispatch: Dispatch, outcomes: Outcomes) -> None:
        self.dispatch_id = dispatch.dispatch_id
        self.outcomes = outcomes
        self.slices = [(group.batch_id, deque(group.items)) for group in dispatch.groups]
        self.task = dispatch.task
        self.blobs = dispatch.blobs
        self.open_count = sum(len(items) for _, items in self.slices)
        self.ends_s = {item_id: monotonic() + left_s for item_id, left_s in dispatch.limits.items()} if dispatch.limits else {}

    def take(self) -> tuple[int, Work] | None:
        """Remove the first item and return it with its batch; None when none is left."""
        while self.slices:
            batch_id, items = self.slices[0]
            if items:
                return batch_id, items.popleft()
            del self.slices[0]
        return None

    def give_back(self, limit: int | None) -> list[int]:
        """Remove up to *limit* items from the end (None: all) and return their ids in input order."""
        ids: list[int] = []
        for _, items in reversed(self.slices):
            while items and (limit is None or len(ids) < limit):
                taken = pop_last(items)
                if taken is not None:
                    ids.append(taken[0])
        self.open_count -= len(ids)
        return ids[::-1]

    def is_empty(self) -> bool:
        """Return whether every item was started or given back."""
        return not any(items for _, items in self.slices)


#: An item with its dispatch and its batch.
Taken = tuple[Waiting, int, Work]


class Backlog:
    """
    Dispatches in the order in which they came.

    Attributes:
        notice: Called, in the adding thread, after something was added or asked for; for a taker that does not wait here.
    """

    def __init__(self, notice: Callable[[], None] = lambda: None) -> None:
        self.notice = notice
        self._changed = threading.Condition()
        self._waiting: deque[Waiting] = deque()
        self._errands: deque[Callable[[], object]] = deque()
        self._current: Waiting | None = None
        #: Dispatches of which items were taken one by one and not all have ended.
        self._begun: dict[int, Waiting] = {}
        self._is_stopping = False

    def add(self, waiting: Waiting) -> None:
        """Put a dispatch behind the others."""
        with self._changed:
            self._waiting.append(waiting)
            self._changed.notify_all()
        self.notice()

    def stop(self) -> None:
        """Say that nothing will be added any more: ``next`` and ``take`` return None once all is taken."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self.notice()

    def ask(self, errand: Callable[[], object]) -> None:
        """Have *errand* called by whoever runs items, before the next dispatch or, where items are taken one by one, the next item."""
        with self._changed:
            self._errands.append(errand)
            self._changed.notify_all()
        self.notice()

    def nudge(self) -> None:
        """Have everybody who waits look again whether to stay."""
        with self._changed:
            self._changed.notify_all()
        self.notice()

    def next(self, stays: Callable[[], bool] = lambda: True) -> Waiting | None:
        """
        Return the next dispatch, waiting for one. The one before it is forgotten.

        Returns:
            None after ``stop`` when there is no dispatch left, and as soon as *stays* says no (see ``nudge``).
        """
        with self._changed:
            self._current = None
        while True:
            self.run_errands()
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._errands or self._is_stopping or not stays())
                if self._errands:
                    continue
                if self._waiting and stays():
                    self._current = self._waiting.popleft()
                return self._current

    def take(self, stays: Callable[[], bool] = lambda: True, *, wait: bool = False) -> Taken | None:
        """
        Return the next item.

        Args:
            stays: Whether the caller goes on taking items.
            wait: Wait for an item. None is then returned after ``stop`` when there is none left, or when *stays* says no.
        """
        while True:
            self.run_errands()
            with self._changed:
                taken = self._take() if stays() else None
                if taken is not None or not wait or self._is_stopping or not stays():
                    return taken
                self._changed.wait_for(lambda: self._waiting or self._errands or self._is_stopping or not stays())

    def ended(self, waiting: Waiting) -> bool:
        """Note that an item that was taken has ended; return whether it was the last that was left of its dispatch."""
        with self._changed:
            waiting.open_count -= 1
            if waiting.open_count:
                return False
            self._begun.pop(waiting.dispatch_id, None)
            return True

    def is_over(self) -> bool:
        """Return whether ``stop`` was called and everything is taken."""
        with self._changed:
            return self._is_stopping and not self._waiting

    def release(self, limit: int | None = None) -> tuple[dict[int, list[int]], list[int]]:
        """
        Take back up to *limit* unstarted items (None: all), the ones that would have run last first.

        Returns:
            Dispatch id to item ids, both in input order; and the ids of dispatches that nobody will finish any more, since nothing
            is left of them.
        """
        with self._changed:
            given: dict[int, list[int]] = {}
            for waiting in [*reversed(self._waiting), *filter(None, [self._current]), *self._begun.values()]:
                ids = waiting.give_back(None if limit is None else limit - sum(map(len, given.values())))
                if ids:
                    given[waiting.dispatch_id] = ids
            gone = [waiting.dispatch_id for waiting in self._waiting if waiting.is_empty() and waiting.dispatch_id not in self._begun]
            gone = [*(number for number, waiting in self._begun.items() if not waiting.open_count), *gone]
            self._waiting = deque(waiting for waiting in self._waiting if not waiting.is_empty())
            self._begun = {number: waiting for number, waiting in self._begun.items() if waiting.open_count}
            return dict(reversed(given.items())), gone

    def run_errands(self) -> None:
        """Call what was asked for, outside the lock."""
        while self._errands:
            try:
                errand = self._errands.popleft()
            except IndexError:
                # Another thread took it between the look and the step.
                return
            errand()

    def _take(self) -> Taken | None:
        while self._waiting:
            waiting = self._waiting[0]
            found = waiting.take()
            if waiting.is_empty():
                # At once: a dispatch that has nothing left to give is no longer waiting, and may end any moment.
                self._waiting.popleft()
            if found is not None:
                self._begun[waiting.dispatch_id] = waiting
                return waiting, *found
        return None


def pop_last(items: deque[Work]) -> Work | None:
    """Return the last item and remove it; None when another thread took it first."""
    try:
        return items.pop()
    except IndexError:
        return None
