"""
The item table as changes of the input touch it: what a source is compared with, what is run again, withdrawn or held back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pydantic_core import to_json

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.stretch import carray

__all__ = [
    "HELD_AT_US", "KEPT", "Amendment", "Known", "amend", "count_held", "get_known", "hold", "let_go", "list_by_hash", "list_contents", "list_ended", "list_ended_in",
    "list_held_keys", "list_known", "list_known_and_kept", "list_states", "reposition", "undo", "withdraw",
]  # fmt: skip

#: Items that are not to run for now are due at this time or later, and before that of owed ones; statements say the same. It is after the end of time.
HELD_AT_US = 1 << 60
#: The position of an item that the input has lost, and that was kept as it is; statements say the same.
KEPT = -(1 << 62)


class Known(NamedTuple):
    """An item as a row of a source is compared with it."""

    item_id: int
    key: str
    digest: bytes
    state: str
    source_position: int


def list_known(ledger: Executor, first_item_id: int, last_item_id: int, limit: int) -> list[Known]:
    """Return up to *limit* items of a stretch of ids that the input has, as far as is known, in input order."""
    return [Known._make(row) for row in ledger.rows("item_list_known", (first_item_id, last_item_id, limit))]


def list_known_and_kept(ledger: Executor, first_item_id: int, last_item_id: int, limit: int) -> list[Known]:
    """Return up to *limit* items of a stretch of ids that the input has, or has lost and that were kept, in input order."""
    return [Known._make(row) for row in ledger.rows("item_list_known_and_kept", (first_item_id, last_item_id, limit))]


def list_by_hash(ledger: Executor, run_id: int, hashes: Sequence[int]) -> dict[int, Known]:
    """Return by hash the items of the run that stand at these key hashes, also those that the input had lost."""
    return {row[0]: Known._make(row[1:]) for row in ledger.rows("item_list_by_hash", (carray(hashes), run_id))} if hashes else {}


def get_known(ledger: Executor, item_id: int) -> Known:
    """Return the item *item_id*, which there is."""
    return Known._make(ledger.row("item_get_known", (item_id,)) or ())


def list_contents(ledger: Executor, first_item_id: int, last_item_id: int, limit: int) -> list[tuple[int, bytes, int]]:
    """Return (item_id, digest, 1 where the input had lost it, else 0) of up to *limit* items of a stretch of ids, in input order."""
    return [(row[0], row[1], row[2]) for row in ledger.rows("item_list_contents", (first_item_id, last_item_id, limit))]


class Amendment(NamedTuple):
    """What the input has of an item now. A *priority* of None leaves it as it is; *due_at_us* is for one that stands in input order."""

    item_id: int
    payload: str
    digest: bytes
    source_position: int
    priority: int | None = None
    due_at_us: int | None = None


def list_ended(ledger: Executor, run_id: int, item_ids: Sequence[int]) -> list[tuple[int, str]]:
    """Return (item_id, state) of those of *item_ids* that have ended and are in the input, in input order."""
    return [(row[0], row[1]) for row in ledger.rows("item_list_ended", (carray(item_ids), run_id))]


def list_ended_in(ledger: Executor, first_item_id: int, last_item_id: int, states: Sequence[str], limit: int) -> list[int]:
    """Return the ids of up to *limit* items of a stretch of ids that are in one of *states* and in the input, in input order."""
    found = ledger.rows("item_list_ended_in", (first_item_id, last_item_id, limit, to_json(states).decode()))
    return [row[0] for row in found]


def list_states(ledger: Executor, run_id: int, item_ids: Sequence[int]) -> list[tuple[int, str, bool]]:
    """Return (item_id, state, whether the input had lost it) of these items of a run, in input order."""
    return [(row[0], row[1], bool(row[2])) for row in ledger.rows("item_list_states", (carray(item_ids), run_id))]


def amend(ledger: Connection, changes: Iterable[Amendment]) -> None:
    """Give items the payloads and places that the input has for them now, and have them wait for their turn, counted anew."""
    ledger.executemany("item_amend", (one._asdict() for one in changes))


def reposition(ledger: Connection, positions: Iterable[tuple[int, int]]) -> None:
    """Note where the rows of items stand now: (item_id, source position) each; items that the input has lost stay without."""
    ledger.executemany("item_reposition", positions)


def withdraw(ledger: Connection, item_ids: Sequence[int], now_us: int, *, lost: bool) -> None:
    """Cancel items, whatever they were, with what their batches count; *lost* says that the input no longer has them."""
    ledger.execute("batch_withdraw", (carray(item_ids), now_us))
    ledger.execute("item_withdraw", (carray(item_ids), int(lost)))


def undo(ledger: Connection, item_ids: Sequence[int], now_us: int) -> None:
    """Make items undone, whatever they were, with what their batches count."""
    ledger.execute("batch_withdraw", (carray(item_ids), now_us))
    ledger.execute("item_undo", (carray(item_ids),))


def hold(ledger: Connection, first_item_id: int, last_item_id: int) -> int:
    """Keep the waiting items of a stretch of ids from running; return how many."""
    ledger.execute("item_hold", (first_item_id, last_item_id))
    return ledger.changes()


def let_go(ledger: Connection, run_id: int) -> int:
    """Let all items of the run that are held back run again; return how many."""
    ledger.execute("item_let_go", (run_id,))
    return ledger.changes()


def count_held(ledger: Executor, run_id: int) -> int:
    """Return how many items of the run are held back."""
    return int(ledger.value("item_count_held", (run_id,)))


def list_held_keys(ledger: Executor, run_id: int, limit: int) -> list[str]:
    """Return the keys of the first items of the run that are held back."""
    return [row[0] for row in ledger.rows("item_list_held_keys", (run_id, limit))]
