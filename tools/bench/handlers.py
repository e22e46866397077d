"""
What the items do: nothing, or a millisecond of arithmetic. Imported by the workers of every side.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

__all__ = ["bump", "calibrate", "spin"]

#: Rounds of one try at calibration, one or two milliseconds.
ROUNDS = 40_000


def bump(item: dict[str, Any]) -> dict[str, int]:
    """Return the next number: the no-op of the benchmark."""
    return {"n": item["n"] + 1}


def spin(item: dict[str, Any], *, loops: int) -> float:
    """Keep one core busy for *loops* rounds; return the seconds of processor time that took."""
    started = time.thread_time()
    total = int(item["n"])
    for number in range(loops):
        total += number & 7
    return time.thread_time() - started


def calibrate(milliseconds: float) -> int:
    """Return the rounds of ``spin`` that take about so long here and now."""
    return max(1, round(ROUNDS * milliseconds / 1e3 / statistics.median(spin({"n": 0}, loops=ROUNDS) for _ in range(100))))
