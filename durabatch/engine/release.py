"""
Items that were handed out but not started come back: pending again, in their batch, uncharged, ahead of fresh ones. Suspects stay in their group.
"""

from __future__ import annotations

from collections.abc import Sequence

from durabatch.clock import now_us
from durabatch.engine.active import ActiveRun
from durabatch.engine.owing import interrupt_begun
from durabatch.ledger import item
from durabatch.ledger.connection import Connection
from durabatch.states import ItemState

__all__ = ["release"]


def release(ledger: Connection, active: ActiveRun, dispatch_id: int, item_ids: Sequence[int]) -> int:
    """
    Return to the waiting items those of *item_ids* that the dispatch holds; return how many.

    One write transaction: when this returns, they can be claimed again. Those that have promised an effect had begun, whatever was seen of them:
    they are not counted, and run again once what they did is undone.
    """
    if not item_ids:
        return 0
    with ledger.transaction():
        if active.undo_count:
            interrupt_begun(ledger, active, dispatch_id, item_ids, now_us())
        count = item.release(ledger, item_ids, dispatch_id)
        active.move(count, ItemState.RUNNING, ItemState.PENDING)
        active.expect_due(0)
        if active.grouped_count:
            active.count_suspects(ledger)
    return count
