"""
Reading a ledger while others write it: a read-only connection with a deadline, for status, results, items and ad-hoc SQL.

It never writes, never keeps a coordinator waiting, and after the schema was found equal to ours it may use the views. A ledger of an earlier
version is read through a lens, as one of the present version.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import apsw

from durabatch.errors import LedgerMissingError, NotALedgerError, SqlError
from durabatch.ledger import lens
from durabatch.ledger.executor import Bindings, Executor, apply_pragma, harden, translate
from durabatch.ledger.opening import check_identity
from durabatch.ledger.paths import check_kind, facts_of, ledger_files, missing_hint, shown
from durabatch.ledger.schema import SCHEMA_VERSION

__all__ = ["Reader"]

#: SQLite instructions between two looks at the clock.
STEPS = 50_000
#: What a ledger that somebody sent us may make us hold at once.
LIMITS = (
    (apsw.SQLITE_LIMIT_LENGTH, 1 << 30),
    (apsw.SQLITE_LIMIT_SQL_LENGTH, 100_000),
    (apsw.SQLITE_LIMIT_COLUMN, 128),
    (apsw.SQLITE_LIMIT_ATTACHED, 0),
    (apsw.SQLITE_LIMIT_EXPR_DEPTH, 100),
)
#: What a query of the user's may do: read, compute, and look at the catalogue.
ALLOWED = frozenset({apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE})
CATALOGUE_PRAGMAS = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info", "database_list"})
HEADER_PRAGMAS = frozenset({"user_version", "application_id"})
#: What the file or the disk is to blame for, and not the text of a query.
NOT_THE_QUERY = (
    apsw.BusyError, apsw.CantOpenError, apsw.CorruptError, apsw.FullError, apsw.IOError, apsw.LockedError, apsw.NotADBError,
    UnicodeDecodeError, OverflowError,
)


class Reader(Executor):
    """
    A read-only connection to the ledger at *path*.

    Raises:
        LedgerError: Missing, foreign, newer or damaged. The file is unchanged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        files = ledger_files(path)
        super().__init__(files)
        self.deadline_s: float | None = None
        facts = facts_of(files)
        if facts is None:
            raise LedgerMissingError(shown(files.ledger), "there is no such ledger", missing_hint(files.ledger))
        check_kind(files, facts)
        if facts.st_size == 0 and not os.path.exists(files.wal):
            raise NotALedgerError(shown(files.ledger), "is empty", "Start a run with it, or give another --ledger.")
        with self.border():
            self.raw = self.connect()

    def connect(self) -> apsw.Connection:
        """Return the open connection; where no side file can be made, a ledger at rest is read as it is."""
        try:
            return self.connect_as(self.files.ledger, apsw.SQLITE_OPEN_READONLY)
        except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.IOError):
            if os.path.exists(self.files.wal):
                raise
        quoted = self.files.ledger.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        return self.connect_as(f"file:{quoted}?immutable=1", apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)

    def connect_as(self, name: str, flags: int) -> apsw.Connection:
        """Return a checked connection to *name*."""
        connection = apsw.Connection(name, flags=flags)
        try:
            connection.set_busy_timeout(5000)
            harden(connection)
            for limit, value in LIMITS:
                connection.limit(limit, value)
            apply_pragma(connection, "cache_size", -4000)
            if check_identity(connection, self.files) == SCHEMA_VERSION:
                harden(connection, views=True)
            else:
                # Views of the file stay off; those of the lens are of the connection.
                lens.put_on(connection)
            apply_pragma(connection, "query_only", 1)
        except BaseException:
            connection.close(force=True)
            raise
        return connection

    def __enter__(self) -> Self:
        """Return the reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close; a ledger in use is not disturbed by it."""
        self.raw.close(force=True)

    def add_function(self, name: str, function: Callable[..., Any]) -> None:
        """Let SQL call *function* by *name*; it must return the same for the same arguments."""
        self.raw.create_scalar_function(name, function)

    def query(self, text: str, bindings: Bindings = (), *, timeout_s: float) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """
        Return column names and rows of an ad-hoc query.

        Args:
            text: One statement that only reads.
            timeout_s: Seconds for the whole of it, rows included.

        Raises:
            SqlError: It is wrong, tries to write, or has not ended in time. Raised by the call or while rows are read.
        """
        self.check_owner()
        deadline_s = time.monotonic() + timeout_s
        cursor, names = self.raw.cursor(), list[str]()
        cursor.exec_trace = functools.partial(note_columns, names)
        with self.sql_errors(timeout_s), self.limited(deadline_s):
            cursor.execute(text, bindings)
        return names, self.fetch(cursor, deadline_s, timeout_s)

    def fetch(self, cursor: apsw.Cursor, deadline_s: float, timeout_s: float) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a running query."""
        try:
            while True:
                with self.sql_errors(timeout_s), self.limited(deadline_s):
                    row = cursor.fetchone()
                if row is None:
                    return
                yield row
        finally:
            cursor.close(force=True)

    @contextlib.contextmanager
    def limited(self, deadline_s: float) -> Iterator[None]:
        """Hold the body to what a query of the user's may do, and until when; our own statements are not held to it."""
        self.deadline_s = deadline_s
        self.raw.set_progress_handler(self.is_late, STEPS)
        self.raw.authorizer = authorise
        try:
            yield
        finally:
            self.raw.authorizer = None
            self.raw.set_progress_handler(None)
            self.deadline_s = None

    def is_late(self) -> bool:
        """Tell SQLite whether to stop the running statement."""
        return self.deadline_s is not None and time.monotonic() > self.deadline_s

    @contextlib.contextmanager
    def sql_errors(self, timeout_s: float) -> Iterator[None]:
        """Turn what SQLite says about the user's text into our errors."""
        try:
            yield
        except apsw.InterruptError as error:
            raise SqlError(f"query stopped after {timeout_s:g} s", "Narrow it, or give it more time with --sql-timeout.") from error
        except apsw.AuthError as error:
            raise SqlError("sql is read-only: this statement would change something", "Only SELECT works here.") from error
        except NOT_THE_QUERY as error:
            raise translate(error, self.files.ledger) from error
        except (apsw.Error, UnicodeEncodeError, MemoryError) as error:
            raise SqlError(f"sql: {error}", "The tables are in schema/ledger.sql; v_run, v_item, v_attempt, v_batch, v_error and v_undo are views.") from error


def note_columns(names: list[str], cursor: apsw.Cursor, _text: str, _bindings: object) -> bool:
    """Put the names of the columns into *names*, before the first row: a query without rows has them too."""
    names[:] = names or [column[0] for column in cursor.get_description()]
    return True


def authorise(operation: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None) -> int:
    """Tell SQLite whether a part of an ad-hoc query may run."""
    if operation == apsw.SQLITE_FUNCTION:
        return apsw.SQLITE_DENY if second in ("load_extension", "writefile", "fts3_tokenizer") else apsw.SQLITE_OK
    if operation in ALLOWED:
        return apsw.SQLITE_OK
    is_question = operation == apsw.SQLITE_PRAGMA and (first in CATALOGUE_PRAGMAS or (first in HEADER_PRAGMAS and second is None))
    return apsw.SQLITE_OK if is_question else apsw.SQLITE_DENY

