"""
Workers of a coordinator that died: ended before a new one hands anything out, so that no item ever runs twice at the same time.

Whether one lives is told by a kernel lock that they share, never by a clock.
"""

from __future__ import annotations

import os
import signal
import time

from durabatch import process
from durabatch.errors import StrayWorkersError
from durabatch.ledger.locks import WorkersLock
from durabatch.ledger.paths import LedgerFiles, shown
from durabatch.runner.probe import holders
from durabatch.workers.cells import Cell, Cells

__all__ = ["end_strays", "last_cells"]

#: Seconds that workers get to notice the death of their coordinator by themselves, and to be gone after being killed.
NOTICE_S, GONE_S = 0.2, 5.0
PAUSE_S = 0.01


def end_strays(files: LedgerFiles, cells: list[Cell]) -> WorkersLock:
    """
    Return the workers' lock, held alone: no old worker is alive.

    Process groups that the cells name are killed, if they are still the same processes.

    Raises:
        StrayWorkersError: Somebody else still holds the lock; the message names the pids.
    """
    lock = WorkersLock(files)
    if wait_until_free(lock, NOTICE_S):
        return lock
    for cell in cells:
        if process.is_same_process(cell.pid, cell.start_ticks) and cell.pid != os.getpid():
            end_group(cell.pid)
    if wait_until_free(lock, GONE_S):
        return lock
    lock.close()
    pids = ", ".join(map(str, holders(files.workers))) or "unknown"
    raise StrayWorkersError(shown(files.ledger), f"workers of an earlier run are still alive (pid {pids})", "End them (kill -9), then start the same command again.")


def wait_until_free(lock: WorkersLock, seconds: float) -> bool:
    """Return whether the lock could be had alone within *seconds*."""
    deadline = time.monotonic() + seconds
    while not lock.is_free():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_S)
    return True


def end_group(pid: int) -> None:
    """Kill a worker and its children."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def last_cells(files: LedgerFiles) -> tuple[int, list[Cell]]:
    """Return the run whose workers last used the cells, and what they show; after another boot nothing."""
    cells = Cells.open(files.cells, process.boot_id())
    try:
        return cells.run_id, cells.read()
    finally:
        cells.close()
