"""
CSV and TSV rows as items: objects of column name to text. The header says what a row must look like; rows that differ are refused.

A piece of text without quotes is split in C; from the first quote on a row may span lines, and the csv module decides.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Any

from pydantic_core import to_json

from durabatch.errors import InputError
from durabatch.intake.dialect import DELIMITERS, sniffed
from durabatch.intake.keys import Keys, UnusableKeyError
from durabatch.intake.problems import available, size_text
from durabatch.intake.source import Batch, Row
from durabatch.intake.text import BLOCK_BYTES, LineReader, SkipBad

__all__ = ["DelimitedReader"]

#: What JSON text escapes, apart from the newlines between rows and the delimiter.
ESCAPED = {",": re.compile(r"[\x00-\x09\x0b-\x1f\\]"), "\t": re.compile(r"[\x00-\x08\x0b-\x1f\\]")}
#: Text of at most so many characters has at most 512 bytes, so that most keys need no closer look.
SHORT_KEY = 128
#: Lines that a delimiter is found out from.
SNIFFED_LINES = 100
#: What the csv module says, and what we say.
NEVER_CLOSED = "the quote that opens in this row is never closed"
CSV_FAULTS = (
    ("unexpected end of data", NEVER_CLOSED),
    ("expected after", "text after a closing quote; a quote inside a field must be doubled"),
    ("new-line character", "a bare carriage return; rows must end with LF or CRLF"),
)

#: A row and the number of the line in which it begins, from 1.
Record = tuple[int, list[str]]


class DelimitedReader:
    """
    Reads rows; its place is always the start of a row.

    Args:
        lines: The opened input, at its start.
        base: Source position before the first line.
        keys: The key decision of the source; the first record makes it.
        delimiter: What separates columns; None finds it out from the first lines.
        state: Where to go on; the header is read before.
        skip_bad: Leaves out rows that cannot be items; None stops before the first. A quote that is never closed always stops.

    Raises:
        InputError: The header is wrong, or lacks the key column.
    """

    def __init__(
        self,
        lines: LineReader,
        base: int,
        keys: Keys,
        *,
        delimiter: str | None,
        state: dict[str, Any] | None,
        skip_bad: SkipBad | None = None,
    ) -> None:
        self.waits = lines.waits
        self._lines = lines
        self._base = base
        self._keys = keys
        self._skip_bad: SkipBad | None = None
        #: Empty until the first line tells.
        self._delimiter = delimiter or ("" if state is None else state.get("delimiter", ","))
        #: The lines of the current read, and the index of the one in which the current row begins.
        self._raw: list[bytes] = []
        self._row = 0
        #: Indexes of lines of the current read that were left out; a row that one of them belongs to is none.
        self._left_out: set[int] = set()
        #: The items of the current read so far, and the number of those before them.
        self._rows: list[Row] = []
        self._items_before = 0
        self._header = self._read_header()
        self._skip_bad = skip_bad
        self._escaped = ESCAPED.get(self._delimiter) or re.compile(rf"[\x00-\x09\x0b-\x1f\\{re.escape(self._delimiter)}]")
        self._header_bytes = len(to_json(self._header))
        #: Format of the payload of a row whose text needs no escapes.
        self._template = "{" + ",".join(to_json(name).decode().replace("%", "%%") + ':"%s"' for name in self._header) + "}"
        if state is not None:
            lines.go_to(state)

    def _read_header(self) -> list[str]:
        reader = self._lines
        csv.field_size_limit(max(csv.field_size_limit(), reader.limit_bytes))
        while not reader.ended:
            first = reader.line
            text, problem = self._take(1, BLOCK_BYTES)
            if problem is not None:
                raise problem
            if not self._delimiter and text.strip():
                self._delimiter = sniffed([text, *(line.decode(errors="replace") for line in reader.on_hand()[:SNIFFED_LINES])])
            for line, names in self._records(text, first):
                if not _is_blank(names):
                    self._check_header(names, reader.place(line))
                    return names
        return []

    def _check_header(self, names: list[str], place: str) -> None:
        name = names[0]
        other = next((delimiter for delimiter in DELIMITERS if delimiter in name), None) if len(names) == 1 else None
        if other is not None:
            hint = "Use --format tsv." if other == "\t" else f"Use --delimiter '{other}'."
            raise InputError(place, f"the header has one column, {name!r}; columns must be separated by {self._delimiter!r}", hint)
        if not all(name.strip() for name in names):
            raise InputError(place, f"column {next(n for n, name in enumerate(names, 1) if not name.strip())} of the header has no name")
        twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
        if twice is not None:
            raise InputError(place, f"the header has two columns named '{twice}'")
        self._keys.refuse_unknown(dict.fromkeys(names, ""), self._lines.where, "column")

    def read(self, max_items: int, max_bytes: int) -> Batch:
        """Return the next items; blank lines count neither as items nor as the end."""
        rows: list[Row] = []
        self._rows = rows
        first, self._items_before = self._lines.line, self._lines.items
        problem: InputError | None = None
        try:
            text, problem = self._take(max(1, min(max_items, max_bytes // (self._header_bytes + 1))), max_bytes)
        except InputError as error:
            return Batch(rows, problem=self._lines.refuse(error, self._skip_bad))
        try:
            self._add(rows, text, first, problem)
        except InputError as error:
            problem = error
        self._lines.items = self._items_before + len(rows)
        self._keys.watch(rows, self._lines.where, self._base)
        size = sum(map(len, self._raw)) + len(self._raw) + len(rows) * self._header_bytes
        return Batch(rows, size, problem, ended=self._lines.ended and problem is None)

    def _take(self, max_lines: int, max_bytes: int) -> tuple[str, InputError | None]:
        """Take lines into ``_raw`` and return their text, up to a line that cannot be read and the error about it."""
        first = self._lines.line
        self._raw = []
        self._left_out.clear()
        raw = self._lines.take(max_lines, max_bytes)
        text, problem = self._decode(raw)
        self._raw = raw[: self._lines.line - first]
        return text, problem

    def _decode(self, raw: list[bytes]) -> tuple[str, InputError | None]:
        """
        Return the text of *raw*, the lines taken last, which go behind ``_raw``.

        It ends before a line that is not UTF-8 or has a NUL byte, as no table has, with the error about it, and the place is set there. Of
        a line that is left out the quotes still count, so that the row it belongs to ends where it ends.
        """
        try:
            text = b"\n".join(raw).decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" not in text:
            return text, None
        texts: list[str] = []
        for index, data in enumerate(raw):
            problem = self._unreadable(self._lines.line - len(raw) + 1 + index, data)
            if problem is not None and not self._skips(problem):
                self._lines.give_back(raw, index)
                return "\n".join(texts), problem
            if problem is not None:
                self._left_out.add(len(self._raw) + index)
            texts.append(data.replace(b"\0", b"?").decode(errors="replace"))
        return "\n".join(texts), None

    def _unreadable(self, line: int, data: bytes) -> InputError | None:
        if b"\0" in data:
            return InputError(self._lines.place(line), "it holds a NUL byte; is this a text file?")
        return self._lines.undecodable(line, data)

    def _skips(self, problem: InputError) -> bool:
        return self._skip_bad is not None and self._skip_bad(problem)

    def _add(self, rows: list[Row], text: str, first: int, problem: InputError | None) -> None:
        """Append the items of *text*; at a bad row that is not left out the place is set before it and InputError raised."""
        plain = '"' not in text and self._escaped.search(text) is None
        width = len(self._header)
        column: int | None = None
        for line, row in self._records(text, first, problem):
            if len(row) != width or width == 1:
                if _is_blank(row):
                    continue
                if len(row) != width:
                    self._refuse(line, first, f"{_count(len(row), 'field')}, the header has {width}")
                    continue
            if column is None:
                column = self._key_column(row, line, first)
            key = None
            if column >= 0:
                key = row[column]
                if (not 0 < len(key) <= SHORT_KEY or not key.isprintable()) and not self._is_key(key, line, first):
                    continue
            payload = self._template % tuple(row) if plain else to_json(dict(zip(self._header, row, strict=True))).decode()
            rows.append((key, payload, self._base + line))

    def _key_column(self, row: list[str], line: int, first: int) -> int:
        """Return the index of the key column, -1 for none."""
        self._keys.decide(dict(zip(self._header, row, strict=True)))
        if self._keys.field is None:
            return -1
        if self._keys.field not in self._header:
            self._lines.give_back(self._raw, line - 1 - first)
            raise InputError(self._lines.place(line), f"key '{self._keys.field}' is missing; columns: {available(self._header)}")
        return self._header.index(self._keys.field)

    def _is_key(self, key: str, line: int, first: int) -> bool:
        """Tell whether *key* can be one; False when its row is left out."""
        try:
            self._keys.of({self._keys.field: key})
        except UnusableKeyError as error:
            self._refuse(line, first, str(error))
            return False
        return True

    def _refuse(self, line: int, first: int, why: str) -> None:
        """Return when the row that begins in *line* is left out; else set the place before it and raise the error about it."""
        problem = InputError(self._lines.place(line), why)
        if not self._skips(problem):
            self._lines.give_back(self._raw, line - 1 - first)
            raise problem

    def _records(self, text: str, first: int, problem: InputError | None = None) -> Iterator[Record]:
        """
        Yield the rows of *text*, which is that of ``_raw``, with the lines in which they begin.

        A row that goes on behind *text* takes further lines, unless *problem* stands there.
        """
        if not self._raw:
            return
        texts = text.split("\n")
        if '"' not in text and "\r" not in text:
            delimiter = self._delimiter or DELIMITERS[0]
            rows_there = enumerate(texts) if not self._left_out else [(n, row) for n, row in enumerate(texts) if n not in self._left_out]
            yield from ((first + 1 + index, row.split(delimiter)) for index, row in rows_there)
            return
        rows = csv.reader(self._feed(texts, problem), delimiter=self._delimiter or DELIMITERS[0], strict=True)
        self._row = 0
        while self._row < len(self._raw):
            try:
                row = next(rows)
                if rows.line_num - self._row > 1:
                    self._check_size(sum(map(len, self._raw[self._row : rows.line_num])) + rows.line_num - self._row)
            except (csv.Error, InputError) as error:
                self._settle(error, first, rows.line_num)
                row = []
            if self._is_whole(rows.line_num):
                yield first + self._row + 1, row
            self._row = rows.line_num

    def _is_whole(self, end: int) -> bool:
        """Tell whether no line of the row that ends before line *end* of ``_raw`` was left out."""
        return not self._left_out or self._left_out.isdisjoint(range(self._row, end))

    def _settle(self, error: csv.Error | InputError, first: int, end: int) -> None:
        """Return when the row being read is left out; else set the place before it and raise."""
        line = first + self._row + 1
        fault = next((sentence for words, sentence in CSV_FAULTS if words in str(error)), str(error))
        if isinstance(error, InputError) or fault == NEVER_CLOSED or "--max-item-bytes" in fault:
            self._lines.give_back(self._raw, self._row)
            raise error if isinstance(error, InputError) else InputError(self._lines.place(line), fault)
        if self._is_whole(end):
            self._refuse(line, first, fault)

    def _check_size(self, size: int) -> None:
        if size > self._lines.limit_bytes:
            raise csv.Error(f"a row larger than {size_text(self._lines.limit_bytes)} (--max-item-bytes); is a quote never closed?")

    def _feed(self, texts: list[str], problem: InputError | None) -> Iterator[str]:
        """Yield lines for the csv module: those there are, then more while a row is open."""
        for text in texts:
            yield text + "\n"
        size = sum(map(len, self._raw[self._row :])) + len(self._raw) - self._row
        while problem is None and not self._lines.ended:
            self._lines.items = self._items_before + len(self._rows)
            raw = self._lines.take(1, BLOCK_BYTES)
            text, problem = self._decode(raw)
            if raw and problem is None:
                self._raw += raw
                size += len(raw[0]) + 1
                self._check_size(size)
                yield text + "\n"
        if problem is not None:
            raise problem

    def state(self) -> dict[str, Any]:
        """Return the place behind the rows read."""
        return {**self._lines.state(), "delimiter": self._delimiter} if self._delimiter else self._lines.state()

    def position(self) -> int:
        """Return the position of the last line taken."""
        return self._base + self._lines.line

    def ready(self) -> bool:
        """Return False when reading would wait."""
        return self._lines.ready()

    def close(self) -> None:
        """Close the input."""
        self._lines.close()


def _is_blank(row: list[str]) -> bool:
    return not row or (len(row) == 1 and not row[0].strip(" \r"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
