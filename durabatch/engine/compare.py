"""
A source that is read from its start, beside the items of a run: which rows are there, which are new, which items are gone.

    row k beside item k, as long as they agree  →  else by key, or by content  →  on behind the item that was found last

An input that has not changed costs one walk. Items are found wherever their rows stand now, keyed ones by their key, others by their content,
of which there may be several that are equal. Memory is one bit an item; what is more goes to a scratch database on disk.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from durabatch.bits import Bits
from durabatch.codec import key_hashes, payload_digests
from durabatch.engine.dedupe import numbered
from durabatch.engine.submit import InputRow, locate
from durabatch.ledger import changing, run, span
from durabatch.ledger.changing import KEPT, Known
from durabatch.ledger.executor import Executor
from durabatch.ledger.scratch import Scratch
from durabatch.states import ItemState

__all__ = ["KEPT", "Compared", "Comparison", "Kind"]

#: Rows compared at once.
PAGE = 1000
#: Rows and items that are passed over at most, to be in step again.
NEAR = 8
#: Items read at once in walks over all of them.
WALK = 10_000
#: Added to the ids of items that the input had lost, so that they are found after all others.
LAST_RANK = 1 << 62
Row = TypeVar("Row", bound=tuple[Any, ...])


class Kind(StrEnum):
    """What a row of the source is to the ledger."""

    #: The item is there with the same payload.
    SAME = "same"
    #: The item is there under its key, with another payload.
    CHANGED = "changed"
    #: There is no such item.
    NEW = "new"
    #: A row before it has the same key.
    REPEATED = "repeated"
    #: The item is there, but had been taken out because the input no longer had it.
    BACK = "back"
    #: Of an item, not of a row: no row has met it.
    GONE = "gone"


class Compared(NamedTuple):
    """
    What one row is to the ledger.

    Attributes:
        item_id: The item, None for one that is not in the ledger.
        key: The key that the item has or will have; None for a new one that is known by its content.
        digest: That of the row's payload.
        is_equal: The payload is that of the item.
        state: That of the item.
        position: Where the item's row stood when it was last taken in; 0 for one that is ``BACK``.
        first_position: Of a row that is ``REPEATED``: where the first row with its key stands; None when nobody will ask, see ``dedupe``.
    """

    kind: Kind
    item_id: int | None
    key: str | None
    digest: bytes
    is_equal: bool = False
    state: str | None = None
    position: int | None = None
    first_position: int | None = None

    @classmethod
    def gone(cls, item_id: int, key: str, state: str) -> Compared:
        """Return what an item is that no row has met."""
        return cls(Kind.GONE, item_id, key, b"", state=state)


class Comparison:
    """
    One reading of a source, page by page, beside the items that a run has when it begins. Nothing is written. A context manager.

    Args:
        ledger: None for a run that is not there yet: it has no items.
        dedupe: ``keep`` looks a repeated key up as ``KEY#2``, ``KEY#3`` ...; with ``error`` the place of its first row is told.
    """

    def __init__(self, ledger: Executor | None, run_id: int, *, dedupe: str = "error") -> None:
        self.ledger = ledger
        self.run_id = run_id
        self.dedupe = dedupe
        self.spans = [] if ledger is None else span.list_of_run(ledger, run_id)
        self.firsts = [first for first, _ in self.spans]
        #: For each span, how many items stand before it: an item's bit is its place among all.
        self.before = list(itertools.accumulate((last - first + 1 for first, last in self.spans), initial=0))
        self.met = Bits(self.before[-1])
        self.withdrawn_count = 0 if ledger is None else run.get(ledger, run_id).gone_count
        self.back_count = 0
        self.walk_at = 0
        self.scratch = Scratch()
        self.scratch.make_comparison()
        self.has_unmet = False
        self.fresh: dict[str, int] = {}

    def __enter__(self) -> Self:
        """Return the comparison."""
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        """Let go of what it remembers."""
        self.close()

    def close(self) -> None:
        """Let go of what it remembers."""
        self.scratch.close()

    @property
    def there(self) -> Executor:
        """The ledger of a run that has items."""
        assert self.ledger is not None
        return self.ledger

    @property
    def met_all(self) -> bool:
        """Whether every item has met its row, apart from those that the input had lost and those that were submitted."""
        return self.has_met_as_many or next(self.gone(), None) is None

    @property
    def has_met_as_many(self) -> bool:
        """Whether as many items have met their rows as the input had."""
        return self.met.count - self.back_count >= self.before[-1] - self.withdrawn_count

    def page(self, rows: Sequence[InputRow]) -> list[Compared]:
        """Return what the next *rows* of the source are, one for each, in their order."""
        self.remember_new()
        made: list[Compared] = []
        for start in range(0, len(rows), PAGE):
            self.compare(rows[start : start + PAGE], made)
        return made

    def took(self, _item_ids: Sequence[int], rows: Sequence[InputRow]) -> None:
        """Note that new rows of the last page are items now, so that their keys need not be remembered here."""
        for key, _, _ in rows:
            if key is not None:
                self.fresh.pop(key, None)

    def gone(self, *, kept: bool = False) -> Iterator[list[tuple[int, str, str]]]:
        """
        Yield (item_id, key, state) of the items that no row has met, in pages; not of those that were taken out before, or submitted.

        Args:
            kept: Those, too, that were found gone before and kept.
        """
        if self.has_met_as_many:
            return
        read = changing.list_known_and_kept if kept else changing.list_known
        for offset, known in self.walk(read):
            page = [(one.item_id, one.key, one.state) for one in known if one.item_id + offset not in self.met]
            if page:
                yield page

    def walk(self, read: Callable[[Executor, int, int, int], list[Row]]) -> Iterator[tuple[int, list[Row]]]:
        """Yield what *read* gives of all items, in pages; each with the number that makes a place of its ids."""
        for number, (first, last) in enumerate(self.spans):
            start = first
            while page := read(self.there, start, last, WALK) if start <= last else []:
                yield self.before[number] - first, page
                start = page[-1][0] + 1

    # -- in step ----------------------------------------------------------------------------------------------------------

    def compare(self, rows: Sequence[InputRow], made: list[Compared]) -> None:
        """Compare some rows: in step as long as they agree, by key or content from there to where the step is found again."""
        digests = payload_digests([row[1] for row in rows])
        known: Sequence[Known] = ()
        at = 0
        while at < len(rows):
            known = known or self.ahead(len(rows) - at)
            count = self.in_step(rows[at:], digests[at:], known) if known else 0
            if count:
                self.met_in_step(rows[at:], known, count)
                made += map(beside, digests[at:], known[:count])
            at, known = at + count, known[count:]
            if at < len(rows) and (known or not count):
                apart = self.apart(rows[at : at + NEAR], digests[at : at + NEAR], known[:NEAR])
                until, known = (len(rows), ()) if apart is None else (at + apart[0], known[apart[1] :])
                self.search(rows[at:until], digests[at:until], made)
                at = until
                if known:
                    self.walk_at = self.place(known[0].item_id)

    def apart(self, rows: Sequence[InputRow], digests: Sequence[bytes], known: Sequence[Known]) -> tuple[int, int] | None:
        """Return how many rows and items must be passed over until a row agrees with the item beside it again; None when they are too many."""
        steps = sorted(itertools.product(range(len(rows)), range(len(known))), key=sum)
        return next(((down, on) for down, on in steps if self.in_step(rows[down:][:1], digests[down:][:1], known[on:][:1])), None)

    def ahead(self, count: int) -> list[Known]:
        """Return the next *count* items of the walk, fewer at its end."""
        found: list[Known] = []
        number = bisect_right(self.before, self.walk_at) - 1
        while len(found) < count and number < len(self.spans):
            first, last = self.spans[number]
            # The walk is counted by places; ids are consecutive inside a span alone.
            start = max(first, self.walk_at - self.before[number] + first)
            found += changing.list_known(self.there, start, last, count - len(found))
            number += 1
        return found

    def in_step(self, rows: Sequence[InputRow], digests: Sequence[bytes], known: Sequence[Known]) -> int:
        """Return how many of *rows* are those of the items beside them, which no row has met before."""
        is_ahead = self.met.end <= self.walk_at
        count = 0
        for (key, _, _), digest, one in zip(rows, digests, known, strict=False):
            if (one.digest != digest if key is None else one.key != key) or not (is_ahead or not self.is_met(one.item_id)):
                break
            count += 1
        return count

    def met_in_step(self, rows: Sequence[InputRow], known: Sequence[Known], count: int) -> None:
        """Note that the first *count* rows have met the items beside them."""
        first, last = self.place(known[0].item_id), self.place(known[count - 1].item_id)
        if last - first + 1 == count:
            self.met.add_stretch(first, count)
        else:
            for one in known[:count]:
                self.met.add(self.place(one.item_id))
        self.walk_at = last + 1
        self.note_moved([(one.item_id, row[2]) for row, one in zip(rows[:count], known, strict=False) if row[2] != one.source_position])

    def note_moved(self, moved: list[tuple[int, int]]) -> None:
        """Remember where rows stand that have moved, if an error may have to name them."""
        if moved and self.dedupe == "error":
            self.scratch.add_met(moved)

    def place(self, item_id: int) -> int:
        """Return the place of an item among those of the run, -1 for one that has come since."""
        number = bisect_right(self.firsts, item_id) - 1
        is_there = number >= 0 and item_id <= self.spans[number][1]
        return item_id - self.firsts[number] + self.before[number] if is_there else -1

    def is_met(self, item_id: int) -> bool:
        """Tell whether a row has met the item, or was taken in as this item."""
        place = self.place(item_id)
        return place < 0 or place in self.met

    # -- by key and by content --------------------------------------------------------------------------------------------

    def search(self, rows: Sequence[InputRow], digests: Sequence[bytes], made: list[Compared]) -> None:
        """Look rows up that are not in step, and have the walk go on behind the last item that was found."""
        hashes = key_hashes([row[0] for row in rows if row[0] is not None])
        at_hash = {} if self.ledger is None else changing.list_by_hash(self.ledger, self.run_id, hashes)
        earlier = self.scratch.new_keys(hashes)
        moved: list[tuple[int, int]] = []
        each_hash = iter(hashes)
        for row, digest in zip(rows, digests, strict=True):
            if row[0] is None:
                one = self.by_content(digest)
            else:
                one = self.by_key(row, digest, self.with_key(row[0], at_hash.get(next(each_hash))), earlier)
            made.append(one)
            if one.item_id is not None and one.kind is not Kind.REPEATED:
                self.walk_at = self.place(one.item_id) + 1
                if one.position != row[2]:
                    moved.append((one.item_id, row[2]))
        self.note_moved(moved)

    def by_content(self, digest: bytes) -> Compared:
        """Return what a row is that is known by its content alone."""
        rank = self.next_unmet(digest)
        if rank is None:
            return Compared(Kind.NEW, None, None, digest)
        return self.meet(changing.get_known(self.there, rank % LAST_RANK), digest)

    def next_unmet(self, digest: bytes) -> int | None:
        """Return the rank of the first item with this content that no row has met, None when there is none; it is met next."""
        if not self.has_unmet:
            if self.met.count == self.before[-1]:
                return None
            self.scratch.fill_unmet(self.unmet())
            self.has_unmet = True
        while (rank := self.scratch.pop_unmet(digest)) is not None:
            # The walk may have met it since.
            if not self.is_met(rank % LAST_RANK):
                return rank
        return None

    def unmet(self) -> Iterator[tuple[bytes, int]]:
        """Yield digest and rank of the items that no row has met."""
        for offset, page in self.walk(changing.list_contents):
            for item_id, digest, is_lost in page:
                if item_id + offset not in self.met:
                    yield digest, item_id + LAST_RANK * is_lost

    def by_key(self, row: InputRow, digest: bytes, one: Known | None, earlier: dict[str, int]) -> Compared:
        """Return what a row with a key is, *one* being the item with that key."""
        key, _, position = row
        assert key is not None
        if one is not None:
            return self.repeated(row, digest, again(digest, one)) if self.is_met(one.item_id) else self.meet(one, digest)
        first_position = earlier.get(key, self.fresh.get(key))
        if first_position is not None:
            return self.repeated(row, digest, Compared(Kind.REPEATED, None, key, digest, first_position=first_position))
        self.fresh[key] = position
        return Compared(Kind.NEW, None, key, digest)

    def with_key(self, key: str, at_hash: Known | None) -> Known | None:
        """Return the item with this key, *at_hash* being what stands at its hash: what stands there never leaves it."""
        if at_hash is None or at_hash.key == key:
            return at_hash
        return self.located(key)

    def located(self, key: str) -> Known | None:
        """Return the item with this key, also one that has come since; None when there is none."""
        if self.ledger is None:
            return None
        found = locate(self.ledger, self.run_id, key)
        return None if found is None else changing.get_known(self.ledger, found)

    def meet(self, one: Known, digest: bytes) -> Compared:
        """Note that a row has met an item, and return what it is."""
        self.met.add(self.place(one.item_id))
        made = beside(digest, one)
        self.back_count += made.kind is Kind.BACK
        return made

    def repeated(self, row: InputRow, digest: bytes, one: Compared) -> Compared:
        """Return what a row is whose key came before: an item of its own where such rows are kept."""
        if self.dedupe == "keep":
            return self.kept(row, digest)
        if self.dedupe == "error" and one.item_id is not None:
            return one._replace(first_position=self.scratch.position_met(one.item_id) or one.position)
        return one

    def kept(self, row: InputRow, digest: bytes) -> Compared:
        """Return what the row is under the first numbered key that no row before it has."""
        key = row[0] or ""
        occurrence = self.scratch.occurrence(key) + 1
        while (one := self.with_free_key(numbered(key, occurrence))) is False:
            occurrence += 1
        self.scratch.set_occurrence(key, occurrence)
        if isinstance(one, Known):
            return self.meet(one, digest)
        candidate = numbered(key, occurrence)
        self.fresh[candidate] = row[2]
        return Compared(Kind.NEW, None, candidate, digest)

    def with_free_key(self, key: str) -> Known | bool:
        """Return the item with this key, True when there is none, False when a row before has this key."""
        one = self.located(key)
        if one is not None:
            return False if self.is_met(one.item_id) else one
        return not (key in self.fresh or key in self.scratch.new_keys(key_hashes([key])))

    def remember_new(self) -> None:
        """Have the scratch database remember the keys of new rows that nobody has taken in."""
        if self.fresh:
            keys = list(self.fresh)
            self.scratch.add_new_keys(list(zip(key_hashes(keys), keys, self.fresh.values(), strict=True)))
            self.fresh.clear()


def beside(digest: bytes, one: Known) -> Compared:
    """Return what the first row is that meets an item."""
    is_equal = one.digest == digest
    if one.source_position == 0 and one.state == ItemState.CANCELLED:
        return Compared(Kind.BACK, one.item_id, one.key, digest, is_equal, one.state, 0)
    return Compared(Kind.SAME if is_equal else Kind.CHANGED, one.item_id, one.key, digest, is_equal, one.state, one.source_position)


def again(digest: bytes, one: Known) -> Compared:
    """Return what a later row is whose key is that of an item."""
    return Compared(Kind.REPEATED, one.item_id, one.key, digest, one.digest == digest, one.state, one.source_position)
