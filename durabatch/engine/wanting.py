"""
Items whose effects are to be undone before anything becomes of them.

    has ended          →  stays what it is until they are undone, and is undone then
    waits for its turn →  waits until they are undone, and for its turn then
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from durabatch.ledger import rollback
from durabatch.ledger.connection import Connection
from durabatch.ledger.rollback import Candidate
from durabatch.states import ItemState

__all__ = ["WAITING", "Wanted", "want"]

#: States of items that wait for their turn.
WAITING = (ItemState.PENDING, ItemState.SCHEDULED)


@dataclass(slots=True)
class Wanted:
    """
    What is to be undone of some items.

    Attributes:
        item_ids: Those of which something is.
        steps: Their entries that are to be undone, those among them that were already.
        aside: Ids of those that waited for their turn, and are pending until then; *scheduled* of them were scheduled, which is yet to be counted.
    """

    item_ids: set[int] = field(default_factory=set)
    steps: int = 0
    aside: list[int] = field(default_factory=list)
    scheduled: int = 0


def want(ledger: Connection, candidates: Sequence[Candidate], *, in_order: bool, now_us: int, of_successes: bool = True) -> Wanted:
    """
    Have the effects of items undone, inside a transaction; what had failed to be undone is tried again. No item may be with a worker.

    Args:
        in_order: One at a time, the newest first, over all items that are undone so; else items beside each other.
        of_successes: False leaves alone what attempts did that succeeded.
    """
    if not candidates:
        return Wanted()
    found = rollback.want(ledger, [one.item_id for one in candidates], now_us, in_order=in_order, of_successes=of_successes)
    wanted = Wanted(set(found), len(found))
    mine = [one for one in candidates if one.item_id in wanted.item_ids and not one.waits]
    if mine:
        rollback.defer(ledger, [one.item_id for one in mine])
    wanted.aside = [one.item_id for one in mine if one.state in WAITING]
    if wanted.aside:
        rollback.set_aside(ledger, wanted.aside)
        wanted.scheduled = sum(one.state == ItemState.SCHEDULED for one in mine)
    return wanted
