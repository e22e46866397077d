"""
Lists that are text: a file, a named pipe, or standard input, in one of several formats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from durabatch.errors import InputError
from durabatch.intake.array_text import ArrayText
from durabatch.intake.delimited import DelimitedReader
from durabatch.intake.json_array import JsonArrayReader
from durabatch.intake.jsonl import JsonlReader
from durabatch.intake.keys import Keys
from durabatch.intake.lines import LinesReader
from durabatch.intake.opening import open_stream, stdin_stream
from durabatch.intake.source import Reader
from durabatch.intake.spec import InputSpec
from durabatch.intake.streams import ByteStream
from durabatch.intake.text import LineReader

__all__ = ["TextPart"]

#: What separates columns unless something else is said; None is found out.
DELIMITERS = {"csv": None, "tsv": "\t"}


@dataclass(kw_only=True)
class TextPart:
    """
    One list of items.

    Args:
        where: Its path, or ``stdin``, for messages.
        path: Path of a plain file; None for what cannot be read twice.
        format: One of :data:`~durabatch.intake.registry.TEXT_FORMATS`.
        keys: The key decision of the whole source.
        stdin: Standard input, when it is that.
        skip_bad: Told of a line that cannot be an item; True leaves it out. None stops at the first.
        notes: Told what a person should know.
    """

    where: str
    path: str | None
    format: str
    spec: InputSpec
    keys: Keys
    max_item_bytes: int
    stdin: BinaryIO | None = None
    skip_bad: Callable[[InputError], bool] | None = None
    notes: Callable[[str], None] | None = None

    @property
    def repeatable(self) -> bool:
        """Whether it is a plain file."""
        return self.path is not None

    def open(self, state: dict[str, Any] | None, base: int) -> Reader:
        """Return a reader behind *state*, whose rows count from *base* + 1."""
        stream = self._stream()
        try:
            return self._array(stream, state, base) if self.format == "json" else self._reader(self._lines(stream), state, base)
        except BaseException:
            stream.close()
            raise

    def _lines(self, stream: ByteStream) -> LineReader:
        separator = b"\0" if self.spec.null and self.format == "lines" else b"\n"
        return LineReader(stream, self.where, encoding=self.spec.encoding, limit_bytes=self.max_item_bytes, separator=separator)

    def _array(self, stream: ByteStream, state: dict[str, Any] | None, base: int) -> Reader:
        array = ArrayText(stream, self.where, limit_bytes=self.max_item_bytes)
        if state is not None:
            array.go_to(state)
        return JsonArrayReader(array, base, self.keys, self.skip_bad, numbers=self.spec.numbers)

    def _stream(self) -> ByteStream:
        if self.stdin is None:
            return open_stream(self.where, self.spec.encoding, self.notes)
        return stdin_stream(self.stdin, self.spec.encoding, self.notes)

    def _reader(self, lines: LineReader, state: dict[str, Any] | None, base: int) -> Reader:
        if self.format in DELIMITERS:
            delimiter = self.spec.delimiter or DELIMITERS[self.format]
            return DelimitedReader(lines, base, self.keys, delimiter=delimiter, state=state, skip_bad=self.skip_bad)
        if state is not None:
            lines.go_to(state)
        if self.format == "lines":
            return LinesReader(lines, base, self.keys, self.skip_bad)
        return JsonlReader(lines, base, self.keys, self.skip_bad, numbers=self.spec.numbers)
