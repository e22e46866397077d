"""
What items are handed out for: first, where there is a preflight check, to be checked; then to be handled.

Both phases look the same to those who hand out and record: dispatches go to workers, ends come back, deaths are pinned on items. Handling
moves items through their states. Checking reads items in pages and leaves them as they are; only the ones that fail their check are skipped,
with reason and remedy. A check that a crash interrupted is made again, one that was recorded is not.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from durabatch.clock import now_us
from durabatch.engine.accuse import accuse, claim_suspects
from durabatch.engine.active import ActiveRun
from durabatch.engine.claim import Claim, Work, claim
from durabatch.engine.finish import FailedAttempt, Finished, Returned, finish
from durabatch.engine.release import release
from durabatch.engine.reuse import Cache
from durabatch.engine.skip import claim_checks, skip
from durabatch.flow.batching import BatchStrategy
from durabatch.flow.retrying import RetryPolicy
from durabatch.flow.timing import remaining
from durabatch.ledger import attempt, item
from durabatch.ledger.connection import Connection

__all__ = ["CHECKED", "Checking", "Handling", "Phase"]

#: What the run row remembers of a preflight check that is over.
CHECKED = "done"

#: Characters of payload in one dispatch, and so at most ``pipeline_depth`` times that in a worker.
DISPATCH_BYTES = 1 << 20


class Phase(Protocol):
    """What items are handed out for."""

    #: Workers are to run the check in the place of the handler.
    checks: bool

    @property
    def waiting_count(self) -> int:
        """Items that could be handed out."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to hand out or to wait for, as far as the items are known."""
        ...

    def claim(self, limit: int) -> Claim | None:
        """Take up to *limit* items for one dispatch; what needs no worker has ended on return."""
        ...

    def answer(self) -> Claim | None:
        """End what needs no worker, up to the first item that does."""
        ...

    @property
    def was_cut_short(self) -> bool:
        """Whether more of that could be ended at once, in the next tick."""
        ...

    def claim_suspects(self) -> Claim | None:
        """Take the first group of items that must run apart from others."""
        ...

    def limits(self, claimed: Claim) -> dict[int, float]:
        """Return the seconds that items of a claim have left, where that is less than others have."""
        ...

    def finish(self, returned: Returned) -> Finished:
        """Record ends of items."""
        ...

    def accuse(self, returned: Returned, group: Sequence[int]) -> Finished:
        """Record the attempts that a worker died of."""
        ...

    def next_number(self, item_id: int) -> int:
        """Return the number of the attempt that is going on at an item."""
        ...

    def end(self) -> None:
        """Write down, at the end of a session, what was not yet."""
        ...

    def release(self, dispatch_id: int, item_ids: list[int]) -> int:
        """Take items back unstarted; return how many of them may be handed out again."""
        ...

    def mark(self) -> object:
        """Return what it remembers outside the ledger."""
        ...

    def rewind(self, marked: Any) -> None:
        """Forget what happened since ``mark``: the transaction was not made."""
        ...


class Handling:
    """
    Items run through the handler.

    Args:
        cache: Results of equal items, which end without a worker; None when each one is to run.
    """

    checks = False

    def __init__(
        self, ledger: Connection, active: ActiveRun, policy: RetryPolicy, batches: BatchStrategy, *, cache: Cache | None = None
    ) -> None:
        self.cache = cache
        self.ledger = ledger
        self.active = active
        self.policy = policy
        self.batches = batches

    @property
    def waiting_count(self) -> int:
        """Items that could be handed out, those in wait for their due time included."""
        return self.active.open_count - self.active.running_count - self.active.held_count

    @property
    def is_over(self) -> bool:
        """Whether every known item has ended that is not held back."""
        return self.active.open_count == self.active.held_count

    def claim(self, limit: int) -> Claim | None:
        """Claim up to *limit* items."""
        return claim(self.ledger, self.active, self.batches, limit=limit, max_bytes=DISPATCH_BYTES, now_us=now_us(), cache=self.cache)

    def answer(self) -> Claim | None:
        """End items whose results are known, up to the first whose is not."""
        return self.claim(0) if self.cache is not None and self.waiting_count else None

    @property
    def was_cut_short(self) -> bool:
        """Whether this tick had no time for all items whose results are known."""
        return self.cache is not None and self.cache.was_cut_short

    def claim_suspects(self) -> Claim | None:
        """Claim the first group of suspects."""
        return claim_suspects(self.ledger, self.active, max_bytes=DISPATCH_BYTES, now_us=now_us()) if self.active.suspect_count else None

    def limits(self, claimed: Claim) -> dict[int, float]:
        """Return what is left to items that were tried before, of the time that they may take over all their attempts."""
        if self.policy.item_deadline_s is None:
            return {}
        again = [work[0] for _, works in claimed.groups for work in works if work[1] > 1]
        started = attempt.first_started(self.ledger, again)
        now = now_us()
        return {item_id: remaining(self.policy.item_deadline_s, at_us, now) for item_id, at_us in started.items()}

    def finish(self, returned: Returned) -> Finished:
        """Record ends of items."""
        return finish(self.ledger, self.active, returned, policy=self.policy, now_us=now_us(), luck=random.random, cache=self.cache)

    def accuse(self, returned: Returned, group: Sequence[int]) -> Finished:
        """Record the attempts that a worker died of, and set its items apart."""
        return accuse(self.ledger, self.active, returned, group=group, policy=self.policy, now_us=now_us())

    def next_number(self, item_id: int) -> int:
        """Return the number behind the attempts on record."""
        stored = item.get(self.ledger, item_id)
        return 1 if stored is None else stored.attempt_count + 1

    def end(self) -> None:
        """Have what the cache was to learn in the ledger."""
        if self.cache is not None:
            with self.ledger.transaction():
                self.cache.write(now_us())

    def release(self, dispatch_id: int, item_ids: list[int]) -> int:
        """Make unstarted items pending again."""
        return release(self.ledger, self.active, dispatch_id, item_ids)

    def mark(self) -> None:
        """Everything stands in the ledger, but the time that a tick has for results that are known."""
        if self.cache is not None:
            self.cache.begin()

    def rewind(self, marked: None) -> None:  # noqa: ARG002 - see mark
        """Have the cache look at the ledger again."""
        if self.cache is not None:
            self.cache.rewind()


class Checking:
    """
    Items run through the preflight check. Their dispatches are numbered downward from -1, so that they are never taken for real ones.

    Args:
        first_item_id: No item before it is left to be checked.
    """

    checks = True

    def __init__(self, ledger: Connection, active: ActiveRun, first_item_id: int) -> None:
        self.ledger = ledger
        self.active = active
        self.next_item_id = first_item_id
        self.again: deque[int] = deque()
        self.dispatch_id = 0
        self.is_exhausted = False
        #: The first item of each dispatch that is out; everything before the lowest is checked.
        self.out: dict[int, set[int]] = {}
        self.skipped = 0

    @property
    def waiting_count(self) -> int:
        """Whether there are items to check, as a number: how many is not known before they are read."""
        return len(self.again) if self.is_exhausted else max(1, self.active.pending_count)

    @property
    def is_over(self) -> bool:
        """Whether every item was checked."""
        return self.is_exhausted and not self.again and not self.out

    @property
    def position(self) -> int:
        """The first item that may be unchecked: where a resume begins."""
        return min([self.next_item_id, *self.again, *(min(ids) for ids in self.out.values() if ids)])

    def claim(self, limit: int) -> Claim | None:
        """Read the next items, those that came back first."""
        works: list[Work] = []
        while self.again and len(works) < limit:
            item_id = self.again.popleft()
            works += claim_checks(self.ledger, self.active, item_id, limit=1, max_bytes=DISPATCH_BYTES, last_item_id=item_id)
        if not works and not self.is_exhausted:
            works = claim_checks(self.ledger, self.active, self.next_item_id, limit=limit, max_bytes=DISPATCH_BYTES)
            self.next_item_id = works[-1][0] + 1 if works else self.next_item_id
            self.is_exhausted = not works and self.active.intake_complete
        if not works:
            return None
        self.dispatch_id -= 1
        made = Claim(self.dispatch_id)
        made.add(0, works)
        self.out[made.dispatch_id] = {work[0] for work in works}
        return made

    def answer(self) -> None:
        """Every item is checked."""

    @property
    def was_cut_short(self) -> bool:
        """Nothing is answered here."""
        return False

    def claim_suspects(self) -> Claim | None:
        """A check whose worker died has failed; nothing is set apart."""
        return None

    def limits(self, _claimed: Claim) -> dict[int, float]:
        """Every check has the same time."""
        return {}

    def finish(self, returned: Returned) -> Finished:
        """Skip the items that failed their check; forget the others."""
        self.skipped += skip(self.ledger, self.active, [reason_of(one) for one in returned.failed], now_us=now_us())
        self.forget(returned.dispatch_id, returned.item_ids())
        for one in returned.failed:
            self.forget(one.dispatch_id or 0, [one.row["item_id"]])
        return Finished()

    def accuse(self, returned: Returned, _group: Sequence[int]) -> Finished:
        """Skip the items whose check ended its worker."""
        return self.finish(returned)

    def next_number(self, _item_id: int) -> int:
        """Return 1: a check comes before every attempt."""
        return 1

    def end(self) -> None:
        """Everything stands in the ledger."""

    def release(self, dispatch_id: int, item_ids: list[int]) -> int:
        """Have unstarted checks made later."""
        mine = self.out.get(dispatch_id, set()) & set(item_ids)
        self.again.extend(sorted(mine))
        self.forget(dispatch_id, list(mine))
        return len(mine)

    def mark(self) -> tuple[int, list[int], bool, dict[int, set[int]], int]:
        """Return what is out and what comes next."""
        return self.next_item_id, list(self.again), self.is_exhausted, {number: set(ids) for number, ids in self.out.items()}, self.skipped

    def rewind(self, marked: tuple[int, list[int], bool, dict[int, set[int]], int]) -> None:
        """Have the same out and next as then."""
        self.next_item_id, again, self.is_exhausted, self.out, self.skipped = marked
        self.again = deque(again)

    def forget(self, dispatch_id: int, item_ids: list[int]) -> None:
        """Note that items are no longer out."""
        ids = self.out.get(dispatch_id)
        if ids is not None:
            ids.difference_update(item_ids)
            if not ids:
                del self.out[dispatch_id]


def reason_of(one: FailedAttempt) -> dict[str, Any]:
    """Return the columns of an attempt that says why an item is skipped, whatever way its check failed."""
    row = dict(one.row)
    if row["error_type"]:
        row["error_message"] = f"preflight: {row['error_type']}: {row['error_message']}"
    return {**row, "outcome": "skipped", "error_type": None, "error_group": None}
