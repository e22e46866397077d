"""
A coordinator takes the ledger, and a run begins or goes on.
"""

from __future__ import annotations

from durabatch.engine.steer import expire
from durabatch.ledger import event, run
from durabatch.ledger.connection import Connection

__all__ = ["create_run", "open_session", "reopen", "reopen_over", "resume_run"]


def open_session(ledger: Connection, about: dict[str, object], *, now_us: int) -> int:
    """
    Note that this coordinator has the ledger, as the first thing it does; return the epoch that fences all later transactions.

    The commit is also the recovery barrier: what SQLite found in the log after a crash is made durable by it, so that nothing is acted on
    or shown that a power cut could still take back.
    """
    with ledger.transaction():
        ledger.epoch = event.record(ledger, "opened", run_id=None, now_us=now_us, **about)
    ledger.checkpoint(truncate=True)
    return ledger.epoch


def create_run(
    ledger: Connection, *, series: str, handler: object, source: object, fingerprint: object, settings: object, now_us: int,
    provenance: object = None, is_open: bool = False, is_transaction: bool = False,
) -> int:  # fmt: skip
    """Add a run to *series* and return its id; one that *is_open* takes items from any process, the items of a transaction its program does."""
    with ledger.transaction():
        run_id = run.insert(
            ledger, series=series, handler=handler, source=source, fingerprint=fingerprint, settings=settings, provenance=provenance or {},
            is_open=is_open, is_transaction=is_transaction, now_us=now_us,
        )  # fmt: skip
        event.record(ledger, "created", run_id=run_id, now_us=now_us)
    return run_id


def resume_run(
    ledger: Connection, run_id: int, *, handler: object, settings: object, fingerprint: object, now_us: int, source: object = None,
    provenance: object = None,
) -> None:  # fmt: skip
    """
    Take a stopped, crashed or finished run up again with the settings of this call, and the input as it was found to be; what is None stays.

    Orders that its earlier coordinator has left open are settled as not carried out.
    """
    with ledger.transaction():
        expire(ledger, run_id, now_us)
        run.reopen(ledger, run_id, handler=handler, settings=settings, fingerprint=fingerprint, source=source, provenance=provenance)
        event.record(ledger, "resumed", run_id=run_id, now_us=now_us)


def reopen(ledger: Connection, run_id: int, *, now_us: int) -> None:
    """Take a run up again as it is recorded, to undo what it did; orders that its earlier coordinator has left open are settled."""
    with ledger.transaction():
        expire(ledger, run_id, now_us)
        row = run.get(ledger, run_id)
        run.reopen(ledger, run_id, handler=row.handler, settings=row.settings)
        event.record(ledger, "rolling_back", run_id=run_id, now_us=now_us)


def reopen_over(ledger: Connection, run_id: int) -> None:
    """Have a run that is over go on, with its recorded handler and settings; any other stays as it is."""
    row = run.get(ledger, run_id)
    if row.finished_at_us is not None:
        run.reopen(ledger, run_id, handler=row.handler, settings=row.settings)
