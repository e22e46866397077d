"""
How fast items may start: the rate that a person sets, and the pause that a service asks for.

The rate is a token bucket: tokens come at the rate, a bucket holds one second's worth of them (at least one), a start takes one. So in any
time t no more than rate x t + burst items start, and a run that stood still does not make up for it. The state outlives the run: a resume
goes on with what was left, whatever the clock did in between.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from durabatch.limits import Rate

__all__ = ["LONGEST_PAUSE_S", "SharedPause", "TokenBucket"]

#: Sums of fractions may end this far below the whole token that they make.
ROUNDING = 1e-6
#: So many requests to wait, within so many seconds, are one request to all.
PAUSE_AFTER, PAUSE_WITHIN_S = 3, 5.0
#: No pause is longer, whatever a service asks for; items themselves wait as long as they were told.
LONGEST_PAUSE_S = 300.0


class TokenBucket:
    """
    The tokens of a run, full at first. Instants are of the wall clock, in microseconds.

    To change the rate of a run that goes on, make a bucket of the new rate and restore it from the old one.

    Attributes:
        tokens: Items that may start; below 0 when more started than were allowed.
        burst: The most that is ever saved up.
    """

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.per_s = rate.items / rate.period_s
        self.burst = max(1.0, self.per_s)
        self.tokens = self.burst
        self.at_us: int | None = None

    def allowed(self, now_us: int) -> int:
        """Return how many items may start now."""
        self.fill(now_us)
        return max(0, int(self.tokens + ROUNDING))

    def fill(self, now_us: int) -> None:
        """Add what has come since the last look; a clock that was set back brings nothing, one that was set forward one burst at most."""
        if self.at_us is not None and now_us > self.at_us:
            self.tokens = min(self.burst, self.tokens + (now_us - self.at_us) * self.per_s / 1e6)
        self.at_us = now_us

    def take(self, count: int) -> None:
        """Count *count* starts."""
        self.tokens -= count

    def give_back(self, count: int) -> None:
        """Take back *count* items that were handed out and did not start."""
        self.tokens = min(self.burst, self.tokens + count)

    def wait_s(self, now_us: int) -> float:
        """Return the seconds until the next item may start, 0 when one may start now."""
        if self.allowed(now_us):
            return 0.0
        return math.ceil((1.0 - self.tokens) / self.per_s * 1e6) / 1e6

    def as_json(self) -> dict[str, Any]:
        """Return what a resume needs."""
        return {"tokens": self.tokens, "at_us": self.at_us}

    def restore(self, stored: Mapping[str, Any] | None, now_us: int) -> None:
        """Go on with what :meth:`as_json` returned, also when the rate is another now; nothing stored leaves the bucket full."""
        tokens, at_us = (stored or {}).get("tokens"), (stored or {}).get("at_us")
        if isinstance(tokens, (int, float)) and isinstance(at_us, int) and math.isfinite(tokens):
            self.tokens = max(-self.burst, min(self.burst, tokens))
            self.at_us = at_us
        self.fill(now_us)


class SharedPause:
    """
    Notices that a service asks many items to come back later, and makes one pause of it for all.

    Successes in between change nothing: a service that is over its limit lets some requests pass.

    Attributes:
        paused_until_s: When the latest pause ends or ended; 0 before the first.
    """

    def __init__(self) -> None:
        self.latest: deque[tuple[float, float]] = deque(maxlen=PAUSE_AFTER)
        self.paused_until_s = 0.0

    def observe(self, after_s: float, now_s: float) -> None:
        """Take into account that an item was told to come back after *after_s*."""
        self.latest.append((now_s, now_s + min(max(0.0, after_s), LONGEST_PAUSE_S)))
        if len(self.latest) == PAUSE_AFTER and now_s - self.latest[0][0] <= PAUSE_WITHIN_S:
            self.paused_until_s = max(self.paused_until_s, *(until_s for _, until_s in self.latest))

    def left_s(self, now_s: float) -> float:
        """Return the seconds that the pause still lasts, 0 when there is none."""
        return max(0.0, self.paused_until_s - now_s)
