"""
What ``run``, ``exec``, ``resume`` and ``retry`` have in common: wishes to settings, the run itself with its progress, and its summary.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Literal

from durabatch.cli import printing
from durabatch.cli.abandoned import warn_about_abandoned
from durabatch.cli.progress import JsonDisplay, open_display
from durabatch.cli.summary import is_idle, summary_lines, summary_style
from durabatch.cli.undone import rollback_lines, undone_lines
from durabatch.clock import monotonic_s
from durabatch.errors import HandlerImportError, UsageError
from durabatch.models import Summary
from durabatch.settings import RunSettings

if TYPE_CHECKING:
    from durabatch.config.resolving import Effective
    from durabatch.decorator import HandlerSpec
    from durabatch.intake.remarks import Remarks
    from durabatch.intake.source import Source
    from durabatch.intake.spec import InputSpec
    from durabatch.loading import CheckedHandler
    from durabatch.runner.request import RunRequest

__all__ = [
    "carry_out", "checked_handler", "find_modules_here", "input_spec", "named_handler", "opened_source", "requested", "resumed", "run_settings",
    "start_run",
]  # fmt: skip


def named_handler(wishes: Effective) -> dict[str, Any]:
    """Return the reference of the handler that the words or the settings name."""
    import click

    from durabatch.loading import parse_target

    handler = wishes["handler"]
    if handler is None:
        raise click.MissingParameter(param_hint="HANDLER", param_type="argument")
    return parse_target(handler)


def start_run(handler: dict[str, Any], wishes: Effective) -> int:
    """
    Start or go on with the run of *handler* as wished, and return its exit code; with ``--dry-run`` show the plan.

    Args:
        handler: Reference; it is checked here, before anything is written.
    """
    request = requested(handler, wishes)
    if wishes["dry_run"]:
        from durabatch.cli.planning import show_plan

        return show_plan(request)
    return carry_out(request, wishes)


def requested(handler: dict[str, Any], wishes: Effective) -> RunRequest:
    """Return the request to run *handler* as wished, its input opened; an open run needs none."""
    from dataclasses import asdict

    from durabatch.intake.remarks import Remarks
    from durabatch.runner.request import RunRequest

    checked = checked_handler(handler, wishes)
    settings = run_settings(wishes, handler, checked.spec)
    spec = input_spec(wishes, format=checked.spec.format, include=checked.spec.include)
    series = wishes["name"] or default_name(handler, checked.name, spec.description)
    remarks = Remarks(skips=settings.on_bad_input == "skip")
    is_without = wishes["open"] and not spec.inputs
    return RunRequest(
        verb="run", ledger=wishes["ledger"], settings=settings, handler=handler, remarks=remarks,
        source=None if is_without else opened_source(spec, settings, wishes["ledger"], series, remarks),
        source_spec=None if is_without else asdict(spec), series=series, fresh=wishes["fresh"], retry_failed=wishes["retry_failed"],
        on_change=wishes["on_change"], from_item=wishes["from_item"], from_batch=wishes["from_batch"], open=wishes["open"],
        preflight_only=wishes["preflight_only"], undo=wants_undo(wishes),
    )  # fmt: skip


def wants_undo(wishes: Effective) -> bool:
    """Tell whether what items did is undone before they run again; a file may say so for good, and means it where something is run again."""
    is_again = any(wishes[key] is not None for key in ("on_change", "from_item", "from_batch"))
    return bool(wishes["undo"]) and (is_again or wishes.is_typed("undo"))


def input_spec(wishes: Effective, *, format: str | None, include: tuple[str, ...]) -> InputSpec:
    """Return how the input is read: as wished, else as the handler declares with *format* and *include*."""
    from dataclasses import fields, replace

    from durabatch.intake.registry import FILE_FORMATS
    from durabatch.intake.spec import InputSpec

    names = [part.name for part in fields(InputSpec) if part.name != "inputs"]
    spec = InputSpec(inputs=wishes["input"], **{name: wishes[name] for name in names})
    if spec.wanted_format is None:
        spec = replace(spec, format=format)
    takes_files = spec.wanted_format is None or spec.wanted_format in FILE_FORMATS
    return replace(spec, include=include) if takes_files and not spec.include else spec


def opened_source(spec: InputSpec, settings: RunSettings, ledger: str, series: str, remarks: Remarks) -> Source:
    """Return the opened input; the ledger, its side files and the output are never items."""
    from durabatch.intake.open import open_source
    from durabatch.ledger.paths import ledger_files
    from durabatch.output.places import own_places
    from durabatch.runner.asking import refuse_ledger

    refuse_ledger(spec.inputs, ledger)
    stdin = None if sys.stdin is None else sys.stdin.buffer
    never = (*ledger_files(ledger).all(), *own_places(settings.output))
    return open_source(
        spec, max_item_bytes=settings.max_item_bytes, never=never, stdin=stdin, ledger=ledger, series=series,
        skip_bad=remarks.skip_bad, notes=remarks.note,
    )  # fmt: skip


def checked_handler(handler: dict[str, Any], wishes: Effective) -> CheckedHandler:
    """Return what the handler declares, once it is known to be usable; a fault names the file or the variable that names the handler."""
    from durabatch.loading import check

    try:
        return check(handler, wishes["param"])
    except HandlerImportError as error:
        if handler["kind"] == "command" or wishes.is_typed("handler"):
            raise
        raise HandlerImportError(f"{wishes.label('handler')}: {error.what}", error.hint) from error


def run_settings(wishes: Effective, handler: dict[str, Any], spec: HandlerSpec) -> RunSettings:
    """
    Return the settings of a run: what is wished, else what the handler declares, else the defaults.

    Raises:
        UsageError: An exception or a batching strategy that is named does not exist, or there is nothing to check with.
    """
    from durabatch.config.declaring import declared_fields
    from durabatch.config.keys import by_field
    from durabatch.runner.asking import with_known_names

    wishes = wishes.with_declared(declared_fields(spec), "@handler")
    fields = {"workers": wishes["workers"], **wishes.fields()}
    settings = with_known_names(RunSettings(**fields), handler, label=lambda field: wishes.label(by_field()[field].key))
    if wishes["preflight_only"] and settings.preflight is None:
        raise UsageError("--preflight-only: there is no check", "Give one with --preflight, or @handler(preflight=...).")
    return settings


def resumed(verb: Literal["resume", "retry"], run: str | None, wishes: Effective, handler: str | None, **rest: Any) -> int:
    """
    Take up a run on record, with the settings given now in the place of its own, and return its exit code.

    Args:
        handler: In the place of the recorded one, None for that.
        rest: Fields of the request.
    """
    from dataclasses import replace

    from durabatch.loading import parse_target
    from durabatch.runner.request import RunRequest

    find_modules_here()
    reference = None if handler is None else parse_target(handler)
    request = RunRequest(
        verb=verb, ledger=wishes["ledger"], overrides=wishes.of_verb(verb).asked_fields(), run=run, handler=reference, **rest
    )
    if verb == "resume":
        again = {key: wishes[key] for key in ("on_change", "from_item", "from_batch")}
        request = replace(request, **again, undo=wants_undo(wishes))
    return carry_out(request, wishes)


def default_name(handler: dict[str, Any], called: str, inputs: str) -> str:
    """Return ``audit:servers.csv``; for a command also a digest of its arguments, since they are what it does."""
    if handler["kind"] != "command":
        return f"{called}:{inputs}"
    import hashlib

    digest = hashlib.blake2b(printing.json_text([handler["argv"], handler["shell"]]).encode(), digest_size=4).hexdigest()
    return f"{called}:{inputs}:{digest}"


def find_modules_here() -> None:
    """Let modules be found where the command was started, before all other places; only verbs that import a handler want that."""
    here = os.getcwd()
    if not sys.path or sys.path[0] not in {"", here}:
        sys.path.insert(0, here)


def carry_out(request: RunRequest, wishes: Effective) -> int:
    """Execute *request* with progress on stderr, print the summary there, and return the exit code."""
    from dataclasses import replace

    from durabatch.runner.session import execute

    for note in wishes.notes:
        printing.say(f"durabatch: {printing.clean(note)}")
    warn_about_abandoned(request.ledger, but=request.run)
    display = open_display(wishes["progress"])
    request = replace(
        request,
        durability=wishes["durability"],
        allow_network_fs=wishes["allow_network_fs"],
        on_progress=display.show,
        on_note=display.note,
    )
    request.remarks.listen(display.note)
    started_s = monotonic_s()
    try:
        summary = execute(request)
    finally:
        display.close()
    if isinstance(display, JsonDisplay):
        display.end(summary)
    else:
        say_summary(summary, request, monotonic_s() - started_s)
    return summary.exit_code


def say_summary(summary: Summary, request: RunRequest, took_s: float) -> None:
    """Print the summary on stderr."""
    if summary.recovered[0]:
        handed, begun = summary.recovered
        printing.say(
            f"recovered: {printing.plural(handed, 'item')} had been handed out when the run was cut off, {begun:,} of them had begun"
        )
    if request.verb == "rollback":
        *lines, last = rollback_lines(summary, ledger=request.ledger, took_s=took_s)
    else:
        *lines, last = [*undone_lines(summary), *summary_lines(summary, verb=request.verb, ledger=request.ledger, took_s=took_s)]
    for line in lines:
        printing.say(line)
    printing.say(printing.painted(last, "good" if is_idle(summary) and not summary.exit_code else summary_style(summary), sys.stderr))
