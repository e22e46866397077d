"""
Failed items get a fresh allowance of attempts and are pending again; their batches are open again. Needs no input file.
"""

from __future__ import annotations

from durabatch.ledger import event, item, run
from durabatch.ledger.connection import Connection
from durabatch.ledger.run import Tally
from durabatch.states import ItemState, RunState

__all__ = ["retry"]


def retry(ledger: Connection, run_id: int, *, error_type: str | None, now_us: int) -> int:
    """
    Make the failed and quarantined items of a run pending again and return how many there were.

    One write transaction. The run is reopened when there was at least one; results of other items stay as they are, and the attempts
    so far stay in the ledger.

    Args:
        error_type: Only items whose last attempt ended with this error; None for all.
    """
    with ledger.transaction():
        rows = item.list_failed(ledger, run_id, error_type)
        if not rows:
            return 0
        item.retry(ledger, [item_id for item_id, _ in rows])
        tally = Tally()
        for _, state in rows:
            tally.move(1, ItemState(state), ItemState.PENDING)
        row = run.get(ledger, run_id)
        if row.state == RunState.FINISHED:
            run.reopen(ledger, run_id, handler=row.handler, settings=row.settings)
        run.add(ledger, run_id, tally)
        event.record(ledger, "retried", run_id=run_id, now_us=now_us, items=len(rows), error_type=error_type)
    return len(rows)
