"""
The batch table: numbered groups of items, from the first claim to the last end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.stretch import carray

__all__ = [
    "BatchRow", "add_ended", "add_items", "any_published", "count_published", "first_item", "first_open", "insert", "list_finished",
    "list_of_run", "list_undelivered", "list_unpublished", "mark_all_published", "mark_all_unpublished", "mark_delivered",
    "mark_published", "of_items", "seal_last", "standing", "unsealed",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One batch."""

    batch_id: int
    number: int
    item_count: int
    ended_count: int
    failed_count: int
    sealed: int
    first_item_id: int
    last_item_id: int
    opened_at_us: int
    finished_at_us: int | None


def insert(ledger: Connection, *, run_id: int, number: int, count: int, sealed: bool, first_item_id: int, last_item_id: int, now_us: int) -> int:
    """Open batch *number* with *count* items and return its id."""
    row = {
        "run_id": run_id, "number": number, "count": count, "sealed": int(sealed),
        "first_item_id": first_item_id, "last_item_id": last_item_id, "now_us": now_us,
    }
    return int(ledger.value("batch_insert", row))


def add_items(ledger: Connection, batch_id: int, *, count: int, sealed: bool, first_item_id: int, last_item_id: int, now_us: int) -> None:
    """Let *count* more items join the batch."""
    row = {
        "batch_id": batch_id, "count": count, "sealed": int(sealed),
        "first_item_id": first_item_id, "last_item_id": last_item_id, "now_us": now_us,
    }
    ledger.execute("batch_add_items", row)


def add_ended(
    ledger: Connection, ended: Iterable[tuple[int, int, int]], now_us: int, *, results: Mapping[int, tuple[int | None, int | None]] | None = None
) -> list[int]:
    """
    Count ends: (batch_id, ended, failed of these) each. A sealed batch whose last item ends is finished here.

    Return the batches that are finished and whose digest is not known.

    Args:
        results: (bytes, digest) of the new results of a batch, (None, None) when it is not known what they come to; without it they are none.
    """
    found: Mapping[int, tuple[int | None, int | None]] = results or {}
    rows = []
    for batch_id, count, failed in ended:
        size, digest = found.get(batch_id, (0, 0))
        rows.append({"batch_id": batch_id, "ended": count, "failed": failed, "bytes": size, "digest": digest, "now_us": now_us})
    with ledger.border():
        return [row[0] for row in ledger.executemany("batch_add_ended", rows) if row[0] is not None]


def unsealed(ledger: Executor, run_id: int) -> tuple[int, int, int, int] | None:
    """Return (batch_id, number, item_count, characters of payload) of the batch that still takes items, or None."""
    row = ledger.row("batch_unsealed", (run_id,))
    return None if row is None else (row[0], row[1], row[2], row[3])


def seal_last(ledger: Connection, run_id: int, now_us: int) -> bool:
    """Close the batch that still takes items; tell whether there was one."""
    return bool(ledger.rows("batch_seal_last", {"run_id": run_id, "now_us": now_us}))


def first_open(ledger: Executor, run_id: int) -> int | None:
    """Return the number of the first batch that has not finished, or None when all have that there are so far."""
    found = ledger.value("batch_first_open", (run_id,))
    return None if found is None else int(found)


def list_of_run(ledger: Executor, run_id: int) -> list[BatchRow]:
    """Return the batches of a run by number."""
    return [BatchRow(*values) for values in ledger.rows("batch_list", (run_id,))]


def list_finished(ledger: Executor, run_id: int) -> list[tuple[int, int, float]]:
    """Return (number, failed items, seconds) of each finished batch, by number."""
    return [(number, failed, seconds) for number, failed, seconds in ledger.rows("batch_list_finished", (run_id,))]


def list_unpublished(ledger: Executor, run_id: int, limit: int) -> list[tuple[int, int]]:
    """Return (batch_id, number) of up to *limit* finished batches whose output is not written, oldest first."""
    return [(batch_id, number) for batch_id, number in ledger.rows("batch_list_unpublished", {"run_id": run_id, "limit": limit})]


def mark_published(ledger: Connection, batch_ids: Iterable[int], now_us: int) -> None:
    """Note that the output of these batches is on disk."""
    ledger.executemany("batch_mark_published", ({"batch_id": batch_id, "now_us": now_us} for batch_id in batch_ids))


def list_undelivered(ledger: Executor, run_id: int, limit: int, *, published: bool) -> list[tuple[int, int, int]]:
    """
    Return (batch_id, number, items) of up to *limit* finished batches that nobody was called about, oldest first.

    Args:
        published: Only those whose output is written.
    """
    bounds = {"run_id": run_id, "limit": limit, "published": published}
    return [(batch_id, number, count) for batch_id, number, count in ledger.rows("batch_list_undelivered", bounds)]


def count_published(ledger: Executor, run_id: int) -> int:
    """Return how many batches of a run have their output on disk."""
    return int(ledger.value("batch_count_published", (run_id,)))


def mark_delivered(ledger: Connection, batch_ids: Iterable[int], now_us: int) -> None:
    """Note that whoever wanted to be called about these batches has been."""
    ledger.executemany("batch_mark_delivered", ({"batch_id": batch_id, "now_us": now_us} for batch_id in batch_ids))


def mark_all_published(ledger: Connection, run_id: int, now_us: int) -> None:
    """Note that the output of every finished batch is on disk."""
    ledger.execute("batch_mark_all_published", (run_id, now_us))


def mark_all_unpublished(ledger: Connection, run_id: int) -> None:
    """Have the output of every finished batch written again."""
    ledger.execute("batch_mark_all_unpublished", (run_id,))


def any_published(ledger: Executor, item_ids: Sequence[int]) -> bool:
    """Tell whether one of these items is in a batch whose output is written."""
    return ledger.value("batch_any_published", (carray(item_ids),)) is not None


def of_items(ledger: Executor, item_ids: Sequence[int]) -> list[int]:
    """Return the batches of these items, each once."""
    return [row[0] for row in ledger.rows("batch_list_of_items", (carray(item_ids),))] if item_ids else []


def first_item(ledger: Executor, run_id: int, number: int) -> int | None:
    """Return the id of the first item of batch *number* of the run; None when there is no such batch."""
    found = ledger.value("batch_first_item", (run_id, number))
    return None if found is None else int(found)


def standing(ledger: Executor, batch_id: int) -> tuple[int, bool]:
    """Return the number of a batch, and whether it is finished."""
    number, is_finished = ledger.row("batch_standing", (batch_id,)) or (0, 0)
    return int(number), bool(is_finished)
