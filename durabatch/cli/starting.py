"""
What ``run``, ``exec``, ``resume`` and ``retry`` have in common: options to settings, the run itself with its progress, and its summary.
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
from durabatch.models import RunSettings, Summary
from durabatch.options import usable_cores

if TYPE_CHECKING:
    from durabatch.intake.spec import InputSpec
    from durabatch.runner.request import RunRequest

__all__ = ["IntakeWish", "carry_out", "find_modules_here", "resumed", "settings_given", "start_run", "started_settings"]

#: Options of the command line that are fields of RunSettings as they are.
SAME_NAMES = ("workers", "batch_size", "pipeline_depth", "max_item_bytes", "max_result_bytes")


@dataclass(frozen=True, slots=True)
class IntakeWish:
    """
    What the command line says about the input; what it leaves open a handler may decide.

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
    def from_options(cls, inputs: tuple[str, ...], options: dict[str, Any]) -> IntakeWish:
        """Return what the intake options say."""
        names = ("format", "as_files", "include", "key", "delimiter", "encoding", "null")
        return cls(inputs, **{name: options[name] for name in names})

    def spec(self, *, format: str | None, include: tuple[str, ...]) -> InputSpec:
        """
        Return how the input is read; *format* and *include* are what the handler declares.

        Raises:
            UsageError: --files and another --format.
        """
        from durabatch.errors import UsageError
        from durabatch.intake.spec import InputSpec

        if self.as_files and self.format not in {None, "files"}:
            raise UsageError(f"--files and --format {self.format} contradict each other", "Leave one of them out.")
        wanted = self.format or ("files" if self.as_files else format)
        declared = include if wanted in {None, "files"} else ()
        return InputSpec(
            inputs=self.inputs, format=wanted, key=self.key, include=self.include or declared,
            null=self.null, encoding=self.encoding, delimiter=self.delimiter,
        )  # fmt: skip


def settings_given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of RunSettings that were given on the command line."""
    given = {name: options[name] for name in SAME_NAMES}
    given["max_attempts"] = None if options["retries"] is None else options["retries"] + 1
    given["output"] = None if options["output"] is None else os.path.abspath(options["output"])
    given["term_grace_s"] = options["term_grace"]
    given["drain_s"] = options["drain"]
    return {name: value for name, value in given.items() if value is not None}


def started_settings(given: dict[str, Any], params: dict[str, str], max_attempts: int | None) -> RunSettings:
    """Return the settings of a run: what was *given*, else what the handler declares, else the defaults."""
    declared = {} if max_attempts is None else {"max_attempts": max_attempts}
    return RunSettings(**{"workers": usable_cores(), "params": params, **declared, **given})


def start_run(handler: dict[str, Any], name: str | None, wish: IntakeWish, options: dict[str, Any], params: dict[str, str]) -> int:
    """
    Start or go on with the run of *handler* over the wished input, and return its exit code.

    Args:
        handler: Reference; it is checked here, before anything is written.
        name: Name of the run; None makes one of handler and input.
    """
    from dataclasses import asdict

    from durabatch.intake.open import open_source
    from durabatch.ledger.paths import ledger_files
    from durabatch.loading import check
    from durabatch.runner.request import RunRequest

    ledger = options["ledger"]
    exclude = ledger_files(ledger).all()
    checked = check(handler, params)
    given = settings_given(options)
    settings = started_settings(given, params, checked.spec.max_attempts)
    spec = wish.spec(format=checked.spec.format, include=checked.spec.include)
    stdin = None if sys.stdin is None else sys.stdin.buffer
    if "-" in spec.inputs and stdin is not None and stdin.isatty():
        printing.say("durabatch: reading items from the terminal; end with Ctrl-D")
    exclude += (settings.output,) if settings.output else ()
    source = open_source(spec, max_item_bytes=settings.max_item_bytes, exclude=exclude, stdin=stdin)
    request = RunRequest(
        verb="run", ledger=ledger, settings=settings, overrides=given, handler=handler, source=source, source_spec=asdict(spec),
        series=name or default_name(handler, checked.name, spec.description), fresh=options["fresh"],
    )  # fmt: skip
    return carry_out(request, options)


def resumed(verb: Literal["resume", "retry"], run: str | None, options: dict[str, Any], *, error_type: str | None = None) -> int:
    """Take up a run on record, with the settings given now in the place of its own, and return its exit code."""
    from durabatch.loading import parse_target
    from durabatch.runner.request import RunRequest

    find_modules_here()
    request = RunRequest(
        verb=verb, ledger=options["ledger"], overrides=settings_given(options), run=run, error_type=error_type,
        handler=None if options["handler"] is None else parse_target(options["handler"]), trust_ledger=options["trust_ledger"],
    )  # fmt: skip
    return carry_out(request, options)


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


def carry_out(request: RunRequest, options: dict[str, Any]) -> int:
    """Execute *request* with progress on stderr, print the summary there, and return the exit code."""
    from dataclasses import replace

    from durabatch.runner.session import execute

    display = open_display(options["progress"])
    request = replace(
        request,
        durability=options["durability"],
        allow_network_fs=options["allow_network_fs"],
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
