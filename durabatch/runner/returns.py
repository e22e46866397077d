"""
What workers send, in the terms of the engine.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping

from durabatch.engine.finish import FailedAttempt, Returned
from durabatch.runner.pool import Died
from durabatch.states import AttemptOutcome
from durabatch.workers.protocol import Failure, Flush

__all__ = ["crashed", "death_text", "interrupted", "of_flush", "seconds_of"]


def of_flush(flush: Flush, batch_of: Mapping[int, int]) -> Returned:
    """Return the content of a flush."""
    return Returned(
        flush.dispatch_id,
        inline=flush.succeeded,
        packed=flush.packed,
        frames=[(frame.batch_id, frame.raw_bytes, frame.digest, frame.data) for frame in flush.frames],
        failed=[of_failure(failure) for failure in flush.failed],
        batch_of=batch_of,
    )


def of_failure(failure: Failure) -> FailedAttempt:
    """Return one failure with the columns of its row."""
    row = {
        "item_id": failure.item_id,
        "number": failure.number,
        "worker": failure.worker,
        "outcome": failure.outcome,
        "started_at_us": failure.started_at_us,
        "duration_us": failure.duration_us,
        "error_type": failure.error_type,
        "error_message": failure.message,
        "traceback": failure.traceback,
        "exit_code": failure.exit_code,
        "stdout_tail": failure.stdout_tail,
        "stderr_tail": failure.stderr_tail,
    }
    return FailedAttempt(AttemptOutcome(failure.outcome), failure.retryable, row)


def crashed(event: Died, now_us: int) -> FailedAttempt:
    """Return the attempt that a dead worker was at."""
    texts = {"error_type": "WorkerCrashed", "error_message": death_text(event.status), "stderr_tail": event.tail or None, "exit_code": event.status}
    return ended_by_death(event, AttemptOutcome.CRASHED, now_us, **texts)


def interrupted(event: Died, now_us: int) -> FailedAttempt:
    """Return the attempt that a worker was at when it was told to stop."""
    return ended_by_death(event, AttemptOutcome.INTERRUPTED, now_us)


def ended_by_death(event: Died, outcome: AttemptOutcome, now_us: int, **texts: object) -> FailedAttempt:
    """Return the attempt in the cell of a worker that is gone."""
    cell = event.cell
    row = {
        "item_id": cell.item_id,
        "number": cell.number,
        "worker": event.worker,
        "outcome": str(outcome),
        "started_at_us": cell.started_at_us,
        "duration_us": max(0, now_us - cell.started_at_us),
        **dict.fromkeys(("error_type", "error_message", "traceback", "exit_code", "stdout_tail", "stderr_tail")),
        **texts,
    }
    return FailedAttempt(outcome, retryable=True, row=row)


def death_text(status: int) -> str:
    """Return how a process ended, in words."""
    if status >= 0:
        return f"the worker ended with status {status} and no result"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    return f"the worker was killed by signal {-status} ({name})"


def seconds_of(flush: Flush) -> float:
    """Return the worker's time for what is in a flush, gaps between items included."""
    rows = [(row[3], row[4]) for row in (flush.succeeded[:1] + flush.succeeded[-1:])]
    rows += [(row[3], row[4]) for row in (flush.packed[:1] + flush.packed[-1:])]
    rows += [(failure.started_at_us, failure.duration_us) for failure in (flush.failed[:1] + flush.failed[-1:])]
    if not rows:
        return 0.0
    return (max(start + duration for start, duration in rows) - min(start for start, _ in rows)) / 1e6
