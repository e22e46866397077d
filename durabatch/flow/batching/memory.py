"""
Batches that follow the machine's memory: half as large when it runs short, larger again when there is plenty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from durabatch.flow.batching.strategy import GROWTH, MAX_SIZE, Filled, Measured, cut_by_count

__all__ = ["MemoryBatches", "next_size"]

#: Shares of the threshold from which on batches shrink, and below which they grow; between them they stay.
SHORT, PLENTY = 0.9, 0.7
#: Growth of one step.
STEP = 1.25


def next_size(size: int, memory_used: float, threshold: float, asked: int) -> int:
    """Return the size after *size*, from 1 to ten times what was *asked* for."""
    if memory_used >= SHORT * threshold:
        return max(1, size // 2)
    if memory_used < PLENTY * threshold:
        return min(max(size + 1, int(size * STEP)), asked * GROWTH, MAX_SIZE)
    return size


class MemoryBatches:
    """Batches whose size makes one step for each batch's worth of items, by the most memory that was in use meanwhile."""

    def __init__(self, size: int, threshold: float) -> None:
        self.size = self.asked = size
        self.threshold = threshold
        self.seen = 0
        self.most_used: float | None = None

    def is_full(self, filled: Filled) -> bool:
        """Tell whether a batch takes no more."""
        return filled.items >= self.size

    def cut(self, sizes: Sequence[int], already: Filled) -> Iterator[tuple[int, bool]]:
        """Cut at the present size."""
        return cut_by_count(len(sizes), already.items, self.size)

    def learn(self, measured: Measured) -> None:
        """Make a step when a batch's worth of items was measured."""
        self.seen += measured.items
        if measured.memory_used is not None:
            self.most_used = max(self.most_used or 0.0, measured.memory_used)
        if self.seen >= self.size and self.most_used is not None:
            self.size = next_size(self.size, self.most_used, self.threshold, self.asked)
            self.seen, self.most_used = 0, None
