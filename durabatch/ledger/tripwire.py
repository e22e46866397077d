"""
Notices a ledger that was deleted, replaced, linked or cut while it is open. SQLite itself answers all of these with success.

The check is a few ``stat`` calls by name after each commit, before anything that was committed is reported.
"""

from __future__ import annotations

import os

from durabatch.errors import LedgerLostError
from durabatch.ledger.paths import LedgerFiles, shown

__all__ = ["Tripwire"]


class Tripwire:
    """Remembers which files the open connection writes to."""

    def __init__(self, files: LedgerFiles) -> None:
        """Arm it; the connection must have written once, so that the write-ahead log exists."""
        self.files = files
        ledger, wal = os.stat(files.ledger), os.stat(files.wal)
        self.ledger = (ledger.st_dev, ledger.st_ino)
        self.wal = (wal.st_dev, wal.st_ino)
        self.bytes = ledger.st_size
        self.wal_bytes = wal.st_size

    def check(self) -> None:
        """
        Return when the files are still the ones that were opened.

        Raises:
            LedgerLostError: They are not. What was committed since the last check may be in no file that has a name.
        """
        try:
            ledger, wal = os.stat(self.files.ledger), os.stat(self.files.wal)
        except OSError as error:
            raise self.lost(f"{shown(str(error.filename))} has disappeared") from error
        if (ledger.st_dev, ledger.st_ino) != self.ledger:
            raise self.lost("the file was replaced by another")
        if (wal.st_dev, wal.st_ino) != self.wal:
            raise self.lost("its write-ahead log was replaced")
        if ledger.st_nlink != 1:
            raise self.lost("the file got a second name (hard link)")
        if ledger.st_size < self.bytes or wal.st_size < self.wal_bytes:
            raise self.lost("the file was cut")
        self.bytes = ledger.st_size
        self.wal_bytes = wal.st_size

    def forget_wal_size(self) -> None:
        """Accept a shorter log: the connection itself is about to truncate it."""
        self.wal_bytes = 0

    def lost(self, why: str) -> LedgerLostError:
        """Return the error, with the one place where the data can still be found."""
        return LedgerLostError(
            shown(self.files.ledger), f"{why} while the run was using it; the run stops here",
            f"The open file is still at /proc/{os.getpid()}/fd until this process ends; results reported before are in the ledger that was moved, if it was moved.",
        )
