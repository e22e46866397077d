"""
What the whole run will have spent at its end, going by what it spent so far.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["forecast"]


def forecast(spent: Mapping[str, float], ended: int, total: int) -> dict[str, float]:
    """
    Return unit to amount at the end of the run; empty before the first item has ended.

    Args:
        ended: Items that have ended.
        total: Items known so far.
    """
    return {unit: amount * max(ended, total) / ended for unit, amount in spent.items()} if ended else {}
