"""
Looking at the machine: the only place that asks psutil.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

from durabatch.clock import monotonic_s
from durabatch.flow.pressure import Measurement

__all__ = ["Probe", "holders"]

#: Seconds between two measurements.
MEASURE_S = 1.0
#: Where version 2 of the control groups tells what this process may use of the machine, and what its group uses.
GROUP_LIMIT, GROUP_USE = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


class Probe:
    """
    Measures memory, load and disk.

    Args:
        ledger: The file whose disk is looked at.

    Attributes:
        memory_used: Share of the memory that was in use at the last measurement, 0 to 1.
    """

    def __init__(self, ledger: str) -> None:
        self.folder = os.path.dirname(ledger) or "."
        self.measured_s = monotonic_s()
        self.memory_used = 0.0

    def measure(self, pids: dict[int, int], *, commit_lag_s: float) -> Measurement | None:
        """Return a measurement, once a second; None in between."""
        now_s = monotonic_s()
        if now_s - self.measured_s < MEASURE_S:
            return None
        self.measured_s = now_s
        self.memory_used = memory_used()
        disk = os.statvfs(self.folder)
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        workers = sum(map(resident_of, pids.values()))
        return Measurement(now_s, self.memory_used, workers, disk.f_bavail * disk.f_frsize, load, commit_lag_s)

    def resident(self, pids: dict[int, int]) -> dict[int, int]:
        """Return the resident bytes of each worker and of what it has started, by the worker's number."""
        return {number: tree_of(pid) for number, pid in pids.items()}


def memory_used() -> float:
    """Return the share of the memory in use: of the machine, or of what this process's control group may use, whichever is tighter."""
    machine = psutil.virtual_memory()
    shares: list[float] = [1 - machine.available / machine.total]
    with suppress(OSError, ValueError):
        shares.append(int(GROUP_USE.read_text()) / int(GROUP_LIMIT.read_text()))
    return max(shares)


def resident_of(pid: int) -> int:
    """Return the resident bytes of a process, 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def tree_of(pid: int) -> int:
    """Return the resident bytes of a process and its descendants, 0 when it is gone."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return 0
    return resident_of(pid) + sum(resident_of(child.pid) for child in children)


def holders(path: str) -> list[int]:
    """Return the processes that have the file at *path* open, as far as this user may see them."""
    found = []
    for one in psutil.process_iter():
        try:
            if one.pid != os.getpid() and any(opened.path == path for opened in one.open_files()):
                found.append(one.pid)
        except psutil.Error:
            continue
    return found
