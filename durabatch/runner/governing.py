"""
How much may be handed out now, to how many workers, and whether the run must stop: the decisions of ``flow/``, fed with what happens.

Each limit is its own pure object; here they are asked together, and the tightest one has the say and the name that ``status`` shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from durabatch.clock import monotonic_s, now_us
from durabatch.engine.active import ActiveRun
from durabatch.engine.finish import Finished
from durabatch.flow.breaker import WINDOW, BreakerState
from durabatch.flow.halting import HaltRule, Stop
from durabatch.flow.pressure import Change, Measurement, PressureLimits, Window
from durabatch.flow.rating import SharedPause, TokenBucket
from durabatch.flow.timing import AttemptLimit
from durabatch.limits import Breaker, Halt, Rate, Timeout, shown_duration
from durabatch.settings import RunSettings
from durabatch.states import ENDED_ITEM_STATES, AttemptOutcome

__all__ = ["Governor", "Leave"]

#: Ends that tell of trouble with what the handlers talk to.
REACHED_NOT = frozenset({AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT, AttemptOutcome.CRASHED})
#: Limits under which nothing moves at all.
HOLDING = frozenset({"paused", "order"})


@dataclass(frozen=True, slots=True)
class Leave:
    """How many items may be handed out now (None: no limit), and the limit that says so."""

    items: int | None = None
    limit: str | None = None
    text: str = ""

    @property
    def answers(self) -> bool:
        """Whether items may end that need no worker: what is not run is under no limit of what runs."""
        return self.limit not in HOLDING


class Governor:
    """
    The limits of one run.

    Args:
        active: The run; what it has spent is looked at.
        remembered: What an earlier session wrote by ``as_json``.

    Attributes:
        paused: Who paused the run, in words; None while it is not.
        limit: The longest time of an attempt.
        window: How many workers may get items.
    """

    def __init__(self, settings: RunSettings, active: ActiveRun, remembered: Mapping[str, Any]) -> None:
        self.settings = settings
        self.active = active
        self.paused: str | None = None
        self.halting = HaltRule(Halt.parse(settings.halt) if settings.halt else None, settings.canary, settings.budget)
        self.breaker = BreakerState(Breaker.parse(settings.breaker)) if settings.breaker else None
        self.bucket: TokenBucket | None = None
        self.set_rate(settings.rate, remembered.get("rate"))
        self.shared_pause = SharedPause()
        self.limit = AttemptLimit(Timeout.parse(settings.timeout) if settings.timeout else None)
        self.window = Window(max(1, settings.workers), PressureLimits.of(settings))
        self.started_s = monotonic_s()
        self.is_reading = settings.order != "input" or settings.shuf is not None or settings.dedupe == "last"

    @property
    def limit_s(self) -> float | None:
        """The longest time of an attempt at an item that was not tried before, None for none."""
        return min((limit for limit in (self.limit.seconds, self.settings.item_deadline_s) if limit is not None), default=None)

    def set_rate(self, text: str | None, remembered: Mapping[str, Any] | None = None) -> None:
        """Have another rate from now on, without a burst at its beginning; None for none."""
        before = remembered if self.bucket is None else self.bucket.as_json()
        self.bucket = TokenBucket(Rate.parse(text)) if text else None
        if self.bucket is not None:
            self.bucket.restore(before, now_us())

    def as_json(self, taken: int) -> dict[str, Any]:
        """Return what a later session must know, with *taken* items handed out that it has not been told of yet."""
        if self.bucket is None:
            return {}
        self.bucket.take(taken)
        stored = self.bucket.as_json()
        self.bucket.give_back(taken)
        return {"rate": stored}

    def leave(self, *, out: int, scheduled: int, is_due: bool, intake_complete: bool) -> Leave:
        """
        Return how many items may be handed out now.

        Args:
            out: Items that are with workers.
            scheduled: Items that wait for a next try.
            is_due: One of them is due.
        """
        now_s = monotonic_s()
        if self.paused is not None:
            return Leave(0, "paused", self.paused)
        if self.is_reading and not intake_complete:
            return Leave(0, "order", f"{reads_first(self.settings)} waits for the whole input")
        pause_s = self.shared_pause.left_s(now_s)
        if pause_s > 0:
            return Leave(0, "rate-limit pause", f"many items asked to wait; going on in {shown_duration(round(pause_s) or 1)}")
        leaves = (self.breaker_leave(now_s, out), self.canary_leave(out + scheduled, is_due=is_due), self.rate_leave())
        return min(leaves, key=lambda one: one.items if one.items is not None else 1 << 62)

    def breaker_leave(self, now_s: float, out: int) -> Leave:
        """Return what the breaker leaves."""
        allowed = None if self.breaker is None else self.breaker.allowed(now_s, out)
        if self.breaker is None or allowed is None:
            return Leave()
        return Leave(allowed, "breaker", self.breaker.changed.text if self.breaker.changed else "")

    def canary_leave(self, out: int, *, is_due: bool) -> Leave:
        """Return what the canary rule leaves."""
        left = self.halting.canary_left(out, self.halting.ended, is_due=is_due)
        return Leave() if left is None else Leave(left, "canary", f"the first {self.settings.canary} items are tried before the others")

    def rate_leave(self) -> Leave:
        """Return what the rate leaves."""
        return Leave() if self.bucket is None else Leave(self.bucket.allowed(now_us()), "rate", f"rate {self.bucket.rate}")

    def wait_s(self) -> float | None:
        """Return the seconds after which more may be handed out by the clock alone; None when no clock is waited for."""
        now_s = monotonic_s()
        waits = [self.shared_pause.left_s(now_s)]
        if self.bucket is not None:
            waits.append(self.bucket.wait_s(now_us()))
        if self.breaker is not None and self.breaker.opens_again_s is not None:
            waits.append(self.breaker.opens_again_s - now_s)
        return min((wait for wait in waits if wait > 0), default=None)

    def took(self, count: int) -> None:
        """Note that items are handed out."""
        if self.bucket is not None:
            self.bucket.take(count)

    def gave_back(self, count: int) -> None:
        """Note that items came back unstarted."""
        if self.bucket is not None:
            self.bucket.give_back(count)

    def learn(self, finished: Finished) -> None:
        """Learn from what was recorded."""
        now_s = monotonic_s()
        ended = finished.succeeded + sum(one.state in ENDED_ITEM_STATES for one in finished.failures) + len(finished.ended)
        self.halting.observe(ended=ended, failed=finished.ended_failed)
        if self.breaker is not None:
            # More successes than its window holds say nothing new.
            for _ in range(min(finished.succeeded, WINDOW)):
                self.breaker.observe(True, None, now_s)
            for one in finished.failures:
                if one.outcome in REACHED_NOT:
                    self.breaker.observe(False, one.error_group, now_s)
        for one in finished.failures:
            if one.after_s is not None and one.outcome == AttemptOutcome.FAILED:
                self.shared_pause.observe(one.after_s, now_s)

    def stop(self) -> Stop | None:
        """Return why the run must stop, if it must."""
        deadline_s = self.settings.deadline_s
        if deadline_s is not None and monotonic_s() - self.started_s > deadline_s:
            return Stop(now=False, reason=f"deadline of {shown_duration(deadline_s)} is over (--deadline)")
        return self.halting.verdict(self.active.spent)

    def press(self, measured: Measurement) -> Change | None:
        """Return how the window changes by a measurement of the machine, if it does."""
        return self.window.decide(measured)


def reads_first(settings: RunSettings) -> str:
    """Return the option for which the whole input is read before the first item starts."""
    if settings.dedupe == "last":
        return "--dedupe last"
    return "--shuf" if settings.shuf is not None else f"--order {settings.order}"
