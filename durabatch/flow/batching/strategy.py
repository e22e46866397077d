"""
What a batching strategy is, and how all of them cut.

A strategy says when a batch is full and learns from what was measured. It never moves an item: whoever is in a batch stays there, so a
strategy may change its mind at any time, also over a resume, and only later batches follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["GROWTH", "MAX_SIZE", "BatchSettings", "BatchStrategy", "Filled", "Measured", "cut_by_count"]

#: Items in any batch.
MAX_SIZE = 1_000_000
#: Strategies that adapt stay within so many times the size that was asked for.
GROWTH = 10


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """
    What a run says about its batches.

    Attributes:
        size: Items in a batch; where the strategy adapts it, the first size.
        seconds: Worker seconds that a batch should take.
        memory_threshold: Share of the machine's memory that may be in use.
    """

    size: int = 100
    seconds: float = 10.0
    memory_threshold: float = 0.8


@dataclass(frozen=True, slots=True)
class Filled:
    """What a batch holds."""

    items: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """
    What the work of some items took.

    Attributes:
        seconds: Worker seconds of all of them together.
        memory_used: Share of the machine's memory in use at that time; None when it was not measured.
    """

    items: int
    seconds: float
    memory_used: float | None = None


@runtime_checkable
class BatchStrategy(Protocol):
    """Says which items make a batch. Packages may bring more of them: see :mod:`durabatch.flow.batching.registry`."""

    def is_full(self, filled: Filled) -> bool:
        """Tell whether a batch takes no more items; after a resume with other settings it may hold more than it would now."""
        ...

    def cut(self, sizes: Sequence[int], already: Filled) -> Iterator[tuple[int, bool]]:
        """
        Cut consecutive items into pieces for batches, the first of which holds *already* and is not full.

        Args:
            sizes: Payload bytes of each item.

        Yields:
            (items in this piece, 1 or more; whether it fills its batch), in order; the pieces add up to the items, and only the last one may
            leave its batch open.
        """
        ...

    def learn(self, measured: Measured) -> None:
        """Take into account what finished items took."""
        ...


def cut_by_count(count: int, already: int, size: int) -> Iterator[tuple[int, bool]]:
    """Cut *count* items into pieces for batches of *size*, the first of which has *already* items; see :meth:`BatchStrategy.cut`."""
    room = max(1, size - already)
    while count > 0:
        piece = min(room, count)
        yield piece, piece == room
        count -= piece
        room = size
