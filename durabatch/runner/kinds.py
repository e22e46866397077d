"""
What a handler is, as far as running it goes: an ordinary function, a coroutine function, or a command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from durabatch.errors import UsageError
from durabatch.settings import RunSettings
from durabatch.undo_template import UndoTemplate

__all__ = ["ASYNC_CONCURRENCY", "Kind", "kind_of", "refuse_impossible"]

#: Items at once in a worker of an ``async def`` handler, where nobody says otherwise.
ASYNC_CONCURRENCY = 100
#: How far the concurrency can be raised while the workers live: so many times, and at least to this number.
GROWTH, LEAST_ROOM = 4, 64
MAX_CONCURRENCY = 10_000


@dataclass(frozen=True, slots=True)
class Kind:
    """
    What a handler is.

    Attributes:
        concurrency: Items at once in each worker.
        most: How far that can be raised while the workers live.
        ends_itself: Its workers end an item at its limit by themselves.
    """

    concurrency: int
    most: int
    ends_itself: bool


def kind_of(handler: Mapping[str, Any], settings: RunSettings, *, is_async: bool) -> Kind:
    """Return the kind of a handler reference under these settings."""
    concurrency = settings.concurrency or (ASYNC_CONCURRENCY if is_async else 1)
    most = min(MAX_CONCURRENCY, max(GROWTH * concurrency, LEAST_ROOM))
    return Kind(concurrency, max(most, concurrency), ends_itself=is_async or handler["kind"] == "command")


def refuse_impossible(settings: RunSettings, kind: Kind, *, is_command: bool) -> None:
    """
    Return when the limits in *settings* can be kept for handlers of this kind, and what they log can be undone.

    Raises:
        UsageError: One of them cannot.
    """
    check_undo_command(settings.undo_command, is_command=is_command)
    if settings.cpu_limit_s is not None and not is_command and (kind.ends_itself or kind.concurrency > 1):
        raise UsageError("--cpu-limit needs a command, or an ordinary function that runs alone in its worker", "Give --concurrency 1.")
    if settings.workers:
        return
    todo = "Use workers (--workers 1)."
    if settings.timeout is not None and not kind.ends_itself:
        raise UsageError("--timeout cannot end an ordinary function that runs in this process (--workers 0)", todo)
    if settings.memory_limit_bytes is not None or (settings.cpu_limit_s is not None and not is_command):
        name = "--cpu-limit" if settings.memory_limit_bytes is None else "--memory-limit"
        raise UsageError(f"{name} would end this process itself (--workers 0)", todo)
    if kind.concurrency > 1 and not kind.ends_itself:
        raise UsageError("--concurrency needs workers: in this process (--workers 0) ordinary functions run one after the other", todo)


def check_undo_command(text: str | None, *, is_command: bool) -> None:
    """Return when there is no undo command, or one that can be run for the handler; UsageError otherwise."""
    if text is None:
        return
    if not is_command:
        raise UsageError("--undo-command undoes what commands log", "A Python handler has ctx.undo(...) and @durabatch.undo_action.")
    UndoTemplate.parse(text).check_program()
