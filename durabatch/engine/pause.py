"""
A coordinator that holds its run hands nothing out for a while, and goes on.
"""

from __future__ import annotations

from durabatch.engine.active import ActiveRun
from durabatch.ledger import event, run
from durabatch.ledger.connection import Connection
from durabatch.states import RunState

__all__ = ["pause", "unpause"]


def pause(ledger: Connection, active: ActiveRun, reason: str, now_us: int) -> None:
    """Show the run as paused, and why. One write transaction."""
    with ledger.transaction():
        run.set_state(ledger, active.run_id, RunState.PAUSED, reason)
        event.record(ledger, "paused", run_id=active.run_id, now_us=now_us, reason=reason)


def unpause(ledger: Connection, active: ActiveRun, now_us: int) -> None:
    """Show the run as running again. One write transaction."""
    with ledger.transaction():
        run.set_state(ledger, active.run_id, RunState.RUNNING, None)
        event.record(ledger, "unpaused", run_id=active.run_id, now_us=now_us)
