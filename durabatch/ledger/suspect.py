"""
The suspect table: items that ran when something died, and the groups in which they run apart from the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.stretch import carray

__all__ = ["acquit", "acquit_ended", "add_death", "add_interruption", "count", "deaths", "first_group", "group", "grouped", "remove"]


def add_death(ledger: Connection, run_id: int, item_id: int) -> None:
    """Note that a worker died while this item ran."""
    ledger.execute("suspect_add_death", (item_id, run_id))


def add_interruption(ledger: Connection, run_id: int, item_id: int) -> int:
    """Note that the coordinator died while this item ran; return how often that was."""
    return int(ledger.value("suspect_add_interruption", (item_id, run_id)))


def deaths(ledger: Executor, item_id: int) -> int:
    """Return how many workers died while the item ran."""
    return int(ledger.value("suspect_deaths", (item_id,)) or 0)


def group(ledger: Connection, run_id: int, item_ids: Sequence[int]) -> None:
    """Set these suspects apart as one group, behind those there are."""
    if item_ids:
        number = int(ledger.value("suspect_last_group", (run_id,))) + 1
        ledger.execute("suspect_group", (carray(item_ids), number))


def grouped(ledger: Executor, item_ids: Sequence[int]) -> list[int]:
    """Return those of *item_ids* that are set apart."""
    return [row[0] for row in ledger.rows("suspect_list_grouped", (carray(item_ids),))] if item_ids else []


def first_group(ledger: Executor, run_id: int) -> int | None:
    """Return the number of the first group of which an item waits, or None."""
    found = ledger.value("suspect_first_group", (run_id,))
    return None if found is None else int(found)


def acquit(ledger: Connection, item_ids: Sequence[int]) -> None:
    """Let these items leave their groups; their deaths stay counted."""
    if item_ids:
        ledger.execute("suspect_acquit", (carray(item_ids),))


def acquit_ended(ledger: Connection, run_id: int) -> None:
    """Let the items that have ended leave their groups."""
    ledger.execute("suspect_acquit_ended", (run_id,))


def count(ledger: Executor, run_id: int) -> tuple[int, int]:
    """Return how many items are set apart, and how many of them wait."""
    row = ledger.row("suspect_count", (run_id,))
    return (0, 0) if row is None else (row[0], row[1])


def remove(ledger: Connection, item_ids: Sequence[int]) -> None:
    """Forget all suspicion of these items."""
    ledger.execute("suspect_remove", (carray(item_ids),))
