"""
The item table: every move of an item is one function here, and one statement in ``schema/queries/item.sql``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic_core import to_json

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Bindings, Executor
from durabatch.ledger.statements import named
from durabatch.ledger.stretch import carray, is_stretch

__all__ = [
    "Claimable", "DueRow", "ItemRow", "StoredItem", "answer", "cancel", "claim_due", "claim_fresh", "end_attempt", "end_undo", "get", "get_by_hash",
    "has_due_without_batch", "held", "last_id", "list_again", "list_chosen", "list_due", "list_due_to_cancel", "list_ended_ids", "list_error_groups",
    "list_failed_ids", "list_fresh", "list_fresh_to_cancel", "list_of_batch", "list_page", "list_pending", "list_skipped_groups",
    "list_suspects", "next_due", "next_waiting", "recover", "release", "retry", "skip", "succeed", "where_query",
]  # fmt: skip

#: (item_id, number of its next attempt, key, payload)
Claimable = tuple[int, int, str, str]
#: A Claimable, its batch_id and its state
DueRow = tuple[int, int, str, str, int | None, str]
#: The priorities there are: whatever an INTEGER holds.
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
#: Priorities that are looked at one by one, before all lower ones are looked at together.
PRIORITIES_ALONE = 20


class ItemRow(NamedTuple):
    """An item as it leaves the ledger: with its result, or the error of its last attempt."""

    item_id: int
    key: str
    state: str
    charged_count: int
    error_type: str | None
    error_message: str | None
    value: str | None
    segment_id: int | None
    segment_offset: int | None
    raw_bytes: int | None


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item as it stands in its table."""

    item_id: int
    run_id: int
    key: str
    payload: str
    digest: bytes
    state: str
    batch_id: int | None
    attempt_count: int
    uncharged_count: int
    source_position: int
    due_at_us: int | None
    earlier_count: int


def last_id(ledger: Executor) -> int:
    """Return the highest item id of the ledger, 0 when it has none."""
    return int(ledger.value("item_last_id"))


def get(ledger: Executor, item_id: int) -> StoredItem | None:
    """Return the item *item_id*, or None."""
    row = ledger.row("item_get", (item_id,))
    return None if row is None else StoredItem(*row)


def get_by_hash(ledger: Executor, run_id: int, key_hash: int) -> tuple[int, str, bytes, int] | None:
    """Return (item_id, key, digest, source_position) of the item with this key hash, or None."""
    row = ledger.row("item_get_by_hash", (run_id, key_hash))
    return None if row is None else (row[0], row[1], row[2], row[3])


def list_fresh(ledger: Executor, first_item_id: int, last_item_id: int, *, limit: int, max_bytes: int, any_first: bool) -> list[Claimable]:
    """Return up to *limit* fresh items of a stretch of ids, in input order; *max_bytes* and *any_first* as for :func:`list_due`."""
    bounds = {"first_item_id": first_item_id, "last_item_id": last_item_id, "limit": limit}
    return within_bytes(ledger, "item_list_fresh", bounds, max_bytes, any_first=any_first)


def list_due(ledger: Executor, run_id: int, *, now_us: int, limit: int, max_bytes: int, any_first: bool, raised: bool) -> list[DueRow]:
    """
    Return up to *limit* items outside the input order that are due, most urgent first. Suspects that are set apart are not among them.

    However many wait for a later time, those of the few highest priorities are not looked at.

    Args:
        max_bytes: Characters of payload that they may have together; the first item that does not fit ends the list.
        any_first: The first item may be larger than that.
        raised: True for those of priority 0 and more, which go before fresh items; False for those below 0, which go after.
    """
    lowest, highest = (0, HIGHEST) if raised else (LOWEST, -1)
    kept: list[DueRow] = []
    for _ in range(PRIORITIES_ALONE):
        found = ledger.value("item_highest_priority", (run_id, highest))
        if found is None or found < lowest or len(kept) >= limit:
            return kept
        bounds = {"run_id": run_id, "priority": found, "now_us": now_us, "limit": limit - len(kept)}
        if not add_within_bytes(ledger, kept, "item_list_due_of_priority", bounds, max_bytes, any_first=any_first):
            return kept
        if found == lowest:
            return kept
        highest = found - 1
    bounds = {"run_id": run_id, "now_us": now_us, "limit": limit - len(kept), "lowest": lowest, "highest": highest}
    add_within_bytes(ledger, kept, "item_list_due", bounds, max_bytes, any_first=any_first)
    return kept


def list_suspects(ledger: Executor, run_id: int, group_number: int, *, max_bytes: int) -> list[DueRow]:
    """Return the waiting items of a group of suspects, in input order; *max_bytes* as for :func:`list_due`, one item may exceed it alone."""
    return within_bytes(ledger, "item_list_suspects", {"run_id": run_id, "group_number": group_number}, max_bytes, any_first=True)


def list_pending(ledger: Executor, first_item_id: int, last_item_id: int, *, limit: int, max_bytes: int) -> list[Claimable]:
    """Return up to *limit* pending items of a stretch of ids, whatever their place; *max_bytes* as for :func:`list_suspects`."""
    bounds = {"first_item_id": first_item_id, "last_item_id": last_item_id, "limit": limit}
    return within_bytes(ledger, "item_list_pending", bounds, max_bytes, any_first=True)


def within_bytes(ledger: Executor, name: str, bounds: Bindings, max_bytes: int, *, any_first: bool) -> list[Any]:
    """Return the first rows of the statement *name* whose payloads (the fourth column) fit together; no row more is held in memory."""
    kept: list[Any] = []
    add_within_bytes(ledger, kept, name, bounds, max_bytes, any_first=any_first)
    return kept


def add_within_bytes(ledger: Executor, kept: list[Any], name: str, bounds: Bindings, max_bytes: int, *, any_first: bool) -> bool:
    """Add the first rows of a statement whose payloads fit together with those *kept* already; False when one did not."""
    room = max_bytes - sum(len(row[3]) for row in kept)
    with ledger.border(), contextlib.closing(ledger.execute(name, bounds)) as cursor:
        for row in cursor:
            room -= len(row[3])
            if room < 0 and (kept or not any_first):
                return False
            kept.append(row)
    return True


def claim_fresh(ledger: Connection, first_item_id: int, last_item_id: int, *, batch_id: int, dispatch_id: int) -> int:
    """Mark the fresh items of a stretch as running in this batch and dispatch; return how many."""
    row = {"first_item_id": first_item_id, "last_item_id": last_item_id, "batch_id": batch_id, "dispatch_id": dispatch_id}
    ledger.execute("item_claim_fresh", row)
    return ledger.changes()


def claim_due(ledger: Connection, pairs: Sequence[tuple[int, int]], dispatch_id: int) -> int:
    """Mark items as running, each in its batch: (item_id, batch_id) pairs. Return how many."""
    ledger.execute("item_claim_due", {"pairs": to_json(pairs).decode(), "dispatch_id": dispatch_id})
    return ledger.changes()


def succeed(ledger: Connection, item_ids: Sequence[int], dispatch_id: int) -> int:
    """Mark those of *item_ids* that the dispatch holds as succeeded, with one attempt more; return how many they were."""
    if is_stretch(item_ids):
        # One pass over neighbours of the table costs half of as many searches.
        ledger.execute("item_succeed_range", (item_ids[0], item_ids[-1], dispatch_id))
    else:
        ledger.execute("item_succeed_some", (carray(item_ids), dispatch_id))
    return ledger.changes()


def held(ledger: Executor, item_ids: Sequence[int], dispatch_id: int) -> set[int]:
    """Return those of *item_ids* that the dispatch holds."""
    return {row[0] for row in ledger.rows("item_list_held", (carray(item_ids), dispatch_id))}


def answer(ledger: Connection, item_ids: Sequence[int], batch_id: int, *, are_fresh: bool) -> None:
    """
    Mark items that wait as succeeded, in this batch and with one attempt more, without a dispatch.

    Args:
        are_fresh: They stand in input order.
    """
    if are_fresh and is_stretch(item_ids):
        ledger.execute("item_answer_range", (item_ids[0], item_ids[-1], batch_id))
    else:
        ledger.execute("item_answer_some", (carray(item_ids), batch_id))


def end_attempt(ledger: Connection, item_id: int, dispatch_id: int, *, state: str, due_at_us: int | None, uncharged: bool) -> bool:
    """Move one item on after an attempt that did not succeed; False when the dispatch does not hold it, and nothing was changed."""
    row = {"item_id": item_id, "dispatch_id": dispatch_id, "state": state, "due_at_us": due_at_us, "uncharged": int(uncharged)}
    ledger.execute("item_end_attempt", row)
    return ledger.changes() == 1


def end_undo(ledger: Connection, item_id: int, *, state: str, due_at_us: int | None, with_attempt: bool) -> None:
    """Move one item on that has waited until what it did was undone; *with_attempt* with one uncharged attempt more."""
    ledger.execute("item_end_undo", {"item_id": item_id, "state": state, "due_at_us": due_at_us, "attempts": int(with_attempt)})


def release(ledger: Connection, item_ids: Sequence[int], dispatch_id: int) -> int:
    """Make unstarted items pending again, in their batch, ahead of fresh ones; return how many the dispatch still held."""
    ledger.execute("item_release", {"item_ids": to_json(item_ids).decode(), "dispatch_id": dispatch_id})
    return ledger.changes()


def recover(ledger: Connection, run_id: int, started: Sequence[int]) -> int:
    """Make every running item of the run pending again; *started* ones have one uncharged attempt more. Return how many there were."""
    ledger.execute("item_recover", {"run_id": run_id, "started": to_json([[item_id] for item_id in started]).decode()})
    return ledger.changes()


def retry(ledger: Connection, item_ids: Sequence[int]) -> int:
    """Make ended items pending again, with everything they may take counted anew, and open their batches; return how many."""
    ledger.execute("batch_reopen_retried", (carray(item_ids),))
    ledger.execute("item_retry", (carray(item_ids),))
    return ledger.changes()


def skip(ledger: Connection, run_id: int, item_id: int, attempt_count: int) -> tuple[int | None] | None:
    """Mark a pending item with so many attempts as skipped, with one attempt more; return (its batch_id,), or None when it is no such item."""
    row = ledger.row("item_skip", (item_id, run_id, attempt_count))
    return None if row is None else (row[0],)


def cancel(ledger: Connection, item_ids: Sequence[int]) -> int:
    """Mark items that wait as cancelled; return how many."""
    ledger.execute("item_cancel", (carray(item_ids),))
    return ledger.changes()


def list_due_to_cancel(ledger: Executor, run_id: int, limit: int) -> list[tuple[int, str, int | None]]:
    """Return (item_id, state, batch_id) of up to *limit* items outside the input order."""
    return [(row[0], row[1], row[2]) for row in ledger.rows("item_list_due_to_cancel", (run_id, limit))]


def list_fresh_to_cancel(ledger: Executor, first_item_id: int, last_item_id: int, limit: int) -> list[tuple[int, str, int | None]]:
    """Return (item_id, state, batch_id) of up to *limit* fresh items of a stretch of ids, in input order."""
    return [(row[0], row[1], row[2]) for row in ledger.rows("item_list_fresh_to_cancel", (first_item_id, last_item_id, limit))]


def next_due(ledger: Executor, run_id: int) -> int | None:
    """Return the earliest due time among the items outside the input order, suspects that are set apart left out; None when there are none."""
    found = ledger.value("item_next_due", (run_id,))
    return None if found is None else int(found)


def next_waiting(ledger: Executor, run_id: int) -> int | None:
    """Return the earliest time that an item waits for, a retry for example; None when none does."""
    found = ledger.value("item_next_waiting", (run_id,))
    return None if found is None else int(found)


def has_due_without_batch(ledger: Executor, run_id: int) -> bool:
    """Tell whether an item outside the input order has not joined a batch yet."""
    return ledger.value("item_has_due_without_batch", (run_id,)) is not None


def list_failed_ids(ledger: Executor, run_id: int, after: int, limit: int) -> list[int]:
    """Return the ids of up to *limit* failed and quarantined items behind the id *after*."""
    return [row[0] for row in ledger.rows("item_list_failed_ids", (run_id, after, limit))]


def list_ended_ids(ledger: Executor, first_item_id: int, last_item_id: int, limit: int) -> list[int]:
    """Return the ids of up to *limit* items of a stretch of ids that ended in any way but by success."""
    return [row[0] for row in ledger.rows("item_list_ended_ids", (first_item_id, last_item_id, limit))]


def list_again(
    ledger: Executor, run_id: int, item_ids: Sequence[int], *, states: Sequence[str], error_type: str | None, error_group: str | None
) -> list[tuple[int, str]]:
    """Return (item_id, state) of those of *item_ids* that are in one of *states* and ended with this error, None for any, in input order."""
    row = {
        "run_id": run_id, "item_ids": to_json(item_ids).decode(), "states": to_json(states).decode(),
        "error_type": error_type, "error_group": error_group,
    }  # fmt: skip
    return [(found[0], found[1]) for found in ledger.rows("item_list_again", row)]


def list_error_groups(ledger: Executor, run_id: int, limit: int) -> list[tuple[str, int, int, int]]:
    """Return (name, items, first item id, last item id) of up to *limit* groups of failed items, biggest first."""
    return [(row[0], row[1], row[2], row[3]) for row in ledger.rows("item_list_error_groups", (run_id, limit))]


def list_skipped_groups(ledger: Executor, run_id: int, limit: int) -> list[tuple[str | None, str | None, int, int]]:
    """Return (reason, remedy, items, first item id) of up to *limit* groups of skipped items, biggest first."""
    return [(row[0], row[1], row[2], row[3]) for row in ledger.rows("item_list_skipped_groups", (run_id, limit))]


def list_of_batch(ledger: Executor, batch_id: int, after: int, limit: int) -> list[ItemRow]:
    """Return up to *limit* items of a batch behind the id *after*, in input order."""
    return list(map(ItemRow._make, ledger.rows("item_list_of_batch", {"batch_id": batch_id, "after": after, "limit": limit})))


def list_page(ledger: Executor, first_item_id: int, last_item_id: int, limit: int) -> list[ItemRow]:
    """Return up to *limit* items of a stretch of ids, in input order."""
    bounds = {"first_item_id": first_item_id, "last_item_id": last_item_id, "limit": limit}
    return list(map(ItemRow._make, ledger.rows("item_list_page", bounds)))


def list_chosen(ledger: Executor, item_ids: Sequence[int]) -> list[ItemRow]:
    """Return these items, in this order."""
    return list(map(ItemRow._make, ledger.rows("item_list_chosen", {"item_ids": to_json(item_ids).decode()})))


def where_query(expression: str) -> str:
    """Return the query for the ids of the items of a run (?1) in a state (?2, NULL for any) for which *expression* over v_item holds."""
    return named()["item_list_where"].replace(":where", expression)
