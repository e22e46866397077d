"""
How many items go to a worker at once, from what their work took so far.

A dispatch should cost about a tenth of a second: long enough that commits and pipes do not matter, short enough that little waits
behind a slow item. It starts with a few items and at most doubles, so that one early measurement of cheap items does not hand a worker
an hour of expensive ones. A worker that runs several items at once gets at least as many.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DispatchSize"]

#: Seconds of work in one dispatch.
TARGET_S = 0.1
#: Items in the first dispatch.
FIRST = 4
#: Items in any dispatch: more gains nothing at a microsecond an item, and costs memory and fairness.
LARGEST = 2000
#: Weight of the newest measurement.
SMOOTHING = 0.3


@dataclass(slots=True)
class DispatchSize:
    """The present size, and the seconds per item it rests on."""

    items: int = FIRST
    seconds_per_item: float | None = None

    def measure(self, items: int, seconds: float) -> None:
        """Learn from *items* that took *seconds* of one worker's time, and set the next size."""
        if items <= 0:
            return
        mean = max(seconds / items, 1e-7)
        before = self.seconds_per_item
        self.seconds_per_item = mean if before is None else before + SMOOTHING * (mean - before)
        wanted = int(TARGET_S / self.seconds_per_item)
        self.items = max(1, min(wanted, self.items * 2, LARGEST))

    def for_worker(self, *, waiting: int | None, workers: int, least: int = 1, cap: int | None = None) -> int:
        """
        Return how many items the next dispatch gets.

        Args:
            waiting: Items left to hand out, None while intake goes on. Near the end the rest is shared, so that workers end together.
            workers: Workers that share it.
            least: Items that the worker runs at once.
            cap: The most that may be handed out now; None for no bound.
        """
        size = max(1, least, self.items)
        if waiting is not None:
            workers = max(1, workers)
            size = max(1, min(size, max(-(-waiting // (2 * workers)), min(least, -(-waiting // workers)))))
        return size if cap is None else max(0, min(size, cap))
