"""
Where runs stand, from one row each: constant time whatever the number of items.
"""

from __future__ import annotations

from typing import Any

from durabatch.clock import iso
from durabatch.engine.active import counts_of
from durabatch.ledger import item, run
from durabatch.ledger.executor import Executor
from durabatch.ledger.locks import holder_of
from durabatch.ledger.run import RunRow
from durabatch.models import ErrorGroup, RunStatus
from durabatch.states import RunState

__all__ = ["error_groups", "eta_s", "handler_text", "list_runs", "status", "status_of"]

#: Groups of errors that are told at most; a message for each of a million items is no grouping.
ALL_GROUPS = 1000


def status(ledger: Executor, name_or_id: str | int | None) -> RunStatus:
    """
    Return the status of one run.

    Raises:
        NotFoundError: There is no such run.
    """
    return status_of(run.find(ledger, name_or_id), held_run(ledger))


def list_runs(ledger: Executor) -> list[RunStatus]:
    """Return the status of every run, oldest first."""
    held = held_run(ledger)
    return [status_of(row, held) for row in run.list_all(ledger)]


def held_run(ledger: Executor) -> object:
    """Return the name of the run that a coordinator works on now, or None."""
    return (holder_of(ledger.files) or {}).get("run")


def status_of(row: RunRow, held: object) -> RunStatus:
    """Return the status in *row*; a run that claims to run while nobody holds it was interrupted."""
    is_live = row.state in (RunState.RUNNING, RunState.PAUSED)
    counts = counts_of(row)
    return RunStatus(
        run_id=row.run_id,
        name=row.name,
        state="interrupted" if is_live and held != row.name else row.state,
        reason=row.reason,
        handler=handler_text(row.handler),
        counts=counts,
        batch_count=row.batch_count,
        attempt_count=row.attempt_count,
        intake_complete=bool(row.intake_complete),
        items_per_s=round(row.items_per_s, 3),
        eta_s=eta_s(counts.left, row.items_per_s, complete=bool(row.intake_complete)) if is_live and held == row.name else None,
        started_at=iso(row.started_at_us),
        finished_at=iso(row.finished_at_us),
        elapsed_s=round(row.elapsed_us / 1e6, 3),
        binding_limit=None,
        exit_code=row.exit_code,
    )


def eta_s(left: int, items_per_s: float, *, complete: bool) -> float | None:
    """Return the seconds that *left* items will take, None while that cannot be known."""
    if not complete or items_per_s <= 0:
        return None
    return round(left / items_per_s, 1)


def handler_text(reference: dict[str, Any]) -> str:
    """Return a handler reference as a person typed it."""
    if reference.get("kind") == "command":
        return " ".join(str(part) for part in reference.get("argv", ()))
    return str(reference.get("target") or reference.get("name") or "")


def error_groups(ledger: Executor, run_id: int, limit: int = ALL_GROUPS) -> list[ErrorGroup]:
    """Return the failed items of a run grouped by error type and message, the *limit* biggest groups, biggest first."""
    groups = []
    for error_type, message, count, first_id, last_id in item.list_error_groups(ledger, run_id, limit):
        first, last = item.get(ledger, first_id), item.get(ledger, last_id)
        groups.append(ErrorGroup(error_type, message, count, first.key if first else "", last.key if last else ""))
    return groups
