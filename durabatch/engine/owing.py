"""
What an attempt left behind that did not succeed is undone, before anything else becomes of its item.

    an attempt fails, has promised something  ──▶  owed: waits, its entries are wanted  ──▶  undone   ──▶  what was decided: again, failed, …
                                                                                        ──▶  remains  ──▶  failed, with an attempt that says so

That holds for every outcome but success. An effect that cannot be taken back at all remains: its item has failed, whatever was decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from durabatch.engine.active import ActiveRun, load
from durabatch.engine.digests import settle
from durabatch.engine.returned import Finished
from durabatch.flow.retrying import Decision
from durabatch.ledger import attempt, batch, changing, item, result_history, run, suspect, undo
from durabatch.ledger.changing import HELD_AT_US
from durabatch.ledger.connection import Connection
from durabatch.ledger.item import StoredItem
from durabatch.ledger.undo import UNDO_AT_US
from durabatch.states import AttemptOutcome, ItemState

__all__ = ["UNDO_AT_US", "Remaining", "become_undone", "interrupt_begun", "move_on", "move_on_when_free", "owe", "owe_interrupted"]

#: States of items that count as failed, for those who count failures.
BROKEN = (ItemState.FAILED, ItemState.QUARANTINED)


class Remaining(NamedTuple):
    """
    An effect that is not undone.

    Attributes:
        why: The action, and what was wrong.
        group: The same for errors that differ only in numbers, names and places.
        row: Columns of the attempt that says so, as far as they are known.
    """

    why: str
    group: str
    row: Mapping[str, Any]


def owe(ledger: Connection, active: ActiveRun, item_id: int, number: int, decision: Decision, now_us: int) -> Decision:
    """
    Have undone what an attempt did that did not succeed, and return what becomes of its item meanwhile; *decision* when it did nothing.

    Inside a transaction, before the item is moved. Once it is, and its attempt is recorded, :func:`move_on` must be called when nothing of
    the item is wanted: it cannot be undone.
    """
    wanted = undo.want_attempt(ledger, item_id, number, now_us)
    if not wanted and undo.first_irreversible(ledger, item_id, number - 1) is None:
        return decision
    undo.insert_undoing(ledger, active.run_id, item_id, decision.state, decision.due_at_us)
    active.wanted_count += wanted
    active.undoing_count += 1
    if wanted:
        active.expect_step()
    return replace(decision, state=ItemState.PENDING, due_at_us=UNDO_AT_US)


def owe_interrupted(ledger: Connection, run_id: int, item_ids: Sequence[int], now_us: int) -> None:
    """
    Have undone what the last attempts of these items did, which were interrupted: they are pending, and the attempts on record.

    Inside a transaction. Nobody may have the run in memory.
    """
    active, finished = load(ledger, run_id), Finished()
    for item_id in item_ids:
        stored = item.get(ledger, item_id)
        if stored is not None:
            owe(ledger, active, item_id, stored.attempt_count, Decision(ItemState.PENDING, 0, charged=False), now_us)
            undo.let_run(ledger, [item_id])
            move_on_when_free(ledger, active, item_id, now_us, finished)
    active.write_tally(ledger)


def interrupt_begun(ledger: Connection, active: ActiveRun, dispatch_id: int, item_ids: Sequence[int], now_us: int) -> list[int]:
    """
    Tell those of *item_ids*, which come back from a dispatch as not begun, that had begun: they have promised something.

    Inside a transaction. Their attempts are interrupted, and what they did is undone before they run again.
    """
    found = undo.begun_of(ledger, item_ids, dispatch_id)
    attempt.insert_begun(ledger, found)
    for item_id in found:
        stored = item.get(ledger, item_id)
        number = 1 if stored is None else stored.attempt_count + 1
        after = owe(ledger, active, item_id, number, Decision(ItemState.PENDING, 0, charged=False), now_us)
        item.end_attempt(ledger, item_id, dispatch_id, state=after.state, due_at_us=after.due_at_us, uncharged=True)
        active.move(1, ItemState.RUNNING, ItemState.PENDING)
        active.tally.attempts += 1
        move_on_when_free(ledger, active, item_id, now_us, Finished())
    return found


def move_on_when_free(ledger: Connection, active: ActiveRun, item_id: int, now_us: int, finished: Finished) -> None:
    """Move an item on if nothing of it is to be undone any more."""
    if not undo.has_wanted(ledger, item_id):
        move_on(ledger, active, item_id, now_us, finished)


def move_on(
    ledger: Connection, active: ActiveRun, item_id: int, now_us: int, finished: Finished, remaining: Remaining | None = None
) -> None:
    """
    Have an item become what it was to become once nothing of it is to be undone any more; one that waits for nothing stays as it is.

    Inside a transaction, after the last entry of it has ended.

    Args:
        finished: Takes what has ended by it.
        remaining: What is not undone; None when everything is that can be.
    """
    then, stored = undo.get_undoing(ledger, item_id), item.get(ledger, item_id)
    if then is None or stored is None:
        return
    undo.remove_undoing(ledger, item_id)
    active.undoing_count -= 1
    if stored.due_at_us != UNDO_AT_US:
        # It had ended, and stays what it is if that is what it is to be, or if something remains.
        if remaining is None and then[0] == ItemState.UNDONE:
            become_undone(ledger, active.run_id, [item_id], now_us)
            active.move(1, ItemState(stored.state), ItemState.UNDONE)
        return
    found = remaining or irreversible(ledger, stored, now_us)
    if found is None:
        go_on(ledger, active, stored, ItemState(then[0]), then[1], now_us, finished)
    else:
        add_attempt(ledger, active, stored, found)
        item.end_undo(ledger, item_id, state=ItemState.FAILED, due_at_us=None, with_attempt=True)
        count_ended(ledger, active, stored, ItemState.FAILED, now_us, finished)


def go_on(
    ledger: Connection, active: ActiveRun, stored: StoredItem, then: ItemState, due_at_us: int | None, now_us: int, finished: Finished
) -> None:
    """Have an item that has waited become what was decided about it."""
    if then is ItemState.UNDONE:
        become_undone(ledger, active.run_id, [stored.item_id], now_us)
        active.move(1, ItemState.PENDING, then)
        finished.ended.append(stored.item_id)
        return
    item.end_undo(ledger, stored.item_id, state=then, due_at_us=due_at_us, with_attempt=False)
    if due_at_us is None:
        count_ended(ledger, active, stored, then, now_us, finished)
        return
    active.move(1, ItemState.PENDING, then)
    if due_at_us >= HELD_AT_US:
        active.held_count += 1
    else:
        active.expect_due(due_at_us)
    if active.grouped_count:
        active.count_suspects(ledger)


def irreversible(ledger: Connection, stored: StoredItem, now_us: int) -> Remaining | None:
    """Return what an item did, since somebody last asked to run it, that cannot be undone; None when there is nothing."""
    action = undo.first_irreversible(ledger, stored.item_id, stored.earlier_count)
    if action is None:
        return None
    why = f"{action!r} cannot be undone"
    return Remaining(why, why, {"worker": 0, "started_at_us": now_us, "duration_us": 0})


def add_attempt(ledger: Connection, active: ActiveRun, stored: StoredItem, remaining: Remaining) -> None:
    """Record that an item has failed because of what remains of it."""
    message = f"effects remain: {remaining.why}"
    row = {
        "item_id": stored.item_id, "number": stored.attempt_count + 1, "outcome": str(AttemptOutcome.FAILED), "error_type": "UndoError",
        "error_message": message, "error_group": f"UndoError: effects remain: {remaining.group}",
    }  # fmt: skip
    attempt.insert_failed(ledger, {**remaining.row, **row})
    active.tally.attempts += 1


def count_ended(ledger: Connection, active: ActiveRun, stored: StoredItem, state: ItemState, now_us: int, finished: Finished) -> None:
    """Count an item that has waited and has ended now."""
    active.move(1, ItemState.PENDING, state)
    settle(ledger, batch.add_ended(ledger, [(stored.batch_id or 0, 1, int(state is not ItemState.SKIPPED))], now_us))
    finished.ended.append(stored.item_id)
    finished.ended_failed += state in BROKEN
    if active.grouped_count:
        suspect.acquit(ledger, [stored.item_id])
        active.count_suspects(ledger)


def become_undone(ledger: Connection, run_id: int, item_ids: Sequence[int], now_us: int) -> Counter[str]:
    """
    Make these items undone, none of which is with a worker, and return how many there were of each state before.

    Inside a transaction. All that they did must be undone, or cannot be. Their results are results of before, their batches are to be written
    out again. Who calls it counts them for the run.
    """
    if not item_ids:
        return Counter()
    before = Counter(state for _, state, _ in changing.list_states(ledger, run_id, item_ids))
    if batch.any_published(ledger, item_ids):
        run.restart_output(ledger, run_id)
    result_history.move(ledger, item_ids, "undone", now_us)
    changing.undo(ledger, item_ids, now_us)
    suspect.remove(ledger, item_ids)
    return before
