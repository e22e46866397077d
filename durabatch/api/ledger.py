"""
A ledger, as Python users hold it. ``run`` coordinates: it owns the ledger for its time, and a second one is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from durabatch.api.place import LedgerFile, closing
from durabatch.api.run import SQL_TIMEOUT_S, Run
from durabatch.clock import now_us
from durabatch.engine import results as reading
from durabatch.engine import status as standing
from durabatch.ledger import run
from durabatch.models import Finding, Progress, RunStatus, Summary, TransactionStatus

if TYPE_CHECKING:
    from durabatch.api.transaction import OpenTransaction
    from durabatch.due import Due
    from durabatch.engine.add import Added
    from durabatch.intake.plan import Plan
    from durabatch.runner.adding import Submitter
    from durabatch.runner.asking import Handler, Items
    from durabatch.runner.request import BatchOutput, RunRequest

__all__ = ["Ledger", "Wishes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a caller says about one run beside handler, items and settings; see :meth:`Ledger.run`."""

    name: str | None = None
    key: str | None = None
    fresh: bool = False
    on_change: str | None = None
    from_item: str | None = None
    from_batch: int | None = None
    undo: bool = False
    open: bool = False


class Ledger(LedgerFile):
    """
    A ledger file. Takes no lock by itself; a context manager for symmetry.

    Args:
        path: The file; made by the first ``run``.
        durability: ``power`` or ``process``: what a commit survives.
        allow_network_fs: Accept a network file system, if only this host ever opens the file.
    """

    def __init__(self, path: str | os.PathLike[str] = "durabatch.db", *, durability: str = "power", allow_network_fs: bool = False) -> None:
        super().__init__(path, durability=durability, allow_network_fs=allow_network_fs)
        self.submitter: Submitter | None = None

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what ``submit`` has kept open; nothing else is held between calls."""
        if self.submitter is not None:
            self.submitter.close()

    def __getitem__(self, name_or_id: str | int) -> Run:
        """
        Return the run with this name (the newest of its series) or id.

        Raises:
            NotFoundError: There is none.
        """
        with self.reader() as reader:
            return Run(self, run.find(reader, name_or_id).run_id)

    def latest(self) -> Run:
        """Return the active or else the latest run."""
        with self.reader() as reader:
            return Run(self, standing.status(reader, None).run_id)

    def runs(self) -> list[RunStatus]:
        """Return the status of all runs, oldest first."""
        with self.reader() as reader:
            return standing.list_runs(reader)

    def run(
        self,
        handler: Handler,
        items: Items | None,
        *,
        name: str | None = None,
        key: str | None = None,
        fresh: bool = False,
        on_change: str | None = None,
        from_item: str | int | None = None,
        from_batch: int | None = None,
        undo: bool = False,
        open: bool = False,
        on_batch: Callable[[BatchOutput], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> Summary:
        """
        Run *handler* over *items*, or go on with the run of that name, and return how it ended.

        Args and errors as for :func:`map`; a run that was stopped is told by ``exit_code`` and ``status.reason``.

        Args:
            items: None for a run that is open from the first, whose items others submit.
            from_item: Key (or number, from 1) of the item from which on everything is run again; what stands before stays as it is.
            from_batch: The same by the number of a batch.
            undo: What items did is undone before they run again.
            open: Wait for items that :meth:`submit` adds, until the run is closed.
            on_batch: Called in a thread of its own for each finished batch; see ``--on-batch``.
        """
        from durabatch.runner.session import execute

        start = None if from_item is None else str(from_item)
        wishes = Wishes(name=name, key=key, fresh=fresh, on_change=on_change, from_item=start, from_batch=from_batch, undo=undo, open=open)
        request = self.request(handler, items, wishes, settings)
        return execute(replace(request, on_batch=on_batch, on_progress=on_progress, on_note=on_note))

    def plan(
        self,
        handler: Handler,
        items: Items,
        *,
        name: str | None = None,
        key: str | None = None,
        fresh: bool = False,
        full: bool = False,
        output: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> Plan:
        """
        Return what ``run`` with the same arguments would find, without changing anything.

        Args:
            full: Read all of the input of a new run, too.
            output: A CSV file that takes a line for each item that may be decided about; edited, its path is an ``on_change``.
        """
        from durabatch.runner.planning import plan_of

        request = self.request(handler, items, Wishes(name=name, key=key, fresh=fresh), settings)
        return plan_of(request, full=full, output=None if output is None else os.fspath(output))

    def request(self, handler: Handler, items: Items | None, wishes: Wishes, settings: dict[str, Any]) -> RunRequest:
        """Return the request for a run."""
        from durabatch.runner import asking

        asked = asking.ask(handler, items, key=wishes.key, settings=settings, ledger=str(self.path), name=wishes.name)
        return replace(
            asked, fresh=wishes.fresh, on_change=wishes.on_change, from_item=wishes.from_item, from_batch=wishes.from_batch, undo=wishes.undo,
            open=wishes.open, durability=self.durability, allow_network_fs=self.allow_network_fs,
        )  # fmt: skip

    def transaction(self, name: str, *, trust_ledger: bool = False, **settings: Any) -> OpenTransaction:
        """
        Return a transaction for ``with`` or ``async with``: steps that this program does, all of them or none; see :mod:`durabatch.api.transaction`.

        An exception that leaves the block has everything undone, newest first, and goes on; what cannot be undone stands in its notes. Left
        otherwise, the transaction is committed, and its log kept: ``durabatch rollback --transaction NAME`` can still undo it.

        Args:
            name: Its id, as ``TRANS-001``. One of that id that a crash has left open is rolled back first; one that was rolled back is
                followed by ``TRANS-001#2``.
            trust_ledger: Roll back what a crash left although another user or machine made the ledger.
            settings: Fields of RunSettings: ``timeout``, ``max_attempts`` and ``backoff_s`` of undoing, ``max_undo_bytes``,
                ``max_result_bytes``.

        Raises:
            UsageError: The id is that of a committed one, or of a run. Nothing was changed.
            UndoError: What a crash left cannot be undone in full, or a step whose error was caught had left effects.
            LedgerError: The ledger cannot be used, or somebody has it.
        """
        from durabatch.api.transaction import OpenTransaction

        return OpenTransaction(self, name, trust_ledger=trust_ledger, settings=settings)

    def transactions(self) -> list[TransactionStatus]:
        """Return where each transaction of the ledger stands, oldest first."""
        from durabatch.engine.transactions import transactions

        with self.reader() as reader:
            return transactions(reader)

    def submit(self, name: str, items: Items, *, key: str | None = None, priority: int = 0, due: Due | None = None) -> Added:
        """
        Add items to the open run *name*, from any process or thread at any time, and return how many were new; they are on disk then.

        A key that the run has is left out and counted in ``duplicates``. Where there is no run of that name, an open one is made, which gets
        its handler from the first ``run(..., name=name, open=True)``. The connection is kept for the next call.

        Args:
            items: As for ``run``; a list is added in pages of up to 2,000, each of them whole or not at all.
            priority: Higher = sooner; other items have 0.
            due: Not before: ``"10m"``, a date and time, or a timedelta from now on.

        Raises:
            UsageError: The run is not open, or an argument is wrong. Nothing was added.
            InputError: An item cannot be used; those of the pages before it were added.
            LedgerError: The ledger cannot be used.
        """
        from durabatch.due import due_at_us
        from durabatch.runner.adding import Submitter, source_of

        at_us = None if due is None else due_at_us(due, now_us())
        if self.submitter is None:
            self.submitter = Submitter(str(self.path), durability=self.durability, allow_network_fs=self.allow_network_fs)
        *_, added = self.submitter.add(
            name, source_of(items, key=key, ledger=str(self.path), name=name), priority=priority, due_at_us=at_us
        )
        return added

    def sql(self, query: str, *, timeout_s: float = SQL_TIMEOUT_S) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """
        Return column names and rows of a query that only reads; ``item_value(item_id)`` gives an item's value as JSON, packed or not.

        Raises:
            SqlError: It is wrong, tries to write, or takes too long.
        """
        reader = self.reader()
        values = reading.ValueReader(reader)

        def item_value(item_id: int) -> str | None:
            return next((one.value_json for one in reading.chosen(values.ledger, [item_id])), None)

        reader.add_function("item_value", item_value)
        columns, rows = reader.query(query, timeout_s=timeout_s)
        return columns, closing(reader, rows)

    def backup(self, path: str | os.PathLike[str], *, force: bool = False) -> int:
        """
        Put a consistent copy of the ledger at *path*, also while a run is on, and return its bytes; it opens and resumes by itself.

        Args:
            force: Replace a file that is there.

        Raises:
            UsageError: There is a file already, or no copy can be there.
            LedgerError: The copy could not be made. What stood at *path* is there still.
        """
        from durabatch.ledger.backup import back_up

        with self.reader() as reader:
            return back_up(reader, path, force=force, now_us=now_us())[1]

    def verify(self) -> list[Finding]:
        """Return every rule of the ledger that does not hold; an empty list says that it is sound."""
        from durabatch.engine.verify import verify

        with self.reader() as reader:
            return verify(reader)
