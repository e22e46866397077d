"""
After a coordinator died: everything it had handed out is claimable again. This is half of resume; the other half is the claim.

    running, shown in a cell as started  ──▶  an `interrupted` attempt (uncharged), pending
    running, not in a cell               ──▶  pending, without a trace; but one that has promised something had begun, and was interrupted

What interrupted attempts did is undone before their items run again. Items that were running when several coordinators died are suspects from then on, since it may have been they who ended them. Statements are
set-based, whatever the number of items: only the items of unfinished batches are looked at, and what the cells show is counted one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

from durabatch.engine.owing import owe_interrupted
from durabatch.flow.suspecting import MAX_INTERRUPTIONS
from durabatch.ledger import attempt, event, item, run, suspect, undo
from durabatch.ledger.connection import Connection
from durabatch.ledger.run import Tally
from durabatch.states import ItemState

__all__ = ["recover"]

#: (item_id, dispatch_id, worker, started_at_us) of an item that had started, as a cell shows it.
Started = tuple[int, int, int, int]


def recover(ledger: Connection, run_id: int, started: Sequence[Started], *, now_us: int) -> tuple[int, int]:
    """
    Make all running items of the run pending; return (how many there were, how many of them had started).

    Must be called only when no worker of the run is alive. One write transaction; a second call finds nothing to do.
    """
    each_once = list({cell[0]: cell for cell in started}.values())
    with ledger.transaction():
        begun = undo.begun(ledger, run_id) if run.get(ledger, run_id).undo_count else []
        interrupted = attempt.insert_interrupted(ledger, run_id, each_once, now_us)
        unseen = sorted(set(begun) - set(interrupted))
        attempt.insert_begun(ledger, unseen)
        returned, started_count = item.recover(ledger, run_id, [*interrupted, *unseen]), len(interrupted) + len(unseen)
        if returned:
            tally = Tally(attempts=started_count)
            tally.move(returned, ItemState.RUNNING, ItemState.PENDING)
            run.add(ledger, run_id, tally)
            event.record(ledger, "recovered", run_id=run_id, now_us=now_us, returned=returned, interrupted=started_count)
        suspect_repeated(ledger, run_id, interrupted)
        if begun:
            owe_interrupted(ledger, run_id, begun, now_us)
    return returned, started_count


def suspect_repeated(ledger: Connection, run_id: int, interrupted: Sequence[int]) -> None:
    """Set apart, as one group, the items that were running at the end of too many coordinators."""
    counts = {item_id: suspect.add_interruption(ledger, run_id, item_id) for item_id in interrupted}
    grouped = suspect.grouped(ledger, list(counts))
    suspect.group(ledger, run_id, [item_id for item_id, count in counts.items() if count >= MAX_INTERRUPTIONS and item_id not in grouped])
