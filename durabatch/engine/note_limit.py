"""
What holds a run back changes: memory, disk, load, a rate, an open breaker. The row says what it is now, the events what it was when.
"""

from __future__ import annotations

from durabatch.engine.active import ActiveRun
from durabatch.ledger import event, run
from durabatch.ledger.connection import Connection

__all__ = ["note_limit"]


def note_limit(ledger: Connection, active: ActiveRun, binding_limit: str | None, text: str, now_us: int, **detail: object) -> None:
    """
    Record what binds the run now, None for nothing, and a sentence about it. One write transaction.

    Args:
        detail: Measurements that led to it.
    """
    with ledger.transaction():
        run.set_binding_limit(ledger, active.run_id, binding_limit)
        event.record(ledger, "limit", run_id=active.run_id, now_us=now_us, binding=binding_limit, text=text, **detail)
