"""
How many workers may get items, by how hard the machine breathes.

One window over everything: memory in use, free disk at the ledger, load, and how long a commit takes. It halves while something presses and
widens by one worker for each calm second (additive increase, multiplicative decrease: Chiu and Jain, Computer Networks and ISDN Systems 17,
1989), and it is never narrower than one worker, so that the run goes on whatever presses. Workers outside the window keep what they have and
get nothing new. Between pressed and calm lies a band in which nothing changes, so that the window does not swing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from durabatch.options import shown_size
from durabatch.settings import RunSettings

__all__ = ["Change", "Measurement", "PressureLimits", "Window"]

#: A commit that takes longer has the ledger's disk behind.
MAX_COMMIT_LAG_S = 2.0
#: The share of a limit below which (for free disk: its inverse, above which) it is calm; memory has a narrower band.
CALM, CALM_MEMORY = 0.9, 0.94
#: Seconds between two steps, a little less than the seconds between two measurements.
STEP_S = 0.9


@dataclass(frozen=True, slots=True)
class Measurement:
    """
    The machine at one moment.

    Attributes:
        now_s: Of the monotonic clock.
        memory_used: Share of the machine's memory (or of the container's) in use, 0 to 1.
        workers_memory_bytes: Resident memory of all workers, for the sentence that a person reads.
        free_disk_bytes: At the ledger.
        load_per_core: Load average of the last minute, divided by the cores.
        commit_lag_s: The longest commit since the last measurement.
    """

    now_s: float
    memory_used: float = 0.0
    workers_memory_bytes: int = 0
    free_disk_bytes: int = 1 << 60
    load_per_core: float = 0.0
    commit_lag_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PressureLimits:
    """Above (free disk: below) which values the machine is pressed; *max_load* None asks for no such gate."""

    memory_threshold: float = 0.8
    min_free_disk_bytes: int = 200 << 20
    max_load: float | None = None

    @classmethod
    def of(cls, settings: RunSettings) -> PressureLimits:
        """Return the limits of a run."""
        return cls(settings.memory_threshold, settings.min_free_disk_bytes, settings.max_load)


@dataclass(frozen=True, slots=True)
class Change:
    """
    What a measurement changed.

    Attributes:
        allowed: Workers that may get items.
        binding: The limit that says so; None when all may.
        collect: Workers are to collect garbage; the window is as it was.
        text: The change for people.
    """

    allowed: int
    binding: str | None
    collect: bool
    text: str


class Window:
    """
    The workers that may get items.

    Attributes:
        allowed: How many, 1 or more.
        binding: ``memory``, ``disk``, ``commit lag`` or ``load``, whichever narrowed the window last; None when it is wide open.
    """

    def __init__(self, workers: int, limits: PressureLimits) -> None:
        self.workers = self.allowed = max(1, workers)
        self.limits = limits
        self.binding: str | None = None
        self.has_collected = False
        self.stepped_s = float("-inf")
        self.pressed_s = float("-inf")

    def resize(self, workers: int) -> None:
        """Go on with another number of workers; a narrowed window stays as narrow."""
        self.workers = max(1, workers)
        self.allowed = self.workers if self.binding is None else min(self.allowed, self.workers)
        if self.allowed == self.workers:
            self.binding = None

    def decide(self, now: Measurement) -> Change | None:
        """Take a measurement into account and return what changes by it, None when nothing does."""
        pressing = next(pressures(now, self.limits), None)
        if pressing is not None:
            return self.press(now, *pressing)
        if not is_calm(now, self.limits):
            self.pressed_s = now.now_s
            return None
        self.has_collected = False
        return self.widen(now)

    def press(self, now: Measurement, cause: str, text: str) -> Change | None:
        """Narrow the window; at the first sign of short memory have garbage collected instead."""
        self.pressed_s = now.now_s
        if cause == "memory" and not self.has_collected:
            self.has_collected = True
            self.stepped_s = now.now_s
            return Change(self.allowed, self.binding, collect=True, text=f"{text}: workers collect garbage")
        if cause != "disk" and now.now_s - self.stepped_s < STEP_S:
            return None
        self.stepped_s = now.now_s
        return self.move(1 if cause == "disk" else max(1, self.allowed // 2), cause, text)

    def widen(self, now: Measurement) -> Change | None:
        """Let one more worker have items, when the last second was calm."""
        if self.allowed == self.workers or now.now_s - max(self.stepped_s, self.pressed_s) < STEP_S:
            return None
        self.stepped_s = now.now_s
        return self.move(self.allowed + 1, self.binding, f"{self.binding} is calm again")

    def move(self, allowed: int, cause: str | None, text: str) -> Change | None:
        """Set the window, and return the change if there is one."""
        binding = cause if allowed < self.workers else None
        if (allowed, binding) == (self.allowed, self.binding):
            return None
        self.allowed, self.binding = allowed, binding
        return Change(allowed, binding, collect=False, text=f"{text}: {allowed} of {self.workers} workers get items")


def pressures(now: Measurement, limits: PressureLimits) -> Iterator[tuple[str, str]]:
    """Yield the limits that are exceeded, the one with the harshest answer first, each with the sentence for people."""
    if now.free_disk_bytes < limits.min_free_disk_bytes:
        yield "disk", f"{now.free_disk_bytes >> 20:,} MiB free at the ledger (--min-free-disk {shown_size(limits.min_free_disk_bytes)})"
    if now.memory_used > limits.memory_threshold:
        held = f", workers hold {now.workers_memory_bytes >> 20:,} MiB" if now.workers_memory_bytes else ""
        yield "memory", f"{now.memory_used:.0%} of memory in use{held} (--memory-threshold {limits.memory_threshold:.0%})"
    if now.commit_lag_s > MAX_COMMIT_LAG_S:
        yield "commit lag", f"a commit took {now.commit_lag_s:.1f} s"
    if limits.max_load is not None and now.load_per_core > limits.max_load:
        yield "load", f"load is {now.load_per_core:.1f} per core (--max-load {limits.max_load:g})"


def is_calm(now: Measurement, limits: PressureLimits) -> bool:
    """Tell whether everything is well within its limit."""
    return (
        now.free_disk_bytes * CALM >= limits.min_free_disk_bytes
        and now.memory_used <= limits.memory_threshold * CALM_MEMORY
        and now.commit_lag_s <= MAX_COMMIT_LAG_S * CALM
        and (limits.max_load is None or now.load_per_core <= limits.max_load * CALM)
    )
