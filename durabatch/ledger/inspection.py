"""
Questions to a ledger that may be broken: what SQLite says of the file, and which rows disagree with each other.

Lists have at most :data:`LIMIT` rows; what walks a whole table yields a row at a time. Text is read as bytes, since it may be none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from durabatch.ledger.executor import Executor

__all__ = [
    "LIMIT", "attempt_mismatches", "batch_gaps", "batch_mismatches", "batches_left_open", "contents", "counters",
    "counters_of_run",
    "damage", "impossible", "inline_values", "lost_mismatches", "not_json", "orphans", "outcome_mismatches", "outside_batch", "outside_spans", "passed_by",
    "past_mismatches", "past_slices_out_of_bounds",
    "result_mismatches", "segment_ids", "slices_out_of_bounds", "spans_broken", "spending", "sums_differing", "suspects_misplaced",
    "unknown_dispatches",
]  # fmt: skip

#: Rows of one kind that are listed; the statements say the same.
LIMIT = 20
#: What finds rows that the CHECKs forbid, a table each; spans have a rule of their own.
FORBIDDEN = (
    "run_list_impossible", "batch_list_impossible", "item_list_impossible", "attempt_list_impossible", "result_list_impossible",
    "result_history_list_impossible", "suspect_list_impossible", "control_list_impossible", "undo_list_impossible",
    "undo_undoing_list_impossible",
)  # fmt: skip
#: What finds columns that should hold JSON and do not, a table each; none of them looks at items or attempts.
NOT_JSON = ("run_list_not_json", "event_list_not_json", "control_list_not_json")
#: The counters of a run, in the order of the statements.
COUNTERS = (
    "total", "pending", "scheduled", "running", "succeeded", "failed", "skipped", "cancelled", "quarantined", "undone", "attempt", "batch", "gone",
)  # fmt: skip


def damage(ledger: Executor) -> list[str]:
    """Return what SQLite finds wrong with pages, indexes and constraints."""
    return [str(row[0]) for row in ledger.rows("schema_integrity") if row[0] != "ok"]


def impossible(ledger: Executor) -> Iterator[tuple[str, int]]:
    """Yield (table, id) of rows that the CHECKs of their table forbid; for attempts, the id is that of the item."""
    for statement in FORBIDDEN:
        for row in ledger.rows(statement):
            yield statement.removesuffix("_list_impossible").removeprefix("undo_"), row[0]


def orphans(ledger: Executor) -> list[tuple[str, int | None, str]]:
    """Return (table, row id, table of the missing parent) of rows whose parent is missing."""
    with contextlib.closing(ledger.execute("schema_orphans")) as cursor, ledger.border():
        return [(row[0], row[1], row[2]) for _, row in zip(range(LIMIT), cursor, strict=False)]


def counters(ledger: Executor) -> Iterator[tuple[int, dict[str, tuple[int, int]]]]:
    """Yield each run's id and those of its counters that differ from the rows, as (counter, rows)."""
    for run_id, *stored in ledger.rows("run_list_counters"):
        yield run_id, recounted(ledger, run_id, stored)


def counters_of_run(ledger: Executor, run_id: int) -> dict[str, tuple[int, int]]:
    """Return those counters of one run that differ from the rows, as (counter, rows)."""
    return next(recounted(ledger, run_id, stored) for found, *stored in ledger.rows("run_list_counters") if found == run_id)


def recounted(ledger: Executor, run_id: int, stored: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Return those of the *stored* counters of a run that differ from the rows, as (counter, rows)."""
    pairs = zip(COUNTERS, stored, ledger.row("run_recount", (run_id,)) or (), strict=True)
    return {f"{name}_count": (said, found) for name, said, found in pairs if said != found}


def sums_differing(ledger: Executor) -> list[tuple[int, ...]]:
    """Return (run id, items, in spans, batches, rows, ended, in batches) of runs in which one of the three pairs differs."""
    return [row[:7] for row in ledger.rows("run_list_sum_mismatch")]


def batch_gaps(ledger: Executor) -> list[tuple[int, int, int]]:
    """Return (run id, batches, highest number) of runs whose batches are not numbered from 1 without a gap."""
    return [(row[0], row[1], row[2]) for row in ledger.rows("run_list_batch_gaps")]


def batch_mismatches(ledger: Executor) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Return (batch id, counters, rows) of batches whose counters (items, ended, failed) differ from their rows."""
    return [(row[0], row[1:4], row[4:7]) for row in ledger.rows("batch_recount")]


def batches_left_open(ledger: Executor) -> list[tuple[int, int, int]]:
    """Return (batch id, run id, number) of batches that cannot be open any more."""
    return [(row[0], row[1], row[2]) for row in ledger.rows("batch_list_left_open")]


def spans_broken(ledger: Executor) -> list[tuple[int, int, int, int]]:
    """Return (span id, run id, first id, last id) of spans that lack items, hold those of another run, or overlap."""
    return [(row[0], row[1], row[2], row[3]) for row in ledger.rows("span_list_broken")]


def outside_spans(ledger: Executor) -> list[int]:
    """Return the ids of items that no span of their run holds."""
    return [row[0] for row in ledger.rows("item_list_outside_spans")]


def outside_batch(ledger: Executor) -> list[tuple[int, int]]:
    """Return (item id, batch id) of items beyond the bounds of their batch, or in one of another run."""
    return [(row[0], row[1]) for row in ledger.rows("item_list_outside_batch")]


def passed_by(ledger: Executor) -> list[tuple[int, int]]:
    """Return (item id, watermark) of fresh items before the watermark."""
    return [(row[0], row[1]) for row in ledger.rows("item_list_passed_by")]


def unknown_dispatches(ledger: Executor) -> list[tuple[int, int, int]]:
    """Return (item id, dispatch id, last dispatch) of running items whose dispatch was never made."""
    return [(row[0], row[1], row[2]) for row in ledger.rows("item_list_unknown_dispatch")]


def attempt_mismatches(ledger: Executor) -> list[tuple[int, int, int, int]]:
    """Return (item id, counter, rows, highest number) of items whose attempts are not numbered from 1 to their count."""
    return [(row[0], row[1], row[2], row[3]) for row in ledger.rows("item_list_attempt_mismatch")]


def outcome_mismatches(ledger: Executor) -> list[tuple[int, str, str]]:
    """Return (item id, state, outcome) of ended items whose last attempt tells of another end."""
    return [(row[0], row[1], row[2]) for row in ledger.rows("item_list_outcome_mismatch")]


def result_mismatches(ledger: Executor) -> list[tuple[int, str, bool]]:
    """Return (item id, state, whether it has a result) of items whose state and result disagree."""
    return [(row[0], row[1], bool(row[2])) for row in ledger.rows("item_list_result_mismatch")]


def slices_out_of_bounds(ledger: Executor) -> list[tuple[int, int]]:
    """Return (item id, segment id) of results that reach beyond their segment, or lie in one of another batch."""
    return [(row[0], row[1]) for row in ledger.rows("result_list_out_of_bounds")]


def past_slices_out_of_bounds(ledger: Executor) -> list[tuple[int, int]]:
    """Return (item id, segment id) of results of before that reach beyond their segment."""
    return [(row[0], row[1]) for row in ledger.rows("result_history_list_out_of_bounds")]


def past_mismatches(ledger: Executor) -> list[tuple[int, int, str]]:
    """Return (item id, number, outcome) of results of before that no success returned, or that are the present ones too."""
    return [(row[0], row[1], row[2]) for row in ledger.rows("result_history_list_mismatch")]


def lost_mismatches(ledger: Executor) -> list[tuple[int, str]]:
    """Return (item id, state) of items that the input has lost and that are not cancelled."""
    return [(row[0], row[1]) for row in ledger.rows("item_list_lost_mismatch")]


def segment_ids(ledger: Executor) -> Iterator[int]:
    """Yield the id of every segment."""
    return (row[0] for row in walk(ledger, "segment_list_ids"))


def contents(ledger: Executor) -> Iterator[tuple[int, bytes | None, int, bytes | None, bytes]]:
    """Yield (item id, key, its hash, payload, its digest) of every item; None for what a damaged row lacks."""
    return ((row[0], row[1], row[2], row[3], row[4]) for row in walk(ledger, "item_list_digests"))


def inline_values(ledger: Executor) -> Iterator[tuple[int, bytes]]:
    """Yield (item id, value) of every result, present or of before, that stands inline."""
    for name in ("result_list_inline", "result_history_list_inline"):
        for row in walk(ledger, name):
            yield row[0], row[1]


def not_json(ledger: Executor) -> Iterator[tuple[str, int]]:
    """Yield (table, id) of runs, events and orders with a column that should hold JSON and does not."""
    for statement in NOT_JSON:
        for row in ledger.rows(statement):
            yield statement.partition("_")[0], row[0]


def spending(ledger: Executor) -> tuple[list[int], dict[int, dict[str, float]]]:
    """Return the ids of items with an attempt whose spending is no JSON, and what the others add up to: run id to amounts by unit."""
    sums: dict[int, dict[str, float]] = {}
    for run_id, unit, amount in ledger.rows("attempt_sum_spent"):
        sums.setdefault(run_id, {})[unit] = amount
    return [row[0] for row in ledger.rows("attempt_list_not_json")], sums


def suspects_misplaced(ledger: Executor) -> list[tuple[int, str]]:
    """Return (item id, state) of suspects that are set apart and have ended, or that another run suspects."""
    return [(row[0], row[1]) for row in ledger.rows("suspect_list_misplaced")]


def walk(ledger: Executor, name: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the statement *name*, one in memory at a time."""
    cursor = ledger.execute(name)
    with contextlib.closing(cursor):
        while True:
            with ledger.border():
                row = cursor.fetchone()
            if row is None:
                return
            yield row
