"""
A page of input becomes items.

One write transaction: when this returns, the items, their span, the counters and the position of the input are on disk together, so a
crash in the middle of intake goes on exactly behind the last page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from durabatch.codec import key_hash, key_hashes, payload_digests
from durabatch.engine.active import ActiveRun
from durabatch.ledger import item, run, span
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.new_items import KeyTakenError, NewItems, insert

__all__ = ["DuplicateKeyError", "InputRow", "Place", "insert_one_by_one", "locate", "note_read", "submit"]

#: (key or None when known by content, payload as JSON text, position in the source)
InputRow = tuple[str | None, str, int]
#: Sums of digests are kept to the size of a digest.
MASK = (1 << 128) - 1
#: From the payload of an item to its priority and the due time that puts it outside the input order; None leaves it there.
Place = Callable[[str], tuple[int, int | None]]


class DuplicateKeyError(Exception):
    """
    A key stands twice in the input. Nothing of the page was added. Who knows the input's file and lines makes an InputError of it.

    Attributes:
        index: Which row of the page has it the second time.
        key: The key.
        first_position: Where it stood first, as a source position.
    """

    def __init__(self, index: int, key: str, first_position: int) -> None:
        self.index = index
        self.key = key
        self.first_position = first_position
        super().__init__(f"key {key!r} was already at position {first_position}")


def submit(
    ledger: Connection, active: ActiveRun, rows: Sequence[InputRow], *, position: str | None, complete: bool, place: Place | None = None
) -> None:
    """
    Add the items in *rows*, all or none, and note that the source goes on at *position*.

    Args:
        rows: In input order; a key of None becomes the item's ordinal in the run.
        complete: The input ends here; in a run that is open, items of other processes may still come.
        place: Gives items a place of their own; None has all of them run in input order. What it raises comes out, and nothing was written.

    Raises:
        DuplicateKeyError: A key is in the run, or twice in the page. Nothing was written.
    """
    with ledger.transaction():
        if rows:
            items = new_items(ledger, active, rows)
            if place is not None:
                items = placed(active, items, place)
            try:
                insert(ledger, items)
            except KeyTakenError:
                insert_one_by_one(ledger, items)
            if place is not None:
                pass_by(ledger, active, items)
            span.cover(ledger, active.run_id, items.first_item_id, items.last_item_id)
            active.tally.total += len(items)
            active.tally.pending += len(items)
            active.span_last = -1
            note_read(active.intake, items.digests)
        active.intake["ended"] = complete
        active.intake_complete = complete and not active.is_open
        run.set_intake(ledger, active.run_id, position=position, complete=active.intake_complete, intake=active.intake)


def note_read(intake: dict[str, Any], digests: Sequence[bytes]) -> None:
    """
    Count in *intake* rows that were read of the input, by the digests of their payloads.

    Their sum tells whether another reading gave the same rows, in whatever order: keys come from payloads, so these say everything.
    """
    total = int(intake.get("digest", "0"), 16) + sum(map(int.from_bytes, digests))
    intake["digest"] = f"{total & MASK:x}"
    intake["rows"] = intake.get("rows", 0) + len(digests)


def new_items(ledger: Connection, active: ActiveRun, rows: Sequence[InputRow]) -> NewItems:
    """Return *rows* as new items, numbered from the next free id."""
    ordinal = active.total_count + 1
    keys = [str(ordinal + index) if row[0] is None else row[0] for index, row in enumerate(rows)]
    payloads = [row[1] for row in rows]
    first_id = item.last_id(ledger) + 1
    return NewItems(
        active.run_id, first_id, keys, key_hashes(keys), payloads, payload_digests(payloads), positions=[row[2] for row in rows]
    )


def placed(active: ActiveRun, items: NewItems, place: Place) -> NewItems:
    """Return *items* with their places."""
    places = list(map(place, items.payloads))
    for _, due_at_us in places:
        if due_at_us is not None:
            active.expect_due(due_at_us)
    return replace(items, places=places)


def pass_by(ledger: Connection, active: ActiveRun, items: NewItems) -> None:
    """Move the watermark behind a page without a fresh item, if no fresh item stands before it: a claim need not look through it."""
    if all(due_at_us is not None for _, due_at_us in items.places or ()) and span.at(ledger, active.run_id, active.next_item_id) is None:
        active.next_item_id = items.last_item_id + 1
        run.set_watermark(ledger, active.run_id, active.next_item_id)


def insert_one_by_one(ledger: Connection, items: NewItems) -> None:
    """Add *items* whose key hashes meet others: the same text is a duplicate, another text moves on to its next probe."""
    with ledger.savepoint():
        for index, key in enumerate(items.keys):
            probe = 0
            while (found := item.get_by_hash(ledger, items.run_id, key_hash(key, probe))) is not None:
                if found[1] == key:
                    raise DuplicateKeyError(index, key, found[3])
                probe += 1
            insert(ledger, items.alone(index, key_hash(key, probe)))


def locate(ledger: Executor, run_id: int, key: str) -> int | None:
    """Return the id of the item with this key, or None."""
    probe = 0
    while (found := item.get_by_hash(ledger, run_id, key_hash(key, probe))) is not None:
        if found[1] == key:
            return found[0]
        probe += 1
    return None
