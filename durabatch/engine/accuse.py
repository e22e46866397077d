"""
A worker died: what it was running is suspect, and runs apart from all other items until the guilty one is found.

    a worker dies  →  its items are a group  →  the group alone on one worker  →  it dies: two halves  →  …  →  one item alone

An item that ends a try without harm leaves its group. One that is alone when its worker dies, for the last time that the policy allows, is
quarantined. Deaths are counted apart from failed tries, and charge none.
"""

from __future__ import annotations

from collections.abc import Sequence

from durabatch.engine.active import ActiveRun
from durabatch.engine.claim import Claim
from durabatch.engine.recording import Recording
from durabatch.engine.returned import Finished, Returned
from durabatch.flow.retrying import RetryPolicy
from durabatch.flow.suspecting import regroup
from durabatch.ledger import item, run, suspect
from durabatch.ledger.connection import Connection
from durabatch.states import ItemState

__all__ = ["accuse", "claim_suspects"]


def accuse(
    ledger: Connection, active: ActiveRun, returned: Returned, *, group: Sequence[int], policy: RetryPolicy, now_us: int
) -> Finished:
    """
    Record the attempts that a worker died of, and set their items apart.

    One write transaction. What else the worker held must be released, before or after this.

    Args:
        returned: Its ``failed`` are the attempts in all cells of the worker, also those of other dispatches (``FailedAttempt.dispatch_id``).
            None at all: nobody knows what it was running.
        group: The suspects that the worker was running; empty when it ran ordinary items.
    """
    with ledger.transaction():
        recording = Recording(ledger, active, returned)
        alone = len(returned.failed) == 1
        died: list[int] = []
        over: list[int] = []
        for one in returned.failed:
            item_id = one.row["item_id"]
            decision = recording.failed(one, one.end(alone=alone), policy, now_us, 0.0, deaths=suspect.deaths(ledger, item_id))
            if decision is not None:
                suspect.add_death(ledger, active.run_id, item_id)
                (over if decision.due_at_us is None else died).append(item_id)
        recording.close(now_us)
        # Some have ended since: they did what cannot be undone.
        died = [item_id for item_id in died if item_id not in recording.finished.ended]
        suspect.acquit(ledger, over)
        suspect.acquit_ended(ledger, active.run_id)
        if died or not returned.failed:
            set_apart(ledger, active.run_id, suspect.grouped(ledger, group), died)
        active.count_suspects(ledger)
    return recording.finished


def set_apart(ledger: Connection, run_id: int, group: Sequence[int], died: Sequence[int]) -> None:
    """Form the groups that follow from the death of a worker that ran *group*; no item of either has ended."""
    for members in regroup(group, died):
        suspect.group(ledger, run_id, members)


def claim_suspects(ledger: Connection, active: ActiveRun, *, max_bytes: int, now_us: int) -> Claim | None:
    """
    Claim the first group of suspects as one dispatch, or return None when none waits.

    One write transaction: when this returns, the items are running on disk. The worker that gets them must hold nothing else.

    Args:
        max_bytes: Characters of payload in the dispatch; what does not fit of a group is claimed by the next call. One item may exceed it alone.
    """
    with ledger.transaction():
        number = suspect.first_group(ledger, active.run_id)
        if number is None:
            return None
        rows = item.list_suspects(ledger, active.run_id, number, max_bytes=max_bytes)
        active.dispatch_count += 1
        made = Claim(active.dispatch_count, suspects=tuple(row[0] for row in rows))
        for item_id, attempt_number, key, payload, batch_id, _ in rows:
            made.add(batch_id or 0, [(item_id, attempt_number, key, payload)])
        item.claim_due(ledger, [(work[0], batch_id) for batch_id, works in made.groups for work in works], made.dispatch_id)
        active.move(made.item_count, ItemState.PENDING, ItemState.RUNNING)
        run.set_claimed(ledger, active.run_id, next_item_id=active.next_item_id, dispatch_count=active.dispatch_count, now_us=now_us)
        active.count_suspects(ledger)
    return made
