"""
Items that the input no longer has are taken out: cancelled, with their results among those of before.

    whatever it was, but running  →  cancelled, source_position 0        the row comes back  →  redo.amend  →  pending
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from durabatch.engine.wanting import want
from durabatch.ledger import batch, changing, result_history, run, suspect
from durabatch.ledger.connection import Connection
from durabatch.ledger.rollback import Candidate
from durabatch.ledger.run import Tally
from durabatch.ledger.undo import cancel_some, stay_cancelled
from durabatch.states import ItemState

__all__ = ["withdraw"]

#: Items moved at once.
PAGE = 5000


def withdraw(ledger: Connection, run_id: int, item_ids: Sequence[int], *, now_us: int, lost: bool = True, undo: bool = False) -> Counter[str]:
    """
    Cancel items because the input no longer has them; return how many there were of each state before.

    One write transaction. The run counts them as ``gone``; items that are with a worker, and those that are out already, stay as they are. So do
    those of which something is being undone: what would run again then is cancelled then, and gone when the input is looked at again. A finished
    run stays finished. For an :class:`~durabatch.engine.active.ActiveRun` the same holds as for :func:`durabatch.engine.redo.redo`.

    Args:
        lost: False cancels items that the input still has, because somebody says so: they keep their positions, and are not counted as gone.
        undo: What they did is undone after that.
    """
    moved: Counter[str] = Counter()
    with ledger.transaction():
        for start in range(0, len(item_ids), PAGE):
            page = item_ids[start : start + PAGE]
            states, waiting = changing.list_states(ledger, run_id, page), cancel_some(ledger, page)
            kept = {ItemState.RUNNING} if lost else {ItemState.RUNNING, ItemState.CANCELLED}
            out = [(item_id, state) for item_id, state, is_lost in states if not is_lost and state not in kept and item_id not in waiting]
            moved.update(state for _, state in out)
            withdraw_page(ledger, run_id, [item_id for item_id, _ in out], now_us, lost=lost)
            if undo and out:
                want(ledger, [Candidate(item_id, ItemState.CANCELLED, 0) for item_id, _ in out], in_order=True, now_us=now_us)
                stay_cancelled(ledger, [item_id for item_id, _ in out])
        tally = Tally(gone=moved.total() if lost else 0)
        for state, count in moved.items():
            tally.move(count, ItemState(state), ItemState.CANCELLED)
        if moved:
            run.add(ledger, run_id, tally)
    return moved


def withdraw_page(ledger: Connection, run_id: int, item_ids: Sequence[int], now_us: int, *, lost: bool) -> None:
    """Cancel a page of items, none of which is with a worker."""
    if not item_ids:
        return
    if batch.any_published(ledger, item_ids):
        run.restart_output(ledger, run_id)
    result_history.move(ledger, item_ids, "gone", now_us)
    changing.withdraw(ledger, item_ids, now_us, lost=lost)
    suspect.remove(ledger, item_ids)
