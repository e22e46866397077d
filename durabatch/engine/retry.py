"""
Items that ended without success run again: which ones is chosen here, the rest is as for every item that runs again. Needs no input file.

What their attempts have left behind is undone first; an item of which that fails does not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from durabatch.engine.redo import Again
from durabatch.engine.scope import ids_of_keys, ids_where
from durabatch.errors import UsageError
from durabatch.ledger import event, item, span
from durabatch.ledger.connection import Connection
from durabatch.states import ItemState

__all__ = ["BROKEN", "RETRYABLE", "Chosen", "retry"]

#: States of items that can be run again, and those of them that are when nobody says which.
RETRYABLE = (ItemState.FAILED, ItemState.QUARANTINED, ItemState.SKIPPED, ItemState.CANCELLED, ItemState.UNDONE)
BROKEN = (ItemState.FAILED, ItemState.QUARANTINED)
#: Items moved at once.
PAGE = 5000


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
    so far stay in the ledger. Items that the input has lost stay out. Those whose attempts have left effects behind wait until these
    are undone. Memory does not grow with the number of items.

    Raises:
        NotFoundError: There is no item with one of the keys. Nothing was changed.
        UsageError: One of the states is none from which items run again. Nothing was changed.
        SqlError: The expression is wrong. Nothing was changed.
    """
    odd = [state for state in chosen.states if state not in RETRYABLE]
    if odd:
        raise UsageError(f"--state {odd[0]}: such items are not run again", f"Use {', '.join(RETRYABLE)}.")
    again = Again(ledger, run_id, "redone", now_us)
    with ledger.transaction():
        ids = candidates(ledger, run_id, chosen)
        while page := list(islice(ids, PAGE)):
            again.take(those_meant(ledger, run_id, chosen, page))
        if count := again.count():
            event.record(ledger, "retried", run_id=run_id, now_us=now_us, items=count, error_type=chosen.error_type, group=chosen.group)
    return count


def candidates(ledger: Connection, run_id: int, chosen: Chosen) -> Iterator[int]:
    """Yield the ids of the items that may be meant, in pages; state and error are looked at later."""
    if chosen.keys:
        return iter(ids_chosen(ledger, run_id, chosen))
    if chosen.where is not None:
        return ids_where(ledger, run_id, chosen.where)
    if set(chosen.wanted) <= set(BROKEN):
        return failed_ids(ledger, run_id)
    return ended_ids(ledger, run_id)


def ids_chosen(ledger: Connection, run_id: int, chosen: Chosen) -> list[int]:
    """Return the ids of the items with the chosen keys, in input order."""
    ids = ids_of_keys(ledger, run_id, chosen.keys)
    if chosen.where is None:
        return ids
    return sorted(set(ids).intersection(ids_where(ledger, run_id, chosen.where)))


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


def those_meant(ledger: Connection, run_id: int, chosen: Chosen, ids: Sequence[int]) -> list[tuple[int, str]]:
    """Return (item_id, state) of those of *ids* that are meant."""
    return item.list_again(ledger, run_id, ids, states=chosen.wanted, error_type=chosen.error_type, error_group=chosen.group)
