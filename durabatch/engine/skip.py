"""
Checks before the run: items are read as they stand, and those that a check refused are skipped, with reason and remedy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from durabatch.engine.active import ActiveRun
from durabatch.engine.claim import Work
from durabatch.ledger import attempt, batch, item, span
from durabatch.ledger.connection import Connection
from durabatch.states import AttemptOutcome, ItemState

__all__ = ["claim_checks", "skip"]


def skip(ledger: Connection, active: ActiveRun, failures: Sequence[Mapping[str, Any]], now_us: int) -> int:
    """
    Move items that a check refused from pending to skipped and return how many.

    One write transaction. An item that is not pending any more, or was tried meanwhile, stays as it is.

    Args:
        failures: The columns of an attempt for each; the reason is its ``error_message``, what to do about it its ``remedy``.
    """
    ended: Counter[int] = Counter()
    count = 0
    with ledger.transaction():
        for row in failures:
            found = item.skip(ledger, active.run_id, row["item_id"], row["number"] - 1)
            if found is None:
                continue
            attempt.insert_failed(ledger, {**row, "outcome": str(AttemptOutcome.SKIPPED), "error_type": None})
            count += 1
            if found[0] is not None:
                ended[found[0]] += 1
        active.move(count, ItemState.PENDING, ItemState.SKIPPED)
        active.tally.attempts += count
        batch.add_ended(ledger, ((batch_id, number, 0) for batch_id, number in ended.items()), now_us)
    return count


def claim_checks(
    ledger: Connection, active: ActiveRun, first_item_id: int, limit: int, max_bytes: int, last_item_id: int | None = None
) -> list[Work]:
    """
    Return up to *limit* pending items from *first_item_id* on, in input order, without changing them; none when there are no more.

    Args:
        max_bytes: Characters of payload that they may have together; one item may exceed it alone.
        last_item_id: No item behind it; None for all there are.
    """
    for first, last in span.list_from(ledger, active.run_id, first_item_id):
        until = last if last_item_id is None else min(last, last_item_id)
        found = item.list_pending(ledger, max(first, first_item_id), until, limit=limit, max_bytes=max_bytes)
        if found:
            return found
    return []
