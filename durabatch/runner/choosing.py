"""
Which run a request means, and whether it may go on: a new one, the newest of its series, or the one that was named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from durabatch import loading
from durabatch.clock import now_us
from durabatch.decorator import HandlerSpec
from durabatch.engine.active import ActiveRun, load, reload
from durabatch.engine.add import not_open
from durabatch.engine.close import let_in
from durabatch.engine.hold import first_of_batch, hold, item_of, let_go
from durabatch.engine.redo import redo_from
from durabatch.engine.retry import BROKEN, Chosen, retry
from durabatch.engine.start import create_run, resume_run
from durabatch.engine.validating import refuse_differing
from durabatch.errors import HandlerImportError, InputError, UsageError
from durabatch.intake.open import open_source
from durabatch.intake.opened import OpenedInput
from durabatch.intake.ranking import first_misplaced, place_of
from durabatch.intake.remarks import Remarks
from durabatch.intake.source import Page, Source
from durabatch.intake.spec import InputSpec
from durabatch.ledger import run
from durabatch.ledger.connection import Connection
from durabatch.ledger.paths import ledger_files
from durabatch.ledger.run import RunRow
from durabatch.output.places import own_places, refuse_same
from durabatch.provenance import provenance
from durabatch.runner.asking import with_known_names
from durabatch.runner.feeding import Feeder, first_page
from durabatch.runner.kinds import kind_of, refuse_impossible
from durabatch.runner.request import RunRequest
from durabatch.runner.settling import BAD_INPUT, Settled, check_choice, check_undo, has_ended, settle, settle_version
from durabatch.runner.trusting import check_trust, refuse_transaction
from durabatch.runner.vigil import refuse_unfit
from durabatch.settings import RunSettings
from durabatch.states import ItemState, RunState
from durabatch.workers.template import check_fields

__all__ = [
    "BAD_INPUT", "Choice", "Peeked", "check_first", "check_handler", "check_recorded", "choose", "overridden", "peek", "required_source",
]  # fmt: skip


@dataclass(slots=True)
class Choice:
    """
    The run to work on.

    Attributes:
        feeder: Takes the rest of the input in; None when nothing more can or need be read.
        ended_before: Items that had ended before this call; None for a new run.
        nothing_to_do: The run is finished and its input unchanged.
        is_async: The handler is a coroutine function.
        provenance: What results of this call depend on besides the input.
        is_rollback: What items did is undone, and nothing else is done.
        undone_before: Items that were undone before this call.
        left_alone: What stays unfinished since it stands before the item from which on everything is run again, in words.
    """

    active: ActiveRun
    settings: RunSettings
    handler: dict[str, Any]
    feeder: Feeder | None = None
    ended_before: int | None = None
    nothing_to_do: bool = False
    is_async: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    is_rollback: bool = False
    undone_before: int = 0
    left_alone: str | None = None


@dataclass(frozen=True, slots=True)
class Usable:
    """A handler that was found to be usable."""

    is_async: bool
    provenance: dict[str, Any]


#: The first page of a source that was looked at before the ledger was made, and the pages after it.
Peeked = tuple[Page, Iterator[Page]]
#: What is there to take in of a run that begins without an input.
NOTHING: Peeked = (Page([], "", done=True), iter(()))


def peek(request: RunRequest) -> Peeked | None:
    """
    Look at the input of a run whose ledger does not exist yet, so that bad or empty input leaves no file behind.

    Raises:
        InputError, NoItemsError: The input cannot start a run.
    """
    check_places(request)
    if request.verb == "run" and request.source is not None and not os.path.exists(request.ledger):
        page, pages = first_page(opened(request, request.source))
        check_first(request, page)
        return page, pages
    return None


def check_places(request: RunRequest) -> None:
    """Make sure that the output goes neither over the input nor over the ledger; UsageError if it would."""
    inputs = (request.source_spec or {}).get("inputs", ())
    refuse_same(request.settings.output, inputs, ledger_files(request.ledger).all())


def check_first(request: RunRequest, page: Page) -> Usable:
    """Make sure that the handler of a new run can be used, and a command with its first item; HandlerImportError or UsageError if not."""
    handler = request.handler or {"kind": "inline", "name": request.series}
    usable = check_handler(handler, request.settings, request)
    if handler["kind"] == "command" and page.rows:
        check_fields(handler["argv"], page.rows[0][1])
    misplaced = first_misplaced(place_of(request.settings), page.rows)
    if misplaced is not None:
        raise misplaced[1].at(f"{required_source(request).description}:{page.rows[misplaced[0]][2]}")
    return usable


def choose(ledger: Connection, request: RunRequest, peeked: Peeked | None) -> Choice:
    """
    Return the run that *request* means, created or taken up again on disk.

    Raises:
        NotFoundError: No such run.
        InputChangedError: The input is not the recorded one, or the handler has another version, and nobody says what to do. Nothing was changed.
        InputError, NoItemsError: The input cannot start a run. No run was created.
    """
    check_choice(request.on_change)
    check_undo(request)
    if request.verb == "retry":
        return choose_retry(ledger, request)
    if request.verb == "resume":
        row = run.find(ledger, request.run)
        refuse_transaction(row, "resume")
        return choose_resume(ledger, request, row)
    newest = run.newest_of_series(ledger, request.series or "")
    if newest is not None:
        refuse_transaction(newest, "run")
    if newest is None or request.fresh:
        return choose_new(ledger, request, peeked)
    return choose_again(ledger, request, newest, request.source)


def choose_new(ledger: Connection, request: RunRequest, peeked: Peeked | None) -> Choice:
    """Create the next run of the series with its first page; all of it or nothing is on disk. An open run may begin without an input."""
    if request.from_item is not None or request.from_batch is not None:
        raise UsageError(
            f"there is no run {request.series!r} yet, of which a part could be run again", "Leave --from-item and --from-batch out."
        )
    refuse_unfit(request.settings, is_open=request.open)
    source = request.source if request.open else required_source(request)
    page, pages = peeked or (NOTHING if source is None else first_page(opened(request, source)))
    usable = check_first(request, page)
    handler = request.handler or {"kind": "inline", "name": request.series}
    with ledger.transaction():
        run_id = create_run(
            ledger, series=request.series or "run", handler=handler, source=request.source_spec or {"iterable": describe(source)},
            fingerprint=None if source is None else source.fingerprint(), settings=request.settings.as_json(),
            provenance=usable.provenance, is_open=request.open, now_us=now_us(),
        )  # fmt: skip
        active = load(ledger, run_id)
        feeder = None if source is None else Feeder(ledger, active, opened(request, source), request.settings)
        if feeder is not None:
            feeder.begin(page, pages)
        active.write_tally(ledger)
    if source is not None and source.key_note is not None:
        request.note(source.key_note)
    return Choice(active, request.settings, handler, feeder, is_async=usable.is_async, provenance=usable.provenance)


def opened(request: RunRequest, source: Source) -> OpenedInput:
    """Return the source of a request as its input."""
    return OpenedInput(source, request.remarks, request.settings.dedupe)


def describe(source: Source | None) -> str:
    """Return what is recorded of a source that has no name."""
    return "submitted" if source is None else source.description


def required_source(request: RunRequest) -> Source:
    """Return the source, which a new run cannot do without."""
    if request.source is None:
        raise UsageError("a new run needs an input", "Give a file, a directory, or - for standard input.")
    return request.source


def choose_again(ledger: Connection, request: RunRequest, row: RunRow, source: Source | None) -> Choice:
    """Go on with a run that exists, with the settings of this call, after its input was settled with what the ledger holds."""
    handler = request.handler or row.handler
    is_open = request.open or bool(row.is_open)
    if request.verb == "run" or is_open:
        refuse_unfit(request.settings, is_open=is_open)
    usable = check_recorded(row, request.settings, request)
    if request.retry_failed:
        retry(ledger, row.run_id, Chosen(), now_us=now_us())
        row = run.get(ledger, row.run_id)
    active = load(ledger, row.run_id)
    choice = Choice(active, request.settings, handler, ended_before=row.ended_count, is_async=usable.is_async, provenance=usable.provenance)
    settled = Settled()
    if source is not None:
        choice.feeder = Feeder(ledger, active, opened(request, source), request.settings)
        settled = settle(ledger, request, row, choice.feeder, usable.provenance)
    elif request.verb == "resume":
        settled = settle_version(ledger, request, row, active, usable.provenance)
    run_again_from(ledger, request, choice)
    is_idle = (choice.feeder is None or choice.feeder.is_done) and not is_open
    state = run.get(ledger, row.run_id).state
    is_over = state in (RunState.FINISHED, RunState.ROLLED_BACK) and active.open_count == 0
    is_off = state == RunState.ROLLED_BACK and request.verb == "run"
    choice.nothing_to_do = (is_over or is_off) and is_idle and not active.undoing_count
    if is_off and choice.nothing_to_do:
        request.note(f"run {row.name} was rolled back: `durabatch retry {row.name} --undone` runs its items again, --fresh starts anew")
    if not choice.nothing_to_do:
        resume_run(
            ledger, row.run_id, handler=choice.handler, settings=choice.settings.as_json(), fingerprint=settled.fingerprint,
            source=settled.source, provenance=settled.provenance, now_us=now_us(),
        )  # fmt: skip
        if request.open:
            let_in(ledger, active)
    return choice


def run_again_from(ledger: Connection, request: RunRequest, choice: Choice) -> None:
    """Have everything from an item or a batch on run again, whatever has become of it, and nothing before it; without such a wish, everything."""
    active, now = choice.active, now_us()
    if request.from_item is None and request.from_batch is None:
        if let_go(ledger, active.run_id):
            reload(ledger, active)
        return
    first_id = (
        item_of(ledger, active.run_id, request.from_item)
        if request.from_item is not None
        else first_of_batch(ledger, active.run_id, request.from_batch or 1)
    )
    with ledger.transaction():
        held = hold(ledger, active.run_id, first_id)
        again = redo_from(ledger, active.run_id, first_id, now_us=now, undo=request.undo)
    reload(ledger, active)
    place = f"item {request.from_item}" if request.from_item is not None else f"batch {request.from_batch}"
    request.note(f"from {place} on {again:,} items run again")
    if held.count:
        more = ", …" if held.count > len(held.keys) else ""
        choice.left_alone = f"{held.count:,} unfinished items before {place} are left as they are ({', '.join(held.keys)}{more})"
        request.note(choice.left_alone)


def choose_resume(ledger: Connection, request: RunRequest, row: RunRow) -> Choice:
    """Go on with a recorded run as it was started, apart from the overrides; its input is opened again where it has a name."""
    if request.open and not row.is_open:
        raise not_open(row.name, row.state)
    if row.handler.get("kind") == "none" and request.handler is None:
        raise nobody_said(row)
    check_trust(ledger, request, row)
    if not request.force:
        refuse_differing(ledger, row.run_id)
    settings = overridden(row, request)
    request = replace(request, settings=settings, remarks=Remarks(skips=settings.on_bad_input == "skip"))
    request.remarks.listen(request.note)
    source = None if has_ended(row) else reopened_source(ledger, row, settings, request)
    return choose_again(ledger, request, row, source)


def nobody_said(row: RunRow) -> UsageError:
    """Return the error for a run to which items were submitted, and nothing more."""
    return UsageError(
        f"nobody has said yet what is to be done with the items of run {row.name!r}",
        f"Start it with `durabatch run HANDLER --name {row.name} --open`.",
    )


def overridden(row: RunRow, request: RunRequest) -> RunSettings:
    """Return the recorded settings of a run with those of this call; UsageError for a name of an exception or a strategy that nobody knows."""
    settings = replace(RunSettings.from_json(row.settings), **request.overrides)
    return with_known_names(settings, request.handler or row.handler, request.function, label=lambda field: f"--{field.replace('_', '-')}")


def reopened_source(ledger: Connection, row: RunRow, settings: RunSettings, request: RunRequest) -> Source | None:
    """
    Return the recorded input, opened again.

    None when it was standard input or an iterable, which only the caller has, and when it is not there any more or has changed: then what
    the ledger holds is finished.
    """
    if "inputs" not in row.source or "-" in row.source["inputs"] or not row.source["inputs"]:
        return None
    never = (*ledger.files.all(), *own_places(settings.output))
    try:
        source = open_source(
            InputSpec.from_json(row.source), max_item_bytes=settings.max_item_bytes, never=never, ledger=ledger.files.ledger,
            series=row.series, skip_bad=request.remarks.skip_bad, notes=request.remarks.note,
        )  # fmt: skip
        fingerprint = source.fingerprint()
    except InputError as error:
        request.note(f"the rest of the input cannot be taken in: {error.what}")
        return None
    if (
        fingerprint is not None
        and fingerprint != row.fingerprint
        and request.on_change is None
        and not (row.reason or "").startswith(BAD_INPUT)
    ):
        request.note(
            f"{source.description} has changed: the run ends with what the ledger holds; `durabatch run ... --on-change` takes it in"
        )
        return None
    return source


def choose_retry(ledger: Connection, request: RunRequest) -> Choice:
    """Make ended items of a run pending again, and go on with it without its input."""
    row = run.find(ledger, request.run)
    refuse_transaction(row, "retry")
    check_trust(ledger, request, row)
    settings = overridden(row, request)
    states = request.states or (BROKEN if settings.atomic == "item" else (*BROKEN, ItemState.UNDONE))
    chosen = Chosen(states=states, error_type=request.error_type, group=request.group, keys=request.keys, where=request.where)
    # A handler that cannot be imported leaves the items as they are.
    check_recorded(row, settings, request)
    count = retry(ledger, row.run_id, chosen, now_us=now_us())
    if not count:
        return Choice(load(ledger, row.run_id), settings, row.handler, ended_before=row.ended_count, nothing_to_do=True)
    choice = choose_again(ledger, replace(request, settings=settings), run.get(ledger, row.run_id), None)
    choice.ended_before = row.ended_count - count
    return choice


def check_recorded(row: RunRow, settings: RunSettings, request: RunRequest) -> Usable:
    """As :func:`check_handler` for a run on record, whose handler may have been moved since."""
    try:
        return check_handler(request.handler or row.handler, settings, request)
    except HandlerImportError as error:
        if request.handler is not None:
            raise
        hint = f"{error.hint} If it was moved, name it with --handler MODULE:FUNCTION.".strip()
        raise HandlerImportError(error.what, hint) from error


def check_handler(handler: dict[str, Any], settings: RunSettings, request: RunRequest) -> Usable:
    """
    Make sure that the handler can be imported and called, before anything is written and a worker tries.

    Raises:
        HandlerImportError, UsageError: It cannot.
    """
    if settings.preflight is not None:
        loading.check_preflight(settings.preflight, settings.params)
    spec, is_async = spec_of_handler(handler, settings, request)
    refuse_impossible(settings, kind_of(handler, settings, is_async=is_async), is_command=handler["kind"] == "command")
    return Usable(is_async, provenance(handler, spec, settings.params, request.function, preflight=settings.preflight))


def spec_of_handler(handler: dict[str, Any], settings: RunSettings, request: RunRequest) -> tuple[HandlerSpec, bool]:
    """Return what the handler declares, and whether it is a coroutine function; errors as for ``check_handler``."""
    if request.function is not None:
        checked = loading.check_function(request.function, settings.params)
        return checked.spec, checked.is_async
    if handler["kind"] == "inline":
        raise UsageError(
            f"handler {handler['name']!r} of this run has no importable name, so only its own program can call it",
            "Start the same call again, or name a handler that can be imported.",
        )
    checked = loading.check(handler, settings.params)
    return checked.spec, checked.is_async
