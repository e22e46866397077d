"""
A database that is no ledger: one table of results, written for other programs.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from durabatch.ledger import statements

__all__ = ["OutFile"]


class OutFile:
    """
    A new database at *path*, in place of what is there, with the table ``result``; it is of no use before ``close``.

    Args:
        columns: (name, type) each.

    Raises:
        OSError: It cannot be written, here as in every method.
    """

    def __init__(self, path: Path, columns: Sequence[tuple[str, str]]) -> None:
        path.unlink(missing_ok=True)
        self.insert_text = statements.named()["outfile_insert"].replace(":places", ", ".join("?" * len(columns)))
        declared = ", ".join(f"{quoted(name)} {type}" for name, type in columns)
        with border():
            self.raw = apsw.Connection(os.fspath(path))
            # The file is synced and renamed when it is whole; a half one is thrown away.
            self.raw.pragma("journal_mode", "off")
            self.raw.pragma("synchronous", 0)
            self.raw.execute("BEGIN")
            self.raw.execute(statements.named()["outfile_create"].replace(":columns", declared))

    def insert(self, cells: Sequence[object]) -> None:
        """Add one row."""
        with border():
            self.raw.execute(self.insert_text, cells)

    def close(self) -> None:
        """Commit and close."""
        with border():
            try:
                self.raw.execute("COMMIT")
            finally:
                self.raw.close(force=True)


def quoted(name: str) -> str:
    """Return *name* as an identifier; a NUL, which none can hold, is left out."""
    return '"' + name.replace("\0", "").replace('"', '""') + '"'


@contextlib.contextmanager
def border() -> Iterator[None]:
    """Turn what SQLite raises in the body into what a file raises."""
    try:
        yield
    except apsw.FullError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    except apsw.Error as error:
        raise OSError(errno.EIO, str(error)) from error
