"""
Batches of a fixed number of items: with input order, batch k holds items (k-1)N+1 to kN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from durabatch.flow.batching.strategy import Filled, Measured, cut_by_count

__all__ = ["FixedBatches"]


@dataclass(frozen=True, slots=True)
class FixedBatches:
    """Batches of *size* items, whatever is measured; see :class:`durabatch.flow.batching.BatchStrategy`."""

    size: int

    def is_full(self, filled: Filled) -> bool:
        """Tell whether a batch takes no more."""
        return filled.items >= self.size

    def cut(self, sizes: Sequence[int], already: Filled) -> Iterator[tuple[int, bool]]:
        """Cut at every *size* items."""
        return cut_by_count(len(sizes), already.items, self.size)

    def learn(self, measured: Measured) -> None:
        """Change nothing."""
