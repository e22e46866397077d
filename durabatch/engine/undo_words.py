"""
What an item has recorded so that it can be undone, and what became of that: in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from durabatch.clock import iso
from durabatch.ledger.rollback import EntryRow
from durabatch.states import ItemState, UndoState

__all__ = ["after_undoing", "happened", "recorded", "remains"]

#: Entries that are told one by one.
SHOWN = 10
#: What becomes of an item once what it did is undone.
THEN = {
    ItemState.PENDING: "it runs again",
    ItemState.SCHEDULED: "it waits for its next try",
    ItemState.FAILED: "it has failed",
    ItemState.SKIPPED: "it is skipped",
    ItemState.CANCELLED: "it is cancelled",
    ItemState.QUARANTINED: "it is quarantined",
    ItemState.UNDONE: "it counts as undone",
}


def happened(entries: Sequence[EntryRow]) -> Iterator[str]:
    """Yield what became of the effects that were to be undone, in their order."""
    told = [sentence for one in entries if (sentence := became(one))]
    yield from told[:SHOWN]
    if len(told) > SHOWN:
        yield f"and so on: {len(told) - SHOWN:,} more effects were undone or could not be"


def became(one: EntryRow) -> str | None:
    """Return what became of one effect; None while nothing has."""
    what = f"{one.action}, of try {one.attempt}"
    error = f": {one.error}" if one.error else ""
    match one.state:
        case UndoState.UNDONE:
            return f"{what}: undone at {iso(one.ended_at_us)}"
        case UndoState.FAILED:
            return f"{what}: not undone, {times(one.tries)}{error}"
        case UndoState.UNDOING if one.error:
            return f"{what}: not undone so far, {times(one.tries)}{error}"
        case UndoState.IRREVERSIBLE:
            return f"{what}: cannot be undone{error}"
    return None


def times(tries: int) -> str:
    """Return how often it was tried."""
    return "nobody tried" if not tries else f"tried {'once' if tries == 1 else f'{tries} times'}"


def recorded(entries: Sequence[EntryRow]) -> Iterator[str]:
    """Yield how many entries there are, by their states."""
    if entries:
        counts = Counter(one.state for one in entries)
        parts = ", ".join(f"{counts[state]:,} {state}" for state in UndoState if counts[state])
        yield f"{len(entries):,} undo {'entry' if len(entries) == 1 else 'entries'}: {parts}"


def after_undoing(entries: Sequence[EntryRow], then_state: str) -> str:
    """Return what comes next for an item of which something is to be undone."""
    count = sum(one.is_wanted for one in entries)
    effects = "one effect of it is" if count == 1 else f"{count:,} effects of it are"
    return f"{effects} to be undone, newest first; then {THEN[ItemState(then_state)]}"


def remains(entries: Sequence[EntryRow]) -> int:
    """Return how many effects remain that were to be undone, or of a try that did not succeed."""
    return sum(one.state in (UndoState.FAILED, UndoState.IRREVERSIBLE) for one in entries)
