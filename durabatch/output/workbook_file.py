"""
Rows as an Excel workbook, written row by row; the package openpyxl comes with the extra ``[excel]``.

The same rows make the same bytes: no time of writing stands in the file. A sheet holds 1,048,575 rows below its heading; what is beyond
goes to the next one.
"""

from __future__ import annotations

import datetime
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from durabatch.errors import OutputError
from durabatch.output.columns import EXACT, Column, Table, cell_text
from durabatch.output.formulas import guarded
from durabatch.output.rows import ExportRow
from durabatch.output.sinks import SinkSettings, require

__all__ = ["CELL_CHARACTERS", "UNWRITABLE", "WorkbookFile"]

#: Rows of a sheet, its heading included, and characters of a cell: more of them no spreadsheet program reads.
SHEET_ROWS, CELL_CHARACTERS = 1 << 20, 32767
#: The time that stands wherever the format demands one.
TIME = datetime.datetime(1980, 1, 1)  # noqa: DTZ001 - the format knows no zone
#: Characters that XML cannot hold, and what would be read as one of them in the way in which they are written.
UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")


class WorkbookFile:
    """
    Writes a workbook.

    Raises:
        UsageError: openpyxl is not installed.
    """

    wants_columns = True

    def __init__(self, settings: SinkSettings) -> None:
        require("openpyxl", "excel", "an .xlsx file")
        self.settings = settings
        self.book: Any = None
        self.sheet: Any = None
        self.row_count = 0

    def open(self, path: Path, columns: Sequence[Column]) -> None:
        """Begin a workbook for *path*, which is made by ``close``: until then the rows are in a temporary file."""
        from openpyxl import Workbook

        self.path = path
        self.table = Table(self.settings.members, columns)
        self.book = Workbook(write_only=True)
        self.book.properties.created = self.book.properties.modified = TIME
        self.begin_sheet()

    def begin_sheet(self) -> None:
        """Begin the next sheet with its heading."""
        number = len(self.book.worksheets) + 1
        self.sheet = self.book.create_sheet("results" if number == 1 else f"results {number}")
        self.row_count = 1
        self.sheet.append([self.cell(column.heading) for column in self.table.columns])

    def write(self, row: ExportRow) -> None:
        """
        Write one row.

        Raises:
            OutputError: A text is longer than a cell can be.
        """
        if self.row_count == SHEET_ROWS:
            self.begin_sheet()
        self.row_count += 1
        try:
            self.sheet.append(list(map(self.cell, self.table.cells(row))))
        except OverflowError as error:
            todo = "Choose .jsonl, .csv, .parquet or .db: `durabatch export` writes them, too."
            raise OutputError(
                self.path.name, f"item {row.key!r} has a text of {error} characters, a cell holds {CELL_CHARACTERS:,}", todo
            ) from error

    def cell(self, value: object) -> object:
        """Return what is written for one cell: truth values and numbers that a spreadsheet holds exactly as such, all else as text."""
        if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and -EXACT <= value <= EXACT):
            return value
        return self.text(value if self.settings.raw_formulas or not isinstance(value, str) else guarded(value))

    def text(self, value: object) -> object:
        """Return a cell that is a text and nothing else, whatever it looks like; OverflowError with its length when it is too long."""
        from openpyxl.cell import WriteOnlyCell

        text = cell_text(value)
        if len(text) > CELL_CHARACTERS:
            raise OverflowError(f"{len(text):,}")
        cell = WriteOnlyCell(self.sheet, UNWRITABLE.sub(lambda found: f"_x{ord(found[0]):04X}_", text))
        cell.data_type = "s"
        return cell

    def close(self) -> None:
        """Write the workbook."""
        book, self.book = self.book, None
        if book is not None:
            from openpyxl.writer.excel import ExcelWriter

            with SteadyZip(self.path, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
                ExcelWriter(book, archive).write_data()


class SteadyZip(zipfile.ZipFile):
    """A zip file in which no time stands."""

    def writestr(self, zinfo_or_arcname: Any, data: Any, *_: Any, **__: Any) -> None:
        """Add a member."""
        super().writestr(self.member(zinfo_or_arcname), data)

    def write(self, filename: Any, arcname: Any = None, *_: Any, **__: Any) -> None:
        """Add a file as a member."""
        with open(filename, "rb") as source, self.open(self.member(arcname), "w", force_zip64=True) as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def member(self, name: str) -> zipfile.ZipInfo:
        """Return the head of a member."""
        made = zipfile.ZipInfo(name)
        made.compress_type = zipfile.ZIP_DEFLATED
        return made
