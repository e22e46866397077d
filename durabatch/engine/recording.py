"""
One message on its way into the ledger: ends of items, attempts, results, spending, counters and batches.

Only items that the dispatch still holds are touched; a message that comes too late, or twice, changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from durabatch.codec import inline_digests, packed_digests
from durabatch.engine.active import ActiveRun
from durabatch.engine.digests import NewResults, settle
from durabatch.engine.owing import UNDO_AT_US, move_on_when_free, owe
from durabatch.engine.returned import FailedAttempt, FailureNote, Finished, Returned
from durabatch.engine.reuse import Cache
from durabatch.flow.retrying import AttemptEnd, Decision, ItemHistory, RetryPolicy, after_attempt
from durabatch.ledger import attempt, batch, item, result, run, suspect
from durabatch.ledger.connection import Connection
from durabatch.ledger.item import StoredItem
from durabatch.ledger.stretch import compact
from durabatch.states import AttemptOutcome, ItemState

__all__ = ["Recording"]

#: States of items that count as failed in their batch.
FAILED_STATES = frozenset({ItemState.FAILED, ItemState.CANCELLED, ItemState.QUARANTINED, ItemState.UNDONE})
#: Outcomes that leave a suspect a suspect: they say nothing about what it does to its worker.
UNPROVEN = frozenset({AttemptOutcome.INTERRUPTED, AttemptOutcome.CRASHED})
#: Decimals of an amount that are kept.
DECIMALS = 9

#: The fields of many successes, column by column.
Columns = list[Sequence[Any]]


class StaleDispatchError(Exception):
    """A dispatch sent back items that it does not hold any more."""


class Recording:
    """
    One message, inside a transaction: what ended in which batch, and what is still to be written.

    Args:
        cache: Learns the results; None when they are not to be used again.
    """

    def __init__(self, ledger: Connection, active: ActiveRun, returned: Returned, *, cache: Cache | None = None) -> None:
        self.cache = cache
        self.ledger = ledger
        self.active = active
        self.returned = returned
        self.finished = Finished()
        self.ended_in: Counter[int] = Counter()
        self.failed_in: Counter[int] = Counter()
        #: The batch of each of the successes at hand, and what their results add to it.
        self.batch_ids: list[int] = []
        self.new_results = NewResults()
        self.spent: dict[str, float] = {}
        #: Suspects, if there are any, that have shown that they end a try without harm to their worker.
        self.proven: list[int] = []

    def inline(self, now_us: int) -> int:
        """Record the successes whose values came as text; return how many."""
        columns = self.end_succeeded(self.returned.inline)
        if not columns:
            return 0
        self.add_attempts(columns)
        result.insert_inline(self.ledger, columns[0], columns[5])
        values = list(map(str.encode, columns[5]))
        self.new_results.add(self.batch_ids, map(len, values), inline_digests(columns[0], values))
        if self.cache is not None:
            self.cache.remember(columns[0], map(len, values), now_us)
        return len(columns[0])

    def packed(self, now_us: int) -> int:
        """Record the successes whose values lie in frames, and the frames; return how many."""
        columns = self.end_succeeded(self.returned.packed)
        if not columns:
            return 0
        segments = [result.insert_segment(self.ledger, *frame) for frame in self.returned.frames]
        self.add_attempts(columns)
        ids, frames, offsets, sizes = columns[0], columns[5], columns[6], columns[7]
        result.insert_packed(self.ledger, zip(ids, (segments[frame] for frame in frames), offsets, sizes, strict=True))
        digests = [frame[2] for frame in self.returned.frames]
        self.new_results.add(self.batch_ids, sizes, packed_digests(ids, map(digests.__getitem__, frames), offsets, sizes))
        if self.cache is not None:
            self.cache.remember(ids, sizes, now_us)
        return len(ids)

    def end_succeeded(self, rows: Sequence[tuple[Any, ...]]) -> Columns:
        """
        Move the items of *rows* to succeeded and return the columns of the rows whose items this dispatch held, nothing when it held none.

        The usual case costs one statement. Only when it changed fewer items than there are rows are they told apart, from the state before it.
        """
        if not rows:
            return []
        columns, dispatch_id = columns_of(rows), self.returned.dispatch_id
        try:
            with self.ledger.savepoint():
                end_all(self.ledger, columns[0], dispatch_id)
        except StaleDispatchError:
            held = item.held(self.ledger, columns[0], dispatch_id)
            rows = [row for row in rows if row[0] in held]
            if not rows:
                return []
            columns = columns_of(rows)
            item.succeed(self.ledger, columns[0], dispatch_id)
        self.batch_ids = list(map(self.returned.batch_of.__getitem__, columns[0]))
        count_into(self.ended_in, self.batch_ids)
        if self.active.grouped_count:
            self.proven += columns[0]
        return columns

    def add_attempts(self, columns: Columns) -> None:
        """Add the attempts of successes, with what they spent."""
        attempt.insert_succeeded(self.ledger, columns[:5], self.returned.peak_rss_bytes)
        if self.returned.spends:
            pairs = zip(columns[0], columns[1], strict=True)
            attempt.set_spent(
                self.ledger, [(item_id, number, spent) for item_id, number in pairs if (spent := self.spend(item_id)) is not None]
            )

    def spend(self, item_id: int) -> str | None:
        """Add what the attempt at an item spent to the sums; return it as JSON, None for nothing."""
        amounts = self.returned.spends.get(item_id)
        if not amounts:
            return None
        for unit, amount in amounts.items():
            self.spent[unit] = self.spent.get(unit, 0.0) + amount
        return to_json(amounts).decode()

    def failed(
        self, one: FailedAttempt, end: AttemptEnd, policy: RetryPolicy, now_us: int, luck: float, *, deaths: int = 0
    ) -> Decision | None:
        """
        Record one attempt that did not succeed and move its item on; return what was decided, None when the dispatch does not hold it.

        An item that left something behind waits until that is undone, and moves on then.

        Args:
            deaths: Workers that died of the item before.
        """
        item_id = one.row["item_id"]
        stored = item.get(self.ledger, item_id)
        if stored is None:
            return None
        decision = after_attempt(end, self.history(stored, one, deaths), policy, now_us=now_us, luck=luck)
        dispatch_id = self.returned.dispatch_id if one.dispatch_id is None else one.dispatch_id
        then = self.owed(stored, dispatch_id, decision, now_us) if self.active.undo_count else decision
        if not end_attempt(self.ledger, item_id, dispatch_id, then):
            return None
        row = {**explained(one, decision), "spent": self.spend(item_id)}
        if row.get("peak_rss_bytes") is None:
            row["peak_rss_bytes"] = self.returned.peak_rss_bytes
        attempt.insert_failed(self.ledger, row)
        self.note(one, row, then)
        if then is not decision:
            move_on_when_free(self.ledger, self.active, item_id, now_us, self.finished)
        return decision

    def owed(self, stored: StoredItem, dispatch_id: int, decision: Decision, now_us: int) -> Decision:
        """Have undone what the attempt did that has ended, if the dispatch holds its item; return what becomes of that meanwhile."""
        if stored.item_id not in item.held(self.ledger, [stored.item_id], dispatch_id):
            return decision
        return owe(self.ledger, self.active, stored.item_id, stored.attempt_count + 1, decision, now_us)

    def history(self, stored: StoredItem, one: FailedAttempt, deaths: int) -> ItemHistory:
        """Return what the item has behind it since somebody last asked to run it."""
        snoozes, started_at_us = 0, None
        if stored.attempt_count > stored.earlier_count:
            snoozes, started_at_us = attempt.history(self.ledger, stored.item_id, stored.earlier_count)
        first = one.row["started_at_us"] if started_at_us is None else started_at_us
        return ItemHistory(stored.attempt_count - stored.uncharged_count, snoozes, deaths, first)

    def note(self, one: FailedAttempt, row: Mapping[str, Any], decision: Decision) -> None:
        """Count what was decided."""
        item_id, state = row["item_id"], decision.state
        self.active.move(1, ItemState.RUNNING, state)
        self.finished.recorded += 1
        self.finished.ended_failed += state in (ItemState.FAILED, ItemState.QUARANTINED)
        self.finished.failures.append(FailureNote(item_id, AttemptOutcome(row["outcome"]), row.get("error_group"), state, one.after_s))
        if one.outcome not in UNPROVEN:
            self.proven.append(item_id)
        if decision.due_at_us is not None and decision.due_at_us < UNDO_AT_US:
            self.active.expect_due(decision.due_at_us)
        elif decision.due_at_us is None:
            batch_id = self.returned.batch_of[item_id]
            self.ended_in[batch_id] += 1
            self.failed_in[batch_id] += state in FAILED_STATES

    def close(self, now_us: int) -> None:
        """Write the counters of batches, the spending of the run, and who is no suspect any more."""
        active, ledger = self.active, self.ledger
        active.tally.attempts += self.finished.recorded
        ended = ((batch_id, count, self.failed_in[batch_id]) for batch_id, count in self.ended_in.items())
        settle(ledger, batch.add_ended(ledger, ended, now_us, results=self.new_results.by_batch()))
        if self.spent:
            for unit, amount in self.spent.items():
                active.spent[unit] = round(active.spent.get(unit, 0.0) + amount, DECIMALS)
            run.set_spent(ledger, active.run_id, active.spent)
        if active.grouped_count:
            suspect.acquit(ledger, self.proven)
            active.count_suspects(ledger)


def columns_of(rows: Sequence[tuple[Any, ...]]) -> Columns:
    """Return the columns of *rows*, of which there is at least one; the first one are ids."""
    ids, *others = zip(*rows, strict=True)
    return [compact(ids), *others]


def count_into(counts: Counter[int], batch_ids: Sequence[int]) -> None:
    """Count batches, at least one, that are mostly one and the same."""
    first = batch_ids[0]
    if batch_ids.count(first) == len(batch_ids):
        counts[first] += len(batch_ids)
    else:
        counts.update(batch_ids)


def end_all(ledger: Connection, item_ids: Sequence[int], dispatch_id: int) -> None:
    """Move *item_ids* to succeeded; StaleDispatchError when the dispatch does not hold all of them, with some of them moved."""
    if item.succeed(ledger, item_ids, dispatch_id) != len(item_ids):
        raise StaleDispatchError


def end_attempt(ledger: Connection, item_id: int, dispatch_id: int, decision: Decision) -> bool:
    """Give the item its next state, if the dispatch holds it."""
    return item.end_attempt(
        ledger, item_id, dispatch_id, state=decision.state, due_at_us=decision.due_at_us, uncharged=not decision.charged
    )


def explained(one: FailedAttempt, decision: Decision) -> dict[str, Any]:
    """Return the columns of the attempt, with the reason of a decision that is not the handler's; a snooze too many is a failure."""
    row = dict(one.row)
    if decision.why is None:
        return row
    if decision.state is ItemState.FAILED and one.outcome is AttemptOutcome.SNOOZED:
        failure = {"outcome": str(AttemptOutcome.FAILED), "error_type": "TooManySnoozes", "error_message": decision.why}
        return {**row, **failure, "error_group": f"TooManySnoozes: {decision.why}"}
    return {**row, "error_message": "; ".join(filter(None, (row.get("error_message"), decision.why)))}
