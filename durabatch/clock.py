"""
Time. Instants are UTC microseconds since 1970 and only for display and due times; durations come from the monotonic clock.
"""

from __future__ import annotations

import datetime
import time

__all__ = ["iso", "monotonic_s", "now_us"]

monotonic_s = time.monotonic


def now_us() -> int:
    """Return the wall-clock instant in UTC microseconds since 1970."""
    return time.time_ns() // 1000


def iso(instant_us: int | None) -> str | None:
    """Return *instant_us* as ISO-8601 text in UTC with milliseconds, or None for None."""
    if instant_us is None:
        return None
    instant = datetime.datetime.fromtimestamp(instant_us / 1e6, tz=datetime.UTC)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
