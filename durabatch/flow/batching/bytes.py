"""
Batches of equal work, measured by the size of the payloads: as many bytes in each as so many average items have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from durabatch.flow.batching.strategy import GROWTH, MAX_SIZE, Filled, Measured

__all__ = ["ByteBatches", "cut_by_bytes"]


def cut_by_bytes(sizes: Sequence[int], already: Filled, full_bytes: float, most: int) -> Iterator[tuple[int, bool]]:
    """Cut items into pieces for batches that are full at *full_bytes* or at *most* items; a batch may exceed the bytes by its last item."""
    piece, items, total = 0, already.items, already.bytes
    for size in sizes:
        piece, items, total = piece + 1, items + 1, total + size
        if total >= full_bytes or items >= most:
            yield piece, True
            piece = items = total = 0
    if piece:
        yield piece, False


class ByteBatches:
    """Batches of *size* times the mean payload of all items that were cut so far, and never more than ten times *size* items."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.most = min(size * GROWTH, MAX_SIZE)
        self.seen_items = self.seen_bytes = 0

    @property
    def full_bytes(self) -> float:
        """Bytes at which a batch is full; 0 before the first item."""
        return self.size * self.seen_bytes / self.seen_items if self.seen_items else 0.0

    def is_full(self, filled: Filled) -> bool:
        """Tell whether a batch takes no more; before the first item was seen, go by their number."""
        if not self.seen_items:
            return filled.items >= self.size
        return filled.items >= self.most or filled.bytes >= self.full_bytes

    def cut(self, sizes: Sequence[int], already: Filled) -> Iterator[tuple[int, bool]]:
        """Cut where the bytes are full, the mean of *sizes* included."""
        self.seen_items += len(sizes)
        self.seen_bytes += sum(sizes)
        return cut_by_bytes(sizes, already, self.full_bytes, self.most)

    def learn(self, measured: Measured) -> None:
        """Change nothing: payloads are known before they are worked on."""
