"""
What the coordinator keeps in memory of the run it works on: a handful of numbers, the same as in the rows.

Verbs change it together with the rows, inside one transaction. When a transaction fails the coordinator stops, so the two never part.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from durabatch.ledger import batch, item, run
from durabatch.ledger.connection import Connection
from durabatch.ledger.run import RunRow, Tally
from durabatch.models import Counts
from durabatch.states import ItemState

__all__ = ["ActiveRun", "OpenBatch", "counts_of", "load"]


@dataclass(slots=True)
class OpenBatch:
    """The batch that still takes items."""

    batch_id: int
    number: int
    item_count: int


@dataclass(slots=True)
class ActiveRun:
    """
    One run under a coordinator.

    Attributes:
        next_item_id: The watermark; no fresh item stands before it.
        span_last: Last id of the span in which the watermark lies, -1 when that must be looked up.
        may_have_due: False when no item stands outside the input order.
        tally: Differences to the counters that this tick has not written yet.
    """

    run_id: int
    name: str
    counts: dict[str, int]
    next_item_id: int
    dispatch_count: int
    batch_count: int
    attempt_count: int
    intake_complete: bool
    open_batch: OpenBatch | None
    span_last: int = -1
    may_have_due: bool = True
    tally: Tally = field(default_factory=Tally)

    @property
    def open_count(self) -> int:
        """Items that have not ended, this tick's changes included."""
        return sum(self.counts[state] + getattr(self.tally, state) for state in ("pending", "scheduled", "running"))

    @property
    def pending_count(self) -> int:
        """Items that wait to be handed out, this tick's changes included."""
        return self.counts["pending"] + self.tally.pending

    @property
    def total_count(self) -> int:
        """Items of the run, this tick's changes included."""
        return self.counts["total"] + self.tally.total

    def move(self, count: int, source: ItemState, target: ItemState) -> None:
        """Count *count* items out of one state and into another."""
        self.tally.move(count, source, target)

    def write_tally(self, ledger: Connection) -> None:
        """Write the differences to the run row, inside the open transaction, and start anew."""
        run.add(ledger, self.run_id, self.tally)
        for name, difference in self.tally.as_row().items():
            if name in self.counts:
                self.counts[name] += difference
        self.attempt_count += self.tally.attempts
        self.batch_count += self.tally.batches
        self.tally = Tally()

    def view(self) -> Counts:
        """Return the written counters."""
        return Counts(**self.counts)


def counts_of(row: RunRow) -> Counts:
    """Return the counters of a run row."""
    states = ("total", *ItemState)
    return Counts(**{state: getattr(row, f"{state}_count") for state in states})


def load(ledger: Connection, run_id: int) -> ActiveRun:
    """Return the in-memory side of the run *run_id*."""
    row = run.get(ledger, run_id)
    unsealed = batch.unsealed(ledger, run_id)
    counts = counts_of(row)
    return ActiveRun(
        run_id=run_id,
        name=row.name,
        counts={name: getattr(counts, name) for name in ("total", *ItemState)},
        next_item_id=row.next_item_id,
        dispatch_count=row.dispatch_count,
        batch_count=row.batch_count,
        attempt_count=row.attempt_count,
        intake_complete=bool(row.intake_complete),
        open_batch=OpenBatch(*unsealed) if unsealed else None,
        may_have_due=item.next_due(ledger, run_id) is not None,
    )
