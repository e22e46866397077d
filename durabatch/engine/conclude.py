"""
A run stops: because every item has ended, or before that with a reason.
"""

from __future__ import annotations

from durabatch.engine.active import ActiveRun
from durabatch.engine.digests import settle_run
from durabatch.ledger import event, run
from durabatch.ledger.connection import Connection
from durabatch.states import RunState

__all__ = ["conclude"]


def conclude(
    ledger: Connection, active: ActiveRun, state: RunState, *, reason: str | None, exit_code: int, elapsed_us: int, now_us: int
) -> None:
    """
    Give the run its state, reason and exit code, and make its rate the mean over all its sessions.

    One write transaction. Nothing of the run may be with a worker any more.
    """
    with ledger.transaction():
        ended = active.total_count - active.open_count - active.counts["cancelled"]
        rate = ended / (elapsed_us / 1e6) if elapsed_us else 0.0
        run.set_pace(ledger, active.run_id, elapsed_us=elapsed_us, items_per_s=rate)
        settle_run(ledger, active.run_id)
        run.conclude(ledger, active.run_id, state, reason=reason, exit_code=exit_code, items_per_s=rate, now_us=now_us)
        event.record(ledger, str(state), run_id=active.run_id, now_us=now_us, reason=reason, exit_code=exit_code)
