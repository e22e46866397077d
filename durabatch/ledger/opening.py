"""
Opening a ledger: is it one, is it ours, is it the version we know? Only then is it touched.

    check place → look read-only (header, version, schema text), or create → open for writing → migrate

A file that is refused is not changed by a single byte.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import apsw

from durabatch import errors
from durabatch.ledger import statements
from durabatch.ledger.backup import copy_to
from durabatch.ledger.connection import Connection
from durabatch.ledger.creating import create_ledger
from durabatch.ledger.executor import APPLICATION_ID, BORDER_ERRORS, check_library, harden, translate
from durabatch.ledger.paths import LedgerFiles, check_place, ledger_files, shown
from durabatch.ledger.schema import SCHEMA_VERSION, check_schema, schema_of
from durabatch.ledger.tripwire import Tripwire

__all__ = ["SCHEMA_VERSION", "check_before_touching", "check_identity", "migrate", "open_ledger"]

def open_ledger(
    path: str | os.PathLike[str],
    *,
    create: bool = False,
    durability: str = "power",
    vfs: str | None = None,
    allow_network_fs: bool = False,
    on_wait: Callable[[str], None] | None = None,
) -> Connection:
    """
    Return the writing connection to the ledger at *path*, made there when *create* allows it and nothing is there.

    Args:
        durability: ``power`` (a commit survives a power cut) or ``process`` (it survives the death of processes).
        vfs: Name of the SQLite VFS to go through, for crash simulations.
        on_wait: Called once with a sentence when another program keeps us waiting.

    Raises:
        UsageError, LedgerError: See :mod:`durabatch.errors`; a file that is refused is unchanged.
    """
    files = ledger_files(path)
    if check_before_touching(files, create=create, vfs=vfs, allow_network_fs=allow_network_fs):
        create_ledger(files, SCHEMA_VERSION)
    connection = Connection(files, vfs=vfs, durability=durability, on_wait=on_wait)
    try:
        migrate(connection, connection.raw.pragma("user_version"), statements.migrations())
        connection.tripwire = Tripwire(files)
    except BaseException:
        connection.close()
        raise
    return connection


def check_before_touching(files: LedgerFiles, *, create: bool, vfs: str | None, allow_network_fs: bool) -> bool:
    """
    Make sure that the ledger can be opened, without changing anything; return whether it is still to be made.

    Raises:
        UsageError, LedgerError: It cannot.
    """
    check_library()
    check_place(files, create=create, allow_network_fs=allow_network_fs)
    if is_empty(files, create=create):
        return True
    look_before_touching(files, vfs)
    return False


def is_empty(files: LedgerFiles, *, create: bool) -> bool:
    """Tell whether nothing is there yet. An empty file is a ledger only for those who may create one."""
    if not os.path.exists(files.ledger):
        return True
    if os.path.getsize(files.ledger) > 0:
        return False
    if os.path.exists(files.wal) and os.path.getsize(files.wal) > 0:
        raise errors.LedgerDamagedError(shown(files.ledger), "was cut to nothing; its -wal still holds data", "Move both away to start anew, or use a copy from before.")
    if not create:
        raise errors.NotALedgerError(shown(files.ledger), "is empty", "Start a run with it, or give another --ledger.")
    return True


def look_before_touching(files: LedgerFiles, vfs: str | None) -> None:
    """Check header, version and schema through a read-only connection, which changes nothing even in recovery of the log."""
    if not os.access(files.ledger, os.W_OK):
        raise errors.LedgerPathError(shown(files.ledger), "is read-only", "`status`, `results` and `sql` can read it; to run, change its permissions.")
    try:
        connection = apsw.Connection(files.ledger, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_NOFOLLOW, vfs=vfs)
        with contextlib.closing(connection):
            connection.set_busy_timeout(5000)
            harden(connection)
            check_identity(connection, files)
    except BORDER_ERRORS as error:
        raise translate(error, files.ledger) from error


def check_identity(connection: apsw.Connection, files: LedgerFiles) -> int:
    """
    Return the schema version of a ledger that is one of ours.

    Raises:
        NotALedgerError: Another program's database.
        LedgerVersionError: A version that this program does not know.
        LedgerDamagedError: The schema is not the one of its version.
    """
    name = shown(files.ledger)
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    if not connection.pragma("page_count"):
        raise errors.NotALedgerError(name, "is not a durabatch ledger (not a SQLite database)", "Give another --ledger.")
    if application != APPLICATION_ID:
        raise errors.NotALedgerError(name, f"is a SQLite database of another program (application id {application:#x})", "Give another --ledger.")
    if version > SCHEMA_VERSION:
        raise errors.LedgerVersionError(name, f"was written by schema {version}, this durabatch knows {SCHEMA_VERSION}", "Use a newer durabatch.")
    if version < 1:
        raise errors.LedgerVersionError(name, f"has the impossible schema version {version}", "It was changed by another program.")
    if connection.reserve_bytes():
        raise errors.LedgerDamagedError(name, "is damaged (its header reserves bytes in each page)", "Use a copy from before.")
    check_schema(schema_of(connection), version, name)
    return int(version)


def migrate(connection: Connection, version: int, steps: dict[int, Path]) -> None:
    """
    Apply the migrations after *version*, each in one transaction, after a copy of the ledger was put beside it as ``LEDGER.v<version>.bak``.

    A failing step leaves the ledger at the version before it.
    """
    missing = {target: path for target, path in steps.items() if target > version}
    if missing:
        copy_to(connection, f"{connection.files.ledger}.v{version}.bak")
    for target, path in missing.items():
        with connection.transaction(), connection.border():
            connection.raw.execute(path.read_text(encoding="utf-8"))
            connection.raw.pragma("user_version", target)
