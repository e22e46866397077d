"""
What workers send, in the terms of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping

from durabatch.engine.finish import FailedAttempt, Returned
from durabatch.states import AttemptOutcome
from durabatch.workers.protocol import Failure, Flush

__all__ = ["durations_of", "of_flush", "seconds_of"]


def of_flush(flush: Flush, batch_of: Mapping[int, int]) -> Returned:
    """Return the content of a flush."""
    return Returned(
        flush.dispatch_id,
        inline=flush.succeeded,
        packed=flush.packed,
        frames=[(frame.batch_id, frame.raw_bytes, frame.digest, frame.data) for frame in flush.frames],
        failed=[of_failure(failure) for failure in flush.failed],
        batch_of=batch_of,
        peak_rss_bytes=flush.peak_rss_bytes,
        spends=flush.spends,
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
        "error_type": failure.error_type or None,
        "error_message": failure.message,
        "error_group": failure.error_group or None,
        "remedy": failure.remedy,
        "traceback": failure.traceback,
        "exit_code": failure.exit_code,
        "signal": -failure.exit_code if failure.exit_code is not None and failure.exit_code < 0 else None,
        "stdout_tail": failure.stdout_tail,
        "stderr_tail": failure.stderr_tail,
    }
    if failure.peak_rss_bytes is not None:
        # Otherwise that of the worker stands for it.
        row["peak_rss_bytes"] = failure.peak_rss_bytes
    return FailedAttempt(AttemptOutcome(failure.outcome), failure.retryable, row, kinds=tuple(failure.kinds), after_s=failure.after_s)


def seconds_of(flush: Flush) -> float:
    """Return the worker's time for what is in a flush, gaps between items included."""
    rows = [(row[3], row[4]) for row in (flush.succeeded[:1] + flush.succeeded[-1:])]
    rows += [(row[3], row[4]) for row in (flush.packed[:1] + flush.packed[-1:])]
    rows += [(failure.started_at_us, failure.duration_us) for failure in (flush.failed[:1] + flush.failed[-1:])]
    if not rows:
        return 0.0
    return (max(start + duration for start, duration in rows) - min(start for start, _ in rows)) / 1e6


def durations_of(flush: Flush) -> list[float]:
    """Return the seconds that each success in a flush took."""
    return [row[4] / 1e6 for row in flush.succeeded] + [row[4] / 1e6 for row in flush.packed]
