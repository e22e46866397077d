"""
The attempt table: rows are written once, when a try has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.stretch import carray, is_stretch

__all__ = ["AttemptRow", "first_started", "get", "history", "insert_begun", "insert_cached", "insert_failed", "insert_interrupted", "insert_succeeded", "list_of_item", "set_spent"]

#: What fits into the upper and the lower half of a number: starts within 35 minutes of each other, durations of up to 71 minutes.
LATEST_US, LONGEST_US = 1 << 31, 1 << 32
#: Columns that most attempts leave empty.
OPTIONAL = dict.fromkeys((
    "error_type", "error_message", "traceback", "exit_code", "stdout_tail", "stderr_tail", "error_group", "remedy", "peak_rss_bytes", "spent", "signal",
))  # fmt: skip


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
    error_group: str | None = None
    remedy: str | None = None
    peak_rss_bytes: int | None = None
    spent: str | None = None
    signal: int | None = None
    is_cached: int = 0


def insert_succeeded(ledger: Connection, columns: Sequence[Sequence[int]], peak_rss_bytes: int | None) -> None:
    """
    Record successes of one worker; *columns* are their item_id, number, worker, started_at_us and duration_us.

    The usual case, first tries at a stretch of items, is one statement: both times of a row travel in one number.
    """
    ids, numbers, workers, starts, durations = columns
    base_us = starts[0]
    fits = min(starts) == base_us and max(starts) - base_us < LATEST_US and max(durations) < LONGEST_US
    if fits and numbers.count(1) == len(numbers) and is_stretch(ids):
        times = carray([(start - base_us) << 32 | duration for start, duration in zip(starts, durations, strict=True)])
        ledger.execute("attempt_insert_stretch", (ids[0], workers[0], base_us, times, peak_rss_bytes))
    else:
        ledger.executemany("attempt_insert_succeeded", [(*row, peak_rss_bytes) for row in zip(*columns, strict=True)])


def insert_cached(ledger: Connection, item_ids: Sequence[int], now_us: int) -> None:
    """Record the last attempts of items that were just ended by a value that was known already."""
    ledger.execute("attempt_insert_cached", (carray(item_ids), now_us))


def insert_failed(ledger: Connection, row: Mapping[str, Any]) -> None:
    """Record one attempt that did not succeed; *row* has the names of the columns, those that stay empty may be missing."""
    ledger.execute("attempt_insert_failed", {**OPTIONAL, **row})


def set_spent(ledger: Connection, rows: Iterable[tuple[int, int, str]]) -> None:
    """Note what attempts that were just recorded have spent: (item_id, number, JSON of amounts by unit) each."""
    ledger.executemany("attempt_set_spent", rows)


def insert_interrupted(ledger: Connection, run_id: int, started: Sequence[tuple[int, int, int, int]], now_us: int) -> list[int]:
    """
    Record what was running when a coordinator died, and return the ids of the items it was.

    Args:
        started: (item_id, dispatch_id, worker, started_at_us) as the cells show them; those whose dispatch no longer holds them are ignored.
    """
    row = {"run_id": run_id, "started": to_json(started).decode(), "now_us": now_us}
    return [row[0] for row in ledger.rows("attempt_insert_interrupted", row)]


def insert_begun(ledger: Connection, item_ids: Sequence[int]) -> None:
    """Record attempts at running items as interrupted that nobody saw running, and that have promised something; their worker is not known."""
    if item_ids:
        ledger.execute("attempt_insert_begun", (carray(item_ids),))


def history(ledger: Executor, item_id: int, earlier_count: int) -> tuple[int, int | None]:
    """Return how often the item was snoozed and when it was first started, in its attempts after the first *earlier_count*."""
    row = ledger.row("attempt_history", (item_id, earlier_count))
    return (0, None) if row is None else (row[0], row[1])


def first_started(ledger: Executor, item_ids: Sequence[int]) -> dict[int, int]:
    """Return when those of *item_ids* were first started that were tried since somebody last asked for it."""
    return dict(ledger.rows("attempt_list_first_started", (carray(item_ids),))) if item_ids else {}


def get(ledger: Executor, item_id: int, number: int) -> AttemptRow | None:
    """Return one try, or None."""
    row = ledger.row("attempt_get", (item_id, number))
    return None if row is None else AttemptRow(*row)


def list_of_item(ledger: Executor, item_id: int) -> list[AttemptRow]:
    """Return the tries at an item, oldest first."""
    return [AttemptRow(*row) for row in ledger.rows("attempt_list_of_item", (item_id,))]
