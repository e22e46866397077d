"""
What a handler may say about its item besides a value and an error, by raising it or by returning it.

    Skip("no such host", remedy="fix the DNS entry")     there is nothing to do; not a failure
    Retry(after="30s", reason="rate limited")            failed for now; try again then, if tries are left
    Snooze("10m")                                        not yet; try again then, which charges no attempt
    Fail("the record is not valid")                      failed; further tries are pointless
"""

from __future__ import annotations

import datetime
import math

from durabatch.errors import UsageError

__all__ = ["Fail", "Irreversible", "Retry", "Skip", "Snooze", "Verdict"]


class Verdict(Exception):  # noqa: N818 - it is no error
    """
    Base of what a handler may say; not raised itself.

    Attributes:
        reason: A text for people; may be empty.
        after_s: Seconds until the next try, None for no wish.
    """

    def __init__(self, reason: object, after_s: float | None = None) -> None:
        self.reason = "" if reason is None else str(reason)
        self.after_s = after_s
        super().__init__(self.reason)


class Skip(Verdict):
    """
    There is nothing to do for this item. It ends as ``skipped``, which is no failure.

    Args:
        reason: Why.
        remedy: What a person could do about it.
    """

    def __init__(self, reason: object, remedy: object = None) -> None:
        self.remedy = None if remedy is None else str(remedy)
        super().__init__(reason)


class Retry(Verdict):
    """
    The try failed, and another one makes sense, if any are left.

    Args:
        after: When: seconds, a text such as ``"30s"``, or a timedelta; None leaves it to the run.
        reason: Why.
    """

    def __init__(self, after: float | str | datetime.timedelta | None = None, reason: object = None) -> None:
        super().__init__(reason, None if after is None else _seconds(after, "Retry"))


class Snooze(Verdict):
    """
    It is too early for this item: another try later, and this one is not counted. An item can be put off 100 times.

    Args:
        after: When: seconds, a text such as ``"10m"``, or a timedelta.
        reason: Why.
    """

    def __init__(self, after: float | str | datetime.timedelta, reason: object = None) -> None:
        super().__init__(reason, _seconds(after, "Snooze"))


class Fail(Verdict):
    """
    The item has failed for good, whatever number of tries is left.

    Args:
        reason: Why.
    """


class Irreversible(Verdict):
    """
    The effect that was to be undone cannot be taken back; said by what undoes it.

    Args:
        reason: Why.
    """


def _seconds(after: object, name: str) -> float:
    """Return *after* in seconds; UsageError when it is none, negative, or longer than ten years."""
    # Here: most workers never meet a duration.
    from durabatch.options import MAX_DURATION_S, parse_duration

    if isinstance(after, str):
        return parse_duration(after, option=f"{name}(after)")
    seconds = after.total_seconds() if isinstance(after, datetime.timedelta) else after
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds) and 0 <= seconds <= MAX_DURATION_S:
        return float(seconds)
    raise UsageError(f"{name}(after): {after!r} is not a duration", 'Use seconds, "30s" or a timedelta.')
