"""
The export and exported tables, and what an export asks of the others: which items, as of which attempt, and their values a page at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic_core import to_json

from durabatch.ledger import span
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Bindings, Executor
from durabatch.ledger.item import ItemRow
from durabatch.ledger.scratch import TakenItem
from durabatch.ledger.stretch import carray

__all__ = ["chosen_now", "earlier", "find", "list_now", "mismatches", "payloads", "positions", "record", "stretches_now"]


def find(ledger: Executor, run_id: int, target: str) -> int | None:
    """Return the id of the exports of a run to *target*, None when there was none."""
    found = ledger.value("export_find", (run_id, target))
    return None if found is None else int(found)


def record(ledger: Connection, run_id: int, target: str, items: Iterable[tuple[int, int]], now_us: int) -> None:
    """Note that *target* has got these items, (item_id, attempts) each; inside a transaction."""
    export_id = int(ledger.value("export_put", (run_id, target, now_us)))
    ledger.executemany("export_put_item", ((export_id, item_id, attempt_count) for item_id, attempt_count in items))


def stretches_now(ledger: Executor, run_id: int, states: Sequence[str], export_id: int | None) -> Iterator[TakenItem]:
    """Yield the items of a run in one of *states*, as they stand now, in input order; without those that an export has got as they are."""
    for first, last in span.list_of_run(ledger, run_id):
        bounds = {"first_item_id": first, "last_item_id": last, "states": to_json(states).decode(), "export_id": export_id}
        yield from walk(ledger, "export_list_stretch", bounds)


def chosen_now(ledger: Executor, item_ids: Sequence[int], states: Sequence[str], export_id: int | None) -> Iterator[TakenItem]:
    """Yield those of *item_ids* that are in one of *states*, as they stand now; else as :func:`stretches_now`."""
    chosen = {"item_ids": to_json(item_ids).decode(), "states": to_json(states).decode(), "export_id": export_id}
    return walk(ledger, "export_list_chosen", chosen)


def walk(ledger: Executor, name: str, bindings: Bindings) -> Iterator[Any]:
    """Yield the rows of a statement, one in memory at a time."""
    # The border stands around all of it: what a caller raises between two rows does not pass through here.
    with ledger.border(), contextlib.closing(ledger.execute(name, bindings)) as cursor:
        yield from cursor


def list_now(ledger: Executor, item_ids: Sequence[int]) -> list[tuple[ItemRow, int]]:
    """Return these items as they stand now, each with the number of its attempts, in input order."""
    return [(ItemRow._make(row[:-1]), row[-1]) for row in ledger.rows("export_list_now", (carray(item_ids),))]


def earlier(ledger: Executor, taken: TakenItem) -> ItemRow | None:
    """Return an item as it stood when it was taken, though it has moved on since; None when it is gone."""
    item_id, state, number, charged_count = taken
    row = ledger.row("export_get_earlier", (item_id, number))
    return None if row is None else ItemRow._make(row)._replace(state=state, charged_count=charged_count)


def payloads(ledger: Executor, item_ids: Sequence[int]) -> Iterator[str]:
    """Yield the payloads of items, in input order, one in memory at a time."""
    return (row[1] for row in walk(ledger, "export_list_payloads", (carray(item_ids),)))


def positions(ledger: Executor, item_ids: Sequence[int]) -> dict[int, int]:
    """Return the place in the input of items, by their ids."""
    return dict(ledger.rows("export_list_positions", (carray(item_ids),)))


def mismatches(ledger: Executor) -> list[tuple[int, int]]:
    """Return (export id, item id) of what targets cannot have got: items of another run, or as of more attempts than there were."""
    return [(row[0], row[1]) for row in ledger.rows("export_list_mismatch")]
