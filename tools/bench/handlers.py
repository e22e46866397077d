"""
What the items do: nothing, or a millisecond of arithmetic. Imported by the workers of every side.
"""

from __future__ import annotations

import time
from typing import Any

__all__ = ["bump", "calibrate", "spin"]


def bump(item: dict[str, Any]) -> dict[str, int]:
    """Return the next number: the no-op of the benchmark."""
    return {"n": item["n"] + 1}


def spin(item: dict[str, Any], *, loops: int) -> int:
    """Keep one core busy for *loops* rounds."""
    total = int(item["n"])
    for number in range(loops):
        total += number & 7
    return total


def calibrate(milliseconds: float) -> int:
    """Return the rounds of ``spin`` that take so long here and now; the best of several tries, since other programs only slow it down."""
    rounds = 20_000
    best_s = min(timed(rounds) for _ in range(30))
    return max(1, round(rounds * milliseconds / 1e3 / best_s))


def timed(rounds: int) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    spin({"n": 0}, loops=rounds)
    return time.perf_counter() - started
