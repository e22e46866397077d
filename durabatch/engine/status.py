"""
Where runs stand, from one row each: constant time whatever the number of items. And what went wrong in them.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from durabatch.clock import iso
from durabatch.engine.active import counts_of
from durabatch.flow.forecasting import forecast
from durabatch.ledger import attempt, control, item, rollback, run, undo
from durabatch.ledger.executor import Executor
from durabatch.ledger.locks import holder_of
from durabatch.ledger.run import RunRow
from durabatch.models import AttemptView, ErrorGroup, RunStatus, SkippedGroup
from durabatch.states import RunState

__all__ = ["attempts", "error_groups", "eta_s", "handler_text", "held_run", "list_runs", "skipped_groups", "status", "status_of"]

#: Groups of errors that are told at most; a message for each of a million items is no grouping.
ALL_GROUPS = 1000


def status(ledger: Executor, name_or_id: str | int | None) -> RunStatus:
    """
    Return the status of one run; None is the one that a coordinator works on, else the latest.

    Raises:
        NotFoundError: There is no such run.
    """
    held = held_run(ledger)
    return status_of(ledger, found(ledger, name_or_id, held), held)


def found(ledger: Executor, name_or_id: str | int | None, held: object) -> RunRow:
    """Return the run with this name or id; for None the one that is held: a later one may have been left behind by a crash."""
    run_id = run.id_by_name(ledger, held) if name_or_id is None and isinstance(held, str) else None
    return run.find(ledger, name_or_id) if run_id is None else run.get(ledger, run_id)


def list_runs(ledger: Executor) -> list[RunStatus]:
    """Return the status of every run, oldest first."""
    held = held_run(ledger)
    return [status_of(ledger, row, held) for row in run.list_all(ledger)]


def held_run(ledger: Executor) -> object:
    """Return the name of the run that a coordinator works on now, or None."""
    return (holder_of(ledger.files) or {}).get("run")


def status_of(ledger: Executor, row: RunRow, held: object) -> RunStatus:
    """Return the status in *row*; a run that claims to run while nobody holds it was interrupted."""
    is_live = row.state in (RunState.RUNNING, RunState.PAUSED)
    is_held = is_live and held == row.name
    counts = counts_of(row)
    next_due_at_us = item.next_waiting(ledger, row.run_id) if row.scheduled_count else None
    return RunStatus(
        run_id=row.run_id,
        name=row.name,
        state="interrupted" if is_live and not is_held else row.state,
        reason=row.reason,
        handler=handler_text(row.handler),
        counts=counts,
        batch_count=row.batch_count,
        attempt_count=row.attempt_count,
        intake_complete=bool(row.intake_complete),
        items_per_s=round(row.items_per_s, 3),
        eta_s=eta_s(counts.left, row.items_per_s, complete=bool(row.intake_complete)) if is_held else None,
        started_at=iso(row.started_at_us),
        finished_at=iso(row.finished_at_us),
        elapsed_s=round(row.elapsed_us / 1e6, 3),
        binding_limit=row.binding_limit if is_held else None,
        exit_code=row.exit_code,
        spent=row.spent,
        forecast=rounded(forecast(row.spent, counts.ended, counts.total)) if row.intake_complete else {},
        next_due_at=iso(next_due_at_us),
        cached=row.cached_count,
        gone=row.gone_count,
        is_open=bool(row.is_open),
        bad_input_count=int(row.intake.get("bad", 0)),
        duplicate_count=int(row.intake.get("duplicates", 0)),
        last_order=last_order(ledger, row.run_id),
        is_transaction=bool(row.is_transaction),
        **(undo_facts(ledger, row.run_id, is_held=is_held) if row.undo_count else {}),
    )


def undo_facts(ledger: Executor, run_id: int, *, is_held: bool) -> dict[str, Any]:
    """Return what a status says of undoing; a run that has nothing to undo need not be asked."""
    return {
        "unresolved": rollback.count_unresolved(ledger, run_id, is_live=is_held),
        "undo_left": undo.count_wanted(ledger, run_id)[0],
        "is_rolling_back": rollback.is_begun(ledger, run_id),
    }


def last_order(ledger: Executor, run_id: int) -> dict[str, Any] | None:
    """Return what was last asked of the run from another terminal, or None."""
    found = control.last_of_run(ledger, run_id)
    if found is None:
        return None
    when = {"asked_at": iso(found.asked_at_us), "applied_at": iso(found.applied_at_us)}
    return {"verb": found.verb, "argument": found.argument, "asked_by": found.asked_by, **when, "outcome": found.outcome}


def rounded(amounts: dict[str, float]) -> dict[str, float]:
    """Return amounts by unit to the millionth: what is only expected is not known better."""
    return {unit: round(amount, 6) for unit, amount in amounts.items()}


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
    """Return the failed items of a run by what their errors have in common, the *limit* biggest groups, biggest first; each with the message of one."""
    groups = []
    for name, count, first_id, last_id in item.list_error_groups(ledger, run_id, limit):
        first, last = item.get(ledger, first_id), item.get(ledger, last_id)
        if first is not None and last is not None:
            sample = attempt.get(ledger, first_id, first.attempt_count)
            error_type, message = (sample.error_type, sample.error_message) if sample else (None, None)
            groups.append(ErrorGroup(error_type or "", message or "", count, first.key, last.key, name or ""))
    return groups


def skipped_groups(ledger: Executor, run_id: int, limit: int = ALL_GROUPS) -> list[SkippedGroup]:
    """Return the skipped items of a run by reason and remedy, the *limit* biggest groups, biggest first."""
    groups = []
    for reason, remedy, count, first_id in item.list_skipped_groups(ledger, run_id, limit):
        first = item.get(ledger, first_id)
        groups.append(SkippedGroup(reason or "", remedy, count, first.key if first else ""))
    return groups


def attempts(ledger: Executor, item_id: int) -> list[AttemptView]:
    """Return the tries at an item for people, oldest first."""
    return [attempt_view(row) for row in attempt.list_of_item(ledger, item_id)]


def attempt_view(row: attempt.AttemptRow) -> AttemptView:
    """Return one try for people. What a handler said when it skipped or snoozed its item stands as its error, without a type."""
    error = row.error_message if row.error_type is None else f"{row.error_type}: {row.error_message}"
    return AttemptView(
        number=row.number,
        outcome=row.outcome,
        worker=row.worker,
        started_at=iso(row.started_at_us),
        duration_s=row.duration_us / 1e6,
        error=error,
        traceback=row.traceback,
        group=row.error_group,
        remedy=row.remedy,
        exit_code=row.exit_code,
        signal=row.signal,
        stdout_tail=row.stdout_tail,
        stderr_tail=row.stderr_tail,
        peak_rss_bytes=row.peak_rss_bytes,
        spent=dict(from_json(row.spent)) if row.spent else {},
        cached=bool(row.is_cached),
    )
