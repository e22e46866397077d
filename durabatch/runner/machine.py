"""
The machine under a run: measured once a second, and fewer workers get items when it is hungry.
"""

from __future__ import annotations

from durabatch.flow.pressure import Change
from durabatch.runner.governing import Governor
from durabatch.runner.pool import Pool
from durabatch.runner.probe import Probe
from durabatch.workers.protocol import Collect

__all__ = ["Machine"]


class Machine:
    """
    Watches memory, disk and load for one run.

    Args:
        ledger: The file whose disk is looked at.
    """

    def __init__(self, pool: Pool, governor: Governor, ledger: str) -> None:
        self.pool = pool
        self.governor = governor
        self.probe = Probe(ledger)
        self.resident = self.probe.resident

    @property
    def memory_used(self) -> float:
        """Share of the memory that was in use at the last look, 0 to 1."""
        return self.probe.memory_used

    def look(self, *, commit_lag_s: float) -> Change | None:
        """
        Return how the window has changed, if it has; workers are told to collect garbage before it narrows for want of memory.

        Args:
            commit_lag_s: Seconds that the last commit took.
        """
        pids = self.pool.pids()
        measured = self.probe.measure(pids, commit_lag_s=commit_lag_s)
        change = None if measured is None else self.governor.press(measured)
        if change is None or not change.collect:
            return change
        for number in pids:
            self.pool.send(number, Collect())
        return None
