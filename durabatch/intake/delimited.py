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
from durabatch.intake.keys import Keys, UnusableKeyError
from durabatch.intake.problems import available, size_text
from durabatch.intake.source import Batch, Row
from durabatch.intake.text import BLOCK_BYTES, LineReader

__all__ = ["DelimitedReader"]

#: What JSON text escapes, apart from the newlines between rows and the delimiter.
ESCAPED = {",": re.compile(r"[\x00-\x09\x0b-\x1f\\]"), "\t": re.compile(r"[\x00-\x08\x0b-\x1f\\]")}
#: Text of at most so many characters has at most 512 bytes, so that most keys need no closer look.
SHORT_KEY = 128
#: What the csv module says, and what we say.
CSV_FAULTS = (
    ("unexpected end of data", "the quote that opens in this row is never closed"),
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
        delimiter: What separates columns.
        state: Where to go on; the header is read before.

    Raises:
        InputError: The header is wrong, or lacks the key column.
    """

    def __init__(self, lines: LineReader, base: int, keys: Keys, *, delimiter: str, state: dict[str, Any] | None) -> None:
        self.waits = lines.waits
        self._lines = lines
        self._base = base
        self._keys = keys
        self._delimiter = delimiter
        self._escaped = ESCAPED.get(delimiter) or re.compile(rf"[\x00-\x09\x0b-\x1f\\{re.escape(delimiter)}]")
        #: The lines of the current read, and the index of the one in which the current row begins.
        self._raw: list[bytes] = []
        self._row = 0
        self._header = self._read_header()
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
            for line, names in self._records(text, first):
                if not _is_blank(names):
                    self._check_header(names, reader.place(line))
                    return names
        return []

    def _check_header(self, names: list[str], place: str) -> None:
        name = names[0]
        other = next((delimiter for delimiter in (";", "\t", "|") if delimiter in name), None) if len(names) == 1 else None
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
        first = self._lines.line
        try:
            text, problem = self._take(max(1, min(max_items, max_bytes // (self._header_bytes + 1))), max_bytes)
            self._add(rows, text, first, problem)
        except InputError as error:
            problem = error
        size = sum(map(len, self._raw)) + len(self._raw) + len(rows) * self._header_bytes
        return Batch(rows, size, problem, ended=self._lines.ended and problem is None)

    def _take(self, max_lines: int, max_bytes: int) -> tuple[str, InputError | None]:
        """Take lines into ``_raw`` and return their text, up to a line that is not UTF-8 and the error about it."""
        first = self._lines.line
        self._raw = []
        raw = self._lines.take(max_lines, max_bytes)
        text, problem = self._decode(raw)
        self._raw = raw[: self._lines.line - first]
        return text, problem

    def _decode(self, raw: list[bytes]) -> tuple[str, InputError | None]:
        """As :meth:`LineReader.decode`, and up to a line with a NUL byte, which no table has."""
        text, problem = self._lines.decode(raw)
        if "\0" not in text:
            return text, problem
        good = text.count("\n", 0, text.index("\0"))
        self._lines.give_back(raw[: text.count("\n") + 1], good)
        where = self._lines.place(self._lines.line + 1)
        return "\n".join(text.split("\n")[:good]), InputError(where, "it holds a NUL byte; is this a text file?")

    def _add(self, rows: list[Row], text: str, first: int, problem: InputError | None) -> None:
        """Append the items of *text*; at a bad row the place is set before it and InputError raised, with *rows* up to it."""
        plain = '"' not in text and self._escaped.search(text) is None
        width = len(self._header)
        column: int | None = None
        for line, row in self._records(text, first, problem):
            if len(row) != width or width == 1:
                if _is_blank(row):
                    continue
                if len(row) != width:
                    raise self._stop(line, first, f"{_count(len(row), 'field')}, the header has {width}")
            if column is None:
                column = self._key_column(row, line, first)
            key = None
            if column >= 0:
                key = row[column]
                if not 0 < len(key) <= SHORT_KEY or not key.isprintable():
                    key = self._key(key, line, first)
            payload = self._template % tuple(row) if plain else to_json(dict(zip(self._header, row, strict=True))).decode()
            rows.append((key, payload, self._base + line))

    def _key_column(self, row: list[str], line: int, first: int) -> int:
        """Return the index of the key column, -1 for none."""
        self._keys.decide(dict(zip(self._header, row, strict=True)))
        if self._keys.field is None:
            return -1
        if self._keys.field not in self._header:
            raise self._stop(line, first, f"key '{self._keys.field}' is missing; columns: {available(self._header)}")
        return self._header.index(self._keys.field)

    def _key(self, key: str, line: int, first: int) -> str:
        try:
            return self._keys.of({self._keys.field: key})
        except UnusableKeyError as error:
            raise self._stop(line, first, str(error)) from None

    def _records(self, text: str, first: int, problem: InputError | None = None) -> Iterator[Record]:
        """
        Yield the rows of *text*, which is that of ``_raw``, with the lines in which they begin.

        A row that goes on behind *text* takes further lines, unless *problem* stands there.
        """
        if not self._raw:
            return
        texts = text.split("\n")
        if '"' not in text and "\r" not in text:
            delimiter = self._delimiter
            yield from ((line, row.split(delimiter)) for line, row in enumerate(texts, first + 1))
            return
        rows = csv.reader(self._feed(texts, problem), delimiter=self._delimiter, strict=True)
        self._row = 0
        while self._row < len(self._raw):
            try:
                row = next(rows)
                if rows.line_num - self._row > 1:
                    self._check_size(sum(map(len, self._raw[self._row : rows.line_num])) + rows.line_num - self._row)
            except (csv.Error, InputError) as error:
                raise self._stop(first + self._row + 1, first, error) from None
            yield first + self._row + 1, row
            self._row = rows.line_num

    def _check_size(self, size: int) -> None:
        if size > self._lines.limit_bytes:
            raise csv.Error(f"a row larger than {size_text(self._lines.limit_bytes)} (--max-item-bytes); is a quote never closed?")

    def _feed(self, texts: list[str], problem: InputError | None) -> Iterator[str]:
        """Yield lines for the csv module: those there are, then more while a row is open."""
        for text in texts:
            yield text + "\n"
        size = sum(map(len, self._raw[self._row :])) + len(self._raw) - self._row
        while not self._lines.ended:
            if problem is not None:
                raise problem
            raw = self._lines.take(1, BLOCK_BYTES)
            text, problem = self._decode(raw)
            if raw and problem is None:
                self._raw += raw
                size += len(raw[0]) + 1
                self._check_size(size)
                yield text + "\n"

    def _stop(self, line: int, first: int, why: str | Exception) -> InputError:
        """Set the place before the row that begins in *line* and return the error about it."""
        self._lines.give_back(self._raw, line - 1 - first)
        if isinstance(why, InputError):
            return why
        fault = next((sentence for words, sentence in CSV_FAULTS if words in str(why)), str(why))
        return InputError(self._lines.place(line), fault)

    def state(self) -> dict[str, Any]:
        """Return the place behind the rows read."""
        return self._lines.state()

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
