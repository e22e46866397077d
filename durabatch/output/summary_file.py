"""
``summary.json``: how a run went, in one small file beside its batches.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from durabatch.models import RunStatus
from durabatch.output.atomic import write_whole

__all__ = ["SummaryFile", "build"]

#: (number, failed items, seconds from opening to end) of a finished batch.
FinishedBatch = tuple[int, int, float]


class SummaryFile:
    """Writes the summary of a run into *directory*, which is there already."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)

    def write(self, summary: dict[str, Any]) -> Path:
        """
        Write what :func:`build` returned, in place of an earlier file, and return its path; on return it is on disk.

        Raises:
            OutputError: It could not be written; the earlier one is there still.
        """
        path = self.directory / "summary.json"
        write_whole(path, (to_json(summary, indent=2).decode(), "\n"))
        return path


def build(status: RunStatus, batches: Sequence[FinishedBatch], *, retries: int, output_bytes: int) -> dict[str, Any]:
    """
    Return the members of the summary.

    ``success_rate`` is the share of succeeded items among those that have ended, from 0 to 1, null when none has. Seconds are null when
    no batch has finished.

    Args:
        batches: The finished ones, in any order.
        retries: Attempts beyond the first, all items together.
        output_bytes: Size of the batch files together, or of the one file.
    """
    counts = status.counts
    return {
        "run": status.name,
        "state": status.state,
        "reason": status.reason,
        "counts": asdict(counts),
        "batch_count": status.batch_count,
        "failed_batch_count": sum(1 for _, failed, _ in batches if failed),
        "success_rate": round(counts.succeeded / counts.ended, 4) if counts.ended else None,
        "elapsed_s": status.elapsed_s,
        "seconds_per_batch": spread([seconds for _, _, seconds in batches]),
        "items_per_minute": round(counts.ended / status.elapsed_s * 60, 1) if status.elapsed_s else None,
        "retries": retries,
        "output_bytes": output_bytes,
    }


def spread(seconds: Sequence[float]) -> dict[str, float | None]:
    """Return mean, median and 95th percentile (nearest rank: each is one of the values)."""
    if not seconds:
        return {"mean": None, "p50": None, "p95": None}
    ordered = sorted(seconds)
    return {
        "mean": round(sum(ordered) / len(ordered), 3),
        "p50": round(ranked(ordered, 50), 3),
        "p95": round(ranked(ordered, 95), 3),
    }


def ranked(ordered: Sequence[float], percent: int) -> float:
    """Return the smallest value that at least *percent* of the values do not exceed."""
    return ordered[-(-len(ordered) * percent // 100) - 1]
