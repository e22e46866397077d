"""
A person ends a run before its time: what nobody runs yet is left out, a page at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from durabatch.engine.active import ActiveRun
from durabatch.engine.claim import seal_last_batch
from durabatch.engine.hold import let_go
from durabatch.ledger import batch, item, run, span, suspect, undo
from durabatch.ledger.connection import Connection
from durabatch.states import ItemState

__all__ = ["cancel_page"]

#: (item_id, state, batch_id) of an item that waits.
Waiting = tuple[int, str, int | None]


def cancel_page(ledger: Connection, active: ActiveRun, limit: int, now_us: int) -> int:
    """
    Cancel up to *limit* items that nobody runs and return how many; 0 when none is left.

    One write transaction. Call it until it returns 0, while nothing is handed out. The last call closes the batch that still took items.
    Items whose last attempt left something behind are not among them: they are cancelled once that is undone.
    """
    with ledger.transaction():
        if active.held_count:
            let_go(ledger, active.run_id)
            active.held_count = 0
        if active.undoing_count:
            undo.cancel_of_run(ledger, active.run_id)
        rows = item.list_due_to_cancel(ledger, active.run_id, limit) or fresh_page(ledger, active, limit)
        if rows:
            cancel(ledger, active, rows, now_us)
        else:
            seal_last_batch(ledger, active, now_us)
    return len(rows)


def fresh_page(ledger: Connection, active: ActiveRun, limit: int) -> Sequence[Waiting]:
    """Return the next fresh items, and move the watermark behind them."""
    while (found := span.at(ledger, active.run_id, active.next_item_id)) is not None:
        first, last = max(active.next_item_id, found[0]), found[1]
        rows = item.list_fresh_to_cancel(ledger, first, last, limit)
        active.next_item_id = rows[-1][0] + 1 if len(rows) == limit else last + 1
        if rows:
            run.set_watermark(ledger, active.run_id, active.next_item_id)
            return rows
    run.set_watermark(ledger, active.run_id, active.next_item_id)
    return ()


def cancel(ledger: Connection, active: ActiveRun, rows: Sequence[Waiting], now_us: int) -> None:
    """Move the items of *rows* to cancelled, with everything that counts them."""
    item.cancel(ledger, [row[0] for row in rows])
    for state, count in Counter(row[1] for row in rows).items():
        active.move(count, ItemState(state), ItemState.CANCELLED)
    in_batch = Counter(row[2] for row in rows if row[2] is not None)
    batch.add_ended(ledger, ((batch_id, count, count) for batch_id, count in in_batch.items()), now_us)
    active.next_due_at_us = item.next_due(ledger, active.run_id)
    if active.grouped_count:
        suspect.acquit_ended(ledger, active.run_id)
        active.count_suspects(ledger)
