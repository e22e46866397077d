"""
Adding items to open runs, from any process at any time: no coordinator is asked, and none is needed.

    a page of rows  →  one short write transaction in its turn  →  the coordinator, if there is one, notices within 50 ms

Whoever adds keeps a connection of its own as long as it goes on; a connection belongs to one thread of one process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence

from durabatch import process
from durabatch.clock import now_us
from durabatch.engine.add import Added, add, find_or_create
from durabatch.errors import LedgerError
from durabatch.intake.open import open_items, open_source
from durabatch.intake.remarks import Remarks
from durabatch.intake.source import Row, Source
from durabatch.intake.spec import InputSpec
from durabatch.ledger.connection import Connection
from durabatch.ledger.locks import Ownership
from durabatch.ledger.opening import check_before_touching, open_ledger
from durabatch.ledger.paths import ledger_files
from durabatch.ledger.reader import Reader
from durabatch.ledger.schema import SCHEMA_VERSION

__all__ = ["Items", "Submitter", "source_of"]

#: Items as users name them: an input spec, a path, or any iterable of values.
Items = InputSpec | str | os.PathLike[str] | Iterable[object]

#: Rows and input bytes of one transaction: others wait for their turn meanwhile, and none of them long.
PAGE_ITEMS, PAGE_BYTES = 2_000, 1 << 20
#: Frames of the log after which who adds moves it into the ledger: a coordinator would have done so before.
CHECKPOINT_FRAMES = 8000


class Line:
    """One open connection, closed with the last reference to it. In a forked child it is left to the parent."""

    def __init__(self, connection: Connection) -> None:
        self.connection: Connection | None = connection

    def __del__(self) -> None:
        """Close it."""
        self.close()

    @property
    def usable(self) -> Connection | None:
        """The connection, if it is open and this process's own."""
        return self.connection if self.connection is not None and self.connection.owner[0] == os.getpid() else None

    def close(self) -> None:
        """Close it; a second call finds nothing to do."""
        if self.usable is not None:
            self.usable.close()
        elif self.connection is not None:
            # SQLite must not close in a child what its parent has open.
            ABANDONED.append(self.connection)
        self.connection = None


#: Connections of a parent process, which a forked child neither uses nor closes.
ABANDONED: list[Connection] = []


class Submitter:
    """
    Adds items to the open runs of one ledger. May be used from several threads, and after a fork.

    Args:
        path: The ledger; made when it is not there.
        durability: ``power`` or ``process``: what an added item survives.
    """

    def __init__(self, path: str, *, durability: str = "power", allow_network_fs: bool = False) -> None:
        self.path = path
        self.durability = durability
        self.allow_network_fs = allow_network_fs
        self.mine = threading.local()

    def add(
        self, name: str, source: Source, *, priority: int = 0, due_at_us: int | None = None, remarks: Remarks | None = None
    ) -> Iterator[Added]:
        """
        Add what *source* gives to the run *name*, a page a transaction; yield after each what became of the rows so far.

        Args:
            name: The newest run of that series, or the run that is called so; an open one is made when there is none.
            remarks: Hears of lines that are left out; None stops before the first.

        Raises:
            UsageError: The run is not open.
            InputError: A row cannot be an item; everything before it was added, and yielded.
            LedgerError: The ledger cannot be used. What was yielded is on disk.
        """
        so_far: Added | None = None
        for page in (remarks or Remarks()).pages(source, None, max_items=PAGE_ITEMS, max_bytes=PAGE_BYTES):
            if so_far is None or page.rows:
                made = self.add_page(name, None if so_far is None else so_far.run_id, page.rows, priority, due_at_us)
                so_far = made if so_far is None else so_far + made
            so_far += Added(so_far.run_id, left_out=len(page.left_out))
            yield so_far
            if page.problem is not None:
                raise page.problem

    def add_page(self, name: str, run_id: int | None, rows: Sequence[Row], priority: int, due_at_us: int | None) -> Added:
        """Add one page; *run_id* is None before the run was found. Whatever fails, the next page begins with a new connection."""
        ledger, now = self.connection(), now_us()
        try:
            with ledger.transaction():
                found = find_or_create(ledger, name, now_us=now) if run_id is None else run_id
                made = add(ledger, found, rows, priority=priority, due_at_us=due_at_us, now_us=now)
            if ledger.wal_frames >= CHECKPOINT_FRAMES:
                ledger.checkpoint()
        except LedgerError:
            self.close()
            raise
        return made

    def connection(self, *, create: bool = True) -> Connection:
        """Return this thread's connection, opened when it has none that belongs to it; *create* makes a ledger where there is none."""
        line: Line | None = getattr(self.mine, "line", None)
        found = line.usable if line is not None else None
        if found is None:
            found = self.opened(create=create)
            self.mine.line = Line(found)
        return found

    def opened(self, *, create: bool) -> Connection:
        """Return a new connection. A ledger of an older version is brought up to date, unless somebody works with it: LedgerInUseError."""
        files = ledger_files(self.path)
        is_new = check_before_touching(files, create=create, vfs=None, allow_network_fs=self.allow_network_fs)
        if is_new or version_of(self.path) == SCHEMA_VERSION:
            return self.shared(create=create)
        ownership = Ownership(files, {"pid": os.getpid(), "host": process.host_name()})
        try:
            return self.shared(create=create)
        finally:
            ownership.release()

    def shared(self, *, create: bool) -> Connection:
        """Return a connection beside which others move and cut the log."""
        connection = open_ledger(self.path, create=create, durability=self.durability, allow_network_fs=self.allow_network_fs)
        if connection.tripwire is not None:
            connection.tripwire.is_alone = False
        return connection

    def close(self) -> None:
        """Close this thread's connection; those of other threads close with them."""
        line: Line | None = getattr(self.mine, "line", None)
        if line is not None:
            self.mine.line = None
            line.close()


def version_of(path: str) -> int:
    """Return the schema version of a ledger."""
    with Reader(path) as reader:
        return int(reader.raw.pragma("user_version"))


def source_of(items: Items, *, key: str | None, ledger: str, name: str) -> Source:
    """
    Return the source of what a Python caller hands in for the run *name*.

    Raises:
        UsageError, InputError: It cannot be one, or is not there.
    """
    if isinstance(items, (str, os.PathLike)):
        items = InputSpec(inputs=(os.fspath(items),), key=key)
    if isinstance(items, InputSpec):
        return open_source(items, never=ledger_files(ledger).all(), ledger=ledger, series=name)
    return open_items(items, key=key)
