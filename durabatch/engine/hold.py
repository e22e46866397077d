"""
What stands before a chosen item is not run in this session, and stays as it is.

Items that are held back are pending or scheduled as before, but due after the end of time; from that the time can be told at which they were due.
One that waits until what it did is undone is held back from then on.
"""

from __future__ import annotations

from dataclasses import dataclass

from durabatch.engine.submit import locate
from durabatch.errors import NotFoundError
from durabatch.ledger import batch, changing, run, span, undo
from durabatch.ledger.changing import HELD_AT_US
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor

__all__ = ["HELD_AT_US", "Held", "first_of_batch", "hold", "item_of", "let_go"]

#: Keys of items that are held back which are told.
SHOWN_KEYS = 5


@dataclass(frozen=True, slots=True)
class Held:
    """How many items are held back, and the keys of the first of them."""

    count: int
    keys: tuple[str, ...]


def hold(ledger: Connection, run_id: int, before_item_id: int) -> Held:
    """
    Keep the unfinished items before an item from running, and no others; they are told by count and first keys.

    One write transaction. It lasts until :func:`let_go`. Nothing may be with a worker.
    """
    with ledger.transaction():
        let_go(ledger, run_id)
        for first, last in span.list_of_run(ledger, run_id):
            if first < before_item_id:
                changing.hold(ledger, first, min(last, before_item_id - 1))
                undo.hold(ledger, first, min(last, before_item_id - 1))
        return Held(changing.count_held(ledger, run_id), tuple(changing.list_held_keys(ledger, run_id, SHOWN_KEYS)))


def let_go(ledger: Connection, run_id: int) -> int:
    """
    Let everything run again that was held back, each item at its time; return how many there were.

    One write transaction. A preflight check that went by without them is made again for what has not ended.
    """
    with ledger.transaction():
        undo.let_go(ledger, run_id)
        count = changing.let_go(ledger, run_id)
        flow = run.get(ledger, run_id).flow if count else {}
        if "preflight" in flow:
            run.set_flow(ledger, run_id, {name: value for name, value in flow.items() if name != "preflight"})
    return count


def item_of(ledger: Executor, run_id: int, text: str) -> int:
    """
    Return the id of the item with this key or, when there is none, of the item with this number in the order of the input, from 1.

    Raises:
        NotFoundError: Neither is there.
    """
    found = locate(ledger, run_id, text)
    if found is not None:
        return found
    left = int(text) if text.isdecimal() and len(text) < len(str(HELD_AT_US)) else 0
    for first, last in span.list_of_run(ledger, run_id) if left else []:
        if left <= last - first + 1:
            return first + left - 1
        left -= last - first + 1
    raise NotFoundError(f"no item {text!r} in this run", "Give a key, as `durabatch items` lists them, or an item's number.")


def first_of_batch(ledger: Executor, run_id: int, number: int) -> int:
    """
    Return the id of the first item of a batch.

    Raises:
        NotFoundError: The run has no batch of this number.
    """
    found = batch.first_item(ledger, run_id, number)
    if found is None:
        count = run.get(ledger, run_id).batch_count
        raise NotFoundError(f"no batch {number} in this run", f"It has {count:,} so far." if count else "It has none so far.")
    return found
