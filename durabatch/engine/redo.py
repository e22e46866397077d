"""
Items that had ended run again: because somebody asks for it, because the input has another payload for them, because the handler is another one.

    ended  →  result to result_history  →  pending, ahead of fresh ones, with everything they may take counted anew, in their batch, which is open again

Attempts stay where they are, and so do the values of results: only what refers to them moves. The run is reopened. What attempts have left behind
that did not succeed is undone first, and on request what successes did, too: until then the item waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from durabatch.codec import payload_digests
from durabatch.engine.submit import Place
from durabatch.engine.wanting import want
from durabatch.ledger import batch, changing, event, item, result_history, run, span, suspect
from durabatch.ledger.changing import Amendment
from durabatch.ledger.connection import Connection
from durabatch.ledger.rollback import Candidate
from durabatch.ledger.run import Tally
from durabatch.ledger.undo import begun_of, let_run
from durabatch.states import ENDED_ITEM_STATES, ItemState

__all__ = ["Again", "amend", "count_again", "move_again", "redo", "redo_finished", "redo_from", "reposition"]

#: Items moved at once.
PAGE = 5000
#: States that say what the handler made of an item: another version of it may make something else.
HANDLED = (ItemState.SUCCEEDED, ItemState.FAILED, ItemState.SKIPPED, ItemState.QUARANTINED)


def redo(ledger: Connection, run_id: int, item_ids: Sequence[int], *, cause: str, now_us: int, undo: bool = False) -> Counter[str]:
    """
    Have those of *item_ids* that ended run again; return how many there were of each state.

    One write transaction. Items that have not ended, and those that the input has lost, stay as they are. Whoever has the run in memory
    (:class:`~durabatch.engine.active.ActiveRun`) must write its tally before and reload it after.

    Args:
        cause: Why results are replaced: ``redone`` or ``changed``.
        undo: All that they did is undone before anything runs again, the newest first.
    """
    return redo_pages(ledger, run_id, pages_of(item_ids), cause=cause, now_us=now_us, undo=undo)


def redo_from(ledger: Connection, run_id: int, first_item_id: int, now_us: int, *, undo: bool = False) -> int:
    """Have all items from *first_item_id* on that ended, in whatever way, run again; return how many. As for :func:`redo`, in constant memory."""
    pages = ended_pages(ledger, run_id, tuple(ENDED_ITEM_STATES), first_item_id)
    return redo_pages(ledger, run_id, pages, cause="redone", now_us=now_us, undo=undo).total()


def redo_finished(ledger: Connection, run_id: int, now_us: int, *, undo: bool = False) -> int:
    """Have all items that another version of the handler ended run again, not those a person cancelled; return how many. As for :func:`redo_from`."""
    pages = ended_pages(ledger, run_id, HANDLED, 1)
    return redo_pages(ledger, run_id, pages, cause="changed", now_us=now_us, undo=undo).total()


def redo_pages(
    ledger: Connection, run_id: int, pages: Iterator[Sequence[int]], *, cause: str, now_us: int, undo: bool = False
) -> Counter[str]:
    """Have items run again, a page at a time, in one write transaction; return how many there were of each state."""
    again = Again(ledger, run_id, cause, now_us, undo=undo)
    with ledger.transaction():
        for page in pages:
            again.take(changing.list_ended(ledger, run_id, page))
        if count := again.count():
            event.record(ledger, "redone", run_id=run_id, now_us=now_us, items=count, cause=cause)
    return again.moved


class Again:
    """
    Items that ended and are to run again, taken page by page inside one transaction: at once, or when what they did is undone.

    Attributes:
        moved: How many there were, by their states.

    Args:
        undo: All that they did is undone before anything runs again, the newest first; else only what those of their attempts did that did not
            succeed.
    """

    def __init__(self, ledger: Connection, run_id: int, cause: str, now_us: int, *, undo: bool = False) -> None:
        self.ledger = ledger
        self.run_id = run_id
        self.cause = cause
        self.now_us = now_us
        self.undo = undo
        self.moved: Counter[str] = Counter()
        self.has_effects = run.get(ledger, run_id).undo_count > 0

    def take(self, rows: Sequence[tuple[int, str]]) -> int:
        """Have items run again: (item_id, state) each, all of them ended. Return how many of their effects are undone before."""
        move_again(self.ledger, self.run_id, [item_id for item_id, _ in rows], cause=self.cause, now_us=self.now_us)
        self.moved.update(state for _, state in rows)
        if not self.has_effects:
            return 0
        waiting = [Candidate(item_id, ItemState.PENDING, 0) for item_id, _ in rows]
        return want(self.ledger, waiting, in_order=self.undo, now_us=self.now_us, of_successes=self.undo).steps

    def count(self) -> int:
        """Count them, and return how many there were; a run that was over goes on."""
        count_again(self.ledger, self.run_id, self.moved)
        return self.moved.total()


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

    Those of which something is being undone run once that is done. Who calls it counts them: :func:`count_again`.
    """
    if not item_ids:
        return
    if batch.any_published(ledger, item_ids):
        run.restart_output(ledger, run_id)
    result_history.move(ledger, item_ids, cause, now_us)
    item.retry(ledger, item_ids)
    let_run(ledger, item_ids)
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
    ledger: Connection, run_id: int, changes: Sequence[tuple[int, str, int]], *, cause: str, now_us: int, place: Place | None = None, undo: bool = False
) -> Counter[str]:
    """
    Give items the payloads that the input has for them now, and have them run with those; return how many there were of each state before.

    One write transaction. Items that ended run again, also those that the input had lost; waiting ones are changed where they are; a worker
    that has one now runs it for nothing. But one that is running and has promised an effect stays as it is, and is found changed when the input
    is looked at again; one of which something is being undone runs once that is done. For an :class:`~durabatch.engine.active.ActiveRun` the
    same holds as for :func:`redo`.

    Args:
        changes: (item_id, payload, source position) each; of several for one item the last one counts.
        place: Gives items a place of their own by their payload; None leaves theirs as it is.
        undo: All that they did is undone before anything runs again, the newest first; else only what those of their attempts did that did not
            succeed.
    """
    moved: Counter[str] = Counter()
    back = 0
    with ledger.transaction():
        for start in range(0, len(changes), PAGE):
            page = {change[0]: change for change in changes[start : start + PAGE]}
            begun = begun_of(ledger, list(page))
            states = [row for row in changing.list_states(ledger, run_id, list(page)) if row[0] not in begun]
            ended = [item_id for item_id, state, _ in states if state in ENDED_ITEM_STATES]
            move_again(ledger, run_id, ended, cause=cause, now_us=now_us)
            changing.amend(ledger, amendments([page[item_id] for item_id, _, _ in states], place))
            let_run(ledger, list(page))
            want(ledger, [Candidate(item_id, ItemState.PENDING, 0) for item_id in ended], in_order=undo, now_us=now_us, of_successes=undo)
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
