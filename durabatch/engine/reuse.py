"""
Results of equal items are used again: by the same handler, of the same version, with the same parameters, for an equal payload.

    an item succeeds  →  remembered under the digest of its payload  →  an equal item is claimed  →  it ends at once, without a worker

What is known of the items of a claim is found by one query. A value is not copied: the new result points to the same segment, or has the
same short text. What cannot be used (too old, taken back, damaged) is forgotten, and the item runs like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from durabatch.clock import monotonic_s
from durabatch.codec import is_sound_frame
from durabatch.engine.active import ActiveRun
from durabatch.engine.digests import add_answered
from durabatch.ledger import attempt, cache, item, result
from durabatch.ledger.cache import IN_HISTORY, Known
from durabatch.ledger.connection import Connection

__all__ = ["Cache", "answer"]

#: Seconds of a tick in which items are answered, and items that are looked at with one query.
ANSWER_S, MOST_AT_ONCE = 0.05, 4096
#: The fewest items that are looked at once values are known.
FEWEST = 8
#: The last use of a value is written down once in so many microseconds.
TOUCH_US = 60_000_000
#: Results wait so long to be remembered, unless there are so many.
WRITE_S, MANY = 1.0, 20_000
#: Segments that were found sound and are not checked again.
MOST_CHECKED = 10_000
#: Neighbours whose values are worth a statement of their own.
LONG_STRETCH = 8


class Cache:
    """
    What one run may use of earlier results, and what it leaves for others.

    Args:
        identity: What results depend on besides the payload, as text.
        ttl_s: Age above which they are not used; None for no limit.
        size_bytes: Bytes of values in the ledger's cache beyond which the least recently used are forgotten.

    Attributes:
        was_cut_short: There was no time left in this tick for all items that could be answered.
    """

    def __init__(self, ledger: Connection, identity: str, *, ttl_s: float | None, size_bytes: int) -> None:
        self.ledger = ledger
        self.identity = identity
        self.ttl_us = None if ttl_s is None else int(ttl_s * 1e6)
        self.size_bytes = size_bytes
        self.was_cut_short = False
        self._until_s: float | None = None
        #: Items to look at for each one that is to be found unknown.
        self._factor = 1.0
        self._scope_id: int | None = None
        #: What all values have together, or a little more: a value that took the place of another is counted beside it.
        self._total_bytes: int | None = None
        #: Items whose results are not written down yet, and the bytes of these; and as they were before this tick.
        self._pending: tuple[list[int], int] = ([], 0)
        self._before = self._pending
        self._written_s = -WRITE_S
        #: Unpacked sizes of segments that were found sound, -1 for others.
        self._sizes: dict[int, int] = {}

    def begin(self) -> None:
        """Start a tick."""
        self._until_s, self.was_cut_short = None, False
        self._before = self._pending[0][:], self._pending[1]

    def rewind(self) -> None:
        """Forget what may not be in the ledger: the transaction of this tick was not made."""
        self._scope_id = self._total_bytes = None
        self._pending = self._before

    @property
    def scope_id(self) -> int:
        """The id of the identity, which is written down when it is new; inside a transaction."""
        if self._scope_id is None:
            self._scope_id = cache.scope(self.ledger, self.identity)
        return self._scope_id

    def is_late(self) -> bool:
        """Tell whether the time of this tick is over; it runs from the first such question."""
        if self._until_s is None:
            self._until_s = monotonic_s() + ANSWER_S
        return monotonic_s() > self._until_s

    def reach(self, room: int) -> int:
        """Return how many items to look at, so that about *room* of them are not known; 0 when the time of this tick is over."""
        if self.is_late():
            self.was_cut_short = True
            return 0
        return max(room, min(MOST_AT_ONCE, int(max(room, FEWEST) * self._factor)))

    def look(self, item_ids: Sequence[int], room: int, now_us: int) -> tuple[int, dict[int, Known]]:
        """
        Return how many of *item_ids*, from the first on, go on their way now, and which of these are answered.

        Up to *room* of them are not. Values that cannot be used are forgotten.
        """
        known, later = self.sort_out(item_ids, now_us)
        missing = len(item_ids) - len(known)
        self._factor = (len(item_ids) + 1) / (missing + 1)
        count = len(item_ids)
        if later or missing > room:
            count = going(item_ids, known, later, room)
            known = {item_id: known[item_id] for item_id in item_ids[:count] if item_id in known}
        long_ago = [one.item_id for one in known.values() if one.used_at_us < now_us - TOUCH_US]
        if long_ago:
            cache.touch(self.ledger, self.scope_id, long_ago, now_us)
        return count, known

    def sort_out(self, item_ids: Sequence[int], now_us: int) -> tuple[dict[int, Known], set[int]]:
        """Return which of *item_ids* are known, and of which there was no time to tell; what cannot be used is forgotten."""
        oldest_us = 0 if self.ttl_us is None else now_us - self.ttl_us
        known: dict[int, Known] = {}
        unusable: list[int] = []
        later: set[int] = set()
        for one in cache.list_known(self.ledger, self.scope_id, item_ids, oldest_us):
            segment_id = one.segment_id
            if one.place and segment_id is None:
                known[one.item_id] = one
            elif segment_id is not None and segment_id not in self._sizes and known and self.is_late():
                self.was_cut_short = True
                later.add(one.item_id)
            elif segment_id is not None and one.place and (one.slice_end or 0) <= self.segment_bytes(segment_id):
                known[one.item_id] = one
            else:
                unusable.append(one.item_id)
        if unusable:
            self.forget(unusable)
        return known, later

    def segment_bytes(self, segment_id: int) -> int:
        """Return the unpacked size of a segment, -1 when it is damaged or missing; to find out, it is unpacked once in a session."""
        if segment_id not in self._sizes:
            if len(self._sizes) >= MOST_CHECKED:
                self._sizes.clear()
            stored = result.get_segment(self.ledger, segment_id)
            is_sound = stored is not None and is_sound_frame(stored[2], raw_bytes=stored[0])
            self._sizes[segment_id] = stored[0] if stored is not None and is_sound else -1
        return self._sizes[segment_id]

    def forget(self, item_ids: Sequence[int]) -> None:
        """Have the payloads of these items unknown."""
        gone_bytes = cache.forget(self.ledger, self.scope_id, item_ids)
        if self._total_bytes is not None:
            self._total_bytes -= gone_bytes

    def remember(self, item_ids: Sequence[int], sizes: Iterable[int], now_us: int) -> None:
        """
        Use the results of these items for equal ones from now on; inside the transaction that recorded them.

        They are written down once a second or when they are many, since digests are spread over the whole table, and each of its pages is
        written anew. What a crash loses by that is run again when an equal item comes.

        Args:
            sizes: Bytes of each value; one that is larger than the whole cache is not kept.
        """
        pending, value_bytes = self._pending
        pending += item_ids
        self._pending = pending, value_bytes + sum(size for size in sizes if size <= self.size_bytes)
        if len(pending) >= MANY or monotonic_s() - self._written_s >= WRITE_S:
            self.write(now_us)

    def write(self, now_us: int) -> None:
        """Write down what is to be remembered, and forget what is too much; inside a transaction."""
        pending, value_bytes = self._pending
        if not pending:
            return
        if self._total_bytes is None:
            self._total_bytes = cache.total_bytes(self.ledger)
        cache.insert(self.ledger, self.scope_id, pending, most_bytes=self.size_bytes, now_us=now_us)
        self._total_bytes += value_bytes
        excess_bytes = self._total_bytes - self.size_bytes
        if excess_bytes > 0:
            gone_bytes = cache.forget_oldest(self.ledger, excess_bytes)
            self._total_bytes = self._total_bytes - gone_bytes if gone_bytes >= excess_bytes else 0
        self._pending, self._written_s = ([], 0), monotonic_s()


def going(item_ids: Sequence[int], known: dict[int, Known], later: set[int], room: int) -> int:
    """Return how many of *item_ids* stand before the first that has no *room*, or of which it is not known yet whether it is answered."""
    for index, item_id in enumerate(item_ids):
        if item_id not in known:
            if item_id in later or not room:
                return index
            room -= 1
    return len(item_ids)


def answer(
    ledger: Connection,
    active: ActiveRun,
    pieces: Sequence[tuple[int, Sequence[int]]],
    known: Mapping[int, Known],
    *,
    are_fresh: bool,
    now_us: int,
) -> None:
    """
    End items by values that are known, inside the transaction of their claim.

    Args:
        pieces: (batch_id, items) of them; the batches have counted them already. The caller counts what state they were in.
        are_fresh: They stand in input order.
    """
    for batch_id, item_ids in pieces:
        item.answer(ledger, item_ids, batch_id, are_fresh=are_fresh)
    item_ids = [item_id for _, some in pieces for item_id in some]
    attempt.insert_cached(ledger, item_ids, now_us)
    copy_values(ledger, [known[item_id] for item_id in item_ids])
    add_answered(ledger, ((batch_id, len(some)) for batch_id, some in pieces), now_us)
    active.tally.attempts += len(item_ids)
    active.tally.cached += len(item_ids)


def copy_values(ledger: Connection, known: Sequence[Known]) -> None:
    """Give items the results that are known; where the same input came again, all of a stretch at once."""
    alone: list[tuple[int, int]] = []
    for place, group in groupby(known, key=lambda one: one.place):
        if place == IN_HISTORY:
            result.copy_past(ledger, [(one.item_id, one.source_id, one.number) for one in group])
            continue
        for _, found in groupby(enumerate(group), key=lambda pair: (pair[1].item_id - pair[1].source_id, pair[1].item_id - pair[0])):
            stretch = [one for _, one in found]
            if len(stretch) < LONG_STRETCH:
                alone += [(one.item_id, one.source_id) for one in stretch]
            else:
                result.copy_stretch(ledger, stretch[0].source_id, stretch[-1].source_id, stretch[0].item_id - stretch[0].source_id)
    if alone:
        result.copy_some(ledger, alone)
