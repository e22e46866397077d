"""
The result_history table: results that items had before they were run again or left the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.stretch import carray

__all__ = ["PastResult", "get", "list_of_item", "move"]


@dataclass(frozen=True, slots=True)
class PastResult:
    """A result of before: of which attempt, why and when it was replaced, and the bytes of its JSON."""

    number: int
    cause: str
    moved_at_us: int
    value_bytes: int


def move(ledger: Connection, item_ids: Sequence[int], cause: str, now_us: int) -> None:
    """Take the results of these items, where they have any, out of the present; values stay where they are stored."""
    ledger.execute("result_history_move", (carray(item_ids), now_us, cause))
    ledger.execute("result_remove", (carray(item_ids),))


def get(ledger: Executor, item_id: int, number: int) -> tuple[str | None, int | None, int | None, int | None] | None:
    """Return (value, segment_id, offset, bytes) of what an attempt returned that is no longer the result, or None."""
    row = ledger.row("result_history_get", (item_id, number))
    return None if row is None else (row[0], row[1], row[2], row[3])


def list_of_item(ledger: Executor, item_id: int) -> list[PastResult]:
    """Return the results of before of an item, oldest first."""
    return [PastResult(*row) for row in ledger.rows("result_history_list", (item_id,))]

