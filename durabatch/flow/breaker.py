"""
The breaker: when what the handlers talk to is down, trying on harms it and wastes the tries of items.

    closed ──failure rate, or the same error in a row──▶ open ──wait is over──▶ probing ──success──▶ closed
                                                           ▲                      └──failure──▶ open, twice as long

After Nygard, Release It!, chapter "Stability Patterns". Nothing is lost while it is open: items wait, uncharged.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from durabatch.limits import Breaker, shown_duration

__all__ = ["LONGEST_WAIT_S", "WINDOW", "BreakerState", "Turn"]

#: The latest attempts of which the share of failures is taken, and how many there must be.
WINDOW, LEAST = 50, 20
#: Failed probes double the wait up to this, or up to the wait that was asked for when that is longer.
LONGEST_WAIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Turn:
    """The breaker opened or closed: for the log of the run."""

    is_open: bool
    text: str
    wait_s: float | None = None


class BreakerState:
    """
    Where the breaker of a run stands.

    Attributes:
        opens_again_s: When the wait is over and one item may probe; None while the breaker is closed.
        reason: Why nothing is handed out, None while the breaker is closed.
        changed: The last turn that it took, None before the first: the words for the log of the run.
    """

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.latest: deque[bool] = deque(maxlen=WINDOW)
        self.same_group: str | None = None
        self.same_count = 0
        self.wait_s = breaker.wait_s
        self.opens_again_s: float | None = None
        self.reason: str | None = None
        self.changed: Turn | None = None

    def observe(self, ok: bool, group: str | None, now_s: float) -> None:
        """
        Take the end of an attempt into account.

        What began before the breaker opened and ends while it is open says nothing new; once the wait is over, whatever ends is the probe.

        Args:
            ok: The attempt reached what it talks to; leave out interrupted and snoozed ones.
            group: The group of its error.
        """
        if self.opens_again_s is None:
            self.count(ok, group)
            why = self.why()
            if why is not None:
                self.open(why, now_s)
        elif now_s >= self.opens_again_s:
            if ok:
                self.close()
            else:
                self.wait_s = min(self.wait_s * 2, max(LONGEST_WAIT_S, self.breaker.wait_s))
                self.open("the probe failed", now_s)

    def allowed(self, now_s: float, out: int = 0) -> int | None:
        """
        Return how many items may be handed out now: None for no limit, 0 while it is open, 1 for a probe.

        Args:
            out: Items that are with workers; a probe is sent when there are none, as theirs is the news that is awaited.
        """
        if self.opens_again_s is None:
            return None
        return max(0, 1 - out) if now_s >= self.opens_again_s else 0

    def count(self, ok: bool, group: str | None) -> None:
        """Note one end."""
        self.latest.append(ok)
        if ok:
            self.same_count = 0
        else:
            self.same_count = self.same_count + 1 if self.same_count and group == self.same_group else 1
            self.same_group = group

    def why(self) -> str | None:
        """Return why it must open, None when it need not."""
        breaker, size, failed = self.breaker, len(self.latest), self.latest.count(False)
        if breaker.same is not None and self.same_count >= breaker.same:
            return f"{self.same_count} failures in a row with the same error" + (f" ({self.same_group})" if self.same_group else "")
        if breaker.percent is not None and size >= LEAST and failed * 100 >= breaker.percent * size:
            return f"{failed} of the latest {size} attempts failed"
        return None

    def open(self, why: str, now_s: float) -> None:
        """Hand nothing out for the wait."""
        self.opens_again_s = now_s + self.wait_s
        self.reason = f"breaker is open: {why} (--breaker {self.breaker})"
        self.changed = Turn(True, f"{self.reason}; next try in {shown_duration(self.wait_s)}", self.wait_s)

    def close(self) -> None:
        """Hand out freely again, and forget what was."""
        self.latest.clear()
        self.same_count = 0
        self.wait_s = self.breaker.wait_s
        self.opens_again_s = self.reason = None
        self.changed = Turn(False, "breaker is closed: the probe succeeded")
