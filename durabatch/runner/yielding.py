"""
What ``map`` yields: the results of a session as they come, or in input order; each is on disk before it is yielded.
"""

from __future__ import annotations

from collections.abc import Iterator

from durabatch.engine import results as reading
from durabatch.errors import RunHaltedError
from durabatch.ledger.connection import Connection
from durabatch.ledger.reader import Reader
from durabatch.models import Result, Summary
from durabatch.runner.session import Session
from durabatch.states import ENDED_ITEM_STATES, RunState

__all__ = ["yielded"]


def yielded(session: Session, *, ordered: bool) -> Iterator[Result]:
    """
    Drive *session* and yield what ended; leaving the loop drains it and frees the ledger.

    Raises:
        RunHaltedError: The run stopped before its end. KeyboardInterrupt, SystemExit: by a signal.
    """
    order = InOrder() if ordered else None
    ticks = session.ticks()
    is_first = True
    try:
        for ledger, ended in ticks:
            if order is not None:
                yield from order.ready(ledger, session.run_id)
                continue
            if is_first:
                yield from recorded_before(ledger, session.run_id, set(ended))
                is_first = False
            yield from ended_results(ledger, ended)
    finally:
        ticks.close()
    summary = session.summary
    if summary is None:
        return
    if is_first:
        with Reader(session.request.ledger) as reader:
            yield from rest(reader, summary.status.run_id, 0 if order is None else order.count)
    raise_for(summary)


def raise_for(summary: Summary) -> None:
    """Raise what a loop over results must not miss: that the run stopped before its end."""
    if summary.exit_code == 130:
        raise KeyboardInterrupt
    if summary.exit_code > 128:
        raise SystemExit(summary.exit_code)
    if summary.exit_code == 3:
        raise RunHaltedError(f"run {summary.status.name} halted: {summary.status.reason}", "The same call goes on.")
    if summary.status.state == RunState.ROLLED_BACK:
        raise RunHaltedError(
            f"run {summary.status.name} was rolled back: {summary.status.reason}", "`fresh=True` starts the next run of that name."
        )
    if summary.status.state == RunState.CANCELLED:
        raise RunHaltedError(
            f"run {summary.status.name} is cancelled: {summary.status.reason}", "`fresh=True` starts the next run of that name."
        )


def recorded_before(ledger: Connection, run_id: int, now_ended: set[int]) -> Iterator[Result]:
    """Yield the items that had ended before this call, in input order."""
    reader = reading.ValueReader(ledger)
    for row in reading.rows_of_run(ledger, run_id):
        if row.state in ENDED_ITEM_STATES and row.item_id not in now_ended:
            yield reader.result(row)


def ended_results(ledger: Connection, item_ids: list[int]) -> Iterator[Result]:
    """Yield those of the items that have ended for good; others wait for another attempt."""
    if item_ids:
        yield from (one for one in reading.chosen(ledger, list(item_ids)) if one.state in ENDED_ITEM_STATES)


def rest(reader: Reader, run_id: int, count: int) -> Iterator[Result]:
    """Yield what ended behind the first *count* items of a run that nobody works on any more."""
    yield from (one for index, one in enumerate(reading.results(reader, run_id)) if index >= count and one.state in ENDED_ITEM_STATES)


class InOrder:
    """Yields results in input order, as far as they are known."""

    def __init__(self) -> None:
        self.next_item_id = 1
        self.count = 0

    def ready(self, ledger: Connection, run_id: int) -> Iterator[Result]:
        """Yield the ended items that follow the ones yielded before, up to the first that has not ended."""
        reader = reading.ValueReader(ledger)
        for row in reading.rows_of_run(ledger, run_id, first_item_id=self.next_item_id):
            if row.state not in ENDED_ITEM_STATES:
                return
            self.next_item_id = row.item_id + 1
            self.count += 1
            yield reader.result(row)
