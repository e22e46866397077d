"""
Running named statements on an SQLite connection, and the one place where apsw's errors become ours.

One thread of one process owns a connection, whether it writes (:mod:`durabatch.ledger.connection`) or reads
(:mod:`durabatch.ledger.reader`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import apsw

from durabatch import errors
from durabatch.ledger import statements
from durabatch.ledger.paths import LedgerFiles, shown

__all__ = ["APPLICATION_ID", "BORDER_ERRORS", "HARDENING", "MINIMUM_SQLITE", "Bindings", "Executor", "apply_pragma", "check_library", "harden", "translate"]

#: "dbat" as four bytes: what `file` and other programs see in the header of a ledger.
APPLICATION_ID = 0x64626174
#: 3.7.0 to 3.51.2 can corrupt a log that two connections reset; 3.53.3 has a rollback bug that 3.53.4 mends.
MINIMUM_SQLITE = (3, 53, 4)

#: A ledger file is input: nothing in its schema may act on its own.
HARDENING = (
    (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
    (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0),
    (apsw.SQLITE_DBCONFIG_DQS_DML, 0),
    (apsw.SQLITE_DBCONFIG_DQS_DDL, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, 0),
)

Bindings = Sequence[Any] | dict[str, Any]
#: What SQLite and apsw may raise at the border of a file that is not to be trusted: text that is not UTF-8 is no apsw.Error.
BORDER_ERRORS = (apsw.Error, UnicodeDecodeError, OverflowError, MemoryError)


def check_library() -> None:
    """
    Make sure that the SQLite inside apsw is one whose write-ahead log can be trusted.

    Raises:
        LedgerError: It is older. Nothing was opened.
    """
    version = apsw.sqlite_lib_version()
    if tuple(map(int, version.split("."))) < MINIMUM_SQLITE:
        needed = ".".join(map(str, MINIMUM_SQLITE))
        raise errors.LedgerError("apsw", f"its SQLite is {version}, which can lose or damage data; {needed} or newer is needed", "pip install -U apsw")


def translate(error: BaseException, path: str) -> errors.DurabatchError:
    """Return our error for one of SQLite's, told apart by its result code and never by its text."""
    name = shown(path)
    recover = "Work on a copy of the file and its -wal; `durabatch verify` says what is broken."
    if isinstance(error, UnicodeDecodeError):
        return errors.LedgerDamagedError(name, "is damaged: a text in it is not UTF-8", recover)
    code = getattr(error, "result", 0)
    if isinstance(error, apsw.NotADBError):
        return errors.NotALedgerError(name, "is not a durabatch ledger (not a SQLite database)", "Give another --ledger.")
    if isinstance(error, apsw.CorruptError):
        return errors.LedgerDamagedError(name, f"is damaged ({error})", recover)
    if isinstance(error, apsw.FullError):
        return errors.LedgerFullError(name, "the disk is full; the last transaction was not made", "Make room and start the same command again.")
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return errors.LedgerBusyError(name, "another program keeps it locked", "End that program's transaction and start the same command again.")
    if isinstance(error, (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError)):
        return errors.LedgerPathError(name, f"cannot be opened ({error})", "Check the permissions of the file, its -wal and its directory.")
    if isinstance(error, (apsw.IOError, apsw.NoMemError, MemoryError)):
        return errors.LedgerStorageError(
            name, f"the storage failed ({type(error).__name__}: {error}); whether the last commit happened is unknown", "Check the disk, then start the same command again: it looks first."
        )
    return errors.LedgerDamagedError(name, f"SQLite refused a statement ({type(error).__name__} {code}: {error})", recover)


def harden(connection: apsw.Connection, *, views: bool = False) -> None:
    """Switch off everything through which a schema could act; *views* only once its text was found to be ours."""
    for option, value in HARDENING:
        connection.config(option, 1 if option == apsw.SQLITE_DBCONFIG_ENABLE_VIEW and views else value)


def apply_pragma(connection: apsw.Connection, name: str, value: str | int, expected: str | int | None = None) -> None:
    """
    Set one pragma and read it back, since an unknown or refused one is silently ignored by SQLite.

    Args:
        expected: What reading answers, where that differs from *value*.
    """
    connection.pragma(name, value)
    found = connection.pragma(name)
    if found != (value if expected is None else expected):
        raise errors.LedgerError(connection.filename, f"SQLite answered {found!r} to PRAGMA {name} = {value}", "Report this with the output of `durabatch --version`.")


class Executor:
    """
    Runs the statements of ``schema/queries`` by name, on a connection that one thread of one process owns.
    """

    raw: apsw.Connection

    def __init__(self, files: LedgerFiles) -> None:
        self.files = files
        self.sql = statements.named()
        self.owner = (os.getpid(), threading.get_ident())

    @contextlib.contextmanager
    def border(self) -> Iterator[None]:
        """Turn what SQLite raises in the body into our errors."""
        try:
            yield
        except BORDER_ERRORS as error:
            raise translate(error, self.files.ledger) from error

    def execute(self, name: str, bindings: Bindings = ()) -> apsw.Cursor:
        """
        Run the statement *name* and return its rows.

        Raises:
            ForkedConnectionError: Called in another process or thread than the one that opened the ledger. Nothing was executed.
            LedgerError: SQLite failed; the transaction around is rolled back by ``transaction``.
        """
        self.check_owner()
        try:
            return self.raw.execute(self.sql[name], bindings)
        except BORDER_ERRORS as error:
            raise translate(error, self.files.ledger) from error

    def value(self, name: str, bindings: Bindings = ()) -> Any:
        """Return the first column of the first row of the statement *name*, or None when there is no row."""
        row = self.row(name, bindings)
        return None if row is None else row[0]

    def row(self, name: str, bindings: Bindings = ()) -> tuple[Any, ...] | None:
        """Return the first row of the statement *name*, or None when there is none."""
        with self.border():
            return self.execute(name, bindings).fetchone()

    def rows(self, name: str, bindings: Bindings = ()) -> list[tuple[Any, ...]]:
        """Return all rows of the statement *name*; for statements whose result is bounded."""
        with self.border():
            return self.execute(name, bindings).fetchall()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every read of the body see one and the same state of the ledger, whatever others commit meanwhile; inside a transaction it simply joins."""
        self.check_owner()
        if self.raw.in_transaction:
            yield
            return
        with self.border():
            self.raw.execute("BEGIN")
        try:
            yield
        finally:
            if self.raw.in_transaction:
                with self.border():
                    self.raw.execute("ROLLBACK")

    def check_owner(self) -> None:
        """Refuse use after a fork or from another thread: SQLite would let a child write (https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_)."""
        if self.owner != (os.getpid(), threading.get_ident()):
            raise errors.ForkedConnectionError(
                shown(self.files.ledger), "the connection belongs to another process or thread", "Open the ledger where it is used; handlers must not touch it."
            )
