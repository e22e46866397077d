"""
The one file into which a run puts its results: succeeded items alone, ``{"key", "value"}`` each, as `results` prints them.

    GrowingFile   FILE.partial grows batch by batch, and is continued where the ledger says that it ended
    WholeFile     everything at the end, for formats that cannot grow

Either way FILE appears whole, when the run is over. What is remembered of it stands on the run row: ``path``, ``batches`` (how many are in
it), for a file that grows ``offset`` and ``columns``, and ``done`` once FILE has its name or is about to get it.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from durabatch.errors import UsageError
from durabatch.output.atomic import explained, replacing, sync_directory
from durabatch.output.batch_files import export_row, make_directory
from durabatch.output.columns import Column, ColumnFinder, columns_from_json, columns_to_json
from durabatch.output.places import partial_of
from durabatch.output.rows import ExportRow, Leaving
from durabatch.output.sinks import GrowingSink, Sink, SinkSettings, sink, write_rows
from durabatch.states import ItemState

__all__ = ["GrowingFile", "OneFile", "WholeFile", "one_file"]

#: The results of a run, as often as they are asked for.
AllRows = Callable[[], Iterable[Leaving]]


class OneFile(Protocol):
    """What both kinds have in common."""

    path: Path
    streams: bool

    def take_up(self, record: dict[str, Any], published: int) -> bool:
        """Go on with what *record* remembers; False when the file must be written from its start."""
        ...

    def path_of(self, number: int) -> Path | None:
        """Return the file in which batch *number* stands now."""
        ...

    def write(self, number: int, rows: Iterable[Leaving]) -> object:
        """Add a batch."""
        ...

    def settle(self) -> dict[str, Any]:
        """Have what was written on disk, and return what is to be remembered of it."""
        ...

    def undo(self) -> None:
        """Take back what was written since ``settle``."""
        ...

    def complete(self, rows: AllRows) -> dict[str, Any]:
        """Have everything on disk, and return what is to be remembered: that the file is done."""
        ...

    def put_in_place(self) -> None:
        """Give the file, which is remembered as done, its name."""
        ...

    def close(self) -> None:
        """Let go of the file; what was written since ``settle`` is worth nothing."""
        ...

    def output_bytes(self) -> int:
        """Return the size of the file."""
        ...


def one_file(path: Path, format: str, compression: str, *, is_known: bool) -> OneFile:
    """
    Return what writes the results of a run into the file *path*, whose directory is made when it is missing.

    Args:
        is_known: The run has written the file before, or may have.

    Raises:
        UsageError: There is another file of that name, the directory cannot be used, or the format needs a package that is not there.
    """
    made = sink(format, SinkSettings(compression=compression), option="--output")
    make_directory(path.parent)
    if path.exists() and not is_known:
        raise UsageError(f"--output: {path} exists", "Choose another file, or remove that one.")
    if isinstance(made, GrowingSink):
        return GrowingFile(path, made, cuts=bool(compression))
    return WholeFile(path, made)


class GrowingFile:
    """
    A file that grows while the run is on.

    Args:
        cuts: Each batch ends a compressed frame, so that the bytes do not depend on where the run was interrupted.

    Attributes:
        offset: Up to where ``part`` is remembered; None when it is to be begun anew.
    """

    streams = True

    def __init__(self, path: Path, made: GrowingSink, *, cuts: bool = False) -> None:
        self.path = path
        self.part = partial_of(path)
        self.sink = made
        self.cuts = cuts
        self.offset: int | None = None
        self.columns: list[Column] = []
        self.is_open = self.is_done = False
        self.lock: io.FileIO | None = None

    def take_up(self, record: dict[str, Any], published: int) -> bool:
        """Go on with what *record* remembers; False when the file must be written from its start."""
        self.offset, self.is_done = None, False
        if record.get("path") != str(self.path) or "offset" not in record or record.get("batches") != published:
            return False
        self.columns = columns_from_json(record.get("columns", []))
        if record.get("done"):
            self.is_done = True
            self.put_in_place(record["offset"])
        if size_of(self.path if self.is_done else self.part) < record["offset"]:
            self.is_done = False
            return False
        self.offset = record["offset"]
        return True

    def path_of(self, _number: int) -> Path:
        """Return the file that grows."""
        return self.part

    def write(self, _number: int, rows: Iterable[Leaving]) -> None:
        """
        Add the succeeded items of a batch.

        Raises:
            OutputError: It could not be written; call ``undo`` before anything else.
        """
        with explained(self.part):
            self.reopen(rows)
            for row in rows:
                if row.state == ItemState.SUCCEEDED:
                    self.sink.write(export_row(row))
            if self.cuts:
                self.sink.cut()

    def reopen(self, rows: Iterable[Leaving]) -> None:
        """Open the file where it ended, or a new one whose columns are those of the batch *rows*; UsageError when another run writes it."""
        if self.is_open:
            return
        if self.is_done:
            self.copy_back()
        self.hold()
        if self.offset is None:
            self.columns = columns_of(rows) if self.sink.wants_columns else []
            self.sink.open(self.part, self.columns)
        else:
            self.sink.continue_at(self.part, self.offset, self.columns)
        self.is_open, self.is_done = True, False

    def hold(self) -> None:
        """Take the lock on the file that grows: two runs that wrote into it would leave nothing of use."""
        if self.lock is None:
            self.lock = open(os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "rb", buffering=0)  # noqa: SIM115
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"--output: {self.part} is being written by another run", "Choose another file, or wait for its end."
            ) from error

    def copy_back(self) -> None:
        """Have the finished file, which stays until the next one takes its place, grow again."""
        with replacing(self.part) as copy:
            shutil.copyfile(self.path, copy)

    def settle(self) -> dict[str, Any]:
        """Have what was written on disk, and return what is to be remembered of it."""
        with explained(self.part):
            self.offset = self.sink.cut()
        return self.record

    @property
    def record(self) -> dict[str, Any]:
        """What is remembered of the file."""
        return {"path": str(self.path), "offset": self.offset, "columns": columns_to_json(self.columns)}

    def undo(self) -> None:
        """Take back what was written since ``settle``: the next one to write begins there."""
        if self.is_open:
            self.is_open = False
            self.sink.forget()

    def complete(self, _rows: AllRows) -> dict[str, Any]:
        """Have everything on disk, and return what is to be remembered: that the file is done."""
        if not self.is_done:
            try:
                with explained(self.part):
                    self.reopen(())
                    self.settle()
                    self.sink.close()
            except BaseException:
                self.undo()
                raise
            self.is_open, self.is_done = False, True
        return {**self.record, "done": True}

    def put_in_place(self, size: int | None = None) -> None:
        """
        Give the file, which is remembered as done, its name; nothing happens when it has it.

        Args:
            size: Of the whole file, as remembered: another one is no finished file, but one that had begun to grow again.
        """
        with explained(self.path):
            if self.is_done and size_of(self.part) == (self.offset if size is None else size):
                os.replace(self.part, self.path)
                sync_directory(self.path.parent)

    def close(self) -> None:
        """Let go of the file; what was written since ``settle`` is worth nothing."""
        self.undo()
        lock, self.lock = self.lock, None
        if lock is not None:
            lock.close()

    def output_bytes(self) -> int:
        """Return the size of the file."""
        return size_of(self.path if self.is_done else self.part)


class WholeFile:
    """A file that is written at the end."""

    streams = False

    def __init__(self, path: Path, made: Sink) -> None:
        self.path = path
        self.sink = made
        self.is_done = False

    def take_up(self, record: dict[str, Any], published: int) -> bool:
        """Tell whether the file is there as it was written."""
        ours = record.get("path") == str(self.path) and record.get("batches") == published
        self.is_done = ours and bool(record.get("done")) and self.path.exists()
        return self.is_done

    def path_of(self, _number: int) -> None:
        """Return None: the file is not there yet."""

    def write(self, _number: int, _rows: Iterable[Leaving]) -> None:
        """Do nothing; batches wait for the end."""

    def settle(self) -> dict[str, Any]:
        """Return what is to be remembered."""
        return {"path": str(self.path)}

    def undo(self) -> None:
        """Do nothing: a half file never has the name of a whole one."""

    def complete(self, rows: AllRows) -> dict[str, Any]:
        """
        Write the file, the values being looked at twice where the format has columns.

        Raises:
            OutputError: It could not be written; what was there before is there still.
        """
        finder = ColumnFinder()
        if self.sink.wants_columns:
            for row in rows():
                finder.add(row.value_json if row.state == ItemState.SUCCEEDED else None)
        succeeded: Iterable[ExportRow] = (export_row(row) for row in rows() if row.state == ItemState.SUCCEEDED)
        write_rows(self.sink, self.path, finder.columns(), succeeded)
        self.is_done = True
        return {**self.settle(), "done": True}

    def put_in_place(self) -> None:
        """Do nothing: the file got its name when it was whole."""

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def output_bytes(self) -> int:
        """Return the size of the file."""
        return size_of(self.path)


def columns_of(rows: Iterable[Leaving]) -> list[Column]:
    """Return the columns of a file that begins with these rows and goes on with others that are not known yet."""
    finder = ColumnFinder()
    for row in rows:
        finder.add(row.value_json if row.state == ItemState.SUCCEEDED else None)
    return finder.columns(more=True)


def size_of(path: Path) -> int:
    """Return the size of a file, -1 when it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
