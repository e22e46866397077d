"""
What items are handed out for: a check, the handler, or the undoing of what they did.

These are :mod:`durabatch.runner.checking`, :mod:`durabatch.runner.handling` and :mod:`durabatch.runner.undoing`. All phases look the same to those who hand out and record: dispatches go to workers, ends come back, deaths are pinned on items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from durabatch.engine.claim import Claim
from durabatch.engine.finish import Finished, Returned
from durabatch.engine.promise import Entry
from durabatch.workers.protocol import Task

__all__ = ["DISPATCH_BYTES", "Beside", "Phase"]

#: Characters of payload in one dispatch, and so at most ``pipeline_depth`` times that in a worker.
DISPATCH_BYTES = 1 << 20


class Phase(Protocol):
    """What items are handed out for."""

    def task(self, dispatch_id: int) -> Task:
        """Return what a worker is to do with the items of a dispatch."""
        ...

    @property
    def waiting_count(self) -> int:
        """Items that could be handed out."""
        ...

    @property
    def suspect_count(self) -> int:
        """Items that wait and must run apart from all others now."""
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

    def record(self, entry: Entry) -> int | None:
        """Record what takes back an effect that an attempt is about to have; None when nothing may have effects, or the attempt does not count."""
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


class Beside:
    """What is common to the phases in which no handler runs: every dispatch needs a worker, and a death is a failure like any other."""

    @property
    def suspect_count(self) -> int:
        """Return 0: nothing is set apart."""
        return 0

    def answer(self) -> Claim | None:
        """Return None: nothing ends without a worker."""
        return None

    @property
    def was_cut_short(self) -> bool:
        """Whether more could be ended so: never."""
        return False

    def claim_suspects(self) -> Claim | None:
        """Return None: nothing is set apart."""
        return None

    def limits(self, _claimed: Claim) -> dict[int, float]:
        """Return nothing: all have the same time."""
        return {}

    def record(self, _entry: Entry) -> int | None:
        """Return None: neither a check nor what undoes an effect has effects of its own that would have to be undone."""
        return None

    def next_number(self, _item_id: int) -> int:
        """Return 1: attempts of items are not counted here."""
        return 1

    def end(self) -> None:
        """Everything stands in the ledger."""
