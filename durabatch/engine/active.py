"""
What the coordinator keeps in memory of the run it works on: a handful of numbers, the same as in the rows.

Verbs change it together with the rows, inside one transaction. When a transaction fails the coordinator stops, so the two never part.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from durabatch.ledger import batch, changing, item, run, suspect, undo
from durabatch.ledger.connection import Connection
from durabatch.ledger.run import RunRow, Tally
from durabatch.models import Counts
from durabatch.states import ItemState

__all__ = ["ActiveRun", "OpenBatch", "counts_of", "load", "reload"]


@dataclass(slots=True)
class OpenBatch:
    """The batch that still takes items; ``payload_bytes`` counts the characters of their payloads."""

    batch_id: int
    number: int
    item_count: int
    payload_bytes: int


@dataclass(slots=True)
class ActiveRun:
    """
    One run under a coordinator.

    Attributes:
        next_item_id: The watermark; no fresh item stands before it.
        span_last: Last id of the span in which the watermark lies, -1 when that must be looked up.
        next_due_at_us: When the next item outside the input order is due; a time that has passed: one is ready; None: there is none.
        spent: What the attempts of the run have spent, by unit.
        grouped_count: Suspects that are set apart.
        suspect_count: Those of them that wait: what ``claim_suspects`` finds.
        gone_count: Cancelled items that the input no longer has.
        held_count: Waiting items that are not to run in this session.
        undo_count: Undo entries that were ever recorded; while it is 0, nothing else about undoing need be asked.
        wanted_count: Entries that are to be undone, those with workers included.
        ordered_count: Those of them that have an order over all items.
        undoing_count: Items that wait for something to be undone.
        next_step_at_us: When there may be a step to hand out; a time that has passed, as 0: now; None: not before one comes back.
        is_open: Items may come from any process until the run is closed.
        intake: What was read of the input, as on the run row: ``rows``, ``digest`` (sum of the digests of their payloads, hexadecimal),
            ``ended``, ``bad``, ``duplicates``.
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
    next_due_at_us: int | None = 0
    spent: dict[str, float] = field(default_factory=dict)
    grouped_count: int = 0
    suspect_count: int = 0
    gone_count: int = 0
    held_count: int = 0
    undo_count: int = 0
    wanted_count: int = 0
    ordered_count: int = 0
    undoing_count: int = 0
    next_step_at_us: int | None = None
    is_open: bool = False
    intake: dict[str, Any] = field(default_factory=dict)
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
    def running_count(self) -> int:
        """Items that are with a worker, this tick's changes included."""
        return self.counts["running"] + self.tally.running

    @property
    def total_count(self) -> int:
        """Items of the run, this tick's changes included."""
        return self.counts["total"] + self.tally.total

    def move(self, count: int, source: ItemState, target: ItemState) -> None:
        """Count *count* items out of one state and into another."""
        self.tally.move(count, source, target)

    def expect_due(self, due_at_us: int) -> None:
        """Note that an item outside the input order is due then."""
        self.next_due_at_us = due_at_us if self.next_due_at_us is None else min(due_at_us, self.next_due_at_us)

    def expect_step(self, due_at_us: int = 0) -> None:
        """Note that there may be a step to hand out then; 0: now."""
        self.next_step_at_us = due_at_us if self.next_step_at_us is None else min(due_at_us, self.next_step_at_us)

    def count_undo(self, ledger: Connection) -> None:
        """Count anew what is to be undone, after a verb changed it that does not know of this."""
        self.wanted_count, self.ordered_count = undo.count_wanted(ledger, self.run_id)
        self.undoing_count = undo.count_undoing(ledger, self.run_id)
        self.next_step_at_us = 0 if self.wanted_count else None

    def count_suspects(self, ledger: Connection) -> None:
        """Count the suspects anew, after items moved into groups, out of them, or to and from workers."""
        self.grouped_count, self.suspect_count = suspect.count(ledger, self.run_id)

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
    active = ActiveRun(
        run_id=run_id,
        name=row.name,
        counts={name: getattr(counts, name) for name in ("total", *ItemState)},
        next_item_id=row.next_item_id,
        dispatch_count=row.dispatch_count,
        batch_count=row.batch_count,
        attempt_count=row.attempt_count,
        intake_complete=bool(row.intake_complete),
        open_batch=OpenBatch(*unsealed) if unsealed else None,
        next_due_at_us=item.next_due(ledger, run_id),
        spent=dict(row.spent),
        gone_count=row.gone_count,
        held_count=changing.count_held(ledger, run_id),
        undo_count=row.undo_count,
        is_open=bool(row.is_open),
        intake=dict(row.intake),
    )
    active.count_suspects(ledger)
    if active.undo_count:
        active.count_undo(ledger)
    return active


def reload(ledger: Connection, active: ActiveRun) -> None:
    """Have *active* say what the rows say: a transaction that had changed both was not made."""
    fresh = load(ledger, active.run_id)
    for one in fields(ActiveRun):
        setattr(active, one.name, getattr(fresh, one.name))
