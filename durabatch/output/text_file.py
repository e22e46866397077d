"""
Rows as text: JSON lines, one JSON array, or a table of comma separated values; compressed when wanted.

What is gathered for the kernel is kept here and not in a buffered file: after a failed write nothing of it is written by surprise.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from durabatch.codec import stream_packer
from durabatch.output.atomic import opened_new
from durabatch.output.columns import Column, Table, cell_text
from durabatch.output.formulas import guarded
from durabatch.output.rows import ExportRow, object_pieces
from durabatch.output.sinks import SinkSettings

__all__ = ["CsvFile", "JsonFile", "JsonLinesFile", "TextFile"]

#: Bytes gathered before the kernel is asked to write.
GATHERED_BYTES = 1 << 18
#: Characters of values above which a row is written in pieces.
BIG_CHARACTERS = 1 << 16
#: What a cell cannot hold unless it is quoted.
UNSAFE = re.compile(r'[",\r\n]')
Binary = io.FileIO | BinaryIO


class TextFile:
    """
    What all text formats have in common; a format says what its head, its rows and its tail are.

    Attributes:
        columns: The fields of the values, for formats that want to know them.
    """

    wants_columns = False

    def __init__(self, settings: SinkSettings) -> None:
        self.settings = settings
        self.columns: Sequence[Column] = ()
        self.file: Binary | None = None
        self.is_ours = True
        self.gathered: list[bytes] = []
        self.size = 0
        self.packer = stream_packer(settings.compression)
        self.is_cut = True

    def open(self, path: Path, columns: Sequence[Column]) -> None:
        """Begin a new file at *path*, a link in its place being refused."""
        self.attach(opened_new(path), columns)
        self.is_ours = True

    def attach(self, file: Binary, columns: Sequence[Column]) -> None:
        """Begin on an open binary file, standard output for example, which ``close`` flushes and leaves open."""
        self.file, self.is_ours = file, False
        self.begin(columns)
        self.put(self.head())

    def begin(self, columns: Sequence[Column]) -> None:
        """Make ready for rows with these columns."""
        self.columns = columns

    def write(self, row: ExportRow) -> None:
        """Write one row; a big one in pieces, which are not put together."""
        if len(row.value_json or "") + len(row.payload_json or "") > BIG_CHARACTERS:
            for piece in self.pieces(row):
                self.put(piece)
        else:
            self.put("".join(self.pieces(row)))

    def close(self) -> None:
        """Write the end and close the file, in any case."""
        file, self.file = self.file, None
        if file is None:
            return
        try:
            self.put(self.tail())
            self.gather(self.ending())
            self.drain(file)
            file.flush()
        finally:
            self.gathered.clear()
            if self.is_ours:
                file.close()

    def put(self, text: str) -> None:
        """Write a piece of text."""
        if text:
            self.is_cut = False
            data = text.encode()
            self.gather(data if self.packer is None else self.packer.compress(data))
            if self.size >= GATHERED_BYTES and self.file is not None:
                self.drain(self.file)

    def gather(self, data: bytes) -> None:
        """Keep bytes until there are enough of them; a packer mostly has none to give."""
        if data:
            self.gathered.append(data)
            self.size += len(data)

    def drain(self, file: Binary) -> None:
        """Have the kernel take what was gathered."""
        data, self.size = memoryview(b"".join(self.gathered)), 0
        self.gathered.clear()
        while data:
            data = data[file.write(data) :]

    def ending(self) -> bytes:
        """Return the end of what is being compressed; what comes next is compressed by itself."""
        if self.packer is None or self.is_cut:
            return b""
        ending, self.packer = self.packer.flush(), stream_packer(self.settings.compression)
        self.is_cut = True
        return ending

    def head(self) -> str:
        """Return what stands before the first row."""
        return ""

    def pieces(self, row: ExportRow) -> Iterable[str]:
        """Return the text of one row, a big value as a piece of its own."""
        return object_pieces(row, self.settings.members)

    def tail(self) -> str:
        """Return what stands behind the last row."""
        return ""


class GrowingText(TextFile):
    """A text without a tail, so that it can be continued."""

    def cut(self) -> int:
        """Return how many bytes there are so far; they are on disk."""
        if self.file is None:
            raise ValueError("the file is not open")
        self.gather(self.ending())
        self.drain(self.file)
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.file.tell()

    def continue_at(self, path: Path, offset: int, columns: Sequence[Column]) -> None:
        """Take everything behind *offset* away from the file at *path*, and go on there."""
        self.file = io.FileIO(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b")
        self.is_ours = True
        self.file.truncate(offset)
        self.file.seek(offset)
        self.begin(columns)

    def forget(self) -> None:
        """Close the file without writing anything more: what was written since the last cut is worth nothing."""
        file, self.file = self.file, None
        self.gathered.clear()
        self.size = 0
        self.packer, self.is_cut = stream_packer(self.settings.compression), True
        if file is not None:
            file.close()


class JsonLinesFile(GrowingText):
    """An object a line, as `results` prints them."""

    def pieces(self, row: ExportRow) -> Iterable[str]:
        """Return one line."""
        return [*object_pieces(row, self.settings.members), "\n"]


class JsonFile(TextFile):
    """One array, an object of it on each line."""

    def begin(self, columns: Sequence[Column]) -> None:
        """Make ready for the first row."""
        super().begin(columns)
        self.separator = "\n"

    def head(self) -> str:
        """Return the beginning of the array."""
        return "["

    def pieces(self, row: ExportRow) -> Iterable[str]:
        """Return one element."""
        before, self.separator = self.separator, ",\n"
        return [before, *object_pieces(row, self.settings.members)]

    def tail(self) -> str:
        """Return the end of the array."""
        return "\n]\n"


class CsvFile(GrowingText):
    """
    A table with a heading: the members, and in the place of ``value`` a column for each field.

    Lines end with a line feed. A text that a spreadsheet would take for a formula gets a ' before it unless the settings say otherwise.
    """

    wants_columns = True

    def begin(self, columns: Sequence[Column]) -> None:
        """Make ready for rows with these columns."""
        super().begin(columns)
        self.table = Table(self.settings.members, columns)

    def head(self) -> str:
        """Return the line with the headings."""
        return "".join(line_of([self.safe(column.heading) for column in self.table.columns]))

    def pieces(self, row: ExportRow) -> Iterable[str]:
        """Return one line."""
        return line_of([self.safe(one) if isinstance(one, str) else cell_text(one) for one in self.table.cells(row)])

    def safe(self, text: str) -> str:
        """Return a text as it may stand in a cell; only texts are guarded: a negative number is no formula."""
        return text if self.settings.raw_formulas else guarded(text)


def line_of(cells: Sequence[str]) -> Iterator[str]:
    """Yield a line in pieces; the csv module would need four bytes for each character of a big cell, and copy it twice."""
    for index, cell in enumerate(cells):
        if index:
            yield ","
        yield quoted(cell) if UNSAFE.search(cell) or cells == [""] else cell
    yield "\n"


def quoted(cell: str) -> str:
    """Return a cell in quotation marks."""
    return '"' + cell.replace('"', '""') + '"'
