"""
Checkpoints: every finished batch is one. The names that people give to checkpoints are rows of mark.

What a checkpoint holds has one definition, the statement ``checkpoint_list_outside``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from durabatch.ledger import span
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor

__all__ = [
    "BatchPoint", "Outside", "UndoMismatch", "count_undo", "ends_of_batch", "ends_without_batch", "get_mark", "inline_results", "insert_mark", "last",
    "list_batches", "list_marks", "outside", "packed_results", "recount", "result_mismatches", "segments_of_batch", "set_digest", "undo_mismatches",
    "unknown_digests",
]  # fmt: skip

#: Items read at once.
PAGE = 5000


@dataclass(frozen=True, slots=True)
class BatchPoint:
    """A batch as a checkpoint; it is one once it has finished. ``digest`` and ``result_bytes`` are None where they are not known."""

    batch_id: int
    number: int
    item_count: int
    ended_count: int
    failed_count: int
    finished_at_us: int | None
    result_bytes: int | None
    digest: int | None


class Outside(NamedTuple):
    """An item that a checkpoint does not hold."""

    item_id: int
    key: str
    state: str


class UndoMismatch(NamedTuple):
    """An undo entry that does not fit what became of its attempt; ``outcome`` is None when there is no such attempt."""

    batch_number: int
    key: str
    item_state: str
    number: int
    outcome: str | None
    action: str
    state: str
    is_wanted: int


def outside(ledger: Executor, run_id: int, number: int, finished_at_us: int, *, ended: bool = False) -> Iterator[Outside]:
    """
    Yield what checkpoint *number* does not hold, in input order, a page at a time.

    Items may change while this goes on; what has been passed is not looked at again.

    Args:
        finished_at_us: When its batch finished.
        ended: Only items that have ended: what ran after the checkpoint.
    """
    bounds = {"number": number, "finished_at_us": finished_at_us, "ended": int(ended), "limit": PAGE}
    for first, last_id in span.list_of_run(ledger, run_id):
        start = first
        while start <= last_id:
            page = ledger.rows("checkpoint_list_outside", {**bounds, "first_item_id": start, "last_item_id": last_id})
            yield from map(Outside._make, page)
            start = page[-1][0] + 1 if len(page) == PAGE else last_id + 1


def list_batches(ledger: Executor, run_id: int) -> list[BatchPoint]:
    """Return the batches of a run by number, those that have not finished among them."""
    return [BatchPoint(*row) for row in ledger.rows("checkpoint_list_batches", (run_id,))]


def last(ledger: Executor, run_id: int) -> BatchPoint | None:
    """Return the batch of a run that finished last, or None when none has."""
    row = ledger.row("checkpoint_last", (run_id,))
    return None if row is None else BatchPoint(*row)


def ends_of_batch(ledger: Executor, batch_id: int) -> array[int]:
    """Return, ascending, when the ended items of a batch had ended, as far as attempts tell."""
    return array("q", (row[0] for row in ledger.rows("checkpoint_list_ends", (batch_id,))))


def ends_without_batch(ledger: Executor, run_id: int) -> array[int]:
    """Return the same for the items of a run that are in no batch."""
    return array("q", (row[0] for row in ledger.rows("checkpoint_list_ends_without_batch", (run_id,))))


def inline_results(ledger: Executor, batch_id: int) -> Iterator[tuple[int, bytes]]:
    """Yield item and value, as bytes, of the inline results of a batch, in no order."""
    with ledger.border():
        yield from ledger.execute("checkpoint_list_inline", (batch_id,))


def packed_results(ledger: Executor, batch_id: int) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield item, SHA-256 of the segment (empty: it is missing), offset and bytes of the packed results of a batch, in no order."""
    with ledger.border():
        yield from ledger.execute("checkpoint_list_packed", (batch_id,))


def segments_of_batch(ledger: Executor, batch_id: int) -> list[tuple[int, str]]:
    """Return (segment_id, key of one of the items) of the segments that results of a batch lie in."""
    return [(row[0], row[1]) for row in ledger.rows("checkpoint_list_segments", (batch_id,))]


def result_mismatches(ledger: Executor, batch_id: int, limit: int) -> list[tuple[str, str]]:
    """Return (key, state) of up to *limit* items of a batch that succeeded and have no result, or have one and did not succeed."""
    return [(row[0], row[1]) for row in ledger.rows("checkpoint_list_result_mismatch", (batch_id, limit))]


def unknown_digests(ledger: Executor, run_id: int) -> list[int]:
    """Return the ids of the finished batches of a run whose digest is not known."""
    return [row[0] for row in ledger.rows("checkpoint_list_unknown", (run_id,))]


def set_digest(ledger: Connection, batch_id: int, result_bytes: int, digest: int) -> None:
    """Note what the results of a batch come to."""
    ledger.execute("checkpoint_set_digest", (batch_id, result_bytes, digest))


def recount(ledger: Executor, batch_id: int) -> tuple[int, int, int]:
    """Return the items of a batch, the ended and the failed ones among them, as its rows have them."""
    items, ended, failed = ledger.row("checkpoint_recount", (batch_id,)) or (0, 0, 0)
    return items, ended, failed


def undo_mismatches(ledger: Executor, run_id: int, number: int, limit: int) -> list[UndoMismatch]:
    """Return up to *limit* undo entries of the items of batches up to *number* that do not fit what became of their attempts."""
    return [UndoMismatch._make(row) for row in ledger.rows("checkpoint_list_undo_mismatch", (run_id, number, limit))]


def count_undo(ledger: Executor, run_id: int) -> int:
    """Return how many undo entries of a run there are."""
    return int(ledger.value("checkpoint_undo_recount", (run_id,)))


def insert_mark(ledger: Connection, run_id: int, label: str, number: int, now_us: int) -> None:
    """Give checkpoint *number* of a run a name that it has not given yet."""
    ledger.execute("checkpoint_insert_mark", (run_id, label, number, now_us))


def get_mark(ledger: Executor, run_id: int, label: str) -> int | None:
    """Return the number of the checkpoint of that name, or None."""
    found = ledger.value("checkpoint_get_mark", (run_id, label))
    return None if found is None else int(found)


def list_marks(ledger: Executor, run_id: int) -> dict[int, list[str]]:
    """Return the names of checkpoints by their numbers, oldest first."""
    found: dict[int, list[str]] = {}
    for number, label in ledger.rows("checkpoint_list_marks", (run_id,)):
        found.setdefault(number, []).append(label)
    return found
