"""
A ledger as Python users name it: a path, and how it is to be opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from durabatch.errors import UsageError
from durabatch.ledger.reader import Reader

__all__ = ["LedgerFile", "closing"]


class LedgerFile:
    """
    A ledger file. Takes no lock by itself.

    Args:
        path: The file; made by the first ``run``.
        durability: ``power`` or ``process``: what a commit survives.
        allow_network_fs: Accept a network file system, if only this host ever opens the file.
    """

    def __init__(self, path: str | os.PathLike[str] = "durabatch.db", *, durability: str = "power", allow_network_fs: bool = False) -> None:
        if durability not in ("power", "process"):
            raise UsageError(f"durability: {durability!r} is not 'power' or 'process'")
        self.path = Path(path)
        self.durability = durability
        self.allow_network_fs = allow_network_fs

    def reader(self) -> Reader:
        """Return a read-only connection."""
        return Reader(self.path)


def closing(reader: Reader, rows: Iterator[Any]) -> Iterator[Any]:
    """Yield *rows* and close their reader behind the last one."""
    with reader:
        yield from rows
