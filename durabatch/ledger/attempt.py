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
from durabatch.ledger.stretch import carray, is_stretch

__all__ = ["AttemptRow", "insert_failed", "insert_interrupted", "insert_succeeded", "list_of_item"]

#: What fits into the upper and the lower half of a number: starts within 35 minutes of each other, durations of up to 71 minutes.
LATEST_US, LONGEST_US = 1 << 31, 1 << 32


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


def insert_succeeded(ledger: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """
    Record successes of one worker; item_id, number, worker, started_at_us and duration_us are the first fields of each row.

    The usual case, first tries at a stretch of items, is one statement: both times of a row travel in one number.
    """
    item_id, _, worker, base_us = rows[0][:4]
    if is_stretch([row[0] for row in rows]) and all(row[1] == 1 and 0 <= row[3] - base_us < LATEST_US and row[4] < LONGEST_US for row in rows):
        times = carray([(row[3] - base_us) << 32 | row[4] for row in rows])
        ledger.execute("attempt_insert_stretch", (item_id, worker, base_us, times))
    else:
        ledger.executemany("attempt_insert_succeeded", [row[:5] for row in rows])


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
