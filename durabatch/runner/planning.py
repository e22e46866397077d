"""
``plan``: what a run would do now, without taking the ledger and without changing anything.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from durabatch.engine.compare import Comparison
from durabatch.errors import LedgerMissingError
from durabatch.intake.opened import OpenedInput
from durabatch.intake.plan import Plan, Survey
from durabatch.intake.plan_file import PlanWriter
from durabatch.ledger import run
from durabatch.ledger.reader import Reader
from durabatch.runner.choosing import check_first, check_handler, required_source
from durabatch.runner.feeding import first_page
from durabatch.runner.request import RunRequest
from durabatch.runner.settling import check_choice, check_undo, make_plan
from durabatch.sizes import size_text

__all__ = ["plan_of"]

#: Bytes that a ledger needs for an item beside its payload and its result, as measured.
BYTES_PER_ITEM = 200


def plan_of(request: RunRequest, *, full: bool, output: str | None = None) -> Plan:
    """
    Return what *request*, a ``run``, would find and do.

    Args:
        full: Read all of the input of a new run, too: every bad line and every key that comes again is met.
        output: Path of a CSV file that takes a line for each item that may be decided about; None for none.

    Raises:
        InputError, NoItemsError: The input is wrong, or empty.
        HandlerImportError, UsageError: The handler cannot be used.
        LedgerError: The ledger cannot be read. Nothing was written in any case.
    """
    check_choice(request.on_change)
    check_undo(request)
    opened = OpenedInput(required_source(request), request.remarks, request.settings.dedupe)
    handler = request.handler or {"kind": "inline", "name": request.series}
    usable = check_handler(handler, request.settings, request)
    try:
        reader = Reader(request.ledger)
    except LedgerMissingError:
        return plan_of_new(request, opened, full=full)
    with reader:
        newest = None if request.fresh else run.newest_of_series(reader, request.series or "")
        if newest is None:
            return plan_of_new(request, opened, full=full)
        if output is None:
            return make_plan(reader, request, newest, opened, usable.provenance)
        with PlanWriter(Path(output)) as writer:
            return make_plan(reader, request, newest, opened, usable.provenance, writer)


def plan_of_new(request: RunRequest, opened: OpenedInput, *, full: bool) -> Plan:
    """Return the plan for a run that is not there yet: by its first page, or by all of its input."""
    page, pages = first_page(opened)
    check_first(request, page)
    plan = Plan(None, opened.source.description)
    read_bytes = 0
    with closing(Comparison(None, 0, dedupe=opened.dedupe)) as comparison:
        survey = Survey(comparison, plan, note=request.note)
        survey.take(opened.source, page, comparison.page(page.rows))
        read_bytes += sum(len(row[1]) for row in page.rows)
        is_whole = page.done
        while full and not is_whole:
            page = next(pages)
            survey.take(opened.source, page, comparison.page(page.rows))
            read_bytes += sum(len(row[1]) for row in page.rows)
            is_whole = page.done
    plan.notes.append("a new run")
    if is_whole:
        plan.notes.append(
            f"its ledger will need about {size_text(read_bytes + plan.counts['new'] * BYTES_PER_ITEM)}, and room for the results"
        )
    else:
        plan.notes.append("only the beginning of the input was read; --full reads all of it")
    return plan
