"""
What other terminals asked for: read from the ledger after each tick, obeyed, and answered in the same row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from durabatch.clock import now_us
from durabatch.engine.pause import pause, unpause
from durabatch.engine.steer import Order, open_orders, settle
from durabatch.errors import UsageError
from durabatch.flow.batching import BatchSettings, strategy
from durabatch.flow.timing import AttemptLimit
from durabatch.limits import Rate, Timeout
from durabatch.options import MAX_WORKERS
from durabatch.runner.coordinator import Coordinator
from durabatch.runner.handling import Handling
from durabatch.runner.orders import MAX_BATCH, REFUSED

__all__ = ["Obedience"]


class Obedience:
    """Carries out the orders for one run."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.verbs: dict[str, Callable[[Order], str]] = {
            "pause": self.pause,
            "unpause": self.unpause,
            "scale": self.scale,
            "set": self.set,
            "drain": self.drain,
            "cancel": self.cancel,
        }

    def heed(self) -> None:
        """Obey what was asked for since the last time. On return each order has its answer on disk."""
        ledger, run_id = self.coordinator.ledger, self.coordinator.active.run_id
        for one in open_orders(ledger, run_id):
            try:
                outcome = self.verbs[one.verb](one)
            except UsageError as error:
                outcome = f"{REFUSED}{error.what}"
            settle(ledger, one.control_id, outcome, now_us())

    def pause(self, one: Order) -> str:
        """Hand nothing out until unpause; running items end."""
        coordinator, reason = self.coordinator, f"paused by {who(one)}"
        if coordinator.governor.paused is not None:
            return "the run was paused already"
        coordinator.governor.paused = reason
        pause(coordinator.ledger, coordinator.active, reason, now_us=now_us())
        coordinator.call_back()
        return "paused: running items end, nothing new is started"

    def unpause(self, _one: Order) -> str:
        """Hand out again."""
        if self.coordinator.governor.paused is None:
            return "the run was not paused"
        self.coordinator.governor.paused = None
        unpause(self.coordinator.ledger, self.coordinator.active, now_us=now_us())
        return "running"

    def scale(self, one: Order) -> str:
        """Have another number of workers."""
        workers = one.argument["workers"]
        if self.coordinator.pool.inline:
            raise UsageError("the run works without workers (--workers 0)")
        if not 1 <= workers <= MAX_WORKERS:
            raise UsageError(f"{workers} is not a number of workers from 1 to {MAX_WORKERS}")
        self.coordinator.staff.scale(workers)
        self.coordinator.governor.window.resize(workers)
        return f"{workers} {'worker' if workers == 1 else 'workers'}"

    def set(self, one: Order) -> str:
        """Change limits."""
        return ", ".join(self.set_one(name, value) for name, value in one.argument.items())

    def set_one(self, name: str, value: Any) -> str:
        """Change one limit; None switches it off."""
        if name == "rate":
            if value is not None:
                Rate.parse(value, option="rate")
            self.coordinator.governor.set_rate(value)
        elif name == "timeout":
            self.set_timeout(None if value is None else Timeout.parse(value, option="timeout"))
        elif name == "concurrency":
            self.set_concurrency(value)
        elif name == "batch_size":
            self.set_batch_size(value)
        else:
            raise UsageError(f"{name} cannot be set while the run works")
        return f"{name.replace('_', '-')}={'off' if value is None else value}"

    def set_timeout(self, timeout: Timeout | None) -> None:
        """Have another longest time of an attempt, also for what is running."""
        coordinator = self.coordinator
        if coordinator.pool.inline and timeout is not None and not coordinator.kind.ends_itself:
            raise UsageError("a timeout cannot end an ordinary function that runs in the coordinator (--workers 0)")
        coordinator.governor.limit = AttemptLimit(timeout)
        coordinator.recorder.wants_durations = coordinator.governor.limit.percent is not None
        coordinator.tune()

    def set_concurrency(self, concurrency: int) -> None:
        """Have so many items at once in each worker; UsageError when its cells do not suffice."""
        most = 1 if self.coordinator.pool.inline and not self.coordinator.kind.ends_itself else self.coordinator.kind.most
        if not 1 <= concurrency <= most:
            raise UsageError(f"concurrency can be 1 to {most} while the run works")
        self.coordinator.allotter.concurrency = concurrency
        self.coordinator.tune()

    def set_batch_size(self, size: int) -> None:
        """Have later batches made of so many items."""
        settings = self.coordinator.settings
        if not 1 <= size <= MAX_BATCH:
            raise UsageError(f"a batch has 1 to {MAX_BATCH:,} items")
        if isinstance(self.coordinator.phase, Handling):
            chosen = BatchSettings(size, settings.batch_seconds, settings.memory_threshold)
            self.coordinator.phase.batches = strategy(settings.batch_strategy, chosen)

    def drain(self, one: Order) -> str:
        """End the run when running items have ended."""
        self.coordinator.stop(f"drained by {who(one)}", at_once=False)
        return "draining: running items end, the rest waits for a resume"

    def cancel(self, one: Order) -> str:
        """End the run for good."""
        self.coordinator.cancel(f"cancelled by {who(one)}")
        return "cancelling"


def who(one: Order) -> str:
    """Return who gave an order."""
    by = one.asked_by
    return f"{by.get('user') or by.get('uid')} (pid {by.get('pid')})"
