"""
Making the pool that a run asks for: processes, or the calling process itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack

from durabatch import process
from durabatch.clock import now_us
from durabatch.engine.active import reload
from durabatch.engine.promise import record
from durabatch.errors import LedgerFullError, UsageError
from durabatch.ledger.connection import Connection
from durabatch.runner.choosing import Choice
from durabatch.runner.inline import InlinePool
from durabatch.runner.kinds import Kind
from durabatch.runner.opening import OwnedLedger
from durabatch.runner.pool import Pool, ProcessPool
from durabatch.runner.recording import answered, entry_of
from durabatch.runner.request import RunRequest
from durabatch.runner.room import Room
from durabatch.runner.signals import Signals
from durabatch.runner.strays import marker_of
from durabatch.workers.cells import Cells
from durabatch.workers.protocol import Promise, Recorded, Start

__all__ = ["make_pool"]

#: Results of at most this many bytes of JSON stand in the ledger as text; bigger ones are packed.
INLINE_BYTES = 1024


def make_pool(
    owned: OwnedLedger, choice: Choice, kind: Kind, request: RunRequest, signals: Signals, room: Room, stack: ExitStack
) -> Pool:
    """
    Return the pool, with a fresh cells file; *stack* closes what it needs.

    Raises:
        UsageError: The handler can only run inline and workers are wanted, or the other way round.
    """
    settings, files = choice.settings, owned.connection.files
    marker = marker_of(files, choice.active.run_id)
    cells = Cells.create(files.cells, max(1, settings.workers) * kind.most, process.boot_id(), choice.active.run_id, per_worker=kind.most)
    stack.callback(cells.close)

    def make_start(number: int) -> Start:
        # A run that was scaled up has workers beyond the cells that it began with.
        cells.grow(number * kind.most)
        return start_of(number, choice, kind, files.cells, marker)

    if settings.workers == 0:
        start = make_start(1)
        inline = InlinePool(start, request.function, cells, record_at_once(owned.connection, choice, room))
        stack.callback(inline.close, 0)
        return inline
    if choice.handler.get("kind") == "inline" and not choice.is_rollback:
        raise UsageError(
            "this handler has no importable name, so worker processes cannot find it", "Put it into a module, or use workers=0."
        )
    pool = ProcessPool(make_start, cells=cells, lock=owned.workers_lock.share(), log_path=files.log, marker=marker, wake=signals.read_end)
    # Whatever happens, no worker outlives the session, not even one whose ledger is lost.
    stack.callback(pool.close, 0)
    return pool


def record_at_once(ledger: Connection, choice: Choice, room: Room) -> Callable[[Promise], Recorded]:
    """Return what records an undo entry of an item that runs in this process, between two ticks; it is on disk on return, when there is room."""

    def record_promise(promise: Promise) -> Recorded:
        try:
            with ledger.transaction():
                undo_id = record(ledger, choice.active, [entry_of(promise)], now_us())[0]
                choice.active.write_tally(ledger)
        except LedgerFullError:
            reload(ledger, choice.active)
            raise
        return answered(promise, undo_id)

    return lambda promise: room.until_done(lambda: record_promise(promise))


def start_of(number: int, choice: Choice, kind: Kind, cells_path: str, marker: str) -> Start:
    """Return what a worker is told first."""
    settings = choice.settings
    return Start(
        worker=number,
        run_id=choice.active.run_id,
        run_name=choice.active.name,
        handler=choice.handler,
        preflight=settings.preflight,
        params=settings.params,
        sys_path=list(sys.path),
        cells_path=cells_path,
        cell=(number - 1) * kind.most,
        cell_count=kind.most,
        concurrency=kind.concurrency,
        timeout_s=None,
        cpu_limit_s=settings.cpu_limit_s,
        marker=marker,
        undo_command=settings.undo_command,
        max_undo_bytes=settings.max_undo_bytes,
        inline_bytes=INLINE_BYTES,
        max_result_bytes=settings.max_result_bytes,
        term_grace_s=settings.term_grace_s,
    )
