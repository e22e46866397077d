"""
What a session says of its run while it works: sentences, progress, and why it ended with an error.
"""

from __future__ import annotations

from durabatch.engine.active import ActiveRun
from durabatch.engine.status import eta_s
from durabatch.errors import OutputError
from durabatch.limits import shown_duration
from durabatch.models import Progress
from durabatch.runner.delivering import Failure
from durabatch.runner.pace import Pace
from durabatch.runner.undoing import Undone
from durabatch.settings import RunSettings

__all__ = ["progress_of", "reason_of", "resuming_text", "rolling_back_text", "stopping_text"]


def reason_of(error: Exception, failure: Failure | None) -> str:
    """Return what stands on a run that *error* has halted; the batch is named when it came from the call about one that failed."""
    if failure is not None and failure.error is error:
        return failure.reason
    return error.what if isinstance(error, OutputError) else f"{type(error).__name__}: {error}"


def resuming_text(active: ActiveRun) -> str:
    """Return what a person is told when a run goes on."""
    counts = active.view()
    failed = counts.failed + counts.quarantined
    more = "" if active.intake_complete else " so far, intake goes on"
    return f"resuming: {counts.ended - failed:,} done, {failed:,} failed, {counts.left:,} left{more}"


def rolling_back_text(active: ActiveRun) -> str:
    """Return what a person is told when what a run did is undone."""
    steps, items = active.wanted_count, active.undoing_count
    return f"rolling back: {steps:,} step{'' if steps == 1 else 's'} of {items:,} item{'' if items == 1 else 's'}"


def stopping_text(active: ActiveRun, settings: RunSettings) -> str:
    """Return what a person is told at the first signal."""
    counts = active.view()
    total = f"{counts.total:,}" if active.intake_complete else f"{counts.total:,} so far"
    within = shown_duration(settings.drain_s)
    steps, done = active.wanted_count, f"{counts.ended:,} of {total} done"
    if active.undoing_count and not counts.running:
        return f"stopping after the steps in flight, within {within} (again: at once); {steps:,} to go, the same command goes on"
    return f"stopping after the items in flight, within {within} (again: at once); {done}, the same command goes on"


def progress_of(active: ActiveRun, pace: Pace, undone: Undone | None = None) -> Progress:
    """Return what a progress line shows now; of a run that is rolled back with what was *undone* so far."""
    counts = active.view()
    return Progress(
        run_name=active.name,
        counts=counts,
        intake_complete=active.intake_complete,
        items_per_s=pace.rate,
        eta_s=eta_s(counts.left, pace.rate, complete=active.intake_complete),
        elapsed_s=pace.elapsed_us / 1e6,
        batch_count=active.batch_count,
        undoing=None if undone is None else (undone.ended, undone.ended + active.wanted_count),
    )
