"""
What items did is to be undone: which items, what that means for each, and what remains when it is over.

    choose  →  entries wanted, items that had none undone at once  →  steps, newest first  →  undone, or what remains is told

Nothing is undone here: that is done in workers, step by step, and recorded by :mod:`durabatch.engine.steps`. What is wanted stands in the
ledger, so that a rollback that was cut off goes on from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from durabatch.engine.active import ActiveRun
from durabatch.engine.owing import become_undone
from durabatch.engine.redo import Again
from durabatch.engine.scope import Scope, Selection, select
from durabatch.engine.wanting import WAITING, want
from durabatch.ledger import changing, event, item, rollback, run, undo
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.rollback import Candidate
from durabatch.ledger.run import Tally
from durabatch.models import Unresolved
from durabatch.states import ENDED_ITEM_STATES, ItemState

__all__ = [
    "Chosen", "PlannedStep", "Scope", "abandon", "choose", "count_unresolved", "is_rolled_back", "planned", "undo_broken_batch", "unresolved",
]  # fmt: skip

#: Entries or items looked at together.
PAGE = 5000


class PlannedStep(NamedTuple):
    """
    What a rollback would undo.

    Attributes:
        key: Of the item, *batch* the number of its batch.
        attempt: The one that did it.
        arguments: Of the action, as JSON text.
        state: ``recorded``, ``undoing``, ``failed`` (it is tried again), or ``irreversible``: that one is not undone.
    """

    undo_id: int
    key: str
    batch: int | None
    attempt: int
    action: str
    arguments: str
    state: str
    recorded_at_us: int


@dataclass(slots=True)
class Chosen:
    """
    What is to be undone.

    Attributes:
        items: Items that are undone when every step succeeds, or run again then; *plain* ones of them had no effect and are so already.
        steps: Effects that are to be undone, those among them that already were to be.
        irreversible: Effects of these items that cannot be undone.
    """

    items: int = 0
    steps: int = 0
    irreversible: int = 0
    plain: int = 0


def planned(executor: Executor, run_id: int, scope: Scope) -> Iterator[PlannedStep]:
    """
    Yield what a rollback would undo, in its order: newest first. Nothing is changed, and memory does not grow with the number.

    Effects that cannot be undone stand among them with their state, and so do those of items that were cut off at work.

    Raises:
        NotFoundError: There is no such batch, checkpoint or key.
        SqlError: The expression is wrong.
    """
    selection = select(executor, run_id, scope)
    before = rollback.BEHIND_ALL
    while page := planned_page(executor, selection, before):
        kept = set(selection.kept(sorted({row.item_id for row in page})))
        yield from (PlannedStep(row.undo_id, *row[2:]) for row in page if row.item_id in kept)
        before = page[-1].undo_id


def planned_page(executor: Executor, selection: Selection, before: int) -> list[rollback.PlannedRow]:
    """Return the next entries before the id *before*, those left out that batch, keys or place rule out."""
    return rollback.list_planned(
        executor, selection.run_id, before=before, from_item_id=selection.first_item_id, batch=selection.scope.batch,
        item_ids=selection.key_ids, limit=PAGE,
    )  # fmt: skip


def choose(ledger: Connection, run_id: int, scope: Scope, *, in_order: bool, then: str = ItemState.UNDONE, now_us: int) -> Chosen:
    """
    Have everything undone that the chosen items did; what had failed to be undone is tried again.

    One write transaction. Items that have ended stay what they are until their effects are undone, and become ``undone`` then; succeeded ones
    without effects do so at once. Items that wait for their turn wait until then. Items that are with a worker stay as they are. Memory does
    not grow with the number of items. Whoever has the run in memory (:class:`~durabatch.engine.active.ActiveRun`) must write its tally before
    and reload it after.

    Args:
        in_order: One step at a time, newest first over all items; else items beside each other.
        then: ``undone``, or ``pending``: all items that have ended wait at once, and run again when their effects are undone.

    Raises:
        NotFoundError: There is no such batch, checkpoint or key. Nothing was changed.
        SqlError: The expression is wrong. Nothing was changed.
    """
    is_again = then == ItemState.PENDING
    chosen, moved = Chosen(), Counter[str]()
    with ledger.transaction():
        again = Again(ledger, run_id, "redone", now_us, undo=True)
        for page in select(ledger, run_id, scope).pages(sorted(ENDED_ITEM_STATES) if is_again else [ItemState.SUCCEEDED]):
            if is_again:
                run_page_again(ledger, page, chosen, again)
            else:
                moved.update(undo_page(ledger, run_id, page, chosen, in_order=in_order, now_us=now_us))
        again.count()
        count_undone(ledger, run_id, moved)
        event.record(
            ledger, "chosen_to_undo", run_id=run_id, now_us=now_us, items=chosen.items, steps=chosen.steps, then=str(then), in_order=in_order,
        )  # fmt: skip
    return chosen


def undo_page(
    ledger: Connection, run_id: int, page: Sequence[Candidate], chosen: Chosen, *, in_order: bool, now_us: int
) -> Counter[str]:
    """Have what these items did undone; return the states of those that did nothing, and are undone now."""
    wanted = want(ledger, page, in_order=in_order, now_us=now_us)
    if wanted.scheduled:
        run.add(ledger, run_id, moving(wanted.scheduled, ItemState.SCHEDULED, ItemState.PENDING))
    plain = [one.item_id for one in page if one.item_id not in wanted.item_ids]
    note(ledger, chosen, page, len(wanted.item_ids) + len(plain), wanted.steps, len(plain))
    return become_undone(ledger, run_id, plain, now_us)


def run_page_again(ledger: Connection, page: Sequence[Candidate], chosen: Chosen, again: Again) -> None:
    """Have these items run again, and what they did undone before."""
    waiting = want(ledger, [one for one in page if one.state in WAITING], in_order=True, now_us=again.now_us)
    if waiting.scheduled:
        run.add(ledger, again.run_id, moving(waiting.scheduled, ItemState.SCHEDULED, ItemState.PENDING))
    # Those that the input has lost stay out.
    ended = changing.list_ended(ledger, again.run_id, [one.item_id for one in page]) if page else []
    steps = again.take(ended)
    note(ledger, chosen, page, len(waiting.item_ids) + len(ended), waiting.steps + steps, 0)


def note(ledger: Connection, chosen: Chosen, page: Sequence[Candidate], items: int, steps: int, plain: int) -> None:
    """Count what was chosen of a page."""
    chosen.items += items
    chosen.steps += steps
    chosen.plain += plain
    chosen.irreversible += rollback.count_irreversible(ledger, [one.item_id for one in page]) if page else 0


def moving(number: int, source: ItemState, target: ItemState) -> Tally:
    """Return what *number* items that move change of the counters."""
    tally = Tally()
    tally.move(number, source, target)
    return tally


def count_undone(ledger: Connection, run_id: int, moved: Counter[str]) -> None:
    """Count items that are undone by the states that they were in."""
    for state, number in moved.items():
        run.add(ledger, run_id, moving(number, ItemState(state), ItemState.UNDONE))


def undo_broken_batch(ledger: Connection, active: ActiveRun, batch_id: int, now_us: int) -> Chosen:
    """
    Have all of a batch undone when one of its items has failed for good; any other batch is left alone.

    One write transaction. What succeeded becomes ``undone`` once its effects are undone, what waits for its turn does not get it. Items that are
    with workers stay, so that this is called again when they come back. What could not be undone is not tried again.
    """
    chosen = Chosen()
    bounds = rollback.broken_batch(ledger, batch_id)
    if bounds is None:
        return chosen
    with ledger.transaction():
        start, last = bounds
        while page := rollback.list_broken_items(ledger, start, last, batch_id, PAGE):
            undo_broken_page(ledger, active, page, chosen, now_us)
            start = page[-1].item_id + 1
        if chosen.items:
            active.next_due_at_us = item.next_due(ledger, active.run_id)
            active.count_suspects(ledger)
            active.count_undo(ledger)
    return chosen


def undo_broken_page(ledger: Connection, active: ActiveRun, page: Sequence[Candidate], chosen: Chosen, now_us: int) -> None:
    """Have these items of a broken batch undone."""
    wanted = want(ledger, [one for one in page if not one.waits], in_order=False, now_us=now_us)
    active.move(wanted.scheduled, ItemState.SCHEDULED, ItemState.PENDING)
    doomed = [*wanted.aside, *(one.item_id for one in page if one.waits)]
    if doomed:
        rollback.doom(ledger, doomed)
    plain = [one.item_id for one in page if one.item_id not in wanted.item_ids and not one.waits]
    for state, number in become_undone(ledger, active.run_id, plain, now_us).items():
        active.move(number, ItemState(state), ItemState.UNDONE)
    note(ledger, chosen, page, len(wanted.item_ids) + len(plain), wanted.steps, len(plain))


def abandon(ledger: Connection, active: ActiveRun, now_us: int) -> int:
    """
    Give up what is left of a rollback; return how many effects stay that were to be undone.

    One write transaction. Items of which a worker undoes a step go on to their end and, unless there is an order over all of them, so do those
    that are half undone; all others stay what they are. In order, what is left of a half undone item counts as failed, so that it is listed.
    What failed attempts have left is undone all the same, and so is what is undone before an item runs again.
    """
    left, after = 0, 0
    with ledger.transaction():
        while page := rollback.list_given_up(ledger, active.run_id, after, PAGE):
            left += rollback.fail_half_undone(ledger, page, now_us) + rollback.unwant(ledger, page)
            rollback.keep_items(ledger, page)
            after = page[-1]
        if left:
            event.record(ledger, "rollback_given_up", run_id=active.run_id, now_us=now_us, steps=left)
        active.count_undo(ledger)
    return left


def unresolved(executor: Executor, run_id: int, limit: int) -> list[Unresolved]:
    """
    Return the newest *limit* effects of a run that were to be undone and remain: failed ones and those before them, and irreversible ones of items that did not succeed.

    While nobody works on the run, those at which somebody was belong to them.
    """
    return rollback.list_unresolved(executor, run_id, limit)[0]


def count_unresolved(executor: Executor, run_id: int) -> int:
    """Return how many of them there are."""
    return rollback.list_unresolved(executor, run_id, 1)[1]


def is_rolled_back(executor: Executor, run_id: int) -> bool:
    """Tell whether nothing is left of what the run did but what cannot be undone: no item is succeeded, and no effect is wanted or has failed to be undone."""
    if run.get(executor, run_id).succeeded_count:
        return False
    return undo.count_wanted(executor, run_id) == (0, 0) and not rollback.count_unresolved(executor, run_id, is_live=False)
