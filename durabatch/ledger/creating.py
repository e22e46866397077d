"""
A new ledger: built in memory, written beside its place, renamed into it. It appears whole or not at all.

SQLite's own way from an empty file to a schema in the log passes through a rollback journal and through files that nobody could tell from
those of another program; a crash there would leave one behind.
"""

from __future__ import annotations

import contextlib
import errno
import os

import apsw

from durabatch import errors
from durabatch.ledger import statements
from durabatch.ledger.executor import APPLICATION_ID
from durabatch.ledger.locks import TurnLock
from durabatch.ledger.paths import LedgerFiles, shown

__all__ = ["MODE", "NO_ROOM", "create_ledger", "sync_directory"]

MODE = 0o600
#: Read and write version in the header of a database file: 2 says that it has a write-ahead log.
JOURNAL_VERSIONS, WRITE_AHEAD = slice(18, 20), b"\x02\x02"
#: What a file system answers when there is no room: on the disk, in the quota, or in the size limit of the process.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def create_ledger(files: LedgerFiles, version: int) -> None:
    """
    Put an empty ledger of this schema version in place of nothing, or of an empty file, readable by this user alone; on return it is on disk.

    SQLite gives the side files the same mode. A ledger that another process has made meanwhile stays.

    Raises:
        LedgerFullError, LedgerPathError: It could not be written. Nothing is at its path.
    """
    turn = TurnLock(files)
    try:
        with turn.held():
            if not os.path.exists(files.ledger) or os.path.getsize(files.ledger) == 0:
                write(files, content(version))
    except OSError as error:
        if error.errno in NO_ROOM:
            raise errors.LedgerFullError(shown(files.ledger), "the disk is full; no ledger was made", "Make room and start the same command again.") from error
        raise errors.LedgerPathError(shown(files.ledger), error.strerror or str(error), "Choose another file.") from error
    finally:
        turn.close()


def content(version: int) -> bytes:
    """Return the bytes of an empty ledger."""
    with contextlib.closing(apsw.Connection(":memory:")) as connection:
        connection.execute(statements.schema_text())
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", version)
        made = bytearray(connection.serialize("main"))
    made[JOURNAL_VERSIONS] = WRITE_AHEAD
    return bytes(made)


def write(files: LedgerFiles, made: bytes) -> None:
    """Write the file and give it its name. A log that was left of an earlier ledger of that name goes first: it would be played into this one."""
    fresh = f"{files.ledger}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE), "wb", buffering=0) as file:
            view = memoryview(made)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        for left in (files.wal, files.shm, f"{files.ledger}-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(left)
        os.replace(fresh, files.ledger)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        raise
    sync_directory(os.path.dirname(files.ledger))


def sync_directory(folder: str) -> None:
    """Make the names in *folder* outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
