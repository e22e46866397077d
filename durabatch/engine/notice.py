"""
The coordinator notices what other processes did to its run: items that they added, and that they closed it.
"""

from __future__ import annotations

from durabatch.engine.active import ActiveRun
from durabatch.ledger import item, queue
from durabatch.ledger.connection import Connection

__all__ = ["notice"]


def notice(ledger: Connection, active: ActiveRun) -> None:
    """
    Have *active* know what stands in the ledger now of all that others may change.

    Call it first in a transaction, while no difference of *active* is unwritten.
    """
    with ledger.transaction():
        stands = queue.standing(ledger, active.run_id)
        if stands is None:
            return
        active.is_open, active.intake_complete = bool(stands.is_open), bool(stands.intake_complete)
        active.counts |= {"total": stands.total_count, "pending": stands.pending_count, "scheduled": stands.scheduled_count}
        active.span_last = -1
        active.next_due_at_us = item.next_due(ledger, active.run_id)
