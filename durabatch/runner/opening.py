"""
Taking a ledger for a run: checked, owned, opened, made durable, freed of old workers, recovered. The order is the point.

    look → own → open → barrier → end old workers → recover

Nothing is read for acting on before the barrier, and nothing is handed out before the old workers are gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from durabatch import process
from durabatch.clock import iso, now_us
from durabatch.engine.recover import recover
from durabatch.engine.start import open_session
from durabatch.engine.steps import recover_steps
from durabatch.engine.verify import refuse_broken
from durabatch.ledger import event, run
from durabatch.ledger.connection import Connection
from durabatch.ledger.locks import Ownership, WorkersLock
from durabatch.ledger.opening import check_before_touching, open_ledger
from durabatch.ledger.paths import LedgerFiles, ledger_files, shown
from durabatch.runner.request import RunRequest
from durabatch.runner.strays import end_sessions, end_strays, last_cells, marker_of
from durabatch.states import RunState

__all__ = ["OwnedLedger", "owned_ledger"]


@dataclass(slots=True)
class OwnedLedger:
    """
    A ledger that this process coordinates.

    Attributes:
        workers_lock: Shared with the workers to be started.
        recovered: Run id to (items that were with workers when a coordinator died, of them started).
    """

    connection: Connection
    ownership: Ownership
    workers_lock: WorkersLock
    recovered: dict[int, tuple[int, int]]

    def describe(self, run_name: str) -> None:
        """Tell those who are refused which run is at work."""
        self.ownership.describe(about(run_name))


def about(run_name: str | None) -> dict[str, object]:
    """Return what a coordinator says about itself."""
    return {"pid": os.getpid(), "host": process.host_name(), "since": iso(now_us()), "run": run_name}


@contextmanager
def owned_ledger(request: RunRequest) -> Iterator[OwnedLedger]:
    """
    Hold the ledger of a request for the body; it is closed and free on return, whatever happened.

    Raises:
        LedgerError: It cannot be used, somebody else has it, or old workers cannot be ended.
    """
    files = ledger_files(request.ledger)
    create = request.verb == "run"
    check_before_touching(files, create=create, vfs=request.vfs, allow_network_fs=request.allow_network_fs)
    log_is_missing = os.path.exists(files.ledger) and not os.path.exists(files.wal)
    ownership = Ownership(files, about(None))
    try:
        connection = open_ledger(
            request.ledger, create=create, durability=request.durability, vfs=request.vfs,
            allow_network_fs=request.allow_network_fs, on_wait=request.note,
        )  # fmt: skip
        try:
            yield from prepared(request, files, connection, ownership, log_is_missing=log_is_missing)
        finally:
            connection.close()
        remove_leftovers(files)
    finally:
        ownership.release()


def remove_leftovers(files: LedgerFiles) -> None:
    """Remove side files that say nothing once no worker is there; the locks stay, since others may be waiting for them."""
    with suppress(OSError):
        os.unlink(files.cells)
    with suppress(OSError):
        if os.path.getsize(files.log) == 0:
            os.unlink(files.log)


def prepared(
    request: RunRequest, files: LedgerFiles, connection: Connection, ownership: Ownership, *, log_is_missing: bool
) -> Iterator[OwnedLedger]:
    """Yield the open ledger once everything of earlier coordinators is settled."""
    maker = {"uid": os.geteuid(), "machine": process.machine_id(), "boot": process.boot_id()}
    open_session(connection, {**about(None), **maker}, now_us=now_us())
    refuse_broken(connection)
    cells_run, cells = last_cells(files)
    workers_lock = end_strays(files, [cell for _, cell in cells])
    try:
        live = [row for row in run.list_all(connection) if row.state in (RunState.RUNNING, RunState.PAUSED)]
        if live and log_is_missing and not event.is_copy(connection):
            request.note(
                f"{shown(files.ledger)} was in use when it was left, and its -wal file is missing: work that was committed last may be missing, too"
            )
        recover_steps(connection)
        recovered = {}
        for row in live:
            # What handlers started and left behind does not hold the workers' lock.
            end_sessions(set(), marker=marker_of(files, row.run_id))
            # Steps of undoing stand there with numbers below zero; they are taken back all together.
            started = [(item_id, cell.dispatch_id, worker, cell.started_at_us) for worker, cell in cells if (item_id := cell.item_id or 0) > 0]
            recovered[row.run_id] = recover(connection, row.run_id, started if row.run_id == cells_run else [], now_us=now_us())
        yield OwnedLedger(connection, ownership, workers_lock, recovered)
    finally:
        workers_lock.close()
