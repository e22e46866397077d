"""
Which items killed a worker, found by letting suspects run apart from all others, in ever smaller groups.

Whatever a dead worker had in its cells is under suspicion. A group runs alone on one worker. When that dies, the cells say who was running:
these form a group of their own, the others another; if all were running, the group is halved. So an item that runs alone is guilty of what
happens then, and its neighbours never pay for it. With k guilty items of n that takes at most k x (log2 n + max_deaths) deaths.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MAX_INTERRUPTIONS", "halved", "regroup"]

#: An item that was running so often when the coordinator died is a suspect too.
MAX_INTERRUPTIONS = 3


def halved(ids: Sequence[int]) -> list[list[int]]:
    """Return the first half of *ids* and the second, without empty ones: one item stays a group of its own."""
    middle = (len(ids) + 1) // 2
    return [list(half) for half in (ids[:middle], ids[middle:]) if half]


def regroup(group: Sequence[int], died: Sequence[int]) -> list[list[int]]:
    """
    Return the groups in which suspects run next, after a worker died.

    Args:
        group: The items of the group that the worker ran and that have not ended; empty when it ran ordinary ones.
        died: The items in the worker's cells. Empty with a group: nobody knows who it was, and the group is halved.
    """
    running = set(died)
    rest = [item_id for item_id in group if item_id not in running]
    if rest and died:
        return [list(died), rest]
    return halved(group) if group else [list(died)] if died else []
