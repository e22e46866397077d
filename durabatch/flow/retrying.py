"""
What becomes of an item after an attempt that did not succeed.
"""

from __future__ import annotations

from dataclasses import dataclass

from durabatch.states import AttemptOutcome, ItemState

__all__ = ["Decision", "after_attempt"]

#: Outcomes that say nothing about the item and therefore charge it nothing.
UNCHARGED = frozenset({AttemptOutcome.INTERRUPTED, AttemptOutcome.SNOOZED})


@dataclass(frozen=True, slots=True)
class Decision:
    """The next state of the item, when it is due (0 = now, None = not waiting), and whether the attempt counts."""

    state: ItemState
    due_at_us: int | None
    charged: bool


def after_attempt(outcome: AttemptOutcome, *, charged_count: int, max_attempts: int, retryable: bool) -> Decision:
    """
    Return what follows *outcome*.

    Args:
        charged_count: Charged attempts at the item before this one.
        max_attempts: Tries allowed, the first one counted.
        retryable: False when the handler said that no further try makes sense.
    """
    if outcome in UNCHARGED:
        return Decision(ItemState.PENDING, 0, charged=False)
    if outcome in (AttemptOutcome.SKIPPED, AttemptOutcome.CANCELLED):
        return Decision(ItemState(outcome), None, charged=True)
    if retryable and charged_count + 1 < max_attempts:
        return Decision(ItemState.PENDING, 0, charged=True)
    return Decision(ItemState.FAILED, None, charged=True)
