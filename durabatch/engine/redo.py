"""
Items that had ended run again: because somebody asks for it, because the input has another payload for them, because the handler is another one.

    ended  →  result to result_history  →  pending, ahead of fresh ones, with everything they may take counted anew, in their batch, which is open again

Attempts stay where they are, and so do the values of results: only what refers to them moves. The run is reopened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from durabatch.codec import payload_digests
from durabatch.engine.submit import Place
from durabatch.ledger import batch, changing, event, item, result_history, run, span, suspect
from durabatch.ledger.changing import Amendment
from durabatch.ledger.connection import Connection
from durabatch.ledger.run import Tally
from durabatch.states import ENDED_ITEM_STATES, ItemState

__all__ = ["amend", "count_again", "move_again", "redo", "redo_finished", "redo_from", "reposition"]

#: Items moved at once.
PAGE = 5000
#: States that say what the handler made of an item: another version of it may make something else.
HANDLED = (ItemState.SUCCEEDED, ItemState.FAILED, ItemState.SKIPPED, ItemState.QUARANTINED)


def redo(ledger: Connection, run_id: int, item_ids: Sequence[int], *, cause: str, now_us: int) -> Counter[str]:
    """
    Have those of *item_ids* that ended run again; return how many there were of each state.

    One write transaction. Items that have not ended, and those that the input has lost, stay as they are. Whoever has the run in memory
    (:class:`~durabatch.engine.active.ActiveRun`) must write its tally before and reload it after.

    Args:
        cause: Why results are replaced: ``redone`` or ``changed``.
    """
    return redo_pages(ledger, run_id, pages_of(item_ids), cause=cause, now_us=now_us)


def redo_from(ledger: Connection, run_id: int, first_item_id: int, now_us: int) -> int:
    """Have all items from *first_item_id* on that ended, in whatever way, run again; return how many. As for :func:`redo`, in constant memory."""
    pages = ended_pages(ledger, run_id, tuple(ENDED_ITEM_STATES), first_item_id)
    return redo_pages(ledger, run_id, pages, cause="redone", now_us=now_us).total()


def redo_finished(ledger: Connection, run_id: int, now_us: int) -> int:
    """Have all items that another version of the handler ended run again, not those a person cancelled; return how many. As for :func:`redo_from`."""
    return redo_pages(ledger, run_id, ended_pages(ledger, run_id, HANDLED, 1), cause="changed", now_us=now_us).total()


def redo_pages(ledger: Connection, run_id: int, pages: Iterator[Sequence[int]], *, cause: str, now_us: int) -> Counter[str]:
    """Have items run again, a page at a time, in one write transaction; return how many there were of each state."""
    moved: Counter[str] = Counter()
    with ledger.transaction():
        for page in pages:
            rows = changing.list_ended(ledger, run_id, page)
            move_again(ledger, run_id, [item_id for item_id, _ in rows], cause=cause, now_us=now_us)
            moved.update(state for _, state in rows)
        count_again(ledger, run_id, moved)
        if moved:
            event.record(ledger, "redone", run_id=run_id, now_us=now_us, items=moved.total(), cause=cause)
    return moved


def pages_of(item_ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield *item_ids* in pages."""
    return (item_ids[start : start + PAGE] for start in range(0, len(item_ids), PAGE))


def ended_pages(ledger: Connection, run_id: int, states: Sequence[str], first_item_id: int) -> Iterator[Sequence[int]]:
    """Yield the ids of the items from *first_item_id* on that are in one of *states*, in pages."""
    for first, last in span.list_from(ledger, run_id, first_item_id):
        start = max(first, first_item_id)
        while page := changing.list_ended_in(ledger, start, last, states, PAGE):
            yield page
            start = page[-1] + 1


def move_again(ledger: Connection, run_id: int, item_ids: Sequence[int], *, cause: str, now_us: int) -> None:
    """
    Make items that ended pending again, inside a transaction; their results are results of before, their batches open.

    Who calls it counts them: :func:`count_again`.
    """
    if not item_ids:
        return
    if batch.any_published(ledger, item_ids):
        run.restart_output(ledger, run_id)
    result_history.move(ledger, item_ids, cause, now_us)
    item.retry(ledger, item_ids)
    suspect.remove(ledger, item_ids)


def count_again(ledger: Connection, run_id: int, moved: Counter[str], *, back: int = 0) -> None:
    """
    Count items that are pending now by the states that they were in, inside a transaction; a run that was over goes on.

    Args:
        back: How many of them the input had lost.
    """
    if not moved:
        return
    tally = Tally(gone=-back)
    for state, count in moved.items():
        tally.move(count, ItemState(state), ItemState.PENDING)
    row = run.get(ledger, run_id)
    if row.finished_at_us is not None:
        run.reopen(ledger, run_id, handler=row.handler, settings=row.settings)
    run.add(ledger, run_id, tally)


def amend(
    ledger: Connection, run_id: int, changes: Sequence[tuple[int, str, int]], *, cause: str, now_us: int, place: Place | None = None
) -> Counter[str]:
    """
    Give items the payloads that the input has for them now, and have them run with those; return how many there were of each state before.

    One write transaction. Items that ended run again, also those that the input had lost; waiting ones are changed where they are; a worker
    that has one now runs it for nothing. For an :class:`~durabatch.engine.active.ActiveRun` the same holds as for :func:`redo`.

    Args:
        changes: (item_id, payload, source position) each; of several for one item the last one counts.
        place: Gives items a place of their own by their payload; None leaves theirs as it is.
    """
    moved: Counter[str] = Counter()
    back = 0
    with ledger.transaction():
        for start in range(0, len(changes), PAGE):
            page = {change[0]: change for change in changes[start : start + PAGE]}
            states = changing.list_states(ledger, run_id, list(page))
            ended = [item_id for item_id, state, _ in states if state in ENDED_ITEM_STATES]
            move_again(ledger, run_id, ended, cause=cause, now_us=now_us)
            changing.amend(ledger, amendments([page[item_id] for item_id, _, _ in states], place))
            moved.update(state for _, state, _ in states)
            back += sum(is_lost for _, _, is_lost in states)
        count_again(ledger, run_id, moved, back=back)
    return moved


def amendments(changes: Sequence[tuple[int, str, int]], place: Callable[[str], tuple[int, int | None]] | None) -> Iterator[Amendment]:
    """Yield what is to be written for each change."""
    for (item_id, payload, position), digest in zip(changes, payload_digests([change[1] for change in changes]), strict=True):
        priority, due_at_us = (None, None) if place is None else place(payload)
        yield Amendment(item_id, payload, digest, position, priority, due_at_us)


def reposition(ledger: Connection, positions: Sequence[tuple[int, int]]) -> None:
    """Note where the rows of items stand in the input now: (item_id, source position) each. One write transaction; nothing runs for that."""
    with ledger.transaction():
        changing.reposition(ledger, positions)
