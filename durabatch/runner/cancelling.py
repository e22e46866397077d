"""
Cancelling a run that nobody works on: whoever cancels takes the ledger for it, with everything that a coordinator does first.

    own, end old workers, recover  →  open items cancelled, a page at a time  →  the run cancelled  →  complete batches written out
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing

from durabatch.clock import now_us
from durabatch.engine import active as actives
from durabatch.engine import steer
from durabatch.engine.active import ActiveRun
from durabatch.engine.cancel import cancel_page
from durabatch.engine.close import shut
from durabatch.engine.conclude import conclude
from durabatch.engine.status import status
from durabatch.errors import UsageError
from durabatch.ledger import run
from durabatch.ledger.connection import Connection
from durabatch.models import RunStatus
from durabatch.runner.opening import owned_ledger
from durabatch.runner.publishing import Publisher
from durabatch.runner.request import RunRequest
from durabatch.runner.trusting import refuse_transaction
from durabatch.settings import RunSettings
from durabatch.states import RunState

__all__ = ["cancel_open_items", "cancel_unheld"]

#: Items cancelled in one transaction.
PAGE = 5000
#: Exit code of a run that was cancelled.
CANCELLED_CODE = 1
OPEN_STATES = frozenset({RunState.RUNNING, RunState.PAUSED, RunState.HALTED})


def cancel_unheld(
    path: str | os.PathLike[str],
    found: RunStatus,
    *,
    by: Mapping[str, object],
    allow_network_fs: bool,
    on_note: Callable[[str], None] | None,
) -> RunStatus:
    """
    Cancel the run *found* and return where it stands then.

    Args:
        by: Who wants it, for the record.

    Raises:
        LedgerError: The ledger is at work for another run, or cannot be used.
        OutputError: The run is cancelled; a batch that is complete by that could not be written out.
        UsageError: The run has ended, or is a transaction. Nothing was changed.
    """
    refuse_ended(found.name, found.state)
    request = RunRequest(verb="resume", ledger=os.fspath(path), run=found.run_id, allow_network_fs=allow_network_fs, on_note=on_note)
    with owned_ledger(request) as owned:
        owned.describe(found.name)
        ledger, row = owned.connection, run.get(owned.connection, found.run_id)
        refuse_transaction(row, "cancel")
        refuse_ended(row.name, row.state)
        cancel(ledger, row.run_id, elapsed_us=row.elapsed_us, by=by)
        with closing(Publisher(ledger, row.run_id, row.name, RunSettings.from_json(row.settings))) as publisher:
            publisher.finish()
        return status(ledger, row.run_id)


def refuse_ended(name: str, state: str) -> None:
    """Raise UsageError for a run that has ended."""
    if state != "interrupted" and state not in OPEN_STATES:
        raise UsageError(f"run {name} is {state}: there is nothing to cancel")


def cancel_open_items(ledger: Connection, active: ActiveRun) -> None:
    """Close a run and cancel everything of it that has not ended, a page a transaction; nothing of it may be with a worker any more."""
    shut(ledger, active, now_us=now_us())
    count = 1
    while count:
        with ledger.transaction():
            count = cancel_page(ledger, active, PAGE, now_us())
            active.write_tally(ledger)


def cancel(ledger: Connection, run_id: int, *, elapsed_us: int, by: Mapping[str, object]) -> None:
    """Cancel the open items of a run, then the run; the end and the record of who wanted it are one transaction."""
    active = actives.load(ledger, run_id)
    cancel_open_items(ledger, active)
    with ledger.transaction():
        control_id = steer.order(ledger, run_id, "cancel", {}, by=by, now_us=now_us())
        steer.settle(ledger, control_id, "cancelled", now_us())
        reason = f"cancelled by {by.get('user') or by.get('uid')}"
        conclude(ledger, active, RunState.CANCELLED, reason=reason, exit_code=CANCELLED_CODE, elapsed_us=elapsed_us, now_us=now_us())
    ledger.checkpoint(truncate=True)
