"""
From an exception to what is recorded of it: plain, capped texts that can be stored and sent whatever the exception does.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from durabatch.errors import ResultTooLargeError
from durabatch.workers.command_error import CommandError
from durabatch.workers.protocol import Failure, Work

__all__ = ["MAX_MESSAGE_BYTES", "MAX_TRACEBACK_BYTES", "capped", "failure_of", "message_of", "one_line", "traceback_of"]

MAX_MESSAGE_BYTES = 8 * 1024
MAX_TRACEBACK_BYTES = 16 * 1024
MAX_TYPE_BYTES = 256
#: Frames kept of a deep recursion: the innermost ones.
MAX_FRAMES = 100
#: What :func:`input` says when there is nothing to read.
NO_INPUT = "EOF when reading a line"

PACKAGE = str(Path(__file__).resolve().parents[1]) + "/"


def failure_of(error: BaseException, work: Work, *, worker: int, started_at_us: int, duration_us: int) -> Failure:
    """Return the record of a try that ended with *error*. Never raises, whatever the exception's methods do."""
    exit_code, stdout_tail, stderr_tail = None, None, None
    if isinstance(error, CommandError):
        exit_code, stdout_tail, stderr_tail = error.exit_code, error.stdout_tail, error.stderr_tail
    return Failure(
        item_id=work[0],
        number=work[1],
        worker=worker,
        started_at_us=started_at_us,
        duration_us=duration_us,
        outcome="failed",
        error_type=type_of(error),
        message=message_of(error),
        traceback=traceback_of(error),
        exit_code=exit_code,
        stdout_tail=stdout_tail,
        stderr_tail=stderr_tail,
    )


def type_of(error: BaseException) -> str:
    """Return the name under which errors of this kind are counted and retried."""
    return "ResultTooLarge" if isinstance(error, ResultTooLargeError) else capped(type(error).__name__, MAX_TYPE_BYTES)


def message_of(error: BaseException) -> str:
    """Return the exception's own words, capped; a stand-in when it cannot say them."""
    try:
        text = capped(str(error), MAX_MESSAGE_BYTES)
    except BaseException:  # noqa: BLE001 - the user's __str__ may raise anything, and an exception about an exception helps nobody
        return "(message not available)"
    return f"{text} (a handler has no standard input)" if isinstance(error, EOFError) and text == NO_INPUT else text


def traceback_of(error: BaseException) -> str:
    """Return the traceback in Python's form without frames of durabatch, capped. Empty for commands, which have none."""
    if isinstance(error, CommandError):
        return ""
    try:
        trail = traceback.TracebackException(type(error), error, theirs(error.__traceback__), limit=-MAX_FRAMES, compact=True)
        for part in chain_of(trail):
            kept = [frame for frame in part.stack if not frame.filename.startswith(PACKAGE)]
            part.stack = traceback.StackSummary.from_list(kept)
        return capped("".join(trail.format()), MAX_TRACEBACK_BYTES)
    except BaseException:  # noqa: BLE001 - see message_of; also RecursionError and MemoryError while formatting
        return f"(traceback of {type_of(error)} not available)"


def theirs(trail: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that begins in code that is not durabatch's; None when all of it is."""
    while trail is not None and trail.tb_frame.f_code.co_filename.startswith(PACKAGE):
        trail = trail.tb_next
    return trail


def chain_of(trail: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield a formatted exception and the ones it came from, each once."""
    waiting, seen = [trail], set[int]()
    while waiting:
        part = waiting.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting += [*filter(None, (part.__cause__, part.__context__)), *(part.exceptions or ())]


def capped(text: str, limit_bytes: int) -> str:
    """Return *text* as text that UTF-8 can hold, cut to about *limit_bytes* with a note of what is missing."""
    data = text[:limit_bytes].encode("utf-8", "backslashreplace")
    if len(text) <= limit_bytes and len(data) <= limit_bytes:
        return data.decode()
    return f"{data[:limit_bytes].decode('utf-8', 'ignore')} [cut, {len(text):,} characters in all]"


def one_line(text: str) -> str:
    """Return *text* with all runs of white space as one blank."""
    return " ".join(text.split())
