"""
Is the input of a run that exists still the one it was started with? If not, somebody must say what is to be done.

    as recorded: start at once  |  else: compare  →  the rest of an unfinished intake, nothing new, or a plan  →  refuse, or do as told

Nothing is mixed silently. What is done when somebody has said what to do is another module's: :mod:`durabatch.runner.amending`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from durabatch.clock import now_us
from durabatch.codec import payload_digests
from durabatch.engine.active import ActiveRun, reload
from durabatch.engine.add import QUEUE
from durabatch.engine.compare import Comparison
from durabatch.engine.redo import redo_finished
from durabatch.engine.submit import note_read
from durabatch.errors import InputChangedError, UsageError
from durabatch.intake.opened import OpenedInput
from durabatch.intake.plan import Continuation, Plan, Survey, known_rows
from durabatch.intake.plan_file import PlanWriter
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.run import RunRow
from durabatch.options import did_you_mean
from durabatch.provenance import differences, version_changed
from durabatch.runner.amending import MODES, apply, is_half_done, note_in_line
from durabatch.runner.feeding import Feeder
from durabatch.runner.request import RunRequest

__all__ = ["BAD_INPUT", "CHOICES", "Settled", "check_choice", "check_undo", "has_ended", "is_as_recorded", "make_plan", "settle", "settle_version"]

#: What a run's reason starts with when its input was bad; the corrected input may differ from the recorded one.
BAD_INPUT = "bad input: "
#: What may be said about a changed input; anything else is the path of a plan.
CHOICES = ("ledger", "merge", "source")


@dataclass(frozen=True, slots=True)
class Settled:
    """
    What is to be recorded of the input with which a run goes on; None leaves what is recorded.

    Attributes:
        fingerprint: Of its files.
        source: How it is read.
        provenance: What results depend on besides.
    """

    fingerprint: list[dict[str, Any]] | None = None
    source: dict[str, Any] | None = None
    provenance: dict[str, Any] | None = None


def settle(ledger: Connection, request: RunRequest, row: RunRow, feeder: Feeder, now: dict[str, Any]) -> Settled:
    """
    Have the feeder stand where the input goes on, once the items of the run agree with the input as far as is wished.

    Args:
        now: The provenance of this call.

    Raises:
        InputChangedError: Input or version have changed and nobody says what to do. Nothing was changed.
        InputError: The input is wrong. Pages that were applied before stay.
        UsageError: The plan that was given does not fit. Nothing was changed.
    """
    choice = request.on_change
    if choice == "ledger":
        request.note("the input is not looked at: the run ends with what the ledger holds")
        return Settled()
    source, plan = feeder.source, Plan(row.name, feeder.source.description, is_new_version=version_changed(row.provenance, now))
    fingerprint = source.fingerprint()
    if row.source == QUEUE:
        # The items of the run came from other processes alone so far: this is its first input.
        feeder.go_on(None)
        return Settled(fingerprint, request.source_spec, now)
    as_recorded, is_in_line = Settled(fingerprint, request.source_spec, now), False
    continuation: Continuation | None = None
    for sentence in differences(row.provenance, now):
        request.note(sentence)
    if choice in MODES and (is_half_done(row) or not source.repeatable):
        apply(ledger, feeder, choice, request.note, undo=request.undo)
    elif not is_as_recorded(row, fingerprint, request.source_spec) or (choice in MODES and row.intake.get("by_plan")):
        continuation = surveyed(ledger, feeder.opened, row, plan, request.note)
        is_in_line = continuation is None and not (plan.is_changed or has_ended(row))
    elif not has_ended(row):
        feeder.go_on(row.source_position)
    if plan.needs_choice and choice is None:
        raise refusal(plan)
    if continuation is not None:
        feeder.go_on_within(continuation.page, continuation.pages, before=continuation.before, known=continuation.known)
    if is_in_line:
        note_in_line(ledger, feeder.active)
    if plan.is_changed or (choice == "source" and row.intake.get("kept") and source.repeatable):
        request.note(f"the input has changed: {plan.sentence()}" if plan.is_changed else "what was gone and had been kept is cancelled")
        apply(ledger, feeder, str(choice), request.note, undo=request.undo)
    if plan.is_new_version:
        redo_all(ledger, feeder.active, request)
    return as_recorded


def settle_version(ledger: Connection, request: RunRequest, row: RunRow, active: ActiveRun, now: dict[str, Any]) -> Settled:
    """Do for the handler alone what ``settle`` does, for a run whose input is not looked at; errors as there."""
    if request.on_change == "ledger":
        return Settled()
    for sentence in differences(row.provenance, now):
        request.note(sentence)
    plan = Plan(row.name, row.name, is_new_version=version_changed(row.provenance, now))
    if plan.needs_choice and request.on_change is None:
        raise refusal(plan)
    if plan.is_new_version:
        redo_all(ledger, active, request)
    return Settled(provenance=now)


def redo_all(ledger: Connection, active: ActiveRun, request: RunRequest) -> None:
    """Have every finished item run again: its result is of another version of the handler."""
    again = redo_finished(ledger, active.run_id, now_us=now_us(), undo=request.undo)
    reload(ledger, active)
    request.note(f"{again:,} finished items run again, with the new version")


def check_choice(choice: str | None) -> None:
    """Raise UsageError unless *choice* is one of :data:`CHOICES`, the path of a plan, or None."""
    if choice is not None and choice not in CHOICES and not os.path.isfile(choice):
        raise UsageError(
            f"--on-change: {choice!r} is none of {', '.join(CHOICES)}, and no file",
            did_you_mean(choice, CHOICES) or "A plan is written by `durabatch plan --output plan.csv`.",
        )


def check_undo(request: RunRequest) -> None:
    """Raise UsageError when what items did is to be undone, and nothing is said that would have them run again."""
    if request.undo and request.on_change is None and request.from_item is None and request.from_batch is None:
        raise UsageError(
            "--undo: nothing is said that would have items run again",
            "Give --from-item, --from-batch or --on-change with it; `durabatch rollback` undoes, and runs nothing.",
        )


def is_as_recorded(row: RunRow, fingerprint: list[dict[str, Any]] | None, source: Mapping[str, Any] | None) -> bool:
    """Tell whether files that tell everything, and the way they are read, are those that the run was started with."""
    is_same_way = source is None or comparable(source) == comparable(row.source)
    return fingerprint is not None and fingerprint == row.fingerprint and is_same_way and not (row.reason or "").startswith(BAD_INPUT)


def comparable(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return how an input is read, without what says nothing: an option that is off is as one that was not there yet."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in source.items() if value not in (None, False, (), [], "")
    }


def has_ended(row: RunRow) -> bool:
    """Tell whether all of the input was taken in; an open run may have more to come from elsewhere."""
    return bool(row.intake.get("ended", row.intake_complete))


def surveyed(
    ledger: Executor, opened: OpenedInput, row: RunRow, plan: Plan, note: Callable[[str], None], writer: PlanWriter | None = None
) -> Continuation | None:
    """Compare all of the source with the items of the run, into *plan*; return where it goes on if that is the rest of an unfinished intake."""
    source = opened.source
    if has_ended(row) and source.repeatable and writer is None and is_same_by_digest(opened, row):
        plan.counts["same"] = row.total_count
        return None
    known = None if has_ended(row) or is_half_done(row) else known_rows(row.intake, row.total_count)
    with closing(Comparison(ledger, row.run_id, dedupe=opened.dedupe)) as comparison:
        survey = Survey(comparison, plan, note=note, writer=writer)
        return survey.read(source, opened.pages(), known=known)


def is_same_by_digest(opened: OpenedInput, row: RunRow) -> bool:
    """Tell whether the source gives as many rows as were taken in, with the same payloads: the ledger's items need not be read for that."""
    rows, digest = row.intake.get("rows"), row.intake.get("digest")
    if digest is None or opened.dedupe != "error":
        # Where keys come again, the order of the rows matters, of which the digest says nothing.
        return False
    counted: dict[str, Any] = {}
    for page in opened.pages():
        if page.problem is not None or counted.get("rows", 0) + len(page.rows) > rows:
            return False
        note_read(counted, payload_digests([one[1] for one in page.rows]))
    return (counted.get("rows", 0), counted.get("digest")) == (rows, digest)


def refusal(plan: Plan) -> InputChangedError:
    """Return the error for a plan about which nobody has said what to do."""
    told = [plan.sentence()] if plan.is_changed else []
    told += ["the handler's version is another one"] if plan.is_new_version else []
    cause = (
        f"{'standard input' if plan.input == '-' else plan.input} has changed since run {plan.run} was started"
        if plan.is_changed
        else f"run {plan.run} was started with another handler"
    )
    return InputChangedError(
        f"{cause}: {'; '.join(told)}",
        "Nothing was run. Say --on-change merge (add the new, redo the changed), source (also cancel the gone), ledger (finish what the ledger "
        "holds), or --fresh to start anew; `durabatch plan --output plan.csv` writes a plan to edit, for --on-change plan.csv.",
    )


def make_plan(
    ledger: Executor, request: RunRequest, row: RunRow, opened: OpenedInput, now: dict[str, Any], writer: PlanWriter | None = None
) -> Plan:
    """Return the plan for going on with a run, without changing anything; *writer* takes a line for each item that may be decided about."""
    plan = Plan(
        row.name, opened.source.description, is_new_version=version_changed(row.provenance, now), notes=differences(row.provenance, now)
    )
    fingerprint = opened.source.fingerprint()
    if writer is not None or not is_as_recorded(row, fingerprint, request.source_spec):
        continuation = surveyed(ledger, opened, row, plan, request.note, writer)
        if continuation is not None:
            plan.notes.append(f"intake goes on behind {known_rows(row.intake, row.total_count):,} rows")
    else:
        plan.counts["same"] = row.total_count
        if not has_ended(row):
            plan.notes.append(f"intake goes on behind {known_rows(row.intake, row.total_count):,} rows")
    plan.counts |= {
        "failed": row.failed_count + row.quarantined_count,
        "unfinished": row.open_count,
        "done": row.succeeded_count + row.skipped_count,
    }
    return plan
