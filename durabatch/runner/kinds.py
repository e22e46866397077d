"""
What a handler is, as far as running it goes: an ordinary function, a coroutine function, or a command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from durabatch.models import RunSettings

__all__ = ["ASYNC_CONCURRENCY", "Kind", "kind_of"]

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
