"""
Which items make a batch.

The fixed strategy: batch k holds items (k-1)N+1 to kN in input order. What a crash interrupts changes nothing, since an item stays in
the batch that it joined at its first claim and a batch takes items until it has N.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["FixedBatches"]


@dataclass(frozen=True, slots=True)
class FixedBatches:
    """Batches of *size* items."""

    size: int

    def is_full(self, item_count: int) -> bool:
        """Tell whether a batch of *item_count* items takes no more; after a resume with a smaller size it may have more than that."""
        return item_count >= self.size

    def cut(self, count: int, *, already_in: int) -> Iterator[tuple[int, bool]]:
        """
        Cut *count* consecutive items into pieces for batches, the first of which has *already_in* items and is not full.

        Yields:
            (items in this piece, whether it fills the batch), in order; the pieces add up to *count*.
        """
        room = self.size - already_in
        while count > 0:
            piece = min(room, count)
            yield piece, piece == room
            count -= piece
            room = self.size
