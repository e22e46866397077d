"""
What is to be undone, and what remains of it: questions and moves over the tables item, undo and undoing for those who choose items.

What becomes of single entries while they are undone stands in the module of their table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic_core import to_json

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.statements import named
from durabatch.ledger.stretch import carray
from durabatch.models import Unresolved

__all__ = [
    "BEHIND_ALL", "Candidate", "EntryRow", "PlannedRow", "broken_batch", "count_irreversible", "count_unresolved", "defer", "doom",
    "fail_half_undone", "get_batch", "is_begun", "keep_items", "list_broken_items", "list_chosen", "list_given_up", "list_items", "list_mixed_batches", "list_of_item",
    "list_planned", "list_unresolved", "set_aside", "those_outside", "unwant", "want", "where_query",
]  # fmt: skip

#: Behind every entry that there is.
BEHIND_ALL = (1 << 63) - 1
#: Ids of which at least one in so many is meant lie close together.
SPARSE = 10


class Candidate(NamedTuple):
    """An item that may be undone; one that *waits* has effects that are being undone before it goes on."""

    item_id: int
    state: str
    waits: int


class PlannedRow(NamedTuple):
    """An entry that is not undone, with its item."""

    undo_id: int
    item_id: int
    key: str
    batch: int | None
    attempt: int
    action: str
    arguments: str
    state: str
    recorded_at_us: int


class EntryRow(NamedTuple):
    """An entry of an item; ``attempt`` recorded it, ``tries`` were made to undo it."""

    action: str
    state: str
    is_wanted: int
    attempt: int
    tries: int
    error: str | None
    recorded_at_us: int
    ended_at_us: int | None


def list_items(
    ledger: Executor, first_item_id: int, last_item_id: int, *, states: Sequence[str], batch_id: int | None, limit: int
) -> list[Candidate]:
    """Return up to *limit* items of a stretch of ids that are in one of *states* or have effects that can be undone, in input order; no running ones."""
    bounds = (first_item_id, last_item_id, to_json(states).decode(), batch_id, limit)
    return list(map(Candidate._make, ledger.rows("rollback_list_items", bounds)))


def list_chosen(ledger: Executor, run_id: int, item_ids: Sequence[int], *, states: Sequence[str], batch_id: int | None) -> list[Candidate]:
    """Return those of *item_ids* of which the same holds."""
    bounds = (carray(item_ids), run_id, to_json(states).decode(), batch_id)
    return list(map(Candidate._make, ledger.rows("rollback_list_chosen", bounds))) if item_ids else []


def where_query(expression: str) -> str:
    """Return the query for those of some items (?2, a JSON array of ids) of a run (?1) for which *expression* over v_item holds."""
    return named()["rollback_list_where"].replace(":where", expression)


def those_outside(ledger: Executor, item_ids: Sequence[int], number: int, finished_at_us: int) -> list[int]:
    """Return those of *item_ids*, which ascend, that checkpoint *number*, made at *finished_at_us*, does not hold: by the one definition of that."""
    if not item_ids:
        return []
    first, last = item_ids[0], item_ids[-1]
    # Ids that lie close together are looked at in one go, others one by one.
    is_dense = last - first < SPARSE * len(item_ids)
    found: set[int] = set()
    for low, high in [(first, last)] if is_dense else zip(item_ids, item_ids, strict=True):
        bounds = {
            "first_item_id": low, "last_item_id": high, "number": number, "finished_at_us": finished_at_us, "ended": 0,
            "limit": high - low + 1,
        }  # fmt: skip
        found.update(row[0] for row in ledger.rows("checkpoint_list_outside", bounds))
    return [item_id for item_id in item_ids if item_id in found]


def want(ledger: Connection, item_ids: Sequence[int], now_us: int, *, in_order: bool, of_successes: bool) -> list[int]:
    """
    Have the effects of items undone that can be; return the item of each of these entries.

    Args:
        of_successes: Also those of attempts that succeeded.
    """
    return [row[0] for row in ledger.rows("rollback_want", (carray(item_ids), now_us, int(in_order), int(of_successes)))]


def defer(ledger: Connection, item_ids: Sequence[int]) -> None:
    """Note what becomes of items then: those that have ended are undone, those that wait go on as they do now."""
    ledger.execute("rollback_defer", (carray(item_ids),))


def set_aside(ledger: Connection, item_ids: Sequence[int]) -> None:
    """Keep items that wait from running until their effects are undone."""
    ledger.execute("rollback_set_aside", (carray(item_ids),))


def doom(ledger: Connection, item_ids: Sequence[int]) -> None:
    """Have items that were to run again once their effects are undone be undone themselves then."""
    ledger.execute("rollback_doom", (carray(item_ids),))


def count_irreversible(ledger: Executor, item_ids: Sequence[int]) -> int:
    """Return how many entries of these items cannot be undone."""
    return int(ledger.value("rollback_count_irreversible", (carray(item_ids),)))


def get_batch(ledger: Executor, run_id: int, number: int) -> tuple[int, int, int, int | None] | None:
    """Return (batch_id, first item id, last item id, when it finished) of a batch, or None when the run has none of this number."""
    row = ledger.row("rollback_get_batch", (run_id, number))
    return None if row is None else (row[0], row[1], row[2], row[3])


def broken_batch(ledger: Executor, batch_id: int) -> tuple[int, int] | None:
    """Return the first and the last item id of a batch of which an item has failed for good; None for any other."""
    row = ledger.row("rollback_broken_batch", (batch_id,))
    return None if row is None else (row[0], row[1])


def list_mixed_batches(ledger: Executor, run_id: int) -> list[int]:
    """Return the batches of a run in which something has succeeded and something else has ended otherwise, by their ids."""
    return [row[0] for row in ledger.rows("rollback_list_mixed_batches", (run_id,))]


def list_broken_items(ledger: Executor, first_item_id: int, last_item_id: int, batch_id: int, limit: int) -> list[Candidate]:
    """Return up to *limit* items of a broken batch that are not to stay: succeeded and waiting ones, in input order."""
    return list(map(Candidate._make, ledger.rows("rollback_list_broken_items", (first_item_id, last_item_id, batch_id, limit))))


def list_given_up(ledger: Executor, run_id: int, after: int, limit: int) -> list[int]:
    """Return the ids of up to *limit* items behind the id *after* whose rollback can be given up."""
    return [row[0] for row in ledger.rows("rollback_list_given_up", (run_id, after, limit))]


def fail_half_undone(ledger: Connection, item_ids: Sequence[int], now_us: int) -> int:
    """Mark the newest effect that is left of each half undone item as failed; return how many there were."""
    ledger.execute("rollback_fail_half_undone", (carray(item_ids), now_us))
    return ledger.changes()


def unwant(ledger: Connection, item_ids: Sequence[int]) -> int:
    """Let the effects of items stay that were to be undone; return how many."""
    ledger.execute("rollback_unwant", (carray(item_ids),))
    return ledger.changes()


def keep_items(ledger: Connection, item_ids: Sequence[int]) -> None:
    """Let items stay what they are."""
    ledger.execute("rollback_keep_items", (carray(item_ids),))


def list_planned(
    ledger: Executor, run_id: int, *, before: int = BEHIND_ALL, from_item_id: int = 0, batch: int | None, item_ids: Sequence[int] | None, limit: int
) -> list[PlannedRow]:
    """Return up to *limit* entries before the id *before* that are not undone, newest first: of some items, of a batch; None for any."""
    chosen = None if item_ids is None else to_json(item_ids).decode()
    return list(map(PlannedRow._make, ledger.rows("rollback_list_planned", (run_id, before, from_item_id, batch, chosen, limit))))


def list_unresolved(ledger: Executor, run_id: int, limit: int) -> tuple[list[Unresolved], int]:
    """Return the newest *limit* effects of a run that remain though they were to be undone, and how many there are."""
    rows = ledger.rows("rollback_list_unresolved", (run_id, limit))
    return [Unresolved(*row[:-1]) for row in rows], rows[0][-1] if rows else 0


def count_unresolved(ledger: Executor, run_id: int, *, is_live: bool) -> int:
    """Return how many entries of a run could not be undone; unless somebody works on it, those at which somebody was among them."""
    return int(ledger.value("rollback_count_unresolved", (run_id, int(not is_live))))


def is_begun(ledger: Executor, run_id: int) -> bool:
    """Tell whether items of a run are being rolled back."""
    return ledger.value("rollback_is_begun", (run_id,)) is not None


def list_of_item(ledger: Executor, item_id: int) -> list[EntryRow]:
    """Return the entries of an item, oldest first."""
    return list(map(EntryRow._make, ledger.rows("rollback_list_of_item", (item_id,))))
