"""
Items are handed out: pending ones, and scheduled ones that are due, become running, in a batch and a dispatch.

The order is: items outside the input order of priority 0 and more, then fresh ones from the watermark on, then items of negative
priority. Fresh items are claimed as ranges of ids inside one span, so a claim costs the same however many wait. Suspects that are set apart
are no part of it: :mod:`durabatch.engine.accuse` claims those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from durabatch.engine.active import ActiveRun, OpenBatch
from durabatch.flow.batching import BatchStrategy, Filled
from durabatch.ledger import batch, item, run, span
from durabatch.ledger.connection import Connection
from durabatch.states import ItemState

__all__ = ["Claim", "Work", "claim", "seal_last_batch", "seal_when_exhausted"]

#: (item_id, attempt number, key, payload): what a worker gets of an item.
Work = tuple[int, int, str, str]


@dataclass(slots=True)
class Claim:
    """
    One dispatch: items by batch, in the order in which they run.

    Attributes:
        suspects: The group that it is, when its items must run apart from all others; else empty.
    """

    dispatch_id: int
    groups: list[tuple[int, list[Work]]] = field(default_factory=list)
    item_count: int = 0
    payload_bytes: int = 0
    suspects: tuple[int, ...] = ()

    def add(self, batch_id: int, works: list[Work], payload_bytes: int | None = None) -> None:
        """Append *works* of one batch, whose payloads have so many characters together; None has them counted."""
        if self.groups and self.groups[-1][0] == batch_id:
            self.groups[-1][1].extend(works)
        else:
            self.groups.append((batch_id, works))
        self.item_count += len(works)
        self.payload_bytes += sum(len(work[3]) for work in works) if payload_bytes is None else payload_bytes


def claim(ledger: Connection, active: ActiveRun, batches: BatchStrategy, *, limit: int, max_bytes: int, now_us: int) -> Claim | None:
    """
    Claim up to *limit* items for one dispatch, or return None when nothing is ready.

    One write transaction: when this returns, the items are running on disk.

    Args:
        max_bytes: Characters of payload in the dispatch; one item may exceed it alone.
        now_us: Items due until then are ready.
    """
    with ledger.transaction():
        made = Claim(active.dispatch_count + 1)
        claim_due(ledger, active, batches, made, limit, max_bytes, now_us, raised=True)
        while claim_fresh(ledger, active, batches, made, limit, max_bytes, now_us):
            continue
        claim_due(ledger, active, batches, made, limit, max_bytes, now_us, raised=False)
        if not made.item_count:
            return None
        active.dispatch_count += 1
        run.set_claimed(ledger, active.run_id, next_item_id=active.next_item_id, dispatch_count=active.dispatch_count, now_us=now_us)
    return made


def claim_due(
    ledger: Connection, active: ActiveRun, batches: BatchStrategy, made: Claim, limit: int, max_bytes: int, now_us: int, *, raised: bool
) -> None:
    """Add items that stand outside the input order; those that never ran join the open batch."""
    if active.next_due_at_us is None or active.next_due_at_us > now_us or made.item_count >= limit:
        return
    room = max_bytes - made.payload_bytes
    rows = item.list_due(
        ledger, active.run_id, now_us=now_us, limit=limit - made.item_count, max_bytes=room, any_first=not made.item_count, raised=raised
    )
    batch_ids = batches_of_due(ledger, active, batches, rows, now_us)
    for row, batch_id in zip(rows, batch_ids, strict=True):
        made.add(batch_id, [row[:4]])
    for state, count in Counter(row[5] for row in rows).items():
        active.move(count, ItemState(state), ItemState.RUNNING)
    if rows:
        item.claim_due(ledger, [(row[0], batch_id) for row, batch_id in zip(rows, batch_ids, strict=True)], made.dispatch_id)
    active.next_due_at_us = item.next_due(ledger, active.run_id)


def batches_of_due(ledger: Connection, active: ActiveRun, batches: BatchStrategy, rows: Sequence[item.DueRow], now_us: int) -> list[int]:
    """Return the batch of each item; those that have none join the open batch, in this order."""
    new = [row[:4] for row in rows if row[4] is None]
    joined = join_batch(ledger, active, batches, new, now_us, ascending=False) if new else []
    fresh = (batch_id for batch_id, count, _ in joined for _ in range(count))
    return [next(fresh) if row[4] is None else row[4] for row in rows]


def claim_fresh(
    ledger: Connection, active: ActiveRun, batches: BatchStrategy, made: Claim, limit: int, max_bytes: int, now_us: int
) -> bool:
    """Add fresh items of the span at the watermark; False when there is no room for more, or nothing behind the watermark."""
    if made.item_count >= limit:
        return False
    if active.span_last < active.next_item_id:
        found = span.at(ledger, active.run_id, active.next_item_id)
        if found is None:
            return False
        active.next_item_id, active.span_last = max(active.next_item_id, found[0]), found[1]
    room, is_first = max_bytes - made.payload_bytes, not made.item_count
    rows = item.list_fresh(
        ledger, active.next_item_id, active.span_last, limit=limit - made.item_count, max_bytes=room, any_first=is_first
    )
    if not rows:
        return skip_ended(ledger, active)
    start = 0
    for batch_id, count, payload_bytes in join_batch(ledger, active, batches, rows, now_us, ascending=True):
        piece = rows[start : start + count]
        item.claim_fresh(ledger, piece[0][0], piece[-1][0], batch_id=batch_id, dispatch_id=made.dispatch_id)
        made.add(batch_id, piece, payload_bytes)
        start += count
    active.next_item_id = rows[-1][0] + 1
    active.move(len(rows), ItemState.PENDING, ItemState.RUNNING)
    return True


def skip_ended(ledger: Connection, active: ActiveRun) -> bool:
    """Move the watermark behind its span when nothing fresh is left in that; False when a fresh item is there, which had no room."""
    if item.list_fresh(ledger, active.next_item_id, active.span_last, limit=1, max_bytes=0, any_first=True):
        return False
    active.next_item_id = active.span_last + 1
    return True


def join_batch(
    ledger: Connection, active: ActiveRun, batches: BatchStrategy, works: Sequence[Work], now_us: int, *, ascending: bool
) -> list[tuple[int, int, int]]:
    """
    Let items join the open batch and, where that is full, the next ones.

    Args:
        ascending: The ids of the items ascend.

    Returns:
        (batch_id, items, characters of their payloads) of each piece, in order.
    """
    if active.open_batch is not None and batches.is_full(filled(active.open_batch)):
        seal_last_batch(ledger, active, now_us)
    joined: list[tuple[int, int, int]] = []
    sizes = [len(work[3]) for work in works]
    start = 0
    for count, sealed in batches.cut(sizes, filled(active.open_batch)):
        first, last = bounds(works[start : start + count], ascending=ascending)
        added = sum(sizes[start : start + count])
        if active.open_batch is None:
            number = active.batch_count + active.tally.batches + 1
            batch_id = batch.insert(
                ledger, run_id=active.run_id, number=number, count=count, sealed=sealed, first_item_id=first, last_item_id=last, now_us=now_us
            )
            active.tally.batches += 1
            active.open_batch = OpenBatch(batch_id, number, count, added)
        else:
            batch_id = active.open_batch.batch_id
            batch.add_items(ledger, batch_id, count=count, sealed=sealed, first_item_id=first, last_item_id=last, now_us=now_us)
            active.open_batch.item_count += count
            active.open_batch.payload_bytes += added
        if sealed:
            active.open_batch = None
        joined.append((batch_id, count, added))
        start += count
    return joined


def bounds(works: Sequence[Work], *, ascending: bool) -> tuple[int, int]:
    """Return the lowest and the highest id of *works*."""
    if ascending:
        return works[0][0], works[-1][0]
    ids = [work[0] for work in works]
    return min(ids), max(ids)


def filled(open_batch: OpenBatch | None) -> Filled:
    """Return what is in the batch that still takes items."""
    return Filled(0, 0) if open_batch is None else Filled(open_batch.item_count, open_batch.payload_bytes)


def seal_last_batch(ledger: Connection, active: ActiveRun, now_us: int) -> None:
    """Let the open batch take no more items; whatever comes later opens the next one."""
    if active.open_batch is not None:
        batch.seal_last(ledger, active.run_id, now_us)
        active.open_batch = None


def seal_when_exhausted(ledger: Connection, active: ActiveRun, now_us: int) -> None:
    """Close the last batch once intake is complete and every item has a batch: nobody can join it any more."""
    if active.open_batch is None or not active.intake_complete:
        return
    with ledger.transaction():
        nothing_fresh = span.at(ledger, active.run_id, active.next_item_id) is None
        if nothing_fresh and not item.has_due_without_batch(ledger, active.run_id):
            seal_last_batch(ledger, active, now_us)
