"""
Rows as the table ``result`` of an SQLite file, which every tool reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from durabatch.ledger.outfile import OutFile
from durabatch.output.columns import Column, Kind, Table, typed
from durabatch.output.rows import ExportRow
from durabatch.output.sinks import SinkSettings

__all__ = ["DatabaseFile"]

#: Types of columns; text is what is not listed.
TYPES = {Kind.TRUTH: "INTEGER", Kind.WHOLE: "INTEGER", Kind.BIG: "INTEGER", Kind.NUMBER: "REAL"}


class DatabaseFile:
    """Writes an SQLite database with one table. Truth values are 0 and 1; a column of mixed or nested values holds JSON text."""

    wants_columns = True

    def __init__(self, settings: SinkSettings) -> None:
        self.settings = settings
        self.file: OutFile | None = None

    def open(self, path: Path, columns: Sequence[Column]) -> None:
        """Begin a new database at *path*."""
        self.table = Table(self.settings.members, columns)
        names = distinct([column.heading for column in self.table.columns])
        self.file = OutFile(path, [(name, TYPES.get(one.kind, "TEXT")) for name, one in zip(names, self.table.columns, strict=True)])

    def write(self, row: ExportRow) -> None:
        """Write one row."""
        if self.file is not None:
            self.file.insert([typed(value, column) for value, column in zip(self.table.cells(row), self.table.columns, strict=True)])

    def close(self) -> None:
        """Commit and close."""
        file, self.file = self.file, None
        if file is not None:
            file.close()


def distinct(names: Sequence[str]) -> list[str]:
    """Return the names with a number behind those that differ from an earlier one by case alone: SQLite takes them for the same."""
    taken: set[str] = set()
    made = []
    for name in names:
        free, number = name, 1
        while free.lower() in taken:
            number += 1
            free = f"{name}_{number}"
        taken.add(free.lower())
        made.append(free)
    return made
