"""
A run that was open takes no more items from other processes: it finishes when those that are there have ended.
"""

from __future__ import annotations

from durabatch.engine.active import ActiveRun
from durabatch.engine.notice import notice
from durabatch.ledger import event, run
from durabatch.ledger.connection import Connection

__all__ = ["close_run", "let_in", "shut"]


def close_run(ledger: Connection, run_id: int, *, now_us: int) -> bool:
    """
    Close a run, whoever works on it; False when it was closed already, and nothing was changed.

    One write transaction. What is left to read of its input still is.

    Raises:
        NotFoundError: There is no such run.
    """
    with ledger.transaction():
        row = run.get(ledger, run_id)
        if not row.is_open:
            return False
        # Nothing is known of an input's end where there never was an input.
        run.set_open(ledger, run_id, is_open=False, complete=bool(row.intake.get("ended", True)))
        event.record(ledger, "closed", run_id=run_id, now_us=now_us)
        return True


def shut(ledger: Connection, active: ActiveRun, *, now_us: int) -> None:
    """Close the run that this process works on, if it is open, with everything noticed that was added until then."""
    with ledger.transaction():
        if close_run(ledger, active.run_id, now_us=now_us):
            notice(ledger, active)


def let_in(ledger: Connection, active: ActiveRun) -> None:
    """Open the run that this process has taken up; one that is open stays so."""
    with ledger.transaction():
        run.set_open(ledger, active.run_id, is_open=True, complete=False)
        notice(ledger, active)
