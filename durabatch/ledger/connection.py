"""
The writing connection: pragmas with their reasons, write transactions, savepoints and checkpoints.

A write transaction waits for its turn, begins IMMEDIATE (a deferred one that turns into a writer fails at once when somebody else
wrote, https://www.sqlite.org/rescode.html#busy_snapshot), looks whether the ledger was taken over, and after the commit checks the
tripwire; only then is what it did true for others.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator

import apsw

from durabatch import errors
from durabatch.ledger.executor import BORDER_ERRORS, Bindings, Executor, apply_pragma, harden, translate
from durabatch.ledger.locks import TurnLock
from durabatch.ledger.paths import LedgerFiles, shown
from durabatch.ledger.tripwire import Tripwire

__all__ = ["Connection"]

#: KiB of page cache. More costs memory and gains nothing: fresh items are read once, ended ones never.
CACHE_KIB = 8_000
#: Seconds after which a foreign lock is told to the user, and after which we give up.
BUSY_NOTICE_S, BUSY_LIMIT_S = 2.0, 60.0


class Connection(Executor):
    """
    The one writing connection of a process to a ledger.
    """

    def __init__(self, files: LedgerFiles, *, vfs: str | None = None, durability: str = "power", on_wait: Callable[[str], None] | None = None) -> None:
        super().__init__(files)
        self.on_wait = on_wait
        self.turn = TurnLock(files)
        self.depth = 0
        self.wal_frames = 0
        self.epoch: int | None = None
        self.data_version = 0
        self.tripwire: Tripwire | None = None
        with self.border():
            flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_NOFOLLOW
            self.raw = apsw.Connection(files.ledger, flags=flags, vfs=vfs)
            self.raw.set_busy_handler(self.wait_for_others)
            harden(self.raw)
            self.apply_pragmas(durability)
            self.raw.set_wal_hook(self.count_frames)

    def apply_pragmas(self, durability: str) -> None:
        """Apply the settings of this connection, each set alone and read back."""
        # The log is what makes one commit one fsync, and readers independent of the writer.
        apply_pragma(self.raw, "journal_mode", "wal")
        # FULL syncs the log at each commit: power loss takes nothing back. NORMAL survives the death of processes only.
        apply_pragma(self.raw, "synchronous", "full" if durability == "power" else "normal", 2 if durability == "power" else 1)
        apply_pragma(self.raw, "foreign_keys", 1)
        # SQLite's automatic checkpoint swallows its own errors; ours are made by hand and raise.
        apply_pragma(self.raw, "wal_autocheckpoint", 0)
        # Checks the structure of each page that is read: bit rot is found early, at a small cost.
        apply_pragma(self.raw, "cell_size_check", 1)
        # A mapped file turns an I/O error into a signal that kills the process.
        apply_pragma(self.raw, "mmap_size", 0)
        apply_pragma(self.raw, "cache_size", -CACHE_KIB)
        apply_pragma(self.raw, "temp_store", "memory", 2)

    def wait_for_others(self, tries: int) -> bool:
        """Tell SQLite whether to go on waiting for a lock of another program."""
        pause_s = 0.02
        waited_s = tries * pause_s
        if self.on_wait is not None and waited_s <= BUSY_NOTICE_S < waited_s + pause_s:
            self.on_wait(f"{shown(self.files.ledger)} is locked by another program; waiting")
        time.sleep(pause_s)
        return waited_s < BUSY_LIMIT_S

    def count_frames(self, _connection: apsw.Connection, _database: str, frames: int) -> int:
        """Remember how long the log is; SQLite calls this after each commit."""
        self.wal_frames = frames
        return apsw.SQLITE_OK

    def executemany(self, name: str, rows: Iterable[Bindings]) -> apsw.Cursor:
        """Run the statement *name* once for each of *rows*. Errors as for ``execute``."""
        self.check_owner()
        try:
            return self.raw.executemany(self.sql[name], rows)
        except BORDER_ERRORS as error:
            raise translate(error, self.files.ledger) from error

    def changes(self) -> int:
        """Return how many rows the last statement changed."""
        return self.raw.changes()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """
        Make the body one write transaction; inside another one it simply joins.

        On return everything is on disk, and the ledger is still the file with its name.

        Raises:
            LedgerTakenOverError: Another coordinator has opened the ledger since. Nothing of the body is kept.
            LedgerLostError: The file is not the one that was opened: seen before the body, or after the commit, which may have gone nowhere.
            LedgerError: SQLite failed. Nothing of the body is kept, except that after LedgerStorageError in the commit the outcome is unknown.
        """
        if self.depth:
            yield
            return
        self.check_owner()
        with self.turn.held():
            try:
                self.begin()
                yield
                self.commit()
            except BaseException:
                self.roll_back()
                raise
            finally:
                self.depth = 0
        self.check_files()

    def check_files(self) -> None:
        """Stop if the files are not the ones that were opened."""
        if self.tripwire is not None:
            self.tripwire.check()

    def begin(self) -> None:
        """Start the transaction and notice what others did since the last one, to the rows or to the files."""
        with self.border():
            self.raw.execute("BEGIN IMMEDIATE")
            self.depth = 1
            version = self.raw.pragma("data_version")
            if version != self.data_version:
                self.data_version = version
                self.check_epoch()
        # A write would make a log that was cut long again, with a hole in it.
        self.check_files()

    def check_epoch(self) -> None:
        """Stop if another coordinator has opened the ledger after us; the lock file must have been removed."""
        if self.epoch is not None and self.value("event_opened_after", (self.epoch,)):
            raise errors.LedgerTakenOverError(
                shown(self.files.ledger), "another coordinator has taken it over (was its .lock file deleted?)", "This process stops; nothing more is recorded by it."
            )

    def commit(self) -> None:
        """Commit. An error leaves the outcome to be asked from the ledger, never guessed."""
        with self.border():
            self.raw.execute("COMMIT")

    def roll_back(self) -> None:
        """Undo the open transaction, if SQLite has not done so already."""
        self.depth = 0
        if self.raw.in_transaction:
            with contextlib.suppress(*BORDER_ERRORS):
                self.raw.execute("ROLLBACK")

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Make the body undoable by itself inside the open transaction: an exception takes back the body alone, and goes on."""
        with self.border():
            self.raw.execute("SAVEPOINT step")
        try:
            yield
        except BaseException:
            with self.border():
                self.raw.execute("ROLLBACK TO step")
                self.raw.execute("RELEASE step")
            raise
        with self.border():
            self.raw.execute("RELEASE step")

    def checkpoint(self, *, truncate: bool = False) -> bool:
        """
        Move the log into the ledger and return whether all of it went; a reader that is at work keeps the rest back.

        Args:
            truncate: Also cut the log to nothing; waits for no reader.
        """
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if truncate else apsw.SQLITE_CHECKPOINT_PASSIVE
        if truncate and self.tripwire is not None:
            self.tripwire.forget_wal_size()
        self.raw.set_busy_handler(None)
        try:
            log, done = self.raw.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            return False
        except BORDER_ERRORS as error:
            raise translate(error, self.files.ledger) from error
        finally:
            self.raw.set_busy_handler(self.wait_for_others)
        self.wal_frames = log - done
        return log == done

    def close(self) -> None:
        """Close; the last connection to close moves the rest of the log into the ledger and removes it. What fails in that is done by the next to open; a forked child leaves all of it to its parent."""
        if self.owner[0] == os.getpid():
            with contextlib.suppress(*BORDER_ERRORS):
                self.raw.close(force=True)
        if self.tripwire is not None:
            self.tripwire.close()
        self.turn.close()
