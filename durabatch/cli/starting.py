"""
What ``run``, ``exec``, ``resume`` and ``retry`` have in common: wishes to settings, the run itself with its progress, and its summary.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from durabatch.cli import printing
from durabatch.cli.progress import JsonDisplay, open_display
from durabatch.cli.summary import is_idle, summary_lines, summary_style
from durabatch.clock import monotonic_s
from durabatch.errors import HandlerImportError, UsageError
from durabatch.models import RunSettings, Summary

if TYPE_CHECKING:
    from durabatch.config.resolving import Effective
    from durabatch.decorator import HandlerSpec
    from durabatch.intake.spec import InputSpec
    from durabatch.loading import CheckedHandler
    from durabatch.runner.request import RunRequest

__all__ = ["IntakeWish", "carry_out", "checked_handler", "find_modules_here", "resumed", "run_settings", "start_run"]


@dataclass(frozen=True, slots=True)
class IntakeWish:
    """
    What the settings say about the input; what they leave open a handler may decide.

    Attributes:
        format: None when not given.
        include: Empty when not given.
    """

    inputs: tuple[str, ...]
    format: str | None
    as_files: bool
    include: tuple[str, ...]
    key: str | None
    delimiter: str | None
    encoding: str
    null: bool

    @classmethod
    def of(cls, wishes: Effective) -> IntakeWish:
        """Return what the intake settings say."""
        names = ("input", "format", "files", "include", "key", "delimiter", "encoding", "null")
        return cls(*(wishes[name] for name in names))

    def spec(self, *, format: str | None, include: tuple[str, ...]) -> InputSpec:
        """
        Return how the input is read; *format* and *include* are what the handler declares.

        Raises:
            UsageError: --files and another --format.
        """
        from durabatch.intake.spec import InputSpec

        if self.as_files and self.format not in {None, "files"}:
            raise UsageError(f"--files and --format {self.format} contradict each other", "Leave one of them out.")
        wanted = self.format or ("files" if self.as_files else format)
        declared = include if wanted in {None, "files"} else ()
        return InputSpec(
            inputs=self.inputs, format=wanted, key=self.key, include=self.include or declared,
            null=self.null, encoding=self.encoding, delimiter=self.delimiter,
        )  # fmt: skip


def start_run(handler: dict[str, Any], wishes: Effective) -> int:
    """
    Start or go on with the run of *handler* as wished, and return its exit code.

    Args:
        handler: Reference; it is checked here, before anything is written.
    """
    from dataclasses import asdict

    from durabatch.intake.open import open_source
    from durabatch.ledger.paths import ledger_files
    from durabatch.runner.request import RunRequest

    ledger = wishes["ledger"]
    exclude = ledger_files(ledger).all()
    checked = checked_handler(handler, wishes)
    settings = run_settings(wishes, handler, checked.spec)
    spec = IntakeWish.of(wishes).spec(format=checked.spec.format, include=checked.spec.include)
    stdin = None if sys.stdin is None else sys.stdin.buffer
    if "-" in spec.inputs and stdin is not None and stdin.isatty():
        printing.say("durabatch: reading items from the terminal; end with Ctrl-D")
    exclude += (settings.output,) if settings.output else ()
    source = open_source(spec, max_item_bytes=settings.max_item_bytes, exclude=exclude, stdin=stdin)
    request = RunRequest(
        verb="run", ledger=ledger, settings=settings, handler=handler, source=source, source_spec=asdict(spec),
        series=wishes["name"] or default_name(handler, checked.name, spec.description), fresh=wishes["fresh"],
        retry_failed=wishes["retry_failed"], preflight_only=wishes["preflight_only"],
    )  # fmt: skip
    return carry_out(request, wishes)


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
    from durabatch.loading import parse_target
    from durabatch.runner.request import RunRequest

    find_modules_here()
    reference = None if handler is None else parse_target(handler)
    request = RunRequest(verb=verb, ledger=wishes["ledger"], overrides=wishes.of_verb(verb).asked_fields(), run=run, handler=reference, **rest)
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
    display = open_display(wishes["progress"])
    request = replace(
        request,
        durability=wishes["durability"],
        allow_network_fs=wishes["allow_network_fs"],
        on_progress=display.show,
        on_note=display.note,
    )
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
    *lines, last = summary_lines(summary, verb=request.verb, ledger=request.ledger, took_s=took_s)
    for line in lines:
        printing.say(line)
    printing.say(printing.painted(last, "good" if is_idle(summary) and not summary.exit_code else summary_style(summary), sys.stderr))
