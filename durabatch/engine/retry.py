"""
Items that ended without success run again: which ones is chosen here, the rest is as for every item that runs again. Needs no input file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from durabatch.engine.redo import count_again, move_again
from durabatch.engine.submit import locate
from durabatch.errors import NotFoundError, UsageError
from durabatch.ledger import event, item, span
from durabatch.ledger.connection import Connection
from durabatch.ledger.reader import Reader
from durabatch.states import ItemState

__all__ = ["BROKEN", "RETRYABLE", "Chosen", "retry"]

#: States of items that can be run again, and those of them that are when nobody says which.
RETRYABLE = (ItemState.FAILED, ItemState.QUARANTINED, ItemState.SKIPPED, ItemState.CANCELLED)
BROKEN = (ItemState.FAILED, ItemState.QUARANTINED)
#: Items moved at once.
PAGE = 5000
#: Seconds for an expression of the user's.
WHERE_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Chosen:
    """
    Which items are to run again: those for which all of this holds.

    Attributes:
        states: Their states, of :data:`RETRYABLE`; empty for :data:`BROKEN`.
        error_type: Type of the error of their last attempt; None for any.
        group: Group of that error, as ``errors`` lists it; None for any.
        keys: Their keys; empty for any.
        where: An SQL expression over v_item that holds for them; None for none.
    """

    states: Sequence[str] = ()
    error_type: str | None = None
    group: str | None = None
    keys: Sequence[str] = ()
    where: str | None = None

    @property
    def wanted(self) -> Sequence[str]:
        """The states that are meant."""
        return self.states or BROKEN


def retry(ledger: Connection, run_id: int, chosen: Chosen, *, now_us: int) -> int:
    """
    Make the chosen items of a run pending again and return how many there were.

    One write transaction. The run is reopened when there was at least one; results of other items stay as they are, and the attempts
    so far stay in the ledger. Items that the input has lost stay out. Memory does not grow with the number of items.

    Raises:
        NotFoundError: There is no item with one of the keys. Nothing was changed.
        UsageError: One of the states is none from which items run again. Nothing was changed.
        SqlError: The expression is wrong. Nothing was changed.
    """
    odd = [state for state in chosen.states if state not in RETRYABLE]
    if odd:
        raise UsageError(f"--state {odd[0]}: such items are not run again", f"Use {', '.join(RETRYABLE)}.")
    moved: Counter[str] = Counter()
    with ledger.transaction():
        ids = candidates(ledger, run_id, chosen)
        while page := list(islice(ids, PAGE)):
            moved.update(move_page(ledger, run_id, chosen, page, now_us))
        if moved:
            count_again(ledger, run_id, moved)
            event.record(
                ledger, "retried", run_id=run_id, now_us=now_us, items=moved.total(), error_type=chosen.error_type, group=chosen.group
            )
    return moved.total()


def candidates(ledger: Connection, run_id: int, chosen: Chosen) -> Iterator[int]:
    """Yield the ids of the items that may be meant, in pages; state and error are looked at later."""
    if chosen.keys:
        return iter(ids_of_keys(ledger, run_id, chosen))
    if chosen.where is not None:
        return ids_where(ledger, run_id, chosen.where)
    if set(chosen.wanted) <= set(BROKEN):
        return failed_ids(ledger, run_id)
    return ended_ids(ledger, run_id)


def ids_of_keys(ledger: Connection, run_id: int, chosen: Chosen) -> list[int]:
    """Return the ids of the items with the chosen keys, in input order."""
    ids = set()
    for key in chosen.keys:
        item_id = locate(ledger, run_id, key)
        if item_id is None:
            raise NotFoundError(f"no item {key!r} in this run", "`durabatch items` lists the keys.")
        ids.add(item_id)
    if chosen.where is not None:
        ids.intersection_update(ids_where(ledger, run_id, chosen.where))
    return sorted(ids)


def ids_where(ledger: Connection, run_id: int, expression: str) -> Iterator[int]:
    """Yield the ids of the items for which an expression of the user's holds, as the ledger was before this transaction."""
    with Reader(ledger.files.ledger) as reader:
        _, rows = reader.query(item.where_query(expression), (run_id, None), timeout_s=WHERE_TIMEOUT_S)
        yield from (row[0] for row in rows)


def failed_ids(ledger: Connection, run_id: int) -> Iterator[int]:
    """Yield the ids of the failed and quarantined items; an item that is made pending while this goes on is not met again."""
    after = 0
    while page := item.list_failed_ids(ledger, run_id, after, PAGE):
        yield from page
        after = page[-1]


def ended_ids(ledger: Connection, run_id: int) -> Iterator[int]:
    """Yield the ids of the items that ended in any way but by success: a walk over all of the run."""
    for first, last in span.list_of_run(ledger, run_id):
        after = first - 1
        while page := item.list_ended_ids(ledger, after + 1, last, PAGE):
            yield from page
            after = page[-1]


def move_page(ledger: Connection, run_id: int, chosen: Chosen, ids: Sequence[int], now_us: int) -> Counter[str]:
    """Make those of *ids* pending that are meant; return how many there were of each state."""
    rows = item.list_again(ledger, run_id, ids, states=chosen.wanted, error_type=chosen.error_type, error_group=chosen.group)
    move_again(ledger, run_id, [item_id for item_id, _ in rows], cause="redone", now_us=now_us)
    return Counter(state for _, state in rows)
