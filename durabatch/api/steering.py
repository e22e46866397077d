"""
Orders to a run that is at work, in whatever process: each waits for its effect, and returns where the run stands then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durabatch.api.place import LedgerFile
from durabatch.models import RunStatus

if TYPE_CHECKING:
    from durabatch.runner.orders import Verb

__all__ = ["SteeredRun"]


class SteeredRun:
    """A run of a ledger, as far as it can be steered."""

    def __init__(self, ledger: LedgerFile, run_id: int) -> None:
        self.ledger = ledger
        self.run_id = run_id

    def pause(self) -> RunStatus:
        """
        Have the coordinator of the run, in whatever process, hand out nothing more until ``unpause``; items at work go on to their end.

        Like the other methods that steer, it waits up to 5 seconds for its effect and returns where the run stands then.

        Raises:
            LedgerError: Nobody works on the run, or the coordinator has not answered; an order that was given stays.
            UsageError: The coordinator refuses the order.
        """
        return self.steer("pause")

    def unpause(self) -> RunStatus:
        """Go on after ``pause``; errors as there."""
        return self.steer("unpause")

    def scale(self, workers: int) -> RunStatus:
        """Work with so many worker processes from now on; those that are too many end after what they are at. Errors as for ``pause``."""
        return self.steer("scale", f"{workers}")

    def set(self, **settings: Any) -> RunStatus:
        """Change ``rate``, ``timeout`` (None: off), ``batch_size`` or ``concurrency`` of the run while it works; errors as for ``pause``."""
        return self.steer("set", *(f"{name}={'off' if value is None else value}" for name, value in settings.items()))

    def drain(self) -> RunStatus:
        """Stop the run as a first signal does: items at work end, all others wait for the next call. Errors as for ``pause``."""
        return self.steer("drain")

    def cancel(self) -> RunStatus:
        """
        End the run for good: items at work are interrupted, all that have not ended are cancelled. Works without a coordinator, too.

        Raises:
            LedgerError: The ledger is at work for another run, or the coordinator has not answered.
            UsageError: The run has ended.
        """
        return self.steer("cancel")

    def close(self) -> RunStatus:
        """
        Have an open run take no more items and finish, whoever works on it; return where it stands then.

        Raises:
            LedgerError: The ledger cannot be used.
        """
        from durabatch.runner.closing import closed

        held = self.ledger
        return closed(held.path, self.run_id, durability=held.durability, allow_network_fs=held.allow_network_fs).status

    def steer(self, verb: Verb, *words: str) -> RunStatus:
        """Give the order *verb* with what stands behind it on the command line, and return where the run stands then."""
        from durabatch.runner.steering import steered

        return steered(self.ledger.path, self.run_id, verb, *words, allow_network_fs=self.ledger.allow_network_fs).status
