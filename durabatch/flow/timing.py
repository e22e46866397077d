"""
How long an attempt may take: a fixed time, or a share of the median of what succeeded so far; and what an item has left of its own deadline.

The median is kept as counts of buckets, each 2% wider than the one before (DDSketch: Masson, Rim and Lee, VLDB 2019): it is right to 1% however
the times are spread, and costs at most some 1,700 numbers, in practice a few dozen, however many items there are.
"""

from __future__ import annotations

import math

from durabatch.limits import Timeout

__all__ = ["LEAST_LIMIT_S", "LEAST_SUCCESSES", "AttemptLimit", "RunningMedian", "remaining", "until_due"]

#: Successes from which on their median says something.
LEAST_SUCCESSES = 20
#: A share of the median is never less: smaller differences are the machine's, not the item's.
LEAST_LIMIT_S = 0.5
#: What is left of a deadline is never 0, which could be taken for no limit.
LEAST_LEFT_S = 0.001
#: Each bucket reaches so many times as far as the one below: the middle of it is off by 1% at most.
WIDTH = 1.01 / 0.99
#: Shorter and longer times are not told from these.
SHORTEST_S, LONGEST_S = 1e-6, 1e9


class AttemptLimit:
    """The longest time of an attempt; *timeout* None is no limit."""

    def __init__(self, timeout: Timeout | None = None) -> None:
        self.fixed_s = timeout.seconds if timeout else None
        self.percent = timeout.percent if timeout else None
        self.median = RunningMedian()

    def observe(self, duration_s: float) -> None:
        """Learn how long a success took."""
        if self.percent is not None:
            self.median.add(duration_s)

    @property
    def seconds(self) -> float | None:
        """The limit now; None when there is none, or none yet: a share of the median counts from the 20th success on."""
        if self.percent is None:
            return self.fixed_s
        if self.median.count < LEAST_SUCCESSES:
            return None
        return max(LEAST_LIMIT_S, self.median.value * self.percent / 100)


class RunningMedian:
    """
    The median of all times so far, to 1%; of an even number the larger of the two in the middle.

    Attributes:
        count: Times so far.
        buckets: Times by bucket.
    """

    def __init__(self) -> None:
        self.count = 0
        self.buckets: dict[int, int] = {}
        self.known: float | None = 0.0

    def add(self, seconds: float) -> None:
        """Take one more time into account."""
        bucket = math.ceil(math.log(min(max(seconds, SHORTEST_S), LONGEST_S), WIDTH))
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.known = None

    @property
    def value(self) -> float:
        """The median, 0 before the first time; looked for when asked, and once for as long as nothing is added."""
        if self.known is None:
            self.known = 2 * WIDTH ** self.middle() / (WIDTH + 1)
        return self.known

    def middle(self) -> int:
        """Return the bucket of the time that as many are below as above."""
        left = self.count // 2
        for bucket in sorted(self.buckets):
            if left < self.buckets[bucket]:
                return bucket
            left -= self.buckets[bucket]
        return 0


def remaining(item_deadline_s: float, first_started_at_us: int, now_us: int) -> float:
    """Return the seconds that are left to an item over all its attempts, a little above 0 when none are."""
    return max(LEAST_LEFT_S, item_deadline_s - max(0, now_us - first_started_at_us) / 1e6)


def until_due(due_at_us: int | None, now_us: int) -> float | None:
    """Return the seconds until something is due; None when nothing is waited for, or it is due already."""
    return (due_at_us - now_us) / 1e6 if due_at_us is not None and due_at_us > now_us else None
