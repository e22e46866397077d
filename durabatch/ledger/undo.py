"""
The tables undo, undo_blob and undoing: promises to take effects back, what that needs, and the items that wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.stretch import carray

__all__ = [
    "UNDO_AT_US", "Claimed", "Held", "begun", "begun_of", "blobs", "cancel_of_run", "cancel_some", "claim", "count_mismatches", "count_out", "count_states",
    "count_undoing", "count_wanted", "finish", "first_in_order", "first_irreversible", "forgotten", "get_held", "get_undoing", "give_up", "has_wanted", "hold",
    "insert", "insert_blob", "insert_undoing", "let_go", "let_run", "list_ready", "list_undoing", "newest_of", "next_due", "odd_entries",
    "odd_undoing", "put_off", "recover", "release", "remove_undoing", "stay_cancelled", "stranded", "unclaimed", "unwant", "want_attempt",
]  # fmt: skip

#: An item whose last attempt left effects behind is due at this time until they are undone; statements say the same. It is after every other.
UNDO_AT_US = 1 << 61


class Claimed(NamedTuple):
    """A step for a worker: its entry, which try it is, the item's key, what to do, the idempotency key, and the content of before."""

    undo_id: int
    try_number: int
    key: str
    action: str
    arguments: str
    idempotency_key: str
    blob: bytes | None


class Held(NamedTuple):
    """A step that a dispatch holds."""

    undo_id: int
    item_id: int
    key: str
    action: str
    try_count: int
    is_in_order: int


def insert(ledger: Connection, row: dict[str, Any]) -> int | None:
    """Record an entry and return its id; None when the dispatch does not hold its item in that attempt, or it is recorded already."""
    found = ledger.value("undo_insert", row)
    return None if found is None else int(found)


def insert_blob(ledger: Connection, undo_id: int, raw_bytes: int, digest: bytes, data: bytes) -> None:
    """Keep what stands in the place of an effect."""
    ledger.execute("undo_insert_blob", (undo_id, raw_bytes, digest, data))


def want_attempt(ledger: Connection, item_id: int, number: int, now_us: int) -> int:
    """Have undone what an attempt did; return how many entries that is."""
    ledger.execute("undo_want_attempt", (item_id, number, now_us))
    return ledger.changes()


def unwant(ledger: Connection, item_id: int, now_us: int) -> tuple[int, int]:
    """Leave the effects of an item as they are, but those that a worker is at; return (entries, of them in order)."""
    found = [row[0] for row in ledger.rows("undo_unwant", (item_id, now_us))]
    return len(found), sum(found)


def has_wanted(ledger: Executor, item_id: int) -> bool:
    """Tell whether something of the item is to be undone."""
    return ledger.value("undo_has_wanted", (item_id,)) is not None


def first_irreversible(ledger: Executor, item_id: int, after: int) -> str | None:
    """Return the first action of the item, in attempts behind the number *after*, that cannot be undone; None when there is none."""
    found = ledger.value("undo_first_irreversible", (item_id, after))
    return None if found is None else str(found)


def insert_undoing(ledger: Connection, run_id: int, item_id: int, then_state: str, then_due_at_us: int | None) -> None:
    """Note what becomes of an item once nothing of it is to be undone any more."""
    ledger.execute("undo_insert_undoing", (item_id, run_id, then_state, then_due_at_us))


def let_run(ledger: Connection, item_ids: Sequence[int]) -> None:
    """Have those of these items that wait, and of which something is being undone, run once that is done."""
    ledger.execute("undo_let_run", (carray(item_ids),))
    if ledger.changes():
        ledger.execute("item_wait_for_undo", (carray(item_ids),))


def cancel_of_run(ledger: Connection, run_id: int) -> None:
    """Have the waiting items of a run cancelled once what they did is undone."""
    ledger.execute("undo_cancel_of_run", (run_id,))


def cancel_some(ledger: Connection, item_ids: Sequence[int]) -> set[int]:
    """Have those of these items that wait for that cancelled once what they did is undone; return those of which something is being undone."""
    found = list_undoing(ledger, item_ids)
    if found:
        ledger.execute("undo_cancel_some", (carray(list(found)),))
    return found


def stay_cancelled(ledger: Connection, item_ids: Sequence[int]) -> None:
    """Have those of these cancelled items of which something is being undone stay cancelled after that."""
    ledger.execute("undo_stay_cancelled", (carray(item_ids),))


def hold(ledger: Connection, first_item_id: int, last_item_id: int) -> None:
    """Keep owed items of a stretch of ids from running once what they did is undone."""
    ledger.execute("undo_hold", (first_item_id, last_item_id))


def let_go(ledger: Connection, run_id: int) -> None:
    """Let them run again then."""
    ledger.execute("undo_let_go", (run_id,))


def get_undoing(ledger: Executor, item_id: int) -> tuple[str, int | None] | None:
    """Return (state, due time) that an item is to have once nothing of it is to be undone; None when it waits for nothing."""
    row = ledger.row("undo_get_undoing", (item_id,))
    return None if row is None else (row[0], row[1])


def list_undoing(ledger: Executor, item_ids: Sequence[int]) -> set[int]:
    """Return those of these items of which something is being undone."""
    return {row[0] for row in ledger.rows("undo_list_undoing", (carray(item_ids),))} if item_ids else set()


def remove_undoing(ledger: Connection, item_id: int) -> None:
    """Note that an item does not wait for undoing any more."""
    ledger.execute("undo_remove_undoing", (item_id,))


def count_wanted(ledger: Executor, run_id: int) -> tuple[int, int]:
    """Return how many entries of the run are to be undone, and how many of them in an order over all items."""
    row = ledger.row("undo_count_wanted", (run_id,)) or (0, 0)
    return int(row[0]), int(row[1])


def count_undoing(ledger: Executor, run_id: int) -> int:
    """Return how many items of the run wait for something to be undone."""
    return int(ledger.value("undo_count_undoing", (run_id,)))


def count_states(ledger: Executor, run_id: int) -> dict[str, int]:
    """Return how many entries of a run there are, by state: a walk over all of them."""
    return dict(ledger.rows("undo_count_states", (run_id,)))


def count_out(ledger: Executor, run_id: int) -> int:
    """Return how many steps of the run are with workers."""
    return int(ledger.value("undo_count_out", (run_id,)))


def next_due(ledger: Executor, run_id: int, now_us: int) -> int | None:
    """Return when the next step is due that waits for a further try, after *now_us*; None when none does."""
    found = ledger.value("undo_next_due", (run_id, now_us))
    return None if found is None else int(found)


def list_ready(ledger: Executor, run_id: int, *, limit: int, max_bytes: int, now_us: int) -> list[tuple[int, int]]:
    """
    Return (entry, item) of up to *limit* entries without an order over all items that can be undone now, each the newest such of its item, newest first.

    Args:
        max_bytes: Of contents and arguments together; the first entry may be larger.
    """
    found: list[tuple[int, int]] = []
    seen: set[int] = set()
    with ledger.border(), closing(ledger.execute("undo_list_wanted", (run_id, now_us))) as cursor:
        for undo_id, item_id, size in cursor:
            if item_id in seen:
                continue
            seen.add(item_id)
            if size is None:
                continue
            max_bytes -= size
            if found and max_bytes < 0:
                break
            found.append((undo_id, item_id))
            if len(found) == limit:
                break
    return found


def first_in_order(ledger: Executor, run_id: int, now_us: int) -> tuple[int, int] | None:
    """Return (entry, item) of the entry whose turn it is of those that have an order over all items; None when it cannot be undone now."""
    row = ledger.row("undo_first_in_order", (run_id, now_us))
    return None if row is None or not row[2] else (row[0], row[1])


def newest_of(ledger: Executor, found: Sequence[tuple[int, int]]) -> list[int]:
    """Return those of these entries, (entry, item) each, that are the newest of their item that is to be undone, whether it has an order or not."""
    newest = {row[0] for row in ledger.rows("undo_newest_wanted", (carray([item_id for _, item_id in found]),))} if found else set()
    return [undo_id for undo_id, _ in found if undo_id in newest]


def claim(ledger: Connection, undo_ids: Sequence[int], dispatch_id: int) -> list[Claimed]:
    """Hand entries that are to be undone to a dispatch, and return what a worker needs, newest first."""
    ledger.execute("undo_claim", (carray(undo_ids), dispatch_id))
    return [Claimed._make(row) for row in ledger.rows("undo_list_claimed", (carray(undo_ids),))]


def get_held(ledger: Executor, undo_id: int, dispatch_id: int) -> Held | None:
    """Return the step of this entry, None when the dispatch does not hold it."""
    row = ledger.row("undo_get_held", (undo_id, dispatch_id))
    return None if row is None else Held._make(row)


def finish(ledger: Connection, undo_id: int, now_us: int) -> None:
    """Note that an effect is taken back; what that needed is removed."""
    ledger.execute("undo_finish", (undo_id, now_us))
    ledger.execute("undo_remove_blob", (undo_id,))


def put_off(ledger: Connection, undo_id: int, *, due_at_us: int, error: str | None, charged: bool) -> None:
    """Have a step tried again, from *due_at_us* on; without an *error* the one before it stays."""
    ledger.execute("undo_put_off", (undo_id, due_at_us, error, int(charged)))


def give_up(ledger: Connection, undo_id: int, state: str, error: str, now_us: int) -> None:
    """Note that an effect remains: *state* is failed or irreversible."""
    ledger.execute("undo_give_up", (undo_id, state, error, now_us))


def release(ledger: Connection, undo_ids: Sequence[int], dispatch_id: int) -> int:
    """Take back steps that were not begun; return how many the dispatch still held."""
    ledger.execute("undo_release", (carray(undo_ids), dispatch_id))
    return ledger.changes()


def recover(ledger: Connection) -> int:
    """Take back every step, of whatever run, that a worker had; return how many there were."""
    ledger.execute("undo_recover")
    return ledger.changes()


def begun(ledger: Executor, run_id: int) -> list[int]:
    """Return the running items of a run whose attempt has promised something."""
    return [row[0] for row in ledger.rows("undo_list_begun", (run_id,))]


def begun_of(ledger: Executor, item_ids: Sequence[int], dispatch_id: int | None = None) -> list[int]:
    """Return those of these items that are with a worker, by this dispatch if there is one, and whose attempt has promised something."""
    return [row[0] for row in ledger.rows("undo_list_begun_of", (carray(item_ids), dispatch_id))] if item_ids else []


def count_mismatches(ledger: Executor) -> list[tuple[int, int, int]]:
    """Return (run id, counter, rows) of runs that say another number of entries than there are."""
    return [(row[0], row[1], row[2]) for row in ledger.rows("undo_list_count_mismatch")]


def odd_entries(ledger: Executor) -> list[tuple[int, str]]:
    """Return (entry, what is wrong) of entries that cannot have been recorded so."""
    return [(row[0], row[1]) for row in ledger.rows("undo_list_misplaced")]


def odd_undoing(ledger: Executor) -> list[tuple[int, str]]:
    """Return (item, what is wrong) of items that cannot wait so for something to be undone."""
    return [(row[0], row[1]) for row in ledger.rows("undo_list_undoing_misplaced")]


def unclaimed(ledger: Executor) -> list[int]:
    """Return entries that are to be undone and for which no item waits."""
    return [row[0] for row in ledger.rows("undo_list_unclaimed_mismatch")]


def stranded(ledger: Executor) -> list[int]:
    """Return items that wait for something to be undone, and of which nothing says so."""
    return [row[0] for row in ledger.rows("undo_list_stranded_mismatch")]


def forgotten(ledger: Executor) -> list[tuple[int, str]]:
    """Return (entry, state of its item) of effects that remain though their item is undone, or goes on without having them undone."""
    return [(row[0], row[1]) for row in ledger.rows("undo_list_forgotten_mismatch")]


def blobs(ledger: Executor) -> Iterator[tuple[int, str | None, Any, Any, Any]]:
    """Yield (entry, its state, raw size, SHA-256, frame) of every content of before, one in memory at a time; values may be damaged."""
    with ledger.border(), closing(ledger.execute("undo_list_contents_inline")) as cursor:
        for row in cursor:
            yield row[0], row[1], row[2], row[3], row[4]
