"""
The result and segment tables: what handlers returned, inline or as slices of checked, compressed frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.stretch import carray, is_stretch

__all__ = ["copy_past", "copy_some", "copy_stretch", "get", "get_segment", "insert_inline", "insert_packed", "insert_segment"]


def insert_inline(ledger: Connection, item_ids: Sequence[int], values: Sequence[str]) -> None:
    """Record small values, one for each item."""
    if is_stretch(item_ids):
        ledger.execute("result_insert_stretch", (item_ids[0], carray(values)))
    else:
        ledger.executemany("result_insert_inline", zip(item_ids, values, strict=True))


def insert_segment(ledger: Connection, batch_id: int, raw_bytes: int, digest: bytes, data: bytes) -> int:
    """Store one frame and return its id."""
    return int(ledger.value("segment_insert", (batch_id, raw_bytes, digest, data)))


def insert_packed(ledger: Connection, rows: Iterable[tuple[int, int, int, int]]) -> None:
    """Record values that lie in segments: (item_id, segment_id, offset, bytes) each."""
    ledger.executemany("result_insert_packed", rows)


def copy_stretch(ledger: Connection, first_item_id: int, last_item_id: int, distance: int) -> None:
    """Record the values of a stretch of items once more, for the items whose ids are so much higher."""
    ledger.execute("result_copy_stretch", (first_item_id, last_item_id, distance))


def copy_some(ledger: Connection, pairs: Iterable[tuple[int, int]]) -> None:
    """Record values once more: (item_id, item that has the value) each."""
    ledger.executemany("result_copy_one", pairs)


def copy_past(ledger: Connection, rows: Iterable[tuple[int, int, int]]) -> None:
    """Record values of the history once more: (item_id, item that had the value, number of the attempt that returned it) each."""
    ledger.executemany("result_copy_past", rows)


def get(ledger: Executor, item_id: int) -> tuple[str | None, int | None, int | None, int | None] | None:
    """Return (value, segment_id, offset, bytes) of the item's result, or None when it has none."""
    row = ledger.row("result_get", (item_id,))
    return None if row is None else (row[0], row[1], row[2], row[3])


def get_segment(ledger: Executor, segment_id: int) -> tuple[int, bytes, bytes] | None:
    """Return (raw bytes, SHA-256 of them, frame) of a segment, or None."""
    row = ledger.row("segment_get", (segment_id,))
    return None if row is None else (row[0], row[1], row[2])
