"""
What a worker sent back is recorded: ends of items, attempts, results, counters and batches, together.

One write transaction: when this returns, the results are on disk. Only items that the dispatch still holds are touched; a message that
comes too late, or twice, changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from durabatch.engine.active import ActiveRun
from durabatch.flow.retrying import Decision, after_attempt
from durabatch.ledger import attempt, batch, item, result
from durabatch.ledger.connection import Connection
from durabatch.states import AttemptOutcome, ItemState

__all__ = ["FailedAttempt", "PackedFrame", "PackedResult", "Returned", "finish"]

#: (item_id, attempt number, worker, started_at_us, duration_us, value as JSON text)
InlineResult = tuple[int, int, int, int, int, str]
#: (item_id, attempt number, worker, started_at_us, duration_us, index of the frame, offset, bytes)
PackedResult = tuple[int, int, int, int, int, int, int, int]
#: (batch_id, raw bytes, SHA-256 of them, frame)
PackedFrame = tuple[int, int, bytes, bytes]

#: States of items that count as failed in their batch.
FAILED_STATES = frozenset({ItemState.FAILED, ItemState.CANCELLED, ItemState.QUARANTINED, ItemState.UNDONE})


Row = TypeVar("Row", bound=tuple[Any, ...])


class StaleDispatchError(Exception):
    """A dispatch sent back items that it does not hold any more."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that did not succeed, with the columns of its row and whether another try makes sense."""

    outcome: AttemptOutcome
    retryable: bool
    row: Mapping[str, Any]


@dataclass(slots=True)
class Returned:
    """What came back from one dispatch."""

    dispatch_id: int
    inline: Sequence[InlineResult] = ()
    packed: Sequence[PackedResult] = ()
    frames: Sequence[PackedFrame] = ()
    failed: Sequence[FailedAttempt] = ()
    batch_of: Mapping[int, int] = field(default_factory=dict)

    def item_ids(self) -> list[int]:
        """Return the ids of all items in it."""
        ids = [row[0] for row in self.inline]
        ids += [row[0] for row in self.packed]
        ids += [one.row["item_id"] for one in self.failed]
        return ids


def finish(ledger: Connection, active: ActiveRun, returned: Returned, *, max_attempts: int, now_us: int) -> int:
    """
    Record *returned* and return how many attempts of it were new.

    Successes end their items. What follows another outcome is decided by :func:`durabatch.flow.retrying.after_attempt`.
    """
    with ledger.transaction():
        ended: Counter[int] = Counter()
        failed: Counter[int] = Counter()
        recorded = record_inline(ledger, returned, ended) + record_packed(ledger, returned, ended)
        active.move(recorded, ItemState.RUNNING, ItemState.SUCCEEDED)
        for one in returned.failed:
            recorded += record_failed(ledger, active, returned, one, ended, failed, max_attempts)
        active.tally.attempts += recorded
        batch.add_ended(ledger, ((batch_id, count, failed[batch_id]) for batch_id, count in ended.items()), now_us)
    return recorded


def record_inline(ledger: Connection, returned: Returned, ended: Counter[int]) -> int:
    """Record the successes whose values came as text; return how many."""
    rows = returned.inline
    if not rows:
        return 0
    rows = end_succeeded(ledger, rows, returned.dispatch_id)
    if not rows:
        return 0
    ids = [row[0] for row in rows]
    attempt.insert_succeeded(ledger, rows)
    result.insert_inline(ledger, rows)
    ended.update(map(returned.batch_of.__getitem__, ids))
    return len(rows)


def record_packed(ledger: Connection, returned: Returned, ended: Counter[int]) -> int:
    """Record the successes whose values lie in frames, and the frames; return how many."""
    rows = returned.packed
    if not rows:
        return 0
    rows = end_succeeded(ledger, rows, returned.dispatch_id)
    if not rows:
        return 0
    ids = [row[0] for row in rows]
    segments = [result.insert_segment(ledger, *frame) for frame in returned.frames]
    attempt.insert_succeeded(ledger, rows)
    result.insert_packed(ledger, [(row[0], segments[row[5]], row[6], row[7]) for row in rows])
    ended.update(map(returned.batch_of.__getitem__, ids))
    return len(rows)


def end_succeeded(ledger: Connection, rows: Sequence[Row], dispatch_id: int) -> Sequence[Row]:
    """
    Move the items of *rows* to succeeded and return the rows whose items this dispatch held.

    The usual case costs one statement. Only when it changed fewer items than there are rows are they told apart, from the state before it.
    """
    ids = [row[0] for row in rows]
    try:
        with ledger.savepoint():
            end_all(ledger, ids, dispatch_id)
    except StaleDispatchError:
        held = item.held(ledger, ids, dispatch_id)
        rows = [row for row in rows if row[0] in held]
        if rows:
            item.succeed(ledger, [row[0] for row in rows], dispatch_id)
    return rows


def end_all(ledger: Connection, item_ids: Sequence[int], dispatch_id: int) -> None:
    """Move *item_ids* to succeeded; StaleDispatchError when the dispatch does not hold all of them, with some of them moved."""
    if item.succeed(ledger, item_ids, dispatch_id) != len(item_ids):
        raise StaleDispatchError


def record_failed(
    ledger: Connection,
    active: ActiveRun,
    returned: Returned,
    one: FailedAttempt,
    ended: Counter[int],
    failed: Counter[int],
    max_attempts: int,
) -> int:
    """Record one attempt that did not succeed and move its item on; return 1, or 0 when the dispatch does not hold it."""
    item_id = one.row["item_id"]
    stored = item.get(ledger, item_id)
    if stored is None:
        return 0
    charged_count = stored.attempt_count - stored.uncharged_count
    decision = after_attempt(one.outcome, charged_count=charged_count, max_attempts=max_attempts, retryable=one.retryable)
    if not move_on(ledger, item_id, returned.dispatch_id, decision):
        return 0
    attempt.insert_failed(ledger, one.row)
    active.move(1, ItemState.RUNNING, decision.state)
    if decision.due_at_us is not None:
        active.may_have_due = True
    else:
        batch_id = returned.batch_of[item_id]
        ended[batch_id] += 1
        failed[batch_id] += decision.state in FAILED_STATES
    return 1


def move_on(ledger: Connection, item_id: int, dispatch_id: int, decision: Decision) -> bool:
    """Give the item its next state, if the dispatch holds it."""
    return item.end_attempt(
        ledger, item_id, dispatch_id, state=decision.state, due_at_us=decision.due_at_us, uncharged=not decision.charged
    )
