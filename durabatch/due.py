"""
When something is due: an instant, or a time from now on, as people and programs write it.
"""

from __future__ import annotations

import contextlib
import datetime

from durabatch.errors import UsageError
from durabatch.options import parse_duration

__all__ = ["Due", "due_at_us"]

#: ``10m`` or ``2027-03-01T08:00`` (local time unless it says otherwise), a date and time, or a time from now on.
Due = str | datetime.datetime | datetime.timedelta
MICROSECOND = datetime.timedelta(microseconds=1)
#: The last instant that every program can show.
LATEST_US = int(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp()) * 1_000_000


def due_at_us(due: Due, now_us: int, *, option: str = "due") -> int:
    """
    Return the instant that *due* means.

    Raises:
        UsageError: It is neither a duration nor a date.
    """
    if isinstance(due, str):
        due = read(due, option)
    at_us = now_us + due // MICROSECOND if isinstance(due, datetime.timedelta) else int(due.timestamp() * 1e6)
    if not 0 <= at_us <= LATEST_US:
        raise UsageError(f"{option}: {due} is no instant that can be waited for")
    return at_us


def read(text: str, option: str) -> datetime.datetime | datetime.timedelta:
    """Return what *text* says."""
    with contextlib.suppress(UsageError):
        return datetime.timedelta(seconds=parse_duration(text, option=option))
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option}: {text!r} is neither a duration nor a date", "Use 10m, 1h30m, or 2027-03-01T08:00.") from error
