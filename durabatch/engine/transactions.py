"""
Where transactions stand: open, left open by a program that is gone, committed, or rolled back.
"""

from __future__ import annotations

from typing import Any

from durabatch.clock import iso
from durabatch.engine.active import counts_of
from durabatch.ledger import rollback, run, undo
from durabatch.ledger.executor import Executor
from durabatch.ledger.locks import holder_of
from durabatch.ledger.run import RunRow
from durabatch.models import TransactionStatus
from durabatch.states import RunState

__all__ = ["abandoned", "transactions"]

#: What a transaction is called, by the state of its run.
NAMES = {RunState.FINISHED: "committed", RunState.ROLLED_BACK: "rolled_back"}


def transactions(ledger: Executor) -> list[TransactionStatus]:
    """Return where each transaction of the ledger stands, oldest first."""
    holder = holder_of(ledger.files) or {}
    return [status_of(ledger, row, holder) for row in run.list_transactions(ledger)]


def status_of(ledger: Executor, row: RunRow, holder: dict[str, Any]) -> TransactionStatus:
    """Return where a transaction stands, while *holder* has the ledger."""
    owner = {name: value for name, value in holder.items() if name != "run"} if holder.get("run") == row.name else None
    return TransactionStatus(
        run_id=row.run_id,
        name=row.name,
        state=state_of(row, is_held=owner is not None, is_rolling_back=bool(row.undo_count) and rollback.is_begun(ledger, row.run_id)),
        reason=row.reason,
        steps=counts_of(row),
        entries=undo.count_states(ledger, row.run_id) if row.undo_count else {},
        begun_at=iso(row.created_at_us),
        ended_at=iso(row.finished_at_us),
        owner=owner,
    )


def state_of(row: RunRow, *, is_held: bool, is_rolling_back: bool) -> str:
    """Return the state of a transaction in a word."""
    if row.state == RunState.HALTED or (is_rolling_back and not is_held):
        return "halted"
    if row.state == RunState.RUNNING:
        return "rolling_back" if is_rolling_back else "open" if is_held else "abandoned"
    return NAMES.get(RunState(row.state), row.state)


def abandoned(ledger: Executor) -> list[tuple[int, str]]:
    """Return number and name of transactions that are neither committed nor rolled back, and that nobody works on; oldest first."""
    found = run.open_transactions(ledger)
    held = (holder_of(ledger.files) or {}).get("run") if found else None
    return [(run_id, name) for run_id, name in found if name != held]
