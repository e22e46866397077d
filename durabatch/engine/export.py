"""
What an export takes of a run: the items as they stood at one moment, their values read later.

    take     one read transaction: ids, states and attempt numbers go into a database on disk
    read     pages in short transactions of their own; what has moved on since is read as it was, from result_history

So an export is consistent, whatever a coordinator does meanwhile, and keeps it from nothing: its log can be moved on after the first step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from durabatch.engine.results import OnDamage, ValueReader
from durabatch.errors import LedgerDamagedError
from durabatch.ledger import export, item
from durabatch.ledger.connection import Connection
from durabatch.ledger.item import ItemRow
from durabatch.ledger.paths import shown
from durabatch.ledger.reader import Reader
from durabatch.ledger.scratch import Scratch, TakenItem
from durabatch.models import Result
from durabatch.states import ItemState

__all__ = ["FAILED_STATES", "Snapshot", "record"]

_T = TypeVar("_T")
#: Items read at once.
PAGE = 1000
#: How items end that are tried again from the file of failures.
FAILED_STATES = (ItemState.FAILED, ItemState.QUARANTINED)


class Snapshot:
    """
    The items of a run as of one moment, none at first.

    Args:
        ledger: What it is read from.
        scratch: Where they are noted, new.
    """

    def __init__(self, ledger: Reader, scratch: Scratch, run_id: int) -> None:
        self.ledger = ledger
        self.scratch = scratch
        self.run_id = run_id
        self.values = ValueReader(ledger)
        scratch.make_taken()

    def take(self, states: Sequence[str], *, where: str | None = None, target: str | None = None, timeout_s: float) -> None:
        """
        Note the items in one of *states*, as they stand now.

        Args:
            where: Only those for which this SQL expression over v_item holds.
            target: Without those that were recorded for this target as they are.
            timeout_s: Seconds for the search by *where*.

        Raises:
            SqlError: The expression is wrong or takes too long.
        """
        with self.ledger.snapshot():
            export_id = None if target is None else export.find(self.ledger, self.run_id, target)
            self.scratch.take(self.stretches(states, export_id) if where is None else self.chosen(states, export_id, where, timeout_s))

    def stretches(self, states: Sequence[str], export_id: int | None) -> Iterator[TakenItem]:
        """Yield the items in these states."""
        return export.stretches_now(self.ledger, self.run_id, states, export_id)

    def chosen(self, states: Sequence[str], export_id: int | None, where: str, timeout_s: float) -> Iterator[TakenItem]:
        """Yield those of them for which an expression holds."""
        _, rows = self.ledger.query(item.where_query(where), (self.run_id, None), timeout_s=timeout_s)
        for ids in pages(row[0] for row in rows):
            yield from export.chosen_now(self.ledger, ids, states, export_id)

    def counts(self) -> dict[str, int]:
        """Return how many of the noted items stood in each state."""
        return self.scratch.count_taken()

    def taken(self) -> Iterator[list[TakenItem]]:
        """Yield the noted items in input order, page by page."""
        after = 0
        while page := self.scratch.list_taken(after, PAGE):
            yield page
            after = page[-1][0]

    def results(self, on_damage: OnDamage | None) -> Iterator[tuple[int, Result]]:
        """Yield (item id, what had become of it) of the noted items in input order; *on_damage* as for :meth:`ValueReader.result`."""
        for page in self.taken():
            now = {row.item_id: (row, number) for row, number in export.list_now(self.ledger, [one[0] for one in page])}
            for one in page:
                yield one[0], self.whole(self.values.result(self.as_taken(one, now.get(one[0])), on_damage), on_damage)

    def whole(self, result: Result, on_damage: OnDamage | None) -> Result:
        """Return *result*, which is damaged when it succeeded and there is nothing of its value, nor a word about that."""
        if result.ok and result.value_json is None and result.error is None:
            why = f"result of item {result.key!r} is missing"
            damage = LedgerDamagedError(shown(self.ledger.files.ledger), why, "The other results are not concerned.")
            if on_damage is None:
                raise damage
            on_damage(damage)
            return replace(result, error=damage.what)
        return result

    def as_taken(self, one: TakenItem, now: tuple[ItemRow, int] | None) -> ItemRow:
        """Return the row of an item as it was noted, given how it stands now."""
        _, state, number, _ = one
        if now is not None and (now[0].state, now[1]) == (state, number):
            return now[0]
        row = export.earlier(self.ledger, one)
        if row is None:
            raise LedgerDamagedError(shown(self.ledger.files.ledger), f"item {one[0]} is gone", "Run `durabatch verify`.")
        return row

    def payloads(self) -> Iterator[str]:
        """Yield the payloads of the noted items, as they are now, in input order."""
        for page in self.taken():
            yield from export.payloads(self.ledger, [one[0] for one in page])

    def values_by_position(self, on_damage: OnDamage | None) -> Iterator[tuple[int, Result]]:
        """Yield (place in the input, what had become of it) of the noted items in input order."""
        for page in pages(self.results(on_damage)):
            places = export.positions(self.ledger, [item_id for item_id, _ in page])
            yield from ((places[item_id], result) for item_id, result in page)

    def forget(self, item_ids: Iterable[int]) -> None:
        """Take items out of it again, which have not left after all."""
        self.scratch.leave(item_ids)


def record(ledger: Connection, snapshot: Snapshot, target: str, now_us: int) -> None:
    """Note that *target* has got the items of *snapshot*, all or none of them: one write transaction, for which the ledger need not be owned."""
    with ledger.transaction():
        export.record(ledger, snapshot.run_id, target, ((one[0], one[2]) for page in snapshot.taken() for one in page), now_us)


def pages(rows: Iterable[_T]) -> Iterator[list[_T]]:
    """Yield *rows* in lists of up to a page."""
    page: list[_T] = []
    for row in rows:
        page.append(row)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page
