"""
What is to be undone is handed to workers, entry by entry, and what comes back is recorded.

    wanted ──claim──▶ undoing, with a dispatch ──finish──▶ undone │ waits for a further try │ failed │ irreversible
                            ▲                └──release, recover──▶ undoing, claimed again: actions bear being called twice
                            └───────────────────────────────────────┘

Within an item the newest entry comes first, and one at a time; items go beside each other, but for entries that have an order over all
items: of those one at a time, the newest first. Once nothing of an item is wanted, the item becomes what it was to become.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from durabatch.engine.active import ActiveRun
from durabatch.engine.owing import Remaining, move_on, move_on_when_free
from durabatch.engine.returned import FailedAttempt, Finished, Returned
from durabatch.flow.retrying import Decision, ItemHistory, RetryPolicy, after_attempt
from durabatch.ledger import undo
from durabatch.ledger.connection import Connection
from durabatch.ledger.undo import Claimed, Held
from durabatch.states import AttemptOutcome, ItemState, UndoState

__all__ = ["ClaimedStep", "FailedStep", "StepsFinished", "claim_steps", "finish_steps", "recover_steps", "release_steps"]

#: Bytes of arguments and contents of before in one dispatch; one step may exceed it alone.
DISPATCH_BYTES = 16 << 20
#: Entries without an order that are looked at for one to be undone beside one that has an order.
BESIDE = 100
#: More than there ever is.
MOST_BYTES = 1 << 62
#: What a worker says of an effect that cannot be taken back, as the type of its error.
IRREVERSIBLE = "Irreversible"
#: Characters of an error that are kept with an entry.
ERROR_LENGTH = 2000


class ClaimedStep(NamedTuple):
    """
    One entry for a worker to undo.

    Attributes:
        try_number: From 1; tries that were interrupted are not counted.
        key: Of the item.
        step_json: A :class:`~durabatch.workers.protocol.Step`.
        blob: What stood in the place of the effect, as it was recorded; None when it needs nothing.
    """

    undo_id: int
    try_number: int
    key: str
    step_json: str
    blob: bytes | None


class FailedStep(NamedTuple):
    """An entry whose last try has failed: the effect remains."""

    undo_id: int
    item_id: int
    key: str
    action: str
    error: str


@dataclass(slots=True)
class StepsFinished:
    """
    What was new in a message about steps.

    Attributes:
        recorded: Tries.
        undone: Entries that are undone now.
        ran: Those of them for which the action was called; for the others there was nothing to undo.
        failed: Entries that nobody tries again by himself.
        finished: What has ended by it, for those who count items.
    """

    recorded: int = 0
    undone: int = 0
    ran: int = 0
    failed: list[FailedStep] = field(default_factory=list)
    finished: Finished = field(default_factory=Finished)

    @property
    def ended(self) -> list[int]:
        """Items that ended by it."""
        return self.finished.ended


def claim_steps(
    ledger: Connection, active: ActiveRun, *, limit: int, dispatch_id: int, now_us: int, is_forced: bool = False
) -> list[ClaimedStep]:
    """
    Claim up to *limit* steps for one dispatch, newest first; empty when none is ready.

    One write transaction: when this returns, the entries are being undone on disk.

    Args:
        dispatch_id: Below zero, and new since the ledger was opened.
        is_forced: What was changed since is overwritten.
    """
    if limit < 1:
        return []
    with ledger.transaction():
        ready = list_ready(ledger, active, limit, now_us)
        steps = undo.claim(ledger, ready, dispatch_id) if ready else []
        active.next_step_at_us = 0 if ready else undo.next_due(ledger, active.run_id, now_us)
    return [ClaimedStep(one.undo_id, one.try_number, one.key, step_json(one, is_forced=is_forced), one.blob) for one in steps]


def list_ready(ledger: Connection, active: ActiveRun, limit: int, now_us: int) -> list[int]:
    """Return the entries to be undone next: without an order over all items, else the one whose turn it is and, beside it, one that has none."""
    # No item has more than one step out, so there is no use in looking for more of them.
    room = active.undoing_count - undo.count_out(ledger, active.run_id)
    if room < 1:
        return []
    if not active.ordered_count:
        found = undo.list_ready(ledger, active.run_id, limit=min(limit, room), max_bytes=DISPATCH_BYTES, now_us=now_us)
        return [undo_id for undo_id, _ in found]
    first = undo.first_in_order(ledger, active.run_id, now_us)
    ready = [] if first is None else undo.newest_of(ledger, [first])
    if active.wanted_count == active.ordered_count:
        return ready
    # What is kept back by an entry of its own item that has no order waits for that one, which must be found, wherever it stands.
    reach = BESIDE if first is None or ready else room
    others = undo.list_ready(ledger, active.run_id, limit=min(reach, room), max_bytes=MOST_BYTES, now_us=now_us)
    return (ready + undo.newest_of(ledger, others)[:1])[:limit]


def step_json(one: Claimed, *, is_forced: bool) -> str:
    """Return the step as JSON; the arguments go as they were recorded."""
    action, key = to_json(one.action).decode(), to_json(one.idempotency_key).decode()
    return f'{{"action":{action},"arguments":{one.arguments},"key":{key},"is_forced":{"true" if is_forced else "false"}}}'


def finish_steps(
    ledger: Connection, active: ActiveRun, returned: Returned, *, policy: RetryPolicy, now_us: int, luck: Callable[[], float]
) -> StepsFinished:
    """
    Record ends of steps, and what becomes of their items; return what was new.

    One write transaction. Only steps that the dispatch still holds are touched. A step whose worker died has failed like any other.

    Args:
        returned: Its ids are those of the entries, below zero.
        policy: Decides about further tries; nothing but their number and waits should be bounded by it.
        luck: Gives numbers from 0 to 1 for the waits before further tries.
    """
    done = StepsFinished()
    with ledger.transaction():
        for undo_id, _, _, _, _, value in returned.inline:
            if held := undo.get_held(ledger, -undo_id, returned.dispatch_id):
                undone(ledger, active, held, now_us, done)
                done.ran += has_run(value)
        for one in returned.failed:
            dispatch_id = returned.dispatch_id if one.dispatch_id is None else one.dispatch_id
            if held := undo.get_held(ledger, -one.row["item_id"], dispatch_id):
                failed(ledger, active, held, one, decided(one, held, policy, now_us, luck()), now_us, done)
    return done


def has_run(value: str) -> bool:
    """Tell whether a worker says that it called the action."""
    said = from_json(value)
    return not isinstance(said, dict) or said.get("ran") is not False


def undone(ledger: Connection, active: ActiveRun, held: Held, now_us: int, done: StepsFinished) -> None:
    """Record that an effect is taken back."""
    undo.finish(ledger, held.undo_id, now_us)
    done.recorded += 1
    done.undone += 1
    no_longer_wanted(active, 1, held.is_in_order)
    move_on_when_free(ledger, active, held.item_id, now_us, done.finished)


def no_longer_wanted(active: ActiveRun, count: int, ordered: int) -> None:
    """Count entries out of those that are to be undone; what they kept back may come now."""
    active.wanted_count -= count
    active.ordered_count -= ordered
    if active.wanted_count:
        active.expect_step()
    else:
        active.next_step_at_us = None


def decided(one: FailedAttempt, held: Held, policy: RetryPolicy, now_us: int, luck: float) -> Decision:
    """Return what follows a try that did not undo its effect; whatever it was but an interruption, it has failed."""
    end = one.end()
    if one.outcome is not AttemptOutcome.INTERRUPTED:
        is_timeout = one.outcome is AttemptOutcome.TIMED_OUT
        end = replace(end, outcome=AttemptOutcome.TIMED_OUT if is_timeout else AttemptOutcome.FAILED)
    return after_attempt(end, ItemHistory(held.try_count), policy, now_us=now_us, luck=luck)


def failed(
    ledger: Connection, active: ActiveRun, held: Held, one: FailedAttempt, decision: Decision, now_us: int, done: StepsFinished
) -> None:
    """Record a try that did not undo its effect: another one follows, or the effect remains."""
    done.recorded += 1
    error = error_of(one) if one.outcome is not AttemptOutcome.INTERRUPTED else None
    if one.row.get("error_type") == IRREVERSIBLE:
        undo.give_up(ledger, held.undo_id, UndoState.IRREVERSIBLE, error or IRREVERSIBLE, now_us)
        no_longer_wanted(active, 1, held.is_in_order)
        move_on_when_free(ledger, active, held.item_id, now_us, done.finished)
    elif decision.state is not ItemState.FAILED:
        due_at_us = decision.due_at_us or 0
        undo.put_off(ledger, held.undo_id, due_at_us=due_at_us, error=error, charged=decision.charged)
        active.expect_step(due_at_us)
    else:
        undo.give_up(ledger, held.undo_id, UndoState.FAILED, error or "", now_us)
        no_longer_wanted(active, 1, held.is_in_order)
        no_longer_wanted(active, *undo.unwant(ledger, held.item_id, now_us))
        done.failed.append(FailedStep(held.undo_id, held.item_id, held.key, held.action, error or ""))
        move_on(ledger, active, held.item_id, now_us, done.finished, remaining(held, one, error or ""))


def error_of(one: FailedAttempt) -> str:
    """Return what was wrong with a try, in one text."""
    kind, message = one.row.get("error_type"), one.row.get("error_message") or ""
    return (f"{kind}: {message}" if kind else message or str(one.outcome))[:ERROR_LENGTH]


def remaining(held: Held, one: FailedAttempt, error: str) -> Remaining:
    """Return what the item's attempts are to say about the effect that remains."""
    row: dict[str, Any] = {**one.row, "spent": None}
    group = one.row.get("error_group") or one.row.get("error_type") or one.outcome
    return Remaining(f"{held.action}: {error}", f"{held.action}: {group}", row)


def release_steps(ledger: Connection, active: ActiveRun, dispatch_id: int, item_ids: Sequence[int]) -> int:
    """
    Take back those of the steps, given by the ids of their entries below zero, that the dispatch holds and has not begun; return how many.

    One write transaction: when this returns, they can be claimed again.
    """
    if not item_ids:
        return 0
    with ledger.transaction():
        count = undo.release(ledger, [-item_id for item_id in item_ids], dispatch_id)
        if count:
            active.expect_step()
    return count


def recover_steps(ledger: Connection) -> int:
    """
    Take back every step, of whatever run, that was with a worker when a coordinator died; return how many there were.

    One write transaction. Must be called only when no worker is alive; a second call finds nothing to do.
    """
    with ledger.transaction():
        return undo.recover(ledger)
