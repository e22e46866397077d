"""
From an exception to what is recorded of it: plain, capped texts that can be stored and sent whatever the exception does.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from durabatch.errors import ResultTooLargeError, UndoError
from durabatch.verdicts import Fail, Irreversible, Skip, Snooze, Verdict
from durabatch.workers.command_error import CommandError, CommandTimeoutError
from durabatch.workers.grouping import group_of
from durabatch.workers.protocol import Failure, Task, Work

__all__ = [
    "MAX_MESSAGE_BYTES",
    "MAX_TRACEBACK_BYTES",
    "TIMEOUT_GROUP",
    "TIMEOUT_KINDS",
    "TIMEOUT_TYPE",
    "capped",
    "failure_of",
    "kinds_of",
    "message_of",
    "one_line",
    "timeout_text",
    "traceback_of",
    "type_of",
]

MAX_MESSAGE_BYTES = 8 * 1024
MAX_TRACEBACK_BYTES = 16 * 1024
MAX_TYPE_BYTES = 256
MAX_LINE_BYTES = 500
#: Frames kept of a deep recursion: the innermost ones.
MAX_FRAMES = 100
#: The type under which an attempt is recorded that was ended at its limit, and the names by which a retry policy knows it.
TIMEOUT_TYPE = "ItemTimeoutError"
TIMEOUT_KINDS = (TIMEOUT_TYPE, "TimeoutError")
TIMEOUT_GROUP = f"{TIMEOUT_TYPE}: timeout"
#: What :func:`input` says when there is nothing to read.
NO_INPUT = "EOF when reading a line"

PACKAGE = str(Path(__file__).resolve().parents[1]) + "/"


def failure_of(
    error: BaseException, work: Work, *, worker: int, started_at_us: int, duration_us: int, ended_by: str | None = None, task: Task = "run"
) -> Failure:
    """
    Return the record of a try that ended with *error*. Never raises, whatever the exception's methods do.

    Args:
        ended_by: Which limit ended the try from outside, in words, see :func:`timeout_text`; None when it ended by itself.
        task: A try of the preflight check can only say that the item is to be skipped, and an UndoError of an undo step is its last word,
            unless it says that it is not.
    """
    if isinstance(error, CommandTimeoutError):
        ended_by = message_of(error)
    facts: dict[str, Any] = facts_of(error) if ended_by is None else timeout_facts(ended_by, error)
    if task == "check":
        facts = refusal_facts(error, ended_by)
    if task == "undo" and ended_by is None and isinstance(error, UndoError):
        facts["retryable"] = error.retryable
    if isinstance(error, CommandError):
        facts |= {name: getattr(error, name) for name in ("exit_code", "stdout_tail", "stderr_tail", "peak_rss_bytes")}
    facts.setdefault("error_group", group_of(facts["error_type"], facts["message"]) if facts["error_type"] else "")
    return Failure(
        item_id=work[0], number=work[1], worker=worker, started_at_us=started_at_us, duration_us=duration_us, **facts
    )  # fmt: skip


def facts_of(error: BaseException) -> dict[str, Any]:
    """Return what is recorded of a try that ended by itself: with an exception, or with a verdict of the handler's."""
    if isinstance(error, Skip | Snooze):
        outcome = "skipped" if isinstance(error, Skip) else "snoozed"
        return said(outcome, message_of(error), remedy=getattr(error, "remedy", None), after_s=error.after_s)
    facts: dict[str, Any] = {
        "outcome": "failed",
        "error_type": type_of(error),
        "message": message_of(error),
        "traceback": traceback_of(error),
    }
    if isinstance(error, Verdict):
        facts |= {"after_s": error.after_s, "retryable": not isinstance(error, Fail | Irreversible)}
    return facts | {"kinds": kinds_of(error)}


def said(outcome: str, reason: str, *, remedy: str | None = None, after_s: float | None = None) -> dict[str, Any]:
    """Return what is recorded of a try that ended with a reason instead of an error."""
    remedy = None if remedy is None else capped(remedy, MAX_MESSAGE_BYTES)
    return {"outcome": outcome, "error_type": "", "message": reason, "traceback": "", "remedy": remedy, "after_s": after_s}


def timeout_facts(text: str, error: BaseException) -> dict[str, Any]:
    """Return what is recorded of a try that was ended at its limit; the traceback says where it was."""
    facts = {"outcome": "timed_out", "error_type": TIMEOUT_TYPE, "message": text, "traceback": traceback_of(error)}
    return facts | {"kinds": list(TIMEOUT_KINDS), "error_group": TIMEOUT_GROUP}


def refusal_facts(error: BaseException, ended_by: str | None) -> dict[str, Any]:
    """Return what is recorded of an item that the preflight check did not let pass, in whatever way it said so."""
    if ended_by is not None:
        return said("skipped", f"the preflight check did not end: {ended_by}")
    if isinstance(error, Verdict):
        return said("skipped", message_of(error) or "refused by the preflight check", remedy=getattr(error, "remedy", None))
    if isinstance(error, CommandError):
        return said("skipped", last_line(error.stderr_tail or "") or message_of(error))
    return said("skipped", f"{type_of(error)}: {message_of(error)}")


def timeout_text(seconds: float, *, deadline: bool = False) -> str:
    """Return in words that a try was ended after *seconds*; *deadline*: by the item's own deadline."""
    shown = f"{max(0.0, seconds):.3f}".rstrip("0").rstrip(".")
    return f"timeout after {shown} s{' (item deadline)' if deadline else ''}"


def last_line(text: str) -> str:
    """Return the last line of *text* with anything in it, capped."""
    lines = (line.strip() for line in reversed(text.splitlines()))
    return capped(next(filter(None, lines), ""), MAX_LINE_BYTES)


def kinds_of(error: BaseException) -> list[str]:
    """Return the names of the error's class and of the classes above it, each short and, unless it is built in, with its module."""
    kinds: dict[str, None] = {}
    for kind in type(error).__mro__[:-1]:
        names = (kind.__name__, kind.__qualname__, f"{kind.__module__}.{kind.__qualname__}")
        kinds |= dict.fromkeys(capped(name, MAX_TYPE_BYTES) for name in names[: 2 if kind.__module__ == "builtins" else 3])
    return list(kinds)


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
    """Return the traceback in Python's form without frames of durabatch, capped. Empty for commands, and for what was never raised."""
    if isinstance(error, CommandError) or error.__traceback__ is None:
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
