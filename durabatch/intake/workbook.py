"""
Rows of a sheet as items: objects of column name to value. The first row that is not empty is the header; rows without values are left out.

Values keep their types: text, numbers (whole ones as integers), booleans; dates and times as ISO text, empty cells and those that show an error as null.
Formulas are the values that stand in the file. The reader of workbooks is the package of the extra ``excel``; a sheet is in memory while it is read.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from durabatch.errors import InputError, UsageError
from durabatch.intake.keys import Keys, UnusableKeyError
from durabatch.intake.problems import available, cannot_read, did_you_mean, printable
from durabatch.intake.source import Batch, Row
from durabatch.intake.text import too_large

__all__ = ["SheetReader", "WorkbookPart"]

#: Whole numbers up to here are exact as the doubles that a workbook holds.
MAX_EXACT = 2**53


@dataclass
class WorkbookPart:
    """
    One sheet of one workbook.

    Args:
        sheet: Its name; None for the first one.
        keys: The key decision of the whole source.
        skip_bad: Told of a row that cannot be an item; True leaves it out. None stops before it.
    """

    path: str
    sheet: str | None
    keys: Keys
    max_item_bytes: int
    skip_bad: Callable[[InputError], bool] | None = None
    repeatable: bool = True

    def open(self, state: dict[str, Any] | None, base: int) -> SheetReader:
        """Return a reader behind *state*; InputError when workbook, sheet or header cannot be read."""
        return SheetReader(self, state, base)


class SheetReader:
    """Reads the rows of a sheet; its place is a row, numbered as the program for workbooks shows it."""

    waits = False

    def __init__(self, part: WorkbookPart, state: dict[str, Any] | None, base: int) -> None:
        self._part = part
        self._keys = part.keys
        self._base = base
        self._first_column, self._rows = rows_of_sheet(part.path, part.sheet)
        self._row = 0
        self._header = self._read_header()
        self._width = len(self._header)
        if self._header:
            self._keys.refuse_unknown(dict.fromkeys(self._header, ""), printable(part.path), "column")
        while state is not None and self._row < state["row"] and self._next() is not None:
            continue

    def _next(self) -> list[Any] | None:
        """Return the next row of the sheet; None behind the last one."""
        cells = next(self._rows, None)
        if cells is not None:
            self._row += 1
        return cells

    def _read_header(self) -> list[str]:
        while (cells := self._next()) is not None:
            if any(cell != "" for cell in cells):
                return self._names(cells)
        return []

    def _names(self, cells: list[Any]) -> list[str]:
        """Return the names of the columns; InputError when two are the same or one between others has none."""
        names = [cell if isinstance(cell, str) else to_text(cell) for cell in cells]
        while not names[-1].strip():
            names.pop()
        nameless = next((index for index, name in enumerate(names) if not name.strip()), None)
        if nameless is not None:
            raise InputError(self._place(), f"column {self._column(nameless)} of the header has no name")
        twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
        if twice is not None:
            raise InputError(self._place(), f"the header has two columns named '{printable(twice)}'")
        return names

    def _column(self, index: int) -> str:
        """Return the letters of a column."""
        number, letters = self._first_column + index + 1, ""
        while number:
            number, digit = divmod(number - 1, 26)
            letters = chr(65 + digit) + letters
        return letters

    def _place(self) -> str:
        return f"{printable(self._part.path)}:{self._row}"

    def read(self, max_items: int, max_bytes: int) -> Batch:
        """Return the next rows that hold anything."""
        rows: list[Row] = []
        size = 0
        while len(rows) < max_items and size < max_bytes:
            cells = self._next()
            if cells is None:
                return Batch(rows, size, ended=True)
            if all(cell == "" for cell in cells):
                continue
            try:
                row = self._item(cells)
            except InputError as error:
                if self._part.skip_bad is not None and self._part.skip_bad(error):
                    continue
                # The place is before the row; a reader with a problem is not read again.
                self._row -= 1
                return Batch(rows, size, error)
            rows.append(row)
            size += len(row[1])
        return Batch(rows, size)

    def _item(self, cells: list[Any]) -> Row:
        outside = next((index for index, cell in enumerate(cells[self._width :], self._width) if cell != ""), None)
        if outside is not None:
            raise InputError(self._place(), f"a value in column {self._column(outside)}, which has no name in the header")
        record = dict(zip(self._header, map(cell_value, cells), strict=False))
        payload = to_json(record)
        if len(payload) > self._part.max_item_bytes:
            raise too_large(self._place(), self._part.max_item_bytes)
        self._keys.decide(record)
        try:
            key = None if self._keys.field is None else self._keys.of(record)
        except UnusableKeyError as error:
            raise InputError(self._place(), str(error)) from None
        return key, payload.decode(), self._base + self._row

    def state(self) -> dict[str, Any]:
        """Return the last row read."""
        return {"row": self._row}

    def position(self) -> int:
        """Return the position of the last row read."""
        return self._base + self._row

    def ready(self) -> bool:
        """Files are always ready."""
        return True

    def close(self) -> None:
        """Let go of the sheet."""
        self._rows = iter(())


def cell_value(cell: Any) -> Any:
    """Return what stands in an item for a cell."""
    if cell == "":
        return None
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() and abs(cell) <= MAX_EXACT else cell
    return cell if isinstance(cell, str | bool | int) else to_text(cell)


def to_text(cell: Any) -> str:
    """Return a cell as text: ISO 8601 for dates, times and durations, whole numbers without a point."""
    if isinstance(cell, datetime.date | datetime.time | datetime.timedelta):
        return to_json(cell).decode().strip('"')
    value = cell_value(cell)
    return value if isinstance(value, str) else to_json(value).decode()


def rows_of_sheet(path: str, sheet: str | None) -> tuple[int, Iterator[list[Any]]]:
    """
    Return the number of columns left of the first, and the rows of a sheet from its first one on; empty cells are empty text.

    Raises:
        UsageError: The reader of workbooks is not installed.
        InputError: The file cannot be read, is no workbook, is damaged or protected, or has no such sheet.
    """
    calamine = reader_of_workbooks()
    try:
        with open(path, "rb"):
            book = calamine.CalamineWorkbook.from_path(path)
        names = [one.name for one in book.sheets_metadata if one.typ == calamine.SheetTypeEnum.WorkSheet]
        found = chosen_sheet(path, names, sheet)
        cells = book.get_sheet_by_name(found)
        return (cells.start or (0, 0))[1], cells.iter_rows()
    except OSError as error:
        raise cannot_read(path, error) from error
    except calamine.PasswordError as error:
        raise InputError(printable(path), "is protected by a password", "Save it without one.") from error
    except InputError:
        raise
    except BaseException as error:
        if not isinstance(error, calamine.CalamineError) and type(error).__name__ != "PanicException":
            raise
        why = " ".join(str(error).split())
        raise InputError(
            printable(path), f"is no workbook, or is damaged ({why})", "Open it in a spreadsheet program and save it anew."
        ) from error


def chosen_sheet(path: str, names: list[str], sheet: str | None) -> str:
    """Return the name of the sheet to read; InputError when there is none of that name, or none at all."""
    if not names:
        raise InputError(printable(path), "has no sheet with cells")
    if sheet is not None and sheet not in names:
        where = f"{printable(path)} has no sheet '{printable(sheet)}'; sheets"
        raise InputError(where, available(names), did_you_mean(sheet, names))
    return names[0] if sheet is None else sheet


@functools.cache
def reader_of_workbooks() -> Any:
    """Return the package that reads workbooks; UsageError when it is not installed."""
    try:
        import python_calamine
    except ImportError as error:
        raise UsageError("xlsx: the package that reads workbooks is missing", "pip install 'durabatch[excel]'") from error
    return python_calamine
