"""
Commands as handlers: one subprocess per item, its output captured, its exit status judged.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from durabatch.codec import InvalidJsonError, parse_item
from durabatch.errors import HandlerImportError, ResultTooLargeError, UndoError
from durabatch.loading import LoadedHandler
from durabatch.undo_client import IN_CHECK, NO_UNDO_COMMAND, UNDO_VARIABLE
from durabatch.undo_template import UndoTemplate
from durabatch.workers.allowance import Allowance
from durabatch.workers.capture import MAX_CAPTURE_BYTES, Capture
from durabatch.workers.child import Child, Ended, Service
from durabatch.workers.command_error import CommandError, CommandTimeoutError
from durabatch.workers.context import Context
from durabatch.workers.surroundings import ITEM_MARKER
from durabatch.workers.template import ArgvTemplate, ShellTemplate, Values, environment_of

__all__ = ["CommandHandler", "failed", "load", "run_child"]

MAX_LINE = 500


def load(
    ref: Mapping[str, Any],
    allowance: Allowance,
    *,
    max_output_bytes: int,
    own_groups: bool = True,
    undo_command: str | None = None,
    is_check: bool = False,
) -> LoadedHandler:
    """
    Return the handler for the reference of a command. Nothing is started: the coordinator may use this as an early check.

    Args:
        allowance: How long a command may take.
        max_output_bytes: Most bytes of standard output that ``parse`` takes.
        own_groups: Each command gets a process group, so that what it leaves behind can be ended.
        undo_command: What undoes the effects that it logs, see :class:`UndoTemplate`; without it nothing can be logged.
        is_check: It is a preflight check, which has no effects.

    Raises:
        HandlerImportError: The template or ``parse`` is wrong.
        UsageError: The undo command is.
    """
    template = ShellTemplate(ref["argv"]) if ref.get("shell") else ArgvTemplate(ref["argv"])
    parse = ref.get("parse") or "none"
    if parse not in PARSERS:
        raise HandlerImportError(f"--parse {parse!r} is not one of {', '.join(PARSERS)}")
    undo = None if undo_command is None or is_check else UndoTemplate.parse(undo_command)
    refusal = IN_CHECK if is_check else NO_UNDO_COMMAND
    handler = CommandHandler(template, parse, max_output_bytes, allowance, own_groups=own_groups, undo=undo, refusal=refusal)
    return LoadedHandler(takes_context=True, call=handler, function=handler, is_command=True)


class CommandHandler:
    """A command to be run with one item after the other, or with several at once."""

    def __init__(
        self,
        template: ArgvTemplate | ShellTemplate,
        parse: str,
        max_output_bytes: int,
        allowance: Allowance,
        *,
        own_groups: bool,
        undo: UndoTemplate | None,
        refusal: str,
    ) -> None:
        self._template = template
        self._parse = parse
        self._max_output_bytes = MAX_CAPTURE_BYTES if parse == "none" else max_output_bytes
        self._allowance = allowance
        self._own_groups = own_groups
        self._undo = undo
        #: What the command reads where it would log, when there is nothing to undo its effects.
        self._refusal = refusal

    def __call__(self, payload: str, context: object | None) -> object:
        """
        Run the command for an item and return its value.

        Raises:
            CommandError: It could not be started, ended with another status than 0, or printed what cannot be parsed.
            CommandTimeoutError: Its time was up.
            ResultTooLargeError: It printed more than may be parsed.
            UndoError: It ended without waiting for what it had logged.
        """
        if not isinstance(context, Context):
            raise TypeError("a command needs the context of its item")
        argv, variables = self._template.render(Values(payload, context))
        marker = f"{self._allowance.marker}/{context.item_id}/{context.attempt}"
        environment = {**environment_of(context, variables), ITEM_MARKER: marker}
        stdout, stderr = Capture(self._max_output_bytes), Capture(MAX_CAPTURE_BYTES)
        ended, unanswered = self._run(argv, environment, stdout, stderr, context)
        if ended.status != 0 or ended.ended_by is not None:
            raise failed(ended, stdout, stderr)
        if unanswered:
            raise UndoError(f"the command ended before its entry {unanswered[0]!r} was on disk", "Let it wait for `durabatch undo-log` to end.")
        if self._parse != "none" and stdout.total_bytes > self._max_output_bytes:
            raise ResultTooLargeError(stdout.total_bytes, self._max_output_bytes)
        return PARSERS[self._parse](stdout, stderr)

    def _run(
        self, argv: list[str], environment: dict[str, str], stdout: Capture, stderr: Capture, context: Context
    ) -> tuple[Ended, list[str]]:
        """Run a command to its end; return how it ended, and the actions that it logged without waiting."""
        run = partial(run_child, argv, environment, stdout, stderr, context, self._allowance, own_group=self._own_groups)
        if self._undo is None:
            environment[UNDO_VARIABLE] = self._refusal
            return run(), []
        # Here: most commands log nothing.
        from durabatch.workers.undo_socket import UndoSocket

        undo_socket = UndoSocket(context._promise, self._undo, context.item_key)
        try:
            environment[UNDO_VARIABLE] = undo_socket.variable
            ended = run(service=undo_socket)
        finally:
            unanswered = undo_socket.close()
        return ended, unanswered


def run_child(
    argv: list[str],
    environment: dict[str, str],
    stdout: Capture,
    stderr: Capture,
    context: Context,
    allowance: Allowance,
    *,
    own_group: bool,
    service: Service | None = None,
) -> Ended:
    """Run a command to its end, or to the end of its time; CommandError when it cannot be started."""
    marker = environment[ITEM_MARKER]
    cpu_limit_s = allowance.cpu_limit_s
    child = Child(argv, environment, stdout, stderr, marker=marker, cpu_limit_s=cpu_limit_s, own_group=own_group, service=service)
    return child.run(context._limit, allowance.term_grace_s)


def failed(ended: Ended, stdout: Capture, stderr: Capture) -> CommandError:
    """Return the error for a command that ended with another status than 0, or at its limit."""
    kind, what = CommandError, f"exit code {ended.status}"
    if ended.ended_by is not None:
        kind, what = CommandTimeoutError, ended.ended_by
    elif ended.status < 0:
        what = f"killed by signal {-ended.status} ({signal_name(-ended.status)})"
    last = next((line.strip() for line in reversed(stderr.tail().splitlines()) if line.strip()), "")
    message = f"{what}: {last[:MAX_LINE]}" if last and ended.ended_by is None else what
    tails = {"stdout_tail": stdout.tail(), "stderr_tail": stderr.tail()}
    return kind(message, exit_code=ended.status, peak_rss_bytes=ended.peak_rss_bytes, **tails)


def unreadable(message: str, stdout: Capture, stderr: Capture) -> CommandError:
    """Return the error for output that cannot be parsed."""
    return CommandError(message, exit_code=0, stdout_tail=stdout.tail(), stderr_tail=stderr.tail())


def signal_name(number: int) -> str:
    """Return the name of a signal, or its number for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def parse_none(stdout: Capture, stderr: Capture) -> object:
    """Return exit code and texts."""
    return {"exit_code": 0, "stdout": stdout.text(), "stderr": stderr.text()}


def parse_lines(stdout: Capture, _stderr: Capture) -> object:
    """Return the lines of the standard output, without their ends."""
    lines = stdout.text().split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def parse_json(stdout: Capture, stderr: Capture) -> object:
    """Return the value that the standard output holds."""
    text = bytes(stdout.head).strip()
    if not text:
        raise unreadable("stdout is empty, --parse json needs a value", stdout, stderr)
    try:
        return parse_item(text)[0]
    except InvalidJsonError as error:
        raise unreadable(f"stdout is no JSON: {error}", stdout, stderr) from error


PARSERS: dict[str, Callable[[Capture, Capture], object]] = {"none": parse_none, "json": parse_json, "lines": parse_lines}
