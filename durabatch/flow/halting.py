"""
When a run stops before its end: too many failures, a canary that failed, a budget that is spent. And how many failures are still a success.

All of it counts what ended in this session of the run, so that a resume after the cause was mended does not stop at once over old failures;
only budgets are for the whole run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from durabatch.limits import Halt, Limit

__all__ = ["LEAST_ENDED", "HaltRule", "Stop", "tolerated"]

#: Ended items from which on a share of them says something.
LEAST_ENDED = 20


@dataclass(frozen=True, slots=True)
class Stop:
    """The run is to halt, and why; ``now``: running items are interrupted, otherwise they end first."""

    now: bool
    reason: str


class HaltRule:
    """
    Counts ends and says when it is time to stop.

    A canary that waits for its next try is no success yet: it passes when so many items have ended and none of them failed.

    Args:
        halt: The rule for failures, if there is one.
        canary: Items that must all succeed before others are handed out.
        budget: Unit to amount that the run may spend.
    """

    def __init__(self, halt: Halt | None = None, canary: int = 0, budget: Mapping[str, float] | None = None) -> None:
        self.halt = halt
        self.canary = canary
        self.budget = dict(budget or {})
        self.ended = 0
        self.failed = 0
        self.canary_failed = 0

    def observe(self, *, ended: int, failed: int) -> None:
        """
        Count items that ended since the last call.

        Args:
            ended: All that ended, whichever way.
            failed: Of them the failed and quarantined ones.
        """
        if self.ended < self.canary:
            self.canary_failed += failed
        self.ended += ended
        self.failed += failed

    def canary_left(self, handed_out: int, ended: int, *, is_due: bool = False) -> int | None:
        """
        Return how many items may be handed out now, None for no limit.

        Args:
            handed_out: Items that are with workers, and those that wait for their next try: these keep their place, so that no other item
                takes it.
            ended: Items that ended in this session.
            is_due: One of those that wait is due, and may be handed out whatever the others do; without it nothing would ever end.
        """
        if self.canary_failed:
            return 0
        if ended >= self.canary:
            return None
        return max(int(is_due), self.canary - ended - handed_out)

    def verdict(self, spent: Mapping[str, float]) -> Stop | None:
        """
        Return why the run must stop, None when it need not.

        Args:
            spent: Unit to amount, of the whole run.
        """
        return self.failures() or self.failed_canary() or self.overspent(spent)

    def failures(self) -> Stop | None:
        """Return the stop by ``--halt``."""
        if self.halt is None or not self.failed or not reached(self.halt.limit, self.ended, self.failed):
            return None
        counted = items(self.failed) if self.halt.limit.percent is None else f"{self.failed:,} of {self.ended:,} items"
        return Stop(self.halt.now, f"halted: {counted} failed (--halt {self.halt})")

    def failed_canary(self) -> Stop | None:
        """Return the stop by ``--canary``."""
        if not self.canary_failed:
            return None
        return Stop(now=False, reason=f"halted: {self.canary_failed:,} of the first {items(self.canary)} failed (--canary {self.canary})")

    def overspent(self, spent: Mapping[str, float]) -> Stop | None:
        """Return the stop by ``--budget``."""
        for unit, amount in self.budget.items():
            if spent.get(unit, 0.0) >= amount:
                return Stop(now=False, reason=f"budget of {shown_amount(amount)} {unit} is spent ({shown_amount(spent[unit])})")
        return None


def reached(limit: Limit, ended: int, failed: int) -> bool:
    """Tell whether failures have come to *limit*; a share counts from the 20th ended item on."""
    if limit.percent is None:
        return failed >= (limit.count or 0)
    return ended >= LEAST_ENDED and failed * 100 >= limit.percent * ended


def tolerated(limit: Limit | None, total: int, failed: int) -> bool:
    """Tell whether a finished run with *failed* of *total* items is a success; without a limit no failure is tolerated."""
    if limit is None:
        return not failed
    return failed <= (limit.count or 0) if limit.percent is None else failed * 100 <= limit.percent * total


def items(count: int) -> str:
    """Return *count* items in words."""
    return "1 item" if count == 1 else f"{count:,} items"


def shown_amount(amount: float) -> str:
    """Return an amount as people write it: ``5``, ``5.02``, ``1,000,000``, ``0.0004``."""
    return f"{amount:,.2f}".rstrip("0").rstrip(".") if amount >= 0.01 else f"{amount:.2g}"
