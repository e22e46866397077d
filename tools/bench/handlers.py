"""
What the items do: nothing, or a millisecond of arithmetic. Imported by the workers of every side.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from typing import Any

__all__ = ["bump", "calibrate", "spin"]

#: Rounds of one try at calibration, one or two milliseconds.
ROUNDS = 40_000


def bump(item: dict[str, Any]) -> dict[str, int]:
    """Return the next number: the no-op of the benchmark."""
    return {"n": item["n"] + 1}


def spin(item: dict[str, Any], *, loops: int) -> int:
    """Keep one core busy for *loops* rounds."""
    total = int(item["n"])
    for number in range(loops):
        total += number & 7
    return total


def calibrate(milliseconds: float, workers: int) -> int:
    """Return the rounds of ``spin`` that take so long here and now, with as many processes at it as will be: cores slow each other down."""
    with multiprocessing.Pool(workers) as pool:
        seconds = statistics.fmean(pool.map(typical_s, [ROUNDS] * workers, chunksize=1))
    return max(1, round(ROUNDS * milliseconds / 1e3 / seconds))


def typical_s(rounds: int) -> float:
    """Return the usual seconds of *rounds*: the median of half a second of tries."""
    timed(rounds)
    return statistics.median(timed(rounds) for _ in range(300))


def timed(rounds: int) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    spin({"n": 0}, loops=rounds)
    return time.perf_counter() - started
