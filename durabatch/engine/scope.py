"""
Which items of a run are meant by a rollback: all, a batch, what a checkpoint does not hold, some keys, an expression, what comes behind an item.

All that is said must hold of an item. Items are found in pages, in input order, so that a run of any size fits into memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pydantic_core import to_json

from durabatch.engine.submit import locate
from durabatch.errors import NotFoundError
from durabatch.ledger import checkpoint, item, rollback, span
from durabatch.ledger.executor import Executor
from durabatch.ledger.reader import Reader
from durabatch.ledger.rollback import Candidate

__all__ = ["Scope", "Selection", "ids_of_keys", "ids_where", "select"]

#: Items looked at together.
PAGE = 5000
#: Seconds for an expression of the user's.
WHERE_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Scope:
    """
    Which items are meant: those for which all of this holds; all of the run when nothing is said.

    Attributes:
        batch: Number of their batch.
        to_batch: Number of the checkpoint that does not hold them, 0 for one that holds nothing.
        keys: Their keys; empty for any.
        where: An SQL expression over v_item that holds for them.
        from_item_id: They stand there, or behind it.
    """

    batch: int | None = None
    to_batch: int | None = None
    keys: Sequence[str] = ()
    where: str | None = None
    from_item_id: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all of the run is meant."""
        return not (self.batch or self.to_batch or self.keys or self.where is not None or self.from_item_id)


@dataclass(frozen=True, slots=True)
class Selection:
    """
    The items of a run that a scope means.

    Attributes:
        batch: (batch_id, first item id, last item id) of the batch, None for any.
        point: (number, when it was made) of the checkpoint, None for none.
        key_ids: Ids of the items with the keys, None for any.
    """

    ledger: Executor
    run_id: int
    scope: Scope
    batch: tuple[int, int, int] | None = None
    point: tuple[int, int] | None = None
    key_ids: list[int] | None = None

    @property
    def first_item_id(self) -> int:
        """The lowest id that is meant."""
        return self.scope.from_item_id or 0

    def pages(self, states: Sequence[str]) -> Iterator[list[Candidate]]:
        """
        Yield the items that are in one of *states* or have effects that can be undone, none that is with a worker, in pages.

        They may be changed while this goes on.
        """
        ids = self.ids()
        found = self.of_stretches(states) if ids is None else self.of_ids(ids, states)
        if self.key_ids is None and (self.scope.where is None or self.point is None):
            # What is said was asked for already.
            yield from found
            return
        for page in found:
            kept = set(self.kept([one.item_id for one in page]))
            yield [one for one in page if one.item_id in kept]

    def ids(self) -> Iterable[int] | None:
        """Return the ids that come into question where they can be told without looking at all items, else None."""
        if self.key_ids is not None:
            return self.key_ids
        if self.scope.where is not None:
            return ids_where(self.ledger, self.run_id, self.scope.where)
        if self.point is not None:
            return (one.item_id for one in checkpoint.outside(self.ledger, self.run_id, *self.point))
        return None

    def of_ids(self, ids: Iterable[int], states: Sequence[str]) -> Iterator[list[Candidate]]:
        """Yield those of *ids* that are candidates, in pages."""
        left = (item_id for item_id in ids if item_id >= self.first_item_id)
        batch_id = None if self.batch is None else self.batch[0]
        while page := list(islice(left, PAGE)):
            yield rollback.list_chosen(self.ledger, self.run_id, page, states=states, batch_id=batch_id)

    def of_stretches(self, states: Sequence[str]) -> Iterator[list[Candidate]]:
        """Yield the candidates among all items, in pages."""
        batch_id, low, high = self.batch or (None, 0, rollback.BEHIND_ALL)
        for first, last in span.list_from(self.ledger, self.run_id, max(low, self.first_item_id)):
            start, end = max(first, low, self.first_item_id), min(last, high)
            while page := rollback.list_items(self.ledger, start, end, states=states, batch_id=batch_id, limit=PAGE):
                yield page
                start = page[-1].item_id + 1

    def kept(self, item_ids: Sequence[int]) -> Sequence[int]:
        """Return those of *item_ids*, which ascend, for which the expression holds and that the checkpoint does not hold."""
        found = item_ids
        if self.point is not None:
            found = rollback.those_outside(self.ledger, found, *self.point)
        if found and self.scope.where is not None:
            found = those_where(self.ledger, self.run_id, self.scope.where, found)
        return found


def select(ledger: Executor, run_id: int, scope: Scope) -> Selection:
    """
    Return the items of a run that are meant.

    Raises:
        NotFoundError: There is no such batch, checkpoint or key.
    """
    batch = None if scope.batch is None else batch_of(ledger, run_id, scope.batch)
    point = point_of(ledger, run_id, scope.to_batch) if scope.to_batch else None
    return Selection(ledger, run_id, scope, batch, point, ids_of_keys(ledger, run_id, scope.keys) if scope.keys else None)


def batch_of(ledger: Executor, run_id: int, number: int) -> tuple[int, int, int]:
    """Return id and bounds of a batch; NotFoundError when there is none."""
    found = rollback.get_batch(ledger, run_id, number)
    if found is None:
        raise NotFoundError(f"no batch {number} in this run", "`durabatch checkpoints` lists those that have finished.")
    return found[:3]


def point_of(ledger: Executor, run_id: int, number: int) -> tuple[int, int]:
    """Return number and time of a checkpoint; NotFoundError when there is none."""
    found = rollback.get_batch(ledger, run_id, number)
    if found is None or found[3] is None:
        why = "there is no such batch" if found is None else f"batch {number} has not finished"
        raise NotFoundError(f"no checkpoint {number} in this run: {why}", "`durabatch checkpoints` lists them.")
    return number, found[3]


def ids_of_keys(ledger: Executor, run_id: int, keys: Sequence[str]) -> list[int]:
    """Return the ids of the items with these keys, in input order; NotFoundError when one is missing."""
    ids = set()
    for key in keys:
        item_id = locate(ledger, run_id, key)
        if item_id is None:
            raise NotFoundError(f"no item {key!r} in this run", "`durabatch items` lists the keys.")
        ids.add(item_id)
    return sorted(ids)


def ids_where(ledger: Executor, run_id: int, expression: str) -> Iterator[int]:
    """Yield the ids of the items for which an expression of the user's holds, as the ledger was before this transaction; SqlError when it is wrong."""
    with Reader(ledger.files.ledger) as reader:
        _, rows = reader.query(item.where_query(expression), (run_id, None), timeout_s=WHERE_TIMEOUT_S)
        yield from (row[0] for row in rows)


def those_where(ledger: Executor, run_id: int, expression: str, item_ids: Sequence[int]) -> list[int]:
    """Return those of *item_ids* for which the same holds."""
    with Reader(ledger.files.ledger) as reader:
        _, rows = reader.query(rollback.where_query(expression), (run_id, to_json(item_ids).decode()), timeout_s=WHERE_TIMEOUT_S)
        return [row[0] for row in rows]
