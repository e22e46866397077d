"""
A run as a queue: what its row says to those who add items from other processes, and how a coordinator notices them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.stretch import carray

__all__ = ["Standing", "schedule", "standing", "taken", "version"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands that others may add to."""

    name: str
    state: str
    is_open: int
    intake_complete: int
    total_count: int
    pending_count: int
    scheduled_count: int


def standing(ledger: Executor, run_id: int) -> Standing | None:
    """Return where a run stands, None when there is no such run."""
    row = ledger.row("queue_standing", (run_id,))
    return None if row is None else Standing(*row)


def taken(ledger: Executor, run_id: int, hashes: Sequence[int]) -> dict[int, str]:
    """Return those of *hashes*, at least one, that stand for keys of the run, with their keys."""
    return dict(ledger.rows("queue_list_taken", (carray(hashes), run_id)))


def schedule(ledger: Connection, first_item_id: int, last_item_id: int) -> None:
    """Have a stretch of new items, which have due times, wait for them."""
    ledger.execute("queue_schedule", (first_item_id, last_item_id))


def version(ledger: Executor) -> int:
    """Return a number that is another one after other connections have written."""
    ledger.check_owner()
    with ledger.border():
        return int(ledger.raw.pragma("data_version"))
