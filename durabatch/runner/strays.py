"""
Processes that nobody wants any more: what a worker left behind, and the workers of a coordinator that died.

A worker leads a session and everything it starts stays in that, unless it leaves on purpose; then the run's marker in its environment
finds it where the system shows that (best effort). Old workers are ended before a new coordinator hands anything out, so that no item ever
runs twice at the same time; whether one lives is told by a kernel lock that they share, never by a clock.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from durabatch import process
from durabatch.errors import StrayWorkersError
from durabatch.ledger.locks import WorkersLock
from durabatch.ledger.paths import LedgerFiles, shown
from durabatch.runner.probe import holders
from durabatch.workers.cells import Cell, Cells

__all__ = ["RUN_MARKER", "end_group", "end_sessions", "end_strays", "last_cells", "marker_of"]

#: Name of the environment variable that marks the processes of a run.
RUN_MARKER = "DURABATCH_RUN_MARKER"
#: Rounds in which processes are looked for that a dying one forked in its last moment.
ROUNDS = 20

#: Seconds that workers get to notice the death of their coordinator by themselves, and to be gone after being killed.
NOTICE_S, GONE_S = 0.2, 5.0
PAUSE_S = 0.01


def end_strays(files: LedgerFiles, cells: Iterable[Cell]) -> WorkersLock:
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
    raise StrayWorkersError(
        shown(files.ledger),
        f"workers of an earlier run are still alive (pid {pids})",
        "End them (kill -9), then start the same command again.",
    )


def wait_until_free(lock: WorkersLock, seconds: float) -> bool:
    """Return whether the lock could be had alone within *seconds*."""
    deadline = time.monotonic() + seconds
    while not lock.is_free():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_S)
    return True


def end_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a worker and the children in its group; one that is gone already is fine."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def marker_of(files: LedgerFiles, run_id: int) -> str:
    """Return what marks the processes of a run: the same after a resume, different for every ledger on this host."""
    found = os.stat(files.ledger)
    return f"{found.st_dev:x}-{found.st_ino:x}-{run_id}"


def end_sessions(sessions: AbstractSet[int], marker: str | None = None) -> None:
    """
    Kill every process of these sessions, and those with the marker in their environment; does nothing where there is no ``/proc``.

    A process that was started by one that is being killed is found in the next round.
    """
    for _ in range(ROUNDS):
        found = [pid for pid in processes_of(sessions, marker) if pid != os.getpid()]
        for pid in found:
            kill(pid)
        if not found:
            return


def processes_of(sessions: AbstractSet[int], marker: str | None) -> Iterator[int]:
    """Yield the processes that have not ended and are of one of these sessions or carry the marker."""
    mark = None if marker is None else f"{RUN_MARKER}={marker}\0".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_bytes()
            state, _parent, _group, session = stat[stat.rindex(b")") + 2 :].split(maxsplit=4)[:4]
            if state not in (b"Z", b"X") and (int(session) in sessions or (mark is not None and mark in (entry / "environ").read_bytes())):
                yield int(entry.name)
        except OSError:
            # Gone meanwhile, or of another user.
            continue


def kill(pid: int) -> None:
    """Send SIGKILL to one process; one that is gone already is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def last_cells(files: LedgerFiles) -> tuple[int, list[tuple[int, Cell]]]:
    """Return the run whose workers last used the cells, and what they show, each with the worker's number; after another boot nothing."""
    cells = Cells.open(files.cells, process.boot_id())
    try:
        return cells.run_id, [(cell.index // cells.per_worker + 1, cell) for cell in cells.read()]
    finally:
        cells.close()
