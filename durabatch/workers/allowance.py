"""
How long an attempt may take, of wall-clock and of processor time; for what a worker can end by itself.

Sync functions it cannot end: for their time the coordinator watches the cells, and for their processor time the kernel is asked.
"""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass

__all__ = ["Allowance", "End", "lift_cpu_limit", "set_cpu_limit"]

#: When an attempt has to end on the monotonic clock, after how many seconds that is, and whether the item's own deadline says so.
End = tuple[float, float, bool]


@dataclass(slots=True)
class Allowance:
    """
    What attempts of a worker may take; ``timeout_s`` may change at any moment.

    Attributes:
        timeout_s: Seconds of one attempt, None for no limit.
        term_grace_s: Seconds between asking a command to end and killing it.
        cpu_limit_s: Processor seconds of one attempt.
        marker: What names the run in the environment of its processes.
    """

    timeout_s: float | None = None
    term_grace_s: float = 5.0
    cpu_limit_s: float | None = None
    marker: str = ""

    def end(self, begun_s: float, own_end_s: float | None) -> End | None:
        """
        Return when an attempt has to end, None when it need not.

        Args:
            begun_s: When it began, on the monotonic clock.
            own_end_s: When the item has to end by its own deadline.
        """
        timeout_s = self.timeout_s
        if timeout_s is not None and (own_end_s is None or begun_s + timeout_s <= own_end_s):
            return begun_s + timeout_s, timeout_s, False
        return None if own_end_s is None else (own_end_s, own_end_s - begun_s, True)


def set_cpu_limit(limit_s: float) -> None:
    """Have the kernel end this process by SIGXCPU after *limit_s* more processor seconds, rounded up to whole ones of the process."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + limit_s)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def lift_cpu_limit() -> None:
    """Take back what ``set_cpu_limit`` asked for."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
