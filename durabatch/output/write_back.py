"""
Results back into the workbook that the items came from: one column, each value in the row of its item.

    the workbook is as it was read  →  a copy beside it, with the time in its name  →  the new one is written beside it and renamed

All else in the workbook stays: sheets, formats, formulas. The library that does it cannot keep everything that there is in workbooks; where
there is such a thing, where the workbook is open elsewhere, or has changed since its rows became items, nothing is done without *force*.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from durabatch.clock import now_us
from durabatch.engine.export import Snapshot
from durabatch.engine.results import OnDamage
from durabatch.errors import InputChangedError, OutputError, UsageError
from durabatch.ledger import run
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.reader import Reader
from durabatch.ledger.run import RunRow
from durabatch.ledger.scratch import Scratch
from durabatch.models import Result
from durabatch.output.atomic import explained, replacing
from durabatch.output.columns import EXACT, cell_text
from durabatch.output.formulas import guarded
from durabatch.output.sinks import require
from durabatch.output.workbook_file import CELL_CHARACTERS, UNWRITABLE
from durabatch.output.workbook_parts import lost_parts
from durabatch.states import ItemState

__all__ = ["WriteBackRequest", "WrittenBack", "write_back"]

SUFFIXES = (".xlsx", ".xlsm")


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBackRequest:
    """
    What is wanted.

    Attributes:
        ledger: Its path.
        workbook: The file that the items were read from.
        column: Heading of the column for the results; one that is not there is made behind the last.
        force: Go on although the workbook is open elsewhere, has changed, or loses something.
        raw_formulas: Texts that look like a formula become one.
    """

    ledger: Path
    run_id: int
    workbook: Path
    column: str
    force: bool = False
    raw_formulas: bool = False
    allow_network_fs: bool = False


@dataclass(frozen=True, slots=True)
class WrittenBack:
    """
    What was written.

    Attributes:
        count: Cells that hold a result.
        backup: The workbook as it was before.
        lost: What the workbook had and has no more, by *force*.
    """

    workbook: Path
    sheet: str
    column: str
    count: int
    backup: Path
    lost: tuple[str, ...]


def write_back(request: WriteBackRequest, *, on_damage: OnDamage) -> WrittenBack:
    """
    Put the results of a run into the workbook that it read, and return what that was; on return it is on disk.

    Items without a result leave their cells as they are. The run knows the workbook as it stands afterwards: its input is unchanged.

    Args:
        on_damage: Called with an error for each item whose stored value is damaged.

    Raises:
        UsageError: The run did not read this workbook, or the workbook must not be touched without *force*. Nothing was written.
        OutputError: A value fits into no cell, or the file could not be written; the workbook is as it was.
        LedgerError: The ledger cannot be read.
    """
    require("openpyxl", "excel", "--write-back")
    path = Path(os.path.realpath(request.workbook))
    with Reader(request.ledger) as reader, Scratch() as scratch:
        row = run.get(reader, request.run_id)
        is_as_read = refuse_unfit(request, row, path)
        lost = refuse_loss(request, path)
        seen = identity(path)
        book = opened(path)
        sheet = chosen_sheet(book, row.source.get("sheet"), path)
        snapshot = Snapshot(reader, scratch, request.run_id)
        snapshot.take((ItemState.SUCCEEDED,), timeout_s=0)
        count = Filling(sheet, path, raw_formulas=request.raw_formulas).fill(request.column, snapshot.values_by_position(on_damage))
    backup = backed_up(path)
    replace_workbook(book, path, seen)
    if is_as_read:
        remember(request, path, row.fingerprint or [])
    return WrittenBack(path, sheet.title, request.column, count, backup, tuple(lost))


def refuse_unfit(request: WriteBackRequest, row: RunRow, path: Path) -> bool:
    """Return whether the workbook is as the run has read it; UsageError when the run has not read it, row by row, to its end."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--write-back: {request.workbook} is no .xlsx file", "`durabatch export --output FILE.csv` writes any results.")
    if not path.is_file():
        raise UsageError(f"--write-back: there is no file {request.workbook}", "Give the workbook that the run has read.")
    prints = row.fingerprint or []
    if len(prints) != 1 or os.path.realpath(prints[0]["path"]) != str(path) or row.source.get("group_by"):
        was = f"its input was {', '.join(row.source.get('inputs') or ['no file'])}"
        raise UsageError(
            f"--write-back: run {row.name} has not read {request.workbook} row by row; {was}", "Export to a file of its own instead."
        )
    if not row.intake_complete:
        raise UsageError(f"--write-back: run {row.name} has not read all of {request.workbook} yet", "`durabatch resume` goes on with it.")
    stat = path.stat()
    is_as_read = (prints[0]["bytes"], prints[0]["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)
    if not (is_as_read or request.force):
        raise InputChangedError(
            f"--write-back: {request.workbook} has changed since run {row.name} read it, so its rows may stand elsewhere",
            "Run it again with --on-change merge, export to a file of its own, or use --force to go by the row numbers of then.",
        )
    return is_as_read


def refuse_loss(request: WriteBackRequest, path: Path) -> list[str]:
    """Return what the workbook will lose; UsageError when it is open elsewhere, or would lose something without *force*."""
    lock = next((lock for lock in (path.with_name(f"~${path.name}"), path.with_name(f".~lock.{path.name}#")) if lock.exists()), None)
    if lock is not None and not request.force:
        raise UsageError(
            f"--write-back: {request.workbook} is open in another program ({lock.name} is there)",
            "Close it there; use --force if nobody has it open.",
        )
    lost = lost_parts(path)
    if lost and not request.force:
        raise UsageError(
            f"--write-back: {request.workbook} has what would be lost: {', '.join(lost)}",
            "Export to a file of its own instead, or use --force; a copy of the workbook as it is will be kept.",
        )
    return lost


def opened(path: Path) -> Any:
    """Return the workbook, with whatever the library can keep of it."""
    import warnings

    import openpyxl

    try:
        with warnings.catch_warnings():
            # What it says is lost has been found and told before.
            warnings.simplefilter("ignore")
            return openpyxl.load_workbook(path, keep_vba=path.suffix.lower() == ".xlsm", rich_text=True)
    except Exception as error:
        raise UsageError(
            f"--write-back: {path} cannot be read ({error})", "Save it anew in a spreadsheet program, and run that file."
        ) from error


def chosen_sheet(book: Any, name: str | None, path: Path) -> Any:
    """Return the sheet that the items came from."""
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    if name is not None and name not in sheets:
        raise UsageError(f"--write-back: {path.name} has no sheet {name!r} any more; sheets: {', '.join(sheets)}")
    return sheets[name] if name is not None else book.worksheets[0]


class Filling:
    """Puts values into a column of *sheet*."""

    def __init__(self, sheet: Any, path: Path, *, raw_formulas: bool) -> None:
        self.sheet = sheet
        self.path = path
        self.raw_formulas = raw_formulas

    def fill(self, heading: str, values: Iterator[tuple[int, Result]]) -> int:
        """Write (row, result) pairs into the column with this heading and return how many results there were."""
        column = self.column(heading)
        count = 0
        for row, result in values:
            if result.value_json is not None:
                self.put(row, column, result)
                count += 1
        return count

    def column(self, heading: str) -> int:
        """Return the number of the column with this heading; where there is none, it is made, and looks like the one before it."""
        for cells in self.sheet.iter_rows():
            if any(cell.value not in (None, "") for cell in cells):
                break
        else:
            raise UsageError(f"--write-back: sheet {self.sheet.title} of {self.path.name} is empty")
        filled = [cell for cell in cells if cell.value not in (None, "")]
        for cell in filled:
            if str(cell.value) == heading:
                return int(cell.column)
        made = self.sheet.cell(filled[-1].row, filled[-1].column + 1)
        self.refuse_merged(made)
        made.value, made.data_type = self.text(heading, heading), "s"
        made._style = filled[-1]._style
        return int(made.column)

    def put(self, row: int, column: int, result: Result) -> None:
        """Write one value: numbers, truth values and texts as such, all else as JSON."""
        cell = self.sheet.cell(row, column)
        self.refuse_merged(cell)
        value = result.value
        if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and -EXACT <= value <= EXACT):
            cell.value = value
            return
        cell.value = self.text(cell_text(value), result.key)
        if not (self.raw_formulas and cell.data_type == "f"):
            cell.data_type = "s"

    def text(self, text: str, key: str) -> str:
        """Return a text as a cell holds it; OutputError, naming the item, when none does."""
        if len(text) > CELL_CHARACTERS:
            why = f"the result of item {key!r} has {len(text):,} characters, a cell holds {CELL_CHARACTERS:,}"
            raise OutputError(self.path.name, why, "Export to a .jsonl file instead; the workbook is as it was.")
        safe = text if self.raw_formulas else guarded(text)
        return UNWRITABLE.sub(lambda found: f"_x{ord(found[0]):04X}_", safe)

    def refuse_merged(self, cell: Any) -> None:
        """Refuse a cell that is a part of a larger one."""
        from openpyxl.cell.cell import MergedCell

        if isinstance(cell, MergedCell):
            raise UsageError(
                f"--write-back: cell {cell.coordinate} of {self.path.name} is a part of a merged cell", "Name another --column."
            )


def identity(path: Path) -> tuple[int, int, int]:
    """Return what changes when somebody saves the file."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def backed_up(path: Path) -> Path:
    """Copy the workbook to a name with the time in it, and return that."""
    instant = datetime.fromtimestamp(now_us() / 1e6, UTC)
    for number in range(1, 1000):
        more = f"-{number}" if number > 1 else ""
        backup = path.with_name(f"{path.stem}.{instant:%Y%m%d-%H%M%S}{more}.bak{path.suffix}")
        if not backup.exists():
            break
    with replacing(backup) as part:
        shutil.copy2(path, part)
    return backup


def replace_workbook(book: Any, path: Path, seen: tuple[int, int, int]) -> None:
    """Put *book* in the place of the file at *path*, unless somebody has saved that meanwhile."""
    with replacing(path) as part:
        book.save(part)
        shutil.copymode(path, part)
        if identity(path) != seen:
            raise UsageError(
                f"--write-back: {path.name} was changed meanwhile; it is as it was left there",
                "Close it there, and start the same command again.",
            )


def remember(request: WriteBackRequest, path: Path, read: list[dict[str, Any]]) -> None:
    """Let the run know its input as we left it, so that it counts as unchanged."""
    with explained(path):
        stat = path.stat()
    left = [{**one, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns} for one in read]
    with (
        closing(open_ledger(request.ledger, allow_network_fs=request.allow_network_fs)) as ledger,
        ledger.transaction(),
    ):
        run.set_fingerprint(ledger, request.run_id, left)
