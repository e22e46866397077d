"""
Items are checked before the first of them is handled.

They are read in pages and stay as they are; only the ones that fail their check are skipped, with reason and remedy. A check that a crash
interrupted is made again, one that was recorded is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from durabatch.clock import now_us
from durabatch.engine.active import ActiveRun
from durabatch.engine.claim import Claim, Work
from durabatch.engine.finish import FailedAttempt, Finished, Returned
from durabatch.engine.skip import claim_checks, skip
from durabatch.ledger.connection import Connection
from durabatch.runner.phases import DISPATCH_BYTES, Beside
from durabatch.workers.protocol import Task

__all__ = ["CHECKED", "Checking"]

#: What the run row remembers of a preflight check that is over.
CHECKED = "done"


class Checking(Beside):
    """
    Items run through the preflight check. Their dispatches are numbered downward from -1, so that they are never taken for real ones.

    Args:
        first_item_id: No item before it is left to be checked.
    """

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

    def task(self, dispatch_id: int) -> Task:  # noqa: ARG002 - there is one
        """Items are given to the check."""
        return "check"

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
