"""
What items did is undone, step by step, each step an undo entry that a worker takes back.

    wanted ──claim──▶ undoing, on disk ──worker: verify, action, verify──▶ undone, on disk

Within an item newest first and one at a time; items beside each other, unless an order over all of them is wanted. Dispatches of steps are
numbered downward from -1, and a step has the number of its entry below zero, so that neither is ever taken for that of an item.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from durabatch.clock import now_us
from durabatch.engine.active import ActiveRun
from durabatch.engine.claim import Claim
from durabatch.engine.finish import Finished, Returned
from durabatch.engine.rollback import abandon
from durabatch.engine.steps import claim_steps, finish_steps, release_steps
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger.connection import Connection
from durabatch.runner.phases import Beside
from durabatch.workers.protocol import Task

__all__ = ["LEAST_TRIES", "Undoing", "Undone", "patient"]

#: A step is tried at least so often: actions bear being called again, and an effect that remains is worse than a wait.
LEAST_TRIES = 3


@dataclass(frozen=True, slots=True)
class Undone:
    """
    What a session has undone.

    Attributes:
        steps: Entries whose effects are taken back.
        ran: Calls of actions among them; for the others there was nothing to take back.
        failed: Entries whose effects remain.
        given_up: Entries that were to be undone, and are not to be any more, since another one failed.
    """

    steps: int = 0
    ran: int = 0
    failed: int = 0
    given_up: int = 0

    @property
    def ended(self) -> int:
        """Steps that have ended, either way."""
        return self.steps + self.failed + self.given_up


def patient(policy: RetryPolicy) -> RetryPolicy:
    """Return the policy for steps: as for items, with at least :data:`LEAST_TRIES` tries, whatever the error, and no end of their time."""
    return replace(
        policy, max_attempts=max(LEAST_TRIES, policy.max_attempts), retry_on=(), give_up_on=(), retry_exit=(), item_deadline_s=None
    )


class Undoing(Beside):
    """
    The steps of one run.

    Args:
        policy: That of the items.
        is_forced: What was changed since is overwritten.
        keeps_going: A step that fails for good ends the undoing of its item alone; else that of everything that is rolled back.

    Attributes:
        undone: What was undone so far.
    """

    def __init__(
        self, ledger: Connection, active: ActiveRun, policy: RetryPolicy, *, is_forced: bool = False, keeps_going: bool = False
    ) -> None:
        self.ledger = ledger
        self.active = active
        self.policy = patient(policy)
        self.is_forced = is_forced
        self.keeps_going = keeps_going
        self.dispatch_id = 0
        self.undone = Undone()

    def task(self, dispatch_id: int) -> Task:  # noqa: ARG002 - there is one
        """Everything is to be undone."""
        return "undo"

    @property
    def waiting_count(self) -> int:
        """Entries that are to be undone, those with workers included."""
        return self.active.wanted_count

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be undone any more."""
        return not self.active.wanted_count and not self.active.undoing_count

    def claim(self, limit: int) -> Claim | None:
        """Claim up to *limit* steps; where there is an order over all items, one, once the one before it has ended."""
        now = now_us()
        if not self.active.wanted_count or self.active.next_step_at_us is None or self.active.next_step_at_us > now:
            return None
        steps = claim_steps(
            self.ledger, self.active, limit=limit, dispatch_id=self.dispatch_id - 1, now_us=now, is_forced=self.is_forced
        )
        if not steps:
            return None
        self.dispatch_id -= 1
        made = Claim(self.dispatch_id)
        made.add(0, [(-one.undo_id, one.try_number, one.key, one.step_json) for one in steps])
        made.blobs = {-one.undo_id: one.blob for one in steps if one.blob is not None}
        return made

    def finish(self, returned: Returned) -> Finished:
        """Record ends of steps, and what becomes of items none of whose effects is left."""
        steps = finish_steps(self.ledger, self.active, returned, policy=self.policy, now_us=now_us(), luck=random.random)
        undone, given_up = self.undone, self.give_up() if steps.failed and not self.keeps_going else 0
        self.undone = Undone(
            undone.steps + steps.undone, undone.ran + steps.ran, undone.failed + len(steps.failed), undone.given_up + given_up
        )
        return steps.finished

    def give_up(self) -> int:
        """Leave what is to be rolled back as it is, and return how many effects that is; what failed attempts have left behind is undone all the same."""
        return abandon(self.ledger, self.active, now_us())

    def accuse(self, returned: Returned, _group: Sequence[int]) -> Finished:
        """Record the steps that a worker died of as failed tries."""
        return self.finish(returned)

    def release(self, dispatch_id: int, item_ids: list[int]) -> int:
        """Take unstarted steps back."""
        return release_steps(self.ledger, self.active, dispatch_id, item_ids)

    def mark(self) -> tuple[int, Undone]:
        """Return the last dispatch and what was undone."""
        return self.dispatch_id, self.undone

    def rewind(self, marked: tuple[int, Undone]) -> None:
        """Know no more than then."""
        self.dispatch_id, self.undone = marked
