"""
Batches that take about as long as each other: as many items as fit the time that was asked for, by what items took of late.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from durabatch.flow.batching.strategy import MAX_SIZE, Filled, Measured, cut_by_count

__all__ = ["TimeBatches", "fitting_size"]

#: What a measurement still weighs after the next one.
MEMORY = 0.8


def fitting_size(seconds_per_item: float, target_s: float, before: int) -> int:
    """Return how many items take *target_s*; at most twice as many as *before*, so that a few cheap items do not make a huge batch."""
    longest = min(2 * before, MAX_SIZE)
    return max(1, min(longest, int(target_s / seconds_per_item))) if seconds_per_item * longest > target_s else longest


class TimeBatches:
    """Batches of about *target_s* worker seconds, of *size* items until something was measured."""

    def __init__(self, size: int, target_s: float) -> None:
        self.size = size
        self.target_s = target_s
        self.items = self.seconds = 0.0

    def is_full(self, filled: Filled) -> bool:
        """Tell whether a batch takes no more."""
        return filled.items >= self.size

    def cut(self, sizes: Sequence[int], already: Filled) -> Iterator[tuple[int, bool]]:
        """Cut at the present size."""
        return cut_by_count(len(sizes), already.items, self.size)

    def learn(self, measured: Measured) -> None:
        """Take the latest items into account, older ones the less."""
        if measured.items <= 0:
            return
        self.items = self.items * MEMORY + measured.items
        self.seconds = self.seconds * MEMORY + max(0.0, measured.seconds)
        self.size = fitting_size(self.seconds / self.items, self.target_s, self.size)
