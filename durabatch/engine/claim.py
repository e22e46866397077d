"""
Items are handed out: pending ones become running, in a batch and a dispatch.

The order is: items outside the input order of priority 0 and more, then fresh ones from the watermark on, then items of negative
priority. Fresh items are claimed as ranges of ids inside one span, so a claim costs the same however many wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from durabatch.engine.active import ActiveRun, OpenBatch
from durabatch.flow.batching import FixedBatches
from durabatch.ledger import batch, item, run, span
from durabatch.ledger.connection import Connection
from durabatch.states import ItemState

__all__ = ["Claim", "claim", "seal_when_exhausted"]

#: (item_id, attempt number, key, payload): what a worker gets of an item.
Work = tuple[int, int, str, str]


@dataclass(slots=True)
class Claim:
    """One dispatch: items by batch, in the order in which they run."""

    dispatch_id: int
    groups: list[tuple[int, list[Work]]] = field(default_factory=list)
    item_count: int = 0
    payload_bytes: int = 0

    def add(self, batch_id: int, works: list[Work]) -> None:
        """Append *works* of one batch."""
        if self.groups and self.groups[-1][0] == batch_id:
            self.groups[-1][1].extend(works)
        else:
            self.groups.append((batch_id, works))
        self.item_count += len(works)
        self.payload_bytes += sum(len(work[3]) for work in works)


def claim(ledger: Connection, active: ActiveRun, batches: FixedBatches, *, limit: int, max_bytes: int, now_us: int) -> Claim | None:
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
        active.move(made.item_count, ItemState.PENDING, ItemState.RUNNING)
        run.set_claimed(ledger, active.run_id, next_item_id=active.next_item_id, dispatch_count=active.dispatch_count, now_us=now_us)
    return made


def claim_due(
    ledger: Connection, active: ActiveRun, batches: FixedBatches, made: Claim, limit: int, max_bytes: int, now_us: int, *, raised: bool
) -> None:
    """Add items that stand outside the input order; those that never ran join the open batch."""
    if not active.may_have_due or made.item_count >= limit:
        return
    room = max_bytes - made.payload_bytes
    rows = item.list_due(
        ledger, active.run_id, now_us=now_us, limit=limit - made.item_count, max_bytes=room, any_first=not made.item_count, raised=raised
    )
    if not rows:
        active.may_have_due = item.next_due(ledger, active.run_id) is not None
        return
    pairs: list[tuple[int, int]] = []
    for item_id, number, key, payload, batch_id in rows:
        joined = batch_id if batch_id is not None else join_batch(ledger, active, batches, [item_id], now_us)[0][0]
        made.add(joined, [(item_id, number, key, payload)])
        pairs.append((item_id, joined))
    item.claim_due(ledger, pairs, made.dispatch_id)


def claim_fresh(
    ledger: Connection, active: ActiveRun, batches: FixedBatches, made: Claim, limit: int, max_bytes: int, now_us: int
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
    ids = [row[0] for row in rows]
    start = 0
    for batch_id, count in join_batch(ledger, active, batches, ids, now_us):
        piece = rows[start : start + count]
        item.claim_fresh(ledger, piece[0][0], piece[-1][0], batch_id=batch_id, dispatch_id=made.dispatch_id)
        made.add(batch_id, piece)
        start += count
    active.next_item_id = ids[-1] + 1
    return True


def skip_ended(ledger: Connection, active: ActiveRun) -> bool:
    """Move the watermark behind its span when nothing fresh is left in that; False when a fresh item is there, which had no room."""
    if item.list_fresh(ledger, active.next_item_id, active.span_last, limit=1, max_bytes=0, any_first=True):
        return False
    active.next_item_id = active.span_last + 1
    return True


def join_batch(ledger: Connection, active: ActiveRun, batches: FixedBatches, item_ids: Sequence[int], now_us: int) -> list[tuple[int, int]]:
    """Let items join the open batch and, where that is full, the next ones; return (batch_id, items) in order."""
    if active.open_batch is not None and batches.is_full(active.open_batch.item_count):
        batch.seal_last(ledger, active.run_id, now_us)
        active.open_batch = None
    joined: list[tuple[int, int]] = []
    start = 0
    already = active.open_batch.item_count if active.open_batch else 0
    for count, sealed in batches.cut(len(item_ids), already_in=already):
        first, last = item_ids[start], item_ids[start + count - 1]
        if active.open_batch is None:
            number = active.batch_count + active.tally.batches + 1
            batch_id = batch.insert(
                ledger, run_id=active.run_id, number=number, count=count, sealed=sealed, first_item_id=first, last_item_id=last, now_us=now_us
            )
            active.tally.batches += 1
            active.open_batch = OpenBatch(batch_id, number, count)
        else:
            batch_id = active.open_batch.batch_id
            batch.add_items(ledger, batch_id, count=count, sealed=sealed, first_item_id=first, last_item_id=last, now_us=now_us)
            active.open_batch.item_count += count
        if sealed:
            active.open_batch = None
        joined.append((batch_id, count))
        start += count
    return joined


def seal_when_exhausted(ledger: Connection, active: ActiveRun, now_us: int) -> None:
    """Close the last batch once intake is complete and every item has a batch: nobody can join it any more."""
    if active.open_batch is None or not active.intake_complete:
        return
    with ledger.transaction():
        nothing_fresh = span.at(ledger, active.run_id, active.next_item_id) is None
        if nothing_fresh and not item.has_due_without_batch(ledger, active.run_id):
            batch.seal_last(ledger, active.run_id, now_us)
            active.open_batch = None
