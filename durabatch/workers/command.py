"""
Commands as handlers: one subprocess per item, its output captured, its exit status judged.

An item ends when its command ends. A process that the command left behind and that still holds its output is killed (in a worker; inline
it is left alone and its output is no longer waited for); one that does not is killed when the worker ends.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from durabatch.codec import InvalidJsonError, parse_item
from durabatch.errors import HandlerImportError, ResultTooLargeError
from durabatch.loading import LoadedHandler
from durabatch.workers.command_error import CommandError
from durabatch.workers.context import Context
from durabatch.workers.template import ArgvTemplate, ShellTemplate, Values, environment_of

__all__ = ["MAX_CAPTURE_BYTES", "Capture", "CommandHandler", "load"]

#: Of what a command prints, this much is kept of each stream as its value.
MAX_CAPTURE_BYTES = 64 * 1024
#: Of what a failed command printed, this much of the end is recorded.
TAIL_BYTES = 8 * 1024
READ_BYTES = 256 * 1024
MAX_LINE = 500
#: How long output is waited for after the command has ended and its leftovers were killed.
DRAIN_S = 0.5
#: How often to look whether the command has ended, on systems that cannot say so by themselves.
LOOK_MS = 50
#: How much is read at most of what was in the pipes at the end: a leftover may go on printing for ever.
MAX_REST_BYTES = 8 * 1024 * 1024


def load(ref: Mapping[str, Any], *, max_output_bytes: int, end_leftovers: Callable[[], None] | None = None) -> LoadedHandler:
    """
    Return the handler for the reference of a command. Nothing is started: the coordinator may use this as an early check.

    Args:
        max_output_bytes: Most bytes of standard output that ``parse`` takes.
        end_leftovers: Kills processes that a command left behind; None leaves them alone.

    Raises:
        HandlerImportError: The template or ``parse`` is wrong.
    """
    template = ShellTemplate(ref["argv"]) if ref.get("shell") else ArgvTemplate(ref["argv"])
    parse = ref.get("parse") or "none"
    if parse not in PARSERS:
        raise HandlerImportError(f"--parse {parse!r} is not one of {', '.join(PARSERS)}")
    handler = CommandHandler(template, parse, max_output_bytes, end_leftovers)
    return LoadedHandler(takes_context=True, call=handler, function=handler)


class Capture:
    """The beginning and the end of a stream, whatever its length."""

    def __init__(self, limit_bytes: int) -> None:
        self.total_bytes = 0
        self.head = bytearray()
        self._limit_bytes = limit_bytes
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        """Take in the next bytes; beyond the limit only the end is kept."""
        self.total_bytes += len(data)
        self.head += data[: max(0, self._limit_bytes - len(self.head))]
        self._tail += data[-TAIL_BYTES:]
        del self._tail[:-TAIL_BYTES]

    def text(self) -> str:
        """Return the beginning as text, with a note when something is missing. Bytes that are not UTF-8 become U+FFFD."""
        note = f"\n[cut, {self.total_bytes:,} bytes in all]" if self.total_bytes > len(self.head) else ""
        return self.head.decode("utf-8", "replace") + note

    def tail(self) -> str:
        """Return the end as text."""
        return self._tail.decode("utf-8", "replace")


class CommandHandler:
    """A command to be run with one item after the other."""

    def __init__(
        self, template: ArgvTemplate | ShellTemplate, parse: str, max_output_bytes: int, end_leftovers: Callable[[], None] | None
    ) -> None:
        self._template = template
        self._parse = parse
        self._max_output_bytes = MAX_CAPTURE_BYTES if parse == "none" else max_output_bytes
        self._end_leftovers = end_leftovers

    def __call__(self, payload: str, context: object | None) -> object:
        """
        Run the command for an item and return its value.

        Raises:
            CommandError: It could not be started, ended with another status than 0, or printed what cannot be parsed.
            ResultTooLargeError: It printed more than may be parsed.
        """
        if not isinstance(context, Context):
            raise TypeError("a command needs the context of its item")
        argv, variables = self._template.render(Values(payload, context))
        stdout, stderr = Capture(self._max_output_bytes), Capture(MAX_CAPTURE_BYTES)
        status = self._run(argv, environment_of(context, variables), stdout, stderr)
        if status != 0:
            raise failed(status, stdout, stderr)
        if self._parse != "none" and stdout.total_bytes > self._max_output_bytes:
            raise ResultTooLargeError(stdout.total_bytes, self._max_output_bytes)
        return PARSERS[self._parse](stdout, stderr)

    def _run(self, argv: list[str], environment: dict[str, str], stdout: Capture, stderr: Capture) -> int:
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        try:
            process = subprocess.Popen(argv, env=environment, stdin=null, stdout=pipe, stderr=pipe, bufsize=0)
        except (OSError, ValueError) as error:
            raise CommandError(f"cannot start {argv[0]}: {getattr(error, 'strerror', None) or error}") from error
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                self._collect(process, {process.stdout.fileno(): stdout, process.stderr.fileno(): stderr})
            except BaseException:
                process.kill()
                raise
        return process.returncode

    def _collect(self, process: subprocess.Popen[bytes], captures: dict[int, Capture]) -> None:
        poll = select.poll()
        for descriptor in captures:
            poll.register(descriptor, select.POLLIN)
        read_until_exit(poll, process, captures)
        read_rest(poll, captures, 0.0)
        if captures:
            if self._end_leftovers is not None:
                self._end_leftovers()
            read_rest(poll, captures, DRAIN_S)


def read_until_exit(poll: select.poll, process: subprocess.Popen[bytes], captures: dict[int, Capture]) -> None:
    """Read what the process prints until it ends or has closed everything. Streams at their end are dropped from *captures*."""
    ended = os.pidfd_open(process.pid) if sys.platform == "linux" else None
    try:
        if ended is not None:
            poll.register(ended, select.POLLIN)
        while captures and (ended is not None or process.poll() is None):
            ready = [descriptor for descriptor, _ in poll.poll(None if ended is not None else LOOK_MS)]
            read_ready(poll, ready, captures)
            if ended in ready:
                break
    finally:
        if ended is not None:
            poll.unregister(ended)
            os.close(ended)


def read_rest(poll: select.poll, captures: dict[int, Capture], wait_s: float) -> None:
    """Read what is there already, and what comes within *wait_s*; a stream that is still open then is no longer listened to."""
    until = time.monotonic() + wait_s
    bytes_left = MAX_REST_BYTES
    while captures and bytes_left > 0:
        ready = poll.poll(max(0.0, until - time.monotonic()) * 1000)
        if not ready:
            return
        bytes_left -= read_ready(poll, [descriptor for descriptor, _ in ready], captures)


def read_ready(poll: select.poll, ready: list[int], captures: dict[int, Capture]) -> int:
    """Read once from each stream in *ready* and return how many bytes came."""
    count = 0
    for descriptor in captures.keys() & set(ready):
        data = os.read(descriptor, READ_BYTES)
        captures[descriptor].add(data)
        count += len(data)
        if not data:
            poll.unregister(descriptor)
            del captures[descriptor]
    return count


def failed(status: int, stdout: Capture, stderr: Capture) -> CommandError:
    """Return the error for a command that ended with *status*."""
    what = f"exit code {status}" if status > 0 else f"killed by signal {-status} ({signal_name(-status)})"
    last = next((line.strip() for line in reversed(stderr.tail().splitlines()) if line.strip()), "")
    return error_of(f"{what}: {last[:MAX_LINE]}" if last else what, status, stdout, stderr)


def error_of(message: str, status: int, stdout: Capture, stderr: Capture) -> CommandError:
    """Return an error with the ends of what the command printed."""
    return CommandError(message, exit_code=status, stdout_tail=stdout.tail(), stderr_tail=stderr.tail())


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
        raise error_of("stdout is empty, --parse json needs a value", 0, stdout, stderr)
    try:
        return parse_item(text)[0]
    except InvalidJsonError as error:
        raise error_of(f"stdout is no JSON: {error}", 0, stdout, stderr) from error


PARSERS: dict[str, Callable[[Capture, Capture], object]] = {"none": parse_none, "json": parse_json, "lines": parse_lines}
