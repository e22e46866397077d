"""
Notices a ledger that was deleted, replaced, linked or cut while it is open. SQLite itself answers all of these with success.

The check is a few ``stat`` calls by name after each commit, before anything that was committed is reported, and a look at the first bytes
of the write-ahead log: one that was cut to nothing in the middle of a commit is long again, with a hole where its header was. A
descriptor of the log drops no lock when it is closed: SQLite's are on the ledger and the -shm file.
"""

from __future__ import annotations

import os

from durabatch.errors import LedgerLostError
from durabatch.ledger.paths import LedgerFiles, shown

__all__ = ["Tripwire"]


#: How a write-ahead log begins, in either byte order of its checksums (https://www.sqlite.org/fileformat2.html#walformat).
WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


class Tripwire:
    """
    Remembers which files the open connection writes to.

    Attributes:
        is_alone: Nobody else cuts the log. A process that adds items leaves that to the coordinator, who does it at any time.
    """

    def __init__(self, files: LedgerFiles) -> None:
        """Arm it; the connection must have written once, so that the write-ahead log exists."""
        self.files = files
        ledger, wal = os.stat(files.ledger), os.stat(files.wal)
        self.ledger = (ledger.st_dev, ledger.st_ino)
        self.wal = (wal.st_dev, wal.st_ino)
        self.bytes = ledger.st_size
        self.wal_bytes = wal.st_size
        #: False until the first commit: what a crash left in the log may be no header, and SQLite then begins it anew.
        self.has_header = False
        self.is_alone = True
        self.log = os.open(files.wal, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

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
        if ledger.st_size < self.bytes or (self.is_alone and wal.st_size < self.wal_bytes):
            raise self.lost("the file was cut")
        if self.has_header and wal.st_size and not self.header_is_there():
            raise self.lost("its write-ahead log was cut")
        self.has_header = wal.st_size > 0 and (self.has_header or self.header_is_there())
        self.bytes = ledger.st_size
        self.wal_bytes = wal.st_size

    def forget_wal_size(self) -> None:
        """Accept a shorter log: the connection itself is about to truncate it."""
        self.wal_bytes = 0
        self.has_header = False

    def header_is_there(self) -> bool:
        """Tell whether the log begins as logs do."""
        return os.pread(self.log, 4, 0) in WAL_MAGIC

    def close(self) -> None:
        """Look no more."""
        os.close(self.log)

    def lost(self, why: str) -> LedgerLostError:
        """Return the error, with the one place where the data can still be found."""
        return LedgerLostError(
            shown(self.files.ledger), f"{why} while the run was using it; the run stops here",
            f"The open file is still at /proc/{os.getpid()}/fd until this process ends; results reported before are in the ledger that was moved, if it was moved.",
        )
