"""
The tables cache and cache_scope: results that may be used again for equal payloads. Values stay where they are; a row only points to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.stretch import carray

__all__ = [
    "IN_HISTORY",
    "IN_RESULT",
    "Known",
    "count_mismatches",
    "forget",
    "forget_oldest",
    "insert",
    "list_broken",
    "list_known",
    "scope",
    "total_bytes",
    "touch",
]

#: Where a value is: the result that its item has now, or one that it had.
IN_RESULT, IN_HISTORY = 1, 2
#: Rows that are looked at and forgotten at once.
PAGE = 500


class Known(NamedTuple):
    """
    What the cache has for one item.

    Attributes:
        item_id: The item that is looked for.
        source_id, number: The attempt that returned the value.
        place: :data:`IN_RESULT` or :data:`IN_HISTORY`; 0 when the value cannot be used.
        segment_id, slice_end: Where it is packed; None when it is not.
    """

    item_id: int
    source_id: int
    number: int
    place: int
    used_at_us: int
    segment_id: int | None
    slice_end: int | None


def scope(ledger: Connection, identity: str) -> int:
    """Return the id of the scope with this identity, which is made when it is new."""
    ledger.execute("cache_scope_insert", (identity,))
    return int(ledger.value("cache_scope_get", (identity,)))


def list_known(ledger: Executor, scope_id: int, item_ids: Sequence[int], oldest_us: int) -> list[Known]:
    """Return what there is for those of *item_ids* whose payload the scope knows; values made before *oldest_us* cannot be used."""
    return list(map(Known._make, ledger.rows("cache_list_known", (carray(item_ids), scope_id, oldest_us))))


def insert(ledger: Connection, scope_id: int, item_ids: Sequence[int], *, most_bytes: int, now_us: int) -> None:
    """Have the results of these items, which just succeeded, used for equal payloads from now on; not those of more than *most_bytes*."""
    ledger.execute("cache_insert", (carray(item_ids), scope_id, now_us, most_bytes))


def touch(ledger: Connection, scope_id: int, item_ids: Sequence[int], now_us: int) -> None:
    """Note that what is known for the payloads of these items was used."""
    ledger.execute("cache_touch", (carray(item_ids), scope_id, now_us))


def forget(ledger: Connection, scope_id: int, item_ids: Sequence[int]) -> int:
    """Forget what is known for the payloads of these items; return the bytes of its values."""
    return sum(row[0] for row in ledger.rows("cache_delete_of_items", (carray(item_ids), scope_id)))


def total_bytes(ledger: Executor) -> int:
    """Return the bytes of all values in the cache; reads all of its rows."""
    return int(ledger.value("cache_sum"))


def forget_oldest(ledger: Connection, excess_bytes: int) -> int:
    """Forget the least recently used values until so many bytes are gone; return how many are."""
    gone_bytes = 0
    while gone_bytes < excess_bytes:
        page = ledger.rows("cache_list_oldest", (PAGE,))
        if not page:
            break
        chosen = []
        for scope_id, digest, value_bytes in page:
            if gone_bytes >= excess_bytes:
                break
            chosen.append((scope_id, digest))
            gone_bytes += value_bytes
        ledger.executemany("cache_delete", chosen)
    return gone_bytes


def list_broken(ledger: Executor) -> list[tuple[int, int]]:
    """Return (item_id, number) of attempts in the cache that are not a success of a handler."""
    return [(row[0], row[1]) for row in ledger.rows("cache_list_broken")]


def count_mismatches(ledger: Executor) -> list[tuple[int, int, int]]:
    """Return (run id, counter, rows) of runs that say another number of answers of the cache than their attempts."""
    return [(row[0], row[1], row[2]) for row in ledger.rows("cache_list_count_mismatch")]
