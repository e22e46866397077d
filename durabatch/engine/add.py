"""
Other processes than the coordinator add items to an open run: a page in one short write transaction, without any lock but the turn.

A key that the run has is no item more. So a producer that was killed adds everything again, and nothing is there twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from durabatch.codec import key_hashes, payload_digests
from durabatch.engine.start import create_run
from durabatch.engine.submit import InputRow, insert_one_by_one, locate
from durabatch.errors import NotFoundError, UsageError
from durabatch.ledger import item, new_items, queue, run, span
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.new_items import KeyTakenError, NewItems
from durabatch.ledger.queue import Standing
from durabatch.ledger.run import Tally
from durabatch.settings import RunSettings
from durabatch.states import RunState

__all__ = ["NO_HANDLER", "QUEUE", "Added", "add", "find_or_create", "not_open"]

#: The handler of a run that nobody has started yet; the first ``run HANDLER --name NAME --open`` brings another.
NO_HANDLER = {"kind": "none"}
#: The source of a run whose items all come from other processes.
QUEUE = {"queue": True}


@dataclass(frozen=True, slots=True)
class Added:
    """
    What became of rows that were handed to a run.

    Attributes:
        run_id: The run.
        added: Items that are new, and on disk.
        duplicates: Rows whose key the run has, or the page twice; they changed nothing.
        left_out: Lines of an input that cannot be items.
    """

    run_id: int
    added: int = 0
    duplicates: int = 0
    left_out: int = 0

    def __add__(self, other: Added) -> Added:
        """Return the sum of two pages."""
        return Added(other.run_id, self.added + other.added, self.duplicates + other.duplicates, self.left_out + other.left_out)


def find_or_create(ledger: Connection, name: str, *, now_us: int) -> int:
    """Return the id of the newest run of the series *name*, else of the run that is called so, else of a new open one without handler."""
    with ledger.transaction():
        newest = run.newest_of_series(ledger, name)
        found = newest.run_id if newest is not None else run.id_by_name(ledger, name)
        if found is not None:
            return found
        settings = RunSettings().as_json()
        made = create_run(
            ledger, series=name, handler=NO_HANDLER, source=QUEUE, fingerprint=None, settings=settings, now_us=now_us, is_open=True
        )
        run.set_state(ledger, made, RunState.HALTED, "nobody works on it yet")
        return made


def add(
    ledger: Connection, run_id: int, rows: Sequence[InputRow], *, priority: int = 0, due_at_us: int | None = None, now_us: int
) -> Added:
    """
    Add the items in *rows* behind all others of the run, those whose key it has left out.

    One write transaction; when it returns they are on disk. Their source positions count downward from -1: they are not from the input.

    Args:
        rows: A key of None becomes the ordinal of the item in the run, or the next one that is free.
        priority: Higher = sooner; other items have 0.
        due_at_us: Not before that; None, or a time that has passed: at once.

    Raises:
        UsageError: The run is not open. Nothing was added.
        NotFoundError: There is no such run.
    """
    with ledger.transaction():
        stands = queue.standing(ledger, run_id)
        if stands is None:
            raise NotFoundError(f"no run {run_id} in this ledger", "`durabatch runs` lists them.")
        if not stands.is_open:
            raise not_open(stands.name, stands.state)
        fresh = unknown(ledger, run_id, keyed(ledger, run_id, rows, stands.total_count))
        if fresh:
            insert(ledger, run_id, fresh, stands, priority, due_at_us if due_at_us is not None and due_at_us > now_us else None)
    return Added(run_id, len(fresh), len(rows) - len(fresh))


def not_open(name: str, state: str) -> UsageError:
    """Return the error for a run that takes no items from other processes."""
    return UsageError(
        f"run {name} is not open ({state}), so it takes no more items",
        f"Start it with `durabatch run HANDLER --name {name} --open`, or choose another name.",
    )


def keyed(ledger: Executor, run_id: int, rows: Sequence[InputRow], count: int) -> list[tuple[str, str]]:
    """Return key and payload of each row; those without a key get free ordinals, in a run that has *count* items."""
    if all(key is not None for key, _, _ in rows):
        return [(key or "", payload) for key, payload, _ in rows]
    made = [(str(count + number) if key is None else key, payload) for number, (key, payload, _) in enumerate(rows, 1)]
    keys = [key for key, _ in made]
    if len(set(keys)) == len(keys) and not queue.taken(ledger, run_id, key_hashes(keys)):
        return made
    return with_free_ordinals(ledger, run_id, rows, count)


def with_free_ordinals(ledger: Executor, run_id: int, rows: Sequence[InputRow], count: int) -> list[tuple[str, str]]:
    """Do the same one by one, where numbers stand among the keys."""
    given = {key for key, _, _ in rows if key is not None}
    made: list[tuple[str, str]] = []
    for key, payload, _ in rows:
        count += key is None
        while key is None and (str(count) in given or locate(ledger, run_id, str(count)) is not None):
            count += 1
        made.append((str(count) if key is None else key, payload))
    return made


def unknown(ledger: Executor, run_id: int, rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the rows whose keys the run does not have, each key once."""
    first = dict(reversed(rows))
    if len(first) < len(rows):
        rows = [(key, first.pop(key)) for key, _ in rows if key in first]
    if not rows:
        return []
    hashes = key_hashes([key for key, _ in rows])
    known = queue.taken(ledger, run_id, hashes)
    if not known:
        return list(rows)
    # Where another key has the hash, further probes say whether this one is there, too.
    return [
        row for row, place in zip(rows, hashes, strict=True)
        if place not in known or (known[place] != row[0] and locate(ledger, run_id, row[0]) is None)
    ]  # fmt: skip


def insert(
    ledger: Connection, run_id: int, rows: Sequence[tuple[str, str]], stands: Standing, priority: int, due_at_us: int | None
) -> None:
    """Write new items, their span and the counters of the run."""
    waits = due_at_us is not None
    items = new_page(rows, run_id, item.last_id(ledger) + 1, stands.total_count, priority, 0 if priority and not waits else due_at_us)
    try:
        new_items.insert(ledger, items)
    except KeyTakenError:
        insert_one_by_one(ledger, items)
    first, last = items.first_item_id, items.last_item_id
    if waits:
        queue.schedule(ledger, first, last)
    span.cover(ledger, run_id, first, last)
    run.add(ledger, run_id, Tally(total=len(items), scheduled=len(items) if waits else 0, pending=0 if waits else len(items)))


def new_page(rows: Sequence[tuple[str, str]], run_id: int, first_id: int, count: int, priority: int, due_at_us: int | None) -> NewItems:
    """Return *rows* as new items; with a due time they stand outside the input order, at their priority."""
    keys, payloads = zip(*rows, strict=True)
    positions = range(-1 - count, -1 - count - len(rows), -1)
    places = None if due_at_us is None else [(priority, due_at_us)] * len(rows)
    return NewItems(run_id, first_id, keys, key_hashes(keys), payloads, payload_digests(payloads), positions, places)
