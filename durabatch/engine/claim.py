"""
Items are handed out: pending ones, and scheduled ones that are due, become running, in a batch and a dispatch.

The order is: items outside the input order of priority 0 and more, then fresh ones from the watermark on, then items of negative
priority. Fresh items are claimed as ranges of ids inside one span, so a claim costs the same however many wait. Suspects that are set apart
are no part of it: :mod:`durabatch.engine.accuse` claims those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from durabatch.engine.active import ActiveRun, OpenBatch
from durabatch.engine.reuse import Cache, answer
from durabatch.flow.batching import BatchStrategy, Filled
from durabatch.ledger import batch, item, run, span
from durabatch.ledger.cache import Known
from durabatch.ledger.connection import Connection
from durabatch.ledger.stretch import compact
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
        answered: Items that ended at once, since their results were known; a claim may consist of them alone.
        blobs: Old contents that steps of undoing need.
    """

    dispatch_id: int
    groups: list[tuple[int, list[Work]]] = field(default_factory=list)
    item_count: int = 0
    payload_bytes: int = 0
    suspects: tuple[int, ...] = ()
    answered: list[int] = field(default_factory=list)
    blobs: dict[int, bytes] = field(default_factory=dict)

    def add(self, batch_id: int, works: list[Work], payload_bytes: int | None = None) -> None:
        """Append *works* of one batch, whose payloads have so many characters together; None has them counted."""
        if self.groups and self.groups[-1][0] == batch_id:
            self.groups[-1][1].extend(works)
        else:
            self.groups.append((batch_id, works))
        self.item_count += len(works)
        self.payload_bytes += sum(len(work[3]) for work in works) if payload_bytes is None else payload_bytes


def claim(
    ledger: Connection, active: ActiveRun, batches: BatchStrategy, *, limit: int, max_bytes: int, now_us: int, cache: Cache | None = None
) -> Claim | None:
    """
    Claim up to *limit* items for one dispatch, or return None when nothing is ready.

    One write transaction: when this returns, the items are running on disk.

    Args:
        limit: 0 with a *cache*: answer what stands before the first item that must run.
        max_bytes: Characters of payload in the dispatch; one item may exceed it alone.
        now_us: Items due until then are ready.
        cache: Results that are known; items that have one end here, beside those of the dispatch.
    """
    with ledger.transaction():
        taking = Taking(ledger, active, batches, limit, max_bytes, now_us, cache, Claim(active.dispatch_count + 1))
        made = taking.made
        taking.due(raised=True)
        while taking.fresh():
            continue
        if cache is None or not cache.was_cut_short:
            taking.due(raised=False)
        if not (made.item_count or made.answered):
            return None
        active.dispatch_count += made.item_count > 0
        run.set_claimed(ledger, active.run_id, next_item_id=active.next_item_id, dispatch_count=active.dispatch_count, now_us=now_us)
    return made


@dataclass(slots=True)
class Taking:
    """One claim while it is made, inside its transaction; the fields are the arguments of :func:`claim`."""

    ledger: Connection
    active: ActiveRun
    batches: BatchStrategy
    limit: int
    max_bytes: int
    now_us: int
    cache: Cache | None
    made: Claim

    @property
    def room(self) -> int:
        """Items that the dispatch has room for."""
        return self.limit - self.made.item_count

    @property
    def is_full(self) -> bool:
        """Whether the dispatch takes no more; one without any room never is, and looks for what can be answered."""
        return self.made.item_count >= max(1, self.limit)

    @property
    def reach(self) -> int:
        """How many of the next items to look at."""
        return self.room if self.cache is None else self.cache.reach(self.room)

    def look(self, item_ids: Sequence[int]) -> tuple[int, dict[int, Known]]:
        """Return how many of the next items are taken, and which of these are answered."""
        return (len(item_ids), {}) if self.cache is None else self.cache.look(item_ids, self.room, self.now_us)

    def due(self, *, raised: bool) -> None:
        """Take items that stand outside the input order; those that never ran join the open batch."""
        ledger, active, made = self.ledger, self.active, self.made
        if active.next_due_at_us is None or active.next_due_at_us > self.now_us or self.is_full:
            return
        found = item.list_due(
            ledger, active.run_id, now_us=self.now_us, limit=self.reach, max_bytes=self.max_bytes - made.payload_bytes,
            any_first=not made.item_count, raised=raised,
        )  # fmt: skip
        count, known = self.look([row[0] for row in found]) if found else (0, {})
        rows = found[:count]
        batch_ids = batches_of_due(ledger, active, self.batches, rows, self.now_us)
        pairs = list(zip(rows, batch_ids, strict=True))
        self.answer_due([pair for pair in pairs if pair[0][0] in known], known)
        self.take_due([pair for pair in pairs if pair[0][0] not in known])
        active.next_due_at_us = item.next_due(ledger, active.run_id)

    def take_due(self, pairs: Sequence[tuple[item.DueRow, int]]) -> None:
        """Have items outside the input order run, each in its batch."""
        for row, batch_id in pairs:
            self.made.add(batch_id, [row[:4]])
        for state, count in Counter(row[5] for row, _ in pairs).items():
            self.active.move(count, ItemState(state), ItemState.RUNNING)
        if pairs:
            item.claim_due(self.ledger, [(row[0], batch_id) for row, batch_id in pairs], self.made.dispatch_id)

    def answer_due(self, pairs: Sequence[tuple[item.DueRow, int]], known: Mapping[int, Known]) -> None:
        """End items outside the input order by what is known, each in its batch."""
        for state, count in Counter(row[5] for row, _ in pairs).items():
            self.active.move(count, ItemState(state), ItemState.SUCCEEDED)
        pieces: dict[int, list[int]] = {}
        for row, batch_id in pairs:
            pieces.setdefault(batch_id, []).append(row[0])
        self.answer(list(pieces.items()), known, are_fresh=False)

    def fresh(self) -> bool:
        """Take fresh items of the span at the watermark; False when there is no room for more, or nothing behind the watermark."""
        ledger, active, made = self.ledger, self.active, self.made
        if self.is_full:
            return False
        if active.span_last < active.next_item_id:
            found = span.at(ledger, active.run_id, active.next_item_id)
            if found is None:
                return False
            active.next_item_id, active.span_last = max(active.next_item_id, found[0]), found[1]
        limit = self.reach
        if not limit:
            return False
        rows = item.list_fresh(
            ledger, active.next_item_id, active.span_last, limit=limit, max_bytes=self.max_bytes - made.payload_bytes,
            any_first=not made.item_count,
        )  # fmt: skip
        if not rows:
            return skip_ended(ledger, active)
        count, known = self.look([row[0] for row in rows])
        if count:
            self.take_fresh(rows[:count], known)
        return count > 0

    def take_fresh(self, rows: list[Work], known: Mapping[int, Known]) -> None:
        """Take items from the watermark on: end those that are known, have the others run."""
        ledger, active, start = self.ledger, self.active, 0
        answered: list[tuple[int, Sequence[int]]] = []
        running: list[tuple[int, list[Work], int | None]] = []
        for batch_id, count, payload_bytes in join_batch(ledger, active, self.batches, rows, self.now_us, ascending=True):
            piece = rows[start : start + count]
            start += count
            works = [work for work in piece if work[0] not in known] if known else piece
            if len(works) < count:
                answered.append((batch_id, compact([work[0] for work in piece if work[0] in known])))
            if works:
                running.append((batch_id, works, payload_bytes if len(works) == count else None))
        # First, since what is pending still in a stretch is what runs.
        self.answer(answered, known, are_fresh=True)
        for batch_id, works, size in running:
            item.claim_fresh(ledger, works[0][0], works[-1][0], batch_id=batch_id, dispatch_id=self.made.dispatch_id)
            self.made.add(batch_id, works, size)
        active.next_item_id = rows[-1][0] + 1
        active.move(len(known), ItemState.PENDING, ItemState.SUCCEEDED)
        active.move(len(rows) - len(known), ItemState.PENDING, ItemState.RUNNING)

    def answer(self, pieces: Sequence[tuple[int, Sequence[int]]], known: Mapping[int, Known], *, are_fresh: bool) -> None:
        """End items by what is known, (batch_id, items) of them."""
        if pieces:
            answer(self.ledger, self.active, pieces, known, are_fresh=are_fresh, now_us=self.now_us)
            for _, item_ids in pieces:
                self.made.answered += item_ids


def batches_of_due(ledger: Connection, active: ActiveRun, batches: BatchStrategy, rows: Sequence[item.DueRow], now_us: int) -> list[int]:
    """Return the batch of each item; those that have none join the open batch, in this order."""
    new = [row[:4] for row in rows if row[4] is None]
    joined = join_batch(ledger, active, batches, new, now_us, ascending=False) if new else []
    fresh = (batch_id for batch_id, count, _ in joined for _ in range(count))
    return [next(fresh) if row[4] is None else row[4] for row in rows]


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


def has_fresh(ledger: Connection, active: ActiveRun) -> bool:
    """Tell whether an item waits in the input order; the watermark moves behind spans whose last items all stand outside of it."""
    while (found := span.at(ledger, active.run_id, active.next_item_id)) is not None:
        active.next_item_id, active.span_last = max(active.next_item_id, found[0]), found[1]
        if not skip_ended(ledger, active):
            return True
    return False


def seal_when_exhausted(ledger: Connection, active: ActiveRun, now_us: int) -> None:
    """Close the last batch once intake is complete and every item has a batch: nobody can join it any more."""
    if active.open_batch is None or not active.intake_complete:
        return
    with ledger.transaction():
        if not has_fresh(ledger, active) and not item.has_due_without_batch(ledger, active.run_id):
            seal_last_batch(ledger, active, now_us)
