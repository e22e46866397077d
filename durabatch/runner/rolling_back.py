"""
A rollback, around its steps: which run and which items are meant, how it works, and what the run is afterwards.

    ``rollback``            choose, in one transaction  →  steps  →  conclude
    a run that is atomic    its end marks everything    →  steps, in a session of their own  →  conclude
    after a kill            the rows say what is left   →  steps, before anything else runs
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from durabatch.clock import now_us
from durabatch.engine.active import ActiveRun, load
from durabatch.engine.rollback import choose, count_unresolved, is_rolled_back, unresolved
from durabatch.engine.start import reopen
from durabatch.ledger import run, undo
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.run import RunRow
from durabatch.models import RolledBack
from durabatch.runner.choosing import Choice, check_recorded, overridden
from durabatch.runner.handling import Handling
from durabatch.runner.phases import Phase
from durabatch.runner.request import RunRequest
from durabatch.runner.trusting import check_trust
from durabatch.runner.undoing import Undoing, Undone
from durabatch.settings import RunSettings
from durabatch.states import RunState

__all__ = [
    "ROLLBACK", "Ending", "choose_rollback", "ending", "forget", "is_owed_alone", "settled_end", "undone_by", "undone_in_all",
]  # fmt: skip

#: Where the run row remembers, in its flow, how a rollback that is not over was wished.
ROLLBACK = "rollback"
#: Effects that remain which are listed.
SHOWN = 20
#: Handlers that only their own program can call: without it there are its actions alone.
NAMELESS = ("inline", "transaction", "none")

#: State, reason and exit code of a run that has stopped.
Ending = tuple[RunState, str | None, int]


def choose_rollback(ledger: Connection, request: RunRequest) -> Choice:
    """
    Return the run whose items are to be undone; on return it is on disk which ones they are.

    Raises:
        NotFoundError: No such run, batch or item. Nothing was changed.
        UsageError: The ledger names code of somebody else's. Nothing was changed.
        HandlerImportError: The module with the actions cannot be imported. Nothing was changed.
        SqlError: The expression is wrong. Nothing was changed.
    """
    row = run.find(ledger, request.run)
    check_trust(ledger, request, row)
    settings = quiet(overridden(row, request), request)
    handler = request.handler or row.handler
    is_async = handler["kind"] not in NAMELESS and check_recorded(row, settings, request).is_async
    with ledger.transaction():
        items = 0 if request.scope is None else mark(ledger, request, row)
        active = load(ledger, row.run_id)
        is_idle = not (items or active.wanted_count or active.undoing_count or is_open_and_empty(ledger, row))
        if not is_idle:
            remember(ledger, request, row)
    return Choice(
        active, settings, handler, ended_before=row.ended_count, is_async=is_async, provenance=row.provenance, nothing_to_do=is_idle,
        undone_before=row.undone_count, is_rollback=True,
    )  # fmt: skip


def is_open_and_empty(ledger: Connection, row: RunRow) -> bool:
    """Tell whether this is a transaction that died before it had any effect, or has none left: it only needs its end."""
    return bool(row.is_transaction) and row.state not in (RunState.FINISHED, RunState.ROLLED_BACK) and is_rolled_back(ledger, row.run_id)


def mark(ledger: Connection, request: RunRequest, row: RunRow) -> int:
    """Mark what is to be undone; return how many items had nothing that would have to be, and are undone at once."""
    assert request.scope is not None
    chosen = choose(ledger, row.run_id, request.scope, in_order=request.in_order, now_us=now_us())
    return chosen.plain


def remember(ledger: Connection, request: RunRequest, row: RunRow) -> None:
    """Have the run work again, and note how, and what it was before."""
    before = row.flow.get(ROLLBACK, {}).get("before", [row.state, row.reason, row.exit_code])
    wish = {"keep_going": request.keep_going, "force": request.force, "before": before}
    run.set_flow(ledger, row.run_id, {**row.flow, ROLLBACK: wish})
    reopen(ledger, row.run_id, now_us=now_us())


def quiet(settings: RunSettings, request: RunRequest) -> RunSettings:
    """Return the settings of a run for undoing what it did: no limit that is about its items counts, and nobody is called about batches."""
    return replace(
        settings, workers=request.overrides.get("workers", 1), halt=None, canary=0, breaker=None, budget={}, deadline_s=None, cache=False,
        preflight=None, order="input", shuf=None, batch_command=None, end_command=None, idle_exit_s=None, max_items_per_worker=None,
    )  # fmt: skip


def ending(ledger: Executor, active: ActiveRun, flow: dict[str, Any], undone: Undone) -> Ending:
    """Return state, reason and exit code of a run of which nothing is to be undone any more."""
    left = count_unresolved(ledger, active.run_id)
    code = int(bool(left or undone.failed))
    state, reason, _ = flow.get(ROLLBACK, {}).get("before") or (RunState.FINISHED, None, 0)
    # A cancel only undoes what was cut off at work: without an item that is undone it is that and no rollback.
    was_rolled_back = state != RunState.CANCELLED or active.view().undone > 0
    if was_rolled_back and is_rolled_back(ledger, active.run_id):
        return RunState.ROLLED_BACK, "; ".join(filter(None, (reason, f"{left:,} effects remain" if left else None))) or None, code
    if state == RunState.CANCELLED:
        return RunState.CANCELLED, reason, code
    if active.open_count or not active.intake_complete:
        return RunState.HALTED, reason or "rolled back in part", code
    return RunState.FINISHED, None, code


def settled_end(ledger: Executor, choice: Choice, flow: dict[str, Any], end: Ending) -> Ending:
    """Return the end of a run that went on after a rollback was cut off: rolled back, when it was that which ended it."""
    active = choice.active
    # One that is all or nothing may have been cut off between its end and the rollback that follows from that.
    was_begun = ROLLBACK in flow or (choice.settings.atomic == "run" and active.view().undone > 0)
    if was_begun and end[0] == RunState.FINISHED and is_rolled_back(ledger, active.run_id):
        # Nothing is left to be undone, so that a rollback that somebody asked for has come to its end as it should.
        return RunState.ROLLED_BACK, None, int(bool(count_unresolved(ledger, active.run_id))) if ROLLBACK in flow else end[2]
    state, reason, code = flow.get(ROLLBACK, {}).get("before") or end
    return (RunState.CANCELLED, reason, code) if state == RunState.CANCELLED and end[0] == RunState.FINISHED else end


def is_owed_alone(ledger: Executor, request: RunRequest) -> bool:
    """Tell whether a resume means a run that was cancelled, and of which nothing is left to do but to undo what it left behind."""
    if request.verb != "resume" or request.from_item is not None or request.from_batch is not None:
        return False
    row = run.find(ledger, request.run)
    return row.state == RunState.CANCELLED and undo.count_undoing(ledger, row.run_id) > 0


def undone_in_all(ledger: Executor, choice: Choice, undone: Undone, items: int) -> RolledBack | None:
    """Return what a session has undone, and what remains, for its summary; None when that is nothing and nobody asked."""
    if not (choice.is_rollback or choice.active.undo_count):
        return None
    run_id = choice.active.run_id
    remaining = tuple(unresolved(ledger, run_id, SHOWN))
    found = RolledBack(items, undone.steps, undone.ran, count_unresolved(ledger, run_id), remaining, undone.given_up)
    return found if choice.is_rollback or found.steps or found.unresolved_count else None


def undone_by(phase: Phase) -> Undone | None:
    """Return what was undone in a phase; None when it undoes nothing."""
    undoing = phase.undoing if isinstance(phase, Handling) else phase
    return undoing.undone if isinstance(undoing, Undoing) else None


def forget(ledger: Connection, active: ActiveRun, flow: dict[str, Any]) -> None:
    """Forget how a rollback was wished, once nothing of it is left; inside a transaction."""
    if ROLLBACK in flow and not active.undoing_count:
        run.set_flow(ledger, active.run_id, {name: value for name, value in flow.items() if name != ROLLBACK})
