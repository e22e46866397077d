"""
Which run a request means, and whether it may go on: a new one, the newest of its series, or the one that was named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from durabatch import loading, process
from durabatch.clock import now_us
from durabatch.engine.active import ActiveRun, load
from durabatch.engine.retry import Chosen, retry
from durabatch.engine.start import create_run, resume_run
from durabatch.errors import InputChangedError, UsageError
from durabatch.intake.open import open_source
from durabatch.intake.ranking import first_misplaced, place_of
from durabatch.intake.source import Page, Source
from durabatch.intake.spec import InputSpec
from durabatch.ledger import batch, event, run
from durabatch.ledger.connection import Connection
from durabatch.ledger.run import RunRow
from durabatch.models import RunSettings
from durabatch.runner.asking import with_known_names
from durabatch.runner.feeding import Feeder, first_page
from durabatch.runner.kinds import kind_of, refuse_impossible
from durabatch.runner.request import RunRequest
from durabatch.states import RunState
from durabatch.workers.template import check_fields

__all__ = ["BAD_INPUT", "Choice", "choose", "peek"]

#: What a run's reason starts with when its input was bad; the corrected input may differ from the recorded one.
BAD_INPUT = "bad input: "


@dataclass(slots=True)
class Choice:
    """
    The run to work on.

    Attributes:
        feeder: Takes the rest of the input in; None when nothing more can or need be read.
        ended_before: Items that had ended before this call; None for a new run.
        nothing_to_do: The run is finished and its input unchanged.
        is_async: The handler is a coroutine function.
    """

    active: ActiveRun
    settings: RunSettings
    handler: dict[str, Any]
    feeder: Feeder | None = None
    ended_before: int | None = None
    nothing_to_do: bool = False
    is_async: bool = False


#: The first page of a source that was looked at before the ledger was made, and the pages after it.
Peeked = tuple[Page, Iterator[Page]]


def peek(request: RunRequest) -> Peeked | None:
    """
    Look at the input of a run whose ledger does not exist yet, so that bad or empty input leaves no file behind.

    Raises:
        InputError, NoItemsError: The input cannot start a run.
    """
    if request.verb == "run" and request.source is not None and not os.path.exists(request.ledger):
        page, pages = first_page(request.source)
        check_first(request, page)
        return page, pages
    return None


def check_first(request: RunRequest, page: Page) -> bool:
    """Make sure that the handler of a new run can be used, and a command with its first item; HandlerImportError or UsageError if not."""
    handler = request.handler or {"kind": "inline", "name": request.series}
    is_async = check_handler(handler, request.settings, request)
    if handler["kind"] == "command" and page.rows:
        check_fields(handler["argv"], page.rows[0][1])
    misplaced = first_misplaced(place_of(request.settings), page.rows)
    if misplaced is not None:
        raise misplaced[1].at(f"{required_source(request).description}:{page.rows[misplaced[0]][2]}")
    return is_async


def choose(ledger: Connection, request: RunRequest, peeked: Peeked | None) -> Choice:
    """
    Return the run that *request* means, created or taken up again on disk.

    Raises:
        NotFoundError: No such run.
        InputChangedError: The input is not the recorded one. Nothing was changed.
        InputError, NoItemsError: The input cannot start a run. No run was created.
    """
    if request.verb == "retry":
        return choose_retry(ledger, request)
    if request.verb == "resume":
        return choose_resume(ledger, request, run.find(ledger, request.run))
    newest = run.newest_of_series(ledger, request.series or "")
    if newest is None or request.fresh:
        return choose_new(ledger, request, peeked)
    return choose_again(ledger, request, newest, request.source)


def choose_new(ledger: Connection, request: RunRequest, peeked: Peeked | None) -> Choice:
    """Create the next run of the series with its first page; all of it or nothing is on disk."""
    source = required_source(request)
    page, pages = peeked or first_page(source)
    is_async = check_first(request, page)
    handler = request.handler or {"kind": "inline", "name": request.series}
    with ledger.transaction():
        run_id = create_run(
            ledger, series=request.series or "run", handler=handler, source=request.source_spec or {"iterable": source.description},
            fingerprint=source.fingerprint(), settings=request.settings.as_json(), now_us=now_us(),
        )  # fmt: skip
        active = load(ledger, run_id)
        feeder = Feeder(ledger, active, source, place_of(request.settings))
        feeder.begin(page, pages)
        active.write_tally(ledger)
    if source.key_note is not None:
        request.note(source.key_note)
    return Choice(active, request.settings, handler, feeder, is_async=is_async)


def required_source(request: RunRequest) -> Source:
    """Return the source, which a new run cannot do without."""
    if request.source is None:
        raise UsageError("a new run needs an input", "Give a file, a directory, or - for standard input.")
    return request.source


def choose_again(ledger: Connection, request: RunRequest, row: RunRow, source: Source | None) -> Choice:
    """Go on with a run that exists, with the settings of this call, after its input was found to be the recorded one."""
    if request.retry_failed:
        retry(ledger, row.run_id, Chosen(), now_us=now_us())
        row = run.get(ledger, row.run_id)
    active = load(ledger, row.run_id)
    choice = Choice(active, request.settings, request.handler or row.handler, ended_before=row.ended_count)
    if source is not None:
        choice.feeder = Feeder(ledger, active, source, place_of(request.settings))
        settle_input(choice.feeder, source, row)
    is_idle = choice.feeder is None or choice.feeder.is_done
    choice.nothing_to_do = row.state == RunState.FINISHED and is_idle and active.open_count == 0
    republish_elsewhere(ledger, row, choice.settings)
    if choice.nothing_to_do:
        return choice
    choice.is_async = check_handler(choice.handler, choice.settings, request)
    fingerprint = source.fingerprint() if source is not None else None
    resume_run(ledger, row.run_id, handler=choice.handler, settings=choice.settings.as_json(), fingerprint=fingerprint, now_us=now_us())
    return choice


def settle_input(feeder: Feeder, source: Source, row: RunRow) -> None:
    """Make sure that *source* is the recorded input, and have the feeder stand behind what was taken in."""
    fingerprint = source.fingerprint()
    if fingerprint is None or (row.reason or "").startswith(BAD_INPUT):
        feeder.match()
    elif fingerprint != row.fingerprint:
        raise InputChangedError(
            f"{changed_file(fingerprint, row.fingerprint)} has changed since run {row.name} was started",
            "Nothing was run. Use --fresh to start the next run with it, or `durabatch resume` to finish what the ledger holds.",
        )
    elif not row.intake_complete:
        feeder.go_on(row.source_position)


def changed_file(now: list[dict[str, Any]], before: list[dict[str, Any]] | None) -> str:
    """Return the first input file that is not as recorded."""
    recorded = {one["path"]: one for one in before or []}
    return str(next((one["path"] for one in now if recorded.get(one["path"]) != one), "the list of input files"))


def republish_elsewhere(ledger: Connection, row: RunRow, settings: RunSettings) -> None:
    """Have all batches written again when the output goes to another place than before."""
    if settings.output is not None and row.settings.get("output") != settings.output:
        with ledger.transaction():
            batch.mark_all_unpublished(ledger, row.run_id)


def choose_resume(ledger: Connection, request: RunRequest, row: RunRow) -> Choice:
    """Go on with a recorded run as it was started, apart from the overrides; its input is opened again where it has a name."""
    check_trust(ledger, request)
    settings = overridden(row, request)
    source = None if row.intake_complete else reopened_source(row, settings, ledger.files.all())
    return choose_again(ledger, replace(request, settings=settings), row, source)


def overridden(row: RunRow, request: RunRequest) -> RunSettings:
    """Return the recorded settings of a run with those of this call; UsageError for a name of an exception or a strategy that nobody knows."""
    settings = replace(RunSettings.from_json(row.settings), **request.overrides)
    return with_known_names(settings, request.handler or row.handler, request.function, label=lambda field: f"--{field.replace('_', '-')}")


def reopened_source(row: RunRow, settings: RunSettings, exclude: tuple[str, ...]) -> Source | None:
    """Return the recorded input, opened again; None when it was standard input or an iterable, which only the caller has."""
    if "inputs" not in row.source or "-" in row.source["inputs"] or not row.source["inputs"]:
        return None
    stored = {**row.source, "inputs": tuple(row.source["inputs"]), "include": tuple(row.source.get("include", ()))}
    return open_source(InputSpec(**stored), max_item_bytes=settings.max_item_bytes, exclude=exclude)


def choose_retry(ledger: Connection, request: RunRequest) -> Choice:
    """Make ended items of a run pending again, and go on with it without its input."""
    check_trust(ledger, request)
    row = run.find(ledger, request.run)
    settings = overridden(row, request)
    chosen = Chosen(states=request.states, error_type=request.error_type, group=request.group, keys=request.keys, where=request.where)
    # A handler that cannot be imported leaves the items as they are.
    check_handler(request.handler or row.handler, settings, request)
    count = retry(ledger, row.run_id, chosen, now_us=now_us())
    if not count:
        return Choice(load(ledger, row.run_id), settings, row.handler, ended_before=row.ended_count, nothing_to_do=True)
    choice = choose_again(ledger, replace(request, settings=settings), run.get(ledger, row.run_id), None)
    choice.ended_before = row.ended_count - count
    return choice


def check_trust(ledger: Connection, request: RunRequest) -> None:
    """Import nothing that only a ledger from elsewhere names."""
    if request.handler is not None or request.trust_ledger:
        return
    maker = event.first_opened(ledger)
    here = {"uid": os.geteuid(), "machine": process.machine_id()}
    if not here["machine"] or any(maker.get(name) != value for name, value in here.items()):
        raise UsageError(
            f"the ledger was made by user {maker.get('uid')} on {maker.get('host')}, and its handler would be run here",
            "Give the handler yourself with --handler MODULE:FUNCTION, or say --trust-ledger.",
        )


def check_handler(handler: dict[str, Any], settings: RunSettings, request: RunRequest) -> bool:
    """
    Make sure that the handler can be imported and called, before anything is written and a worker tries.

    Returns:
        Whether it is a coroutine function.

    Raises:
        HandlerImportError, UsageError: It cannot.
    """
    if settings.preflight is not None:
        loading.check_preflight(settings.preflight, settings.params)
    is_async = is_async_handler(handler, settings, request)
    refuse_impossible(settings, kind_of(handler, settings, is_async=is_async), is_command=handler["kind"] == "command")
    return is_async


def is_async_handler(handler: dict[str, Any], settings: RunSettings, request: RunRequest) -> bool:
    """Tell whether the handler is a coroutine function, once it is known that it can be used; errors as for ``check_handler``."""
    if request.function is not None:
        return loading.check_function(request.function, settings.params).is_async
    if handler["kind"] == "inline":
        raise UsageError(
            f"handler {handler['name']!r} of this run has no importable name, so only its own program can call it",
            "Start the same call again, or name a handler that can be imported.",
        )
    return loading.check(handler, settings.params).is_async
