"""
What it costs that effects can be undone, and how quickly they are. Each function is called in a fresh process.
"""

from __future__ import annotations

import os
import time

from ours import peak_mib, run_figures

import durabatch

__all__ = ["plain", "promising", "rolled_back", "rolled_back_beside"]


def worked(directory: str, handler: str, source: str, workers: int) -> tuple[durabatch.Ledger, dict[str, float]]:
    """Return the ledger of a whole run, and its items a second."""
    path = os.path.join(directory, "bench.db")
    ledger = durabatch.Ledger(path)
    summary = ledger.run(handler, durabatch.jsonl(source, key="k"), workers=workers)
    return ledger, run_figures(summary, path, summary.counts.total / summary.work_s)


def promising(*, directory: str, source: str, workers: int) -> dict[str, float]:
    """Return the items a second of no-ops each of which records an undo entry, and waits until that is on disk."""
    return worked(directory, "promises:promise", source, workers)[1]


def plain(*, directory: str, source: str, workers: int) -> dict[str, float]:
    """Return the items a second of the same without undo entries."""
    return worked(directory, "handlers:bump", source, workers)[1]


def undone(directory: str, source: str, workers: int | None) -> dict[str, float]:
    """Return the seconds in which all effects of a run are undone, by an action that does nothing; starting workers is part of it."""
    ledger, _ = worked(directory, "promises:promise", source, 2)
    run = ledger.latest()
    total = run.status().counts.total
    started = time.perf_counter()
    summary = run.rollback(workers=workers)
    seconds = time.perf_counter() - started
    done = summary.rolled_back
    if summary.exit_code or done is None or done.ran != total:
        raise RuntimeError(f"{done} of {total} effects were undone")
    return {"value": seconds, "startup_s": summary.startup_s, "coordinator_mib": peak_mib()}


def rolled_back(*, directory: str, source: str) -> dict[str, float]:
    """Return the seconds of a rollback one step at a time, newest first."""
    return undone(directory, source, None)


def rolled_back_beside(*, directory: str, source: str, workers: int) -> dict[str, float]:
    """Return the seconds of a rollback of items that do not depend on each other."""
    return undone(directory, source, workers)
