"""
The attempt table: rows are written once, when a try has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor

__all__ = ["AttemptRow", "insert_failed", "insert_interrupted", "insert_succeeded", "list_of_item"]


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One try."""

    number: int
    worker: int
    outcome: str
    started_at_us: int
    duration_us: int
    error_type: str | None
    error_message: str | None
    traceback: str | None
    exit_code: int | None
    stdout_tail: str | None
    stderr_tail: str | None


def insert_succeeded(ledger: Connection, rows: Sequence[tuple[int, int, int, int, int]]) -> None:
    """Record successes: (item_id, number, worker, started_at_us, duration_us) each."""
    ledger.executemany("attempt_insert_succeeded", rows)


def insert_failed(ledger: Connection, row: Mapping[str, Any]) -> None:
    """Record one attempt that did not succeed; *row* has the names of the columns."""
    ledger.execute("attempt_insert_failed", dict(row))


def insert_interrupted(ledger: Connection, run_id: int, started: Sequence[tuple[int, int, int, int]], now_us: int) -> list[int]:
    """
    Record what was running when a coordinator died, and return the ids of the items it was.

    Args:
        started: (item_id, dispatch_id, worker, started_at_us) as the cells show them; those whose dispatch no longer holds them are ignored.
    """
    row = {"run_id": run_id, "started": to_json(started).decode(), "now_us": now_us}
    return [row[0] for row in ledger.rows("attempt_insert_interrupted", row)]


def list_of_item(ledger: Executor, item_id: int) -> list[AttemptRow]:
    """Return the tries at an item, oldest first."""
    return [AttemptRow(*row) for row in ledger.rows("attempt_list_of_item", (item_id,))]
