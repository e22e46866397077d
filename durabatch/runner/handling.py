"""
Items run through the handler, and move through their states.

What an attempt has left behind that did not succeed is undone in between, before its item is tried again or has failed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from durabatch.clock import now_us
from durabatch.engine.accuse import accuse, claim_suspects
from durabatch.engine.active import ActiveRun
from durabatch.engine.claim import Claim, claim
from durabatch.engine.finish import Finished, Returned, finish
from durabatch.engine.promise import Entry, record
from durabatch.engine.release import release
from durabatch.engine.reuse import Cache
from durabatch.engine.rollback import undo_broken_batch
from durabatch.flow.batching import BatchStrategy
from durabatch.flow.retrying import RetryPolicy
from durabatch.flow.timing import remaining
from durabatch.ledger import attempt, batch, item
from durabatch.ledger.connection import Connection
from durabatch.ledger.rollback import list_mixed_batches
from durabatch.runner.phases import DISPATCH_BYTES
from durabatch.runner.undoing import Undoing
from durabatch.workers.protocol import Task

__all__ = ["Handling"]


class Handling:
    """
    Items run through the handler.

    Args:
        undoing: Has what attempts leave behind undone that did not succeed, and what is to be undone before anything else runs.
        is_atomic: Batches are undone of which an item fails for good.
        cache: Results of equal items, which end without a worker; None when each one is to run.
    """

    def __init__(
        self, ledger: Connection, active: ActiveRun, policy: RetryPolicy, batches: BatchStrategy, undoing: Undoing, *,
        is_atomic: bool = False, cache: Cache | None = None,
    ) -> None:  # fmt: skip
        self.cache = cache
        self.ledger = ledger
        self.active = active
        self.policy = policy
        self.batches = batches
        self.undoing = undoing
        self.is_atomic = is_atomic

    def begin(self) -> None:
        """Have batches undone that broke while nobody was at work: an item had an effect that cannot be undone, and its worker or coordinator died."""
        if self.is_atomic and self.active.undo_count:
            with self.ledger.transaction():
                self.undo_broken(list_mixed_batches(self.ledger, self.active.run_id))
                self.active.write_tally(self.ledger)

    def task(self, dispatch_id: int) -> Task:
        """Tell items from what they did, by the number."""
        return self.undoing.task(dispatch_id) if dispatch_id < 0 else "run"

    @property
    def waiting_count(self) -> int:
        """Items that could be handed out, those in wait for their due time included."""
        active = self.active
        return active.open_count - active.running_count - active.held_count + active.wanted_count

    @property
    def suspect_count(self) -> int:
        """Suspects that wait, unless everything waits for what is undone in an order of its own."""
        return 0 if self.active.ordered_count else self.active.suspect_count

    @property
    def is_over(self) -> bool:
        """Whether every known item has ended that is not held back, and nothing is being undone."""
        return self.active.open_count == self.active.held_count and self.undoing.is_over

    def claim(self, limit: int) -> Claim | None:
        """Claim up to *limit* items, but what is to be undone first; while that has an order of its own, nothing else."""
        steps = self.undoing.claim(limit) if self.active.wanted_count else None
        if steps is not None or self.active.ordered_count:
            return steps
        made = claim(self.ledger, self.active, self.batches, limit=limit, max_bytes=DISPATCH_BYTES, now_us=now_us(), cache=self.cache)
        if self.is_atomic and made is not None and made.answered:
            # What has joined a broken batch with its end has no dispatch that comes back.
            self.undo_broken(batch.of_items(self.ledger, made.answered))
        return made

    def answer(self) -> Claim | None:
        """End items whose results are known, up to the first whose is not."""
        return self.claim(0) if self.cache is not None and self.waiting_count and not self.active.wanted_count else None

    @property
    def was_cut_short(self) -> bool:
        """Whether this tick had no time for all items whose results are known."""
        return self.cache is not None and self.cache.was_cut_short

    def claim_suspects(self) -> Claim | None:
        """Claim the first group of suspects."""
        return claim_suspects(self.ledger, self.active, max_bytes=DISPATCH_BYTES, now_us=now_us()) if self.suspect_count else None

    def limits(self, claimed: Claim) -> dict[int, float]:
        """Return what is left to items that were tried before, of the time that they may take over all their attempts."""
        if self.policy.item_deadline_s is None or claimed.dispatch_id < 0:
            return {}
        again = [work[0] for _, works in claimed.groups for work in works if work[1] > 1]
        started = attempt.first_started(self.ledger, again)
        now = now_us()
        return {item_id: remaining(self.policy.item_deadline_s, at_us, now) for item_id, at_us in started.items()}

    def finish(self, returned: Returned) -> Finished:
        """Record ends of items, and of what undoes them."""
        if returned.dispatch_id < 0:
            return self.finish_steps(returned)
        finished = finish(self.ledger, self.active, returned, policy=self.policy, now_us=now_us(), luck=random.random, cache=self.cache)
        if self.is_atomic:
            self.undo_broken({returned.batch_of[item_id] for item_id in returned.item_ids()})
        return finished

    def accuse(self, returned: Returned, group: Sequence[int]) -> Finished:
        """Record the attempts that a worker died of, and set its items apart."""
        if returned.dispatch_id < 0:
            return self.finish_steps(returned)
        finished = accuse(self.ledger, self.active, returned, group=group, policy=self.policy, now_us=now_us())
        if self.is_atomic:
            self.undo_broken({returned.batch_of[item_id] for item_id in returned.item_ids()})
        return finished

    def finish_steps(self, returned: Returned) -> Finished:
        """Record ends of what undoes items; an item that has failed now may break its batch."""
        finished = self.undoing.finish(returned)
        if self.is_atomic and finished.ended:
            self.undo_broken(batch.of_items(self.ledger, finished.ended))
        return finished

    def undo_broken(self, batch_ids: Iterable[int]) -> None:
        """Have everything undone that succeeded in those of these batches of which an item has failed for good."""
        for batch_id in batch_ids:
            undo_broken_batch(self.ledger, self.active, batch_id, now_us())

    def record(self, entry: Entry) -> int | None:
        """Record what takes back an effect that an item is about to have."""
        return record(self.ledger, self.active, [entry], now_us())[0]

    def next_number(self, item_id: int) -> int:
        """Return the number behind the attempts on record."""
        if item_id < 0:
            return self.undoing.next_number(item_id)
        stored = item.get(self.ledger, item_id)
        return 1 if stored is None else stored.attempt_count + 1

    def end(self) -> None:
        """Have what the cache was to learn in the ledger."""
        if self.cache is not None:
            with self.ledger.transaction():
                self.cache.write(now_us())

    def release(self, dispatch_id: int, item_ids: list[int]) -> int:
        """Make unstarted items pending again."""
        if dispatch_id < 0:
            return self.undoing.release(dispatch_id, item_ids)
        count = release(self.ledger, self.active, dispatch_id, item_ids)
        if self.is_atomic and self.active.undo_count:
            # One that had begun has failed if it left what cannot be undone.
            self.undo_broken(batch.of_items(self.ledger, item_ids))
        return count

    def mark(self) -> object:
        """Return what was undone; everything else stands in the ledger, but the time that a tick has for results that are known."""
        if self.cache is not None:
            self.cache.begin()
        return self.undoing.mark()

    def rewind(self, marked: Any) -> None:
        """Have the cache look at the ledger again."""
        self.undoing.rewind(marked)
        if self.cache is not None:
            self.cache.rewind()
