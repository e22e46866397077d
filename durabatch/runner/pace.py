"""
How fast the run goes: the rate of late, the time spent, and when to tell about it.
"""

from __future__ import annotations

from durabatch.clock import monotonic_s

__all__ = ["Pace"]

#: Seconds between two measurements of the rate, and between two progress events.
WINDOW_S, TELL_S = 1.0, 0.2
#: Weight of the newest measurement.
SMOOTHING = 0.3


class Pace:
    """
    Rate and time of one session.

    Args:
        elapsed_us: Time that earlier sessions of the run took.
    """

    def __init__(self, elapsed_us: int) -> None:
        self.before_us = elapsed_us
        self.started_s = monotonic_s()
        self.items_per_s = 0.0
        self.ended = 0
        self.window_started_s = self.started_s
        self.window_ended = 0
        self.told_s = 0.0
        self.begun_s = self.started_s
        self.first_dispatch_s: float | None = None
        self.first_result_s: float | None = None
        self.last_result_s: float | None = None

    @property
    def elapsed_us(self) -> int:
        """Time of all sessions so far."""
        return self.before_us + int((monotonic_s() - self.started_s) * 1e6)

    def dispatched(self) -> None:
        """Note that items went to a worker."""
        if self.first_dispatch_s is None:
            self.first_dispatch_s = monotonic_s()

    def begin(self) -> float:
        """Note that a tick begins; return when."""
        self.begun_s = monotonic_s()
        return self.begun_s

    def recorded(self, count: int) -> None:
        """Note that *count* attempts are on disk."""
        now = monotonic_s()
        if count:
            # Results that were known need no dispatch: the work began with this tick.
            self.first_dispatch_s = self.first_dispatch_s or self.begun_s
            self.first_result_s = self.first_result_s or now
            self.last_result_s = now
            self.ended += count
        if now - self.window_started_s >= WINDOW_S:
            rate = (self.ended - self.window_ended) / (now - self.window_started_s)
            self.items_per_s = rate if not self.items_per_s else self.items_per_s + SMOOTHING * (rate - self.items_per_s)
            self.window_started_s, self.window_ended = now, self.ended

    @property
    def rate(self) -> float:
        """Items a second of late; within the first second, since the start."""
        return self.items_per_s or self.ended / max(1e-6, monotonic_s() - self.started_s)

    def wants_to_tell(self) -> bool:
        """Tell whether it is time for a progress event, and count it as made."""
        now = monotonic_s()
        if now - self.told_s < TELL_S:
            return False
        self.told_s = now
        return True

    @property
    def work_s(self) -> float:
        """Seconds from the first dispatch to the last recorded result."""
        if self.first_dispatch_s is None or self.last_result_s is None:
            return 0.0
        return self.last_result_s - self.first_dispatch_s
