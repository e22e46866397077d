"""
Undo is written ahead: what takes an effect back is on disk before the effect may happen.

    a worker promises  ──▶  recorded, with the tick's other work  ──commit──▶  the worker is told, and goes on
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from durabatch.engine.active import ActiveRun
from durabatch.ledger import undo
from durabatch.ledger.connection import Connection
from durabatch.states import UndoState

__all__ = ["Entry", "record"]


class Entry(NamedTuple):
    """
    What takes back one effect, as a worker promised it.

    Attributes:
        dispatch_id: The dispatch that holds the item.
        number: The attempt, from 1; *sequence* counts from 1 in it.
        arguments: JSON text of an object.
        is_irreversible: The effect cannot be taken back, and whoever has it knows.
        old: What stands in the place of the effect, as a checked zstd frame; None when there is nothing to keep.
        old_bytes: Raw size of that, and *old_digest* its SHA-256.
    """

    dispatch_id: int
    item_id: int
    number: int
    sequence: int
    action: str
    arguments: str
    is_irreversible: bool = False
    old: bytes | None = None
    old_bytes: int = 0
    old_digest: bytes = b""


def record(ledger: Connection, active: ActiveRun, entries: Iterable[Entry], now_us: int) -> list[int | None]:
    """
    Record *entries* and return their ids; None for one that must not have its effect, since its attempt does not count any more.

    One write transaction: when it has been committed, the effects may happen.
    """
    with ledger.transaction():
        made = [insert(ledger, active.run_id, one, now_us) for one in entries]
        count = len(made) - made.count(None)
        active.undo_count += count
        active.tally.undo += count
    return made


def insert(ledger: Connection, run_id: int, one: Entry, now_us: int) -> int | None:
    """Record one entry with what it needs; None when the dispatch does not hold its item any more, or it is recorded already."""
    row = {
        "run_id": run_id, "item_id": one.item_id, "dispatch_id": one.dispatch_id, "number": one.number, "sequence": one.sequence,
        "action": one.action, "arguments": one.arguments, "now_us": now_us,
        "state": UndoState.IRREVERSIBLE if one.is_irreversible else UndoState.RECORDED,
    }  # fmt: skip
    undo_id = undo.insert(ledger, row)
    if undo_id is not None and one.old is not None:
        undo.insert_blob(ledger, undo_id, one.old_bytes, one.old_digest, one.old)
    return undo_id
