"""
What a worker was sent and has not started: filled by the thread that reads the pipe, emptied by the one that runs items.

An item leaves exactly once, to be run (from the front) or to be given back (from the back). Both are single steps of a deque, so no lock
is taken per item; the lock guards whole dispatches.
"""

from __future__ import annotations

import threading
from collections import deque

from durabatch.workers.protocol import Dispatch, Work

__all__ = ["Backlog", "Waiting"]


class Waiting:
    """The items of one dispatch that are not started, batch by batch: ``slices`` holds pairs of batch id and items."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.dispatch_id = dispatch.dispatch_id
        self.slices = [(group.batch_id, deque(group.items)) for group in dispatch.groups]

    def give_back(self, limit: int | None) -> list[int]:
        """Remove up to *limit* items from the end (None: all) and return their ids in input order."""
        ids: list[int] = []
        for _, items in reversed(self.slices):
            while items and (limit is None or len(ids) < limit):
                taken = pop_last(items)
                if taken is not None:
                    ids.append(taken[0])
        return ids[::-1]

    def is_empty(self) -> bool:
        """Return whether every item was started or given back."""
        return not any(items for _, items in self.slices)


class Backlog:
    """Dispatches in the order in which they came."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Waiting] = deque()
        self._current: Waiting | None = None
        self._is_stopping = False

    def add(self, dispatch: Dispatch) -> None:
        """Put a dispatch behind the others."""
        with self._changed:
            self._waiting.append(Waiting(dispatch))
            self._changed.notify()

    def stop(self) -> None:
        """Say that nothing will be added any more: ``next`` returns None once all is done."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def next(self) -> Waiting | None:
        """Return the next dispatch, waiting for one; None after ``stop`` when there is none left. The one before it is forgotten."""
        with self._changed:
            self._current = None
            self._changed.wait_for(lambda: self._waiting or self._is_stopping)
            self._current = self._waiting.popleft() if self._waiting else None
            return self._current

    def release(self, limit: int | None = None) -> tuple[dict[int, list[int]], list[int]]:
        """
        Take back up to *limit* unstarted items (None: all), the ones that would have run last first.

        Returns:
            Dispatch id to item ids, both in input order; and the ids of dispatches that ``next`` will not return any more, since nothing
            is left of them.
        """
        with self._changed:
            given: dict[int, list[int]] = {}
            for waiting in [*reversed(self._waiting), *filter(None, [self._current])]:
                ids = waiting.give_back(None if limit is None else limit - sum(map(len, given.values())))
                if ids:
                    given[waiting.dispatch_id] = ids
            gone = [waiting.dispatch_id for waiting in self._waiting if waiting.is_empty()]
            self._waiting = deque(waiting for waiting in self._waiting if not waiting.is_empty())
            return dict(reversed(given.items())), gone


def pop_last(items: deque[Work]) -> Work | None:
    """Return the last item and remove it; None when another thread took it first."""
    try:
        return items.pop()
    except IndexError:
        return None
