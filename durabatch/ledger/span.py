"""
The span table: which stretches of item ids belong to a run.
"""

from __future__ import annotations

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor

__all__ = ["at", "cover", "list_from", "list_of_run"]


def cover(ledger: Connection, run_id: int, first_item_id: int, last_item_id: int) -> None:
    """Note that these ids are items of the run; a page that follows the last span without a gap makes it longer."""
    last = ledger.row("span_last", (run_id,))
    if last is not None and last[1] + 1 == first_item_id:
        ledger.execute("span_extend", {"span_id": last[0], "last_item_id": last_item_id})
    else:
        ledger.execute("span_insert", {"run_id": run_id, "first_item_id": first_item_id, "last_item_id": last_item_id})


def at(ledger: Executor, run_id: int, item_id: int) -> tuple[int, int] | None:
    """Return first and last id of the span that holds *item_id* or comes next after it; None when the run ends before it."""
    row = ledger.row("span_at", {"run_id": run_id, "item_id": item_id})
    return None if row is None else (row[0], row[1])


def list_of_run(ledger: Executor, run_id: int) -> list[tuple[int, int]]:
    """Return first and last id of each span of the run, ascending."""
    return [(first, last) for first, last in ledger.rows("span_list", (run_id,))]


def list_from(ledger: Executor, run_id: int, item_id: int) -> list[tuple[int, int]]:
    """Return first and last id of the spans of the run that end at *item_id* or behind it, ascending."""
    return [(first, last) for first, last in ledger.rows("span_list_from", (run_id, item_id))]
