"""
Lines of a stream, many at a time, with the place of each: byte offset and line number from which reading can go on.

Memory is bounded: a piece of a mebibyte at a time, and a line longer than an item may be is never read to its end.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from durabatch.errors import InputError
from durabatch.intake.problems import not_text, size_text
from durabatch.intake.streams import BrokenStreamError, BrokenTextError, ByteStream

__all__ = ["BLOCK_BYTES", "LineReader", "SkipBad", "too_large"]

#: Told of a line that cannot be an item; returns True to leave it out.
SkipBad = Callable[[InputError], bool]

#: Bytes of one read. Larger ones are no faster.
BLOCK_BYTES = 1 << 20


def too_large(place: str, limit_bytes: int) -> InputError:
    """Return the error for an item of more than *limit_bytes*."""
    return InputError(place, f"item larger than {size_text(limit_bytes)} (--max-item-bytes)")


class LineReader:
    """
    The lines of one stream, without their newlines.

    ``offset`` and ``line`` say how many bytes and lines were taken. A last line without its newline counts as if it had one, unless the
    file goes on behind it by now: then it is left to the next reading.

    Args:
        stream: Where the bytes come from, at its start.
        where: What messages call it.
        encoding: The encoding of the file, for messages.
        limit_bytes: The longest line.
        separator: What ends a line, one byte.

    Attributes:
        items: Items that the caller made of the lines so far; it counts them here so that they are part of the place.
    """

    def __init__(self, stream: ByteStream, where: str, *, encoding: str, limit_bytes: int, separator: bytes = b"\n") -> None:
        self.where = where
        self.offset = 0
        self.line = 0
        self.items = 0
        self.separator = separator
        self.limit_bytes = limit_bytes
        self._stream = stream
        self.encoding = encoding
        self._at_start = True
        self._stream_ended = False
        self._lines: list[bytes] = []
        self._next = 0
        self._tail = b""
        self._failure: InputError | BrokenStreamError | BrokenTextError | None = None
        #: The line that was too long, if one was: its bytes that are gone, and the lines and the piece of one behind it, if its end was seen.
        self._long: tuple[int, list[bytes] | None, bytes] | None = None

    @property
    def waits(self) -> bool:
        """True when taking lines may wait for another program."""
        return self._stream.waits

    @property
    def ended(self) -> bool:
        """True when every line was taken."""
        return self._stream_ended and self._next == len(self._lines) and self._failure is None

    def ready(self) -> bool:
        """Return False when taking lines would wait."""
        return self._next < len(self._lines) or self._stream_ended or self._stream.ready()

    def state(self) -> dict[str, Any]:
        """Return the place behind the lines taken."""
        return {"offset": self.offset, "line": self.line, "items": self.items}

    def go_to(self, state: dict[str, Any]) -> None:
        """Go to a place that :meth:`state` gave, at once in plain files, by skipping lines elsewhere."""
        if self._stream.seekable:
            self._stream.seek(state["offset"])
            self._at_start = state["offset"] == 0
            self._lines, self._next, self._tail, self._stream_ended, self._failure, self._long = [], 0, b"", False, None, None
            self.offset, self.line = state["offset"], state["line"]
        while self.line < state["line"] and not self.ended:
            self._skip(state["line"] - self.line)
        # Places that older versions recorded have no count.
        self.items = state.get("items", state["line"])

    def _skip(self, lines: int) -> None:
        """Skip up to *lines* lines, of which any may have been stepped over before."""
        try:
            self.take(lines, BLOCK_BYTES)
        except InputError:
            if not self.can_step_over:
                raise
            self.step_over()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def place(self, line: int) -> str:
        """Return ``FILE:LINE`` for messages."""
        return f"{self.where}:{line}"

    def take(self, max_lines: int, max_bytes: int) -> list[bytes]:
        """
        Return the next lines, at most *max_lines* with at most *max_bytes* (a longer line comes alone).

        Returns:
            At least one line, unless the stream ended or waits in the middle of one.

        Raises:
            InputError: The next line cannot be read, and ``line`` is the number of the one before it. See ``can_step_over``.
        """
        if self._next == len(self._lines):
            self._fill()
        lines = self._lines[self._next : self._next + max_lines]
        taken_bytes = sum(map(len, lines)) + len(lines)
        if taken_bytes > max_bytes:
            sizes = list(itertools.accumulate(len(line) + 1 for line in lines))
            lines = lines[: max(1, bisect_right(sizes, max_bytes))]
            taken_bytes = sizes[len(lines) - 1]
        self._next += len(lines)
        self.line += len(lines)
        self.offset += taken_bytes
        return lines

    def give_back(self, lines: list[bytes], start: int) -> None:
        """Set the place to before ``lines[start]``, where *lines* are the last ones taken. Only the place: nothing is read after a problem."""
        self.line -= len(lines) - start
        self.offset -= sum(map(len, lines[start:])) + len(lines) - start

    def on_hand(self) -> list[bytes]:
        """Return lines that will be taken next, as far as they were read: some of them, none, or all."""
        return self._lines[self._next :]

    @property
    def can_step_over(self) -> bool:
        """True after an error of :meth:`take` about one line only."""
        return self._long is not None

    def step_over(self) -> None:
        """Leave out the line that was too long, to its end; only when it can be stepped over."""
        assert self._long is not None
        size, lines, tail = self._long
        self.line += 1
        self.offset += size
        self._long, self._failure = None, None
        if lines is None:
            lines, tail = self._behind_long_line()
        self._lines, self._next, self._tail = lines, 0, tail
        self._refuse_long_lines()

    def _behind_long_line(self) -> tuple[list[bytes], bytes]:
        """Read to the end of the line, and return what was read behind it."""
        while not self._stream_ended and self._failure is None:
            data = self._read()
            if data is None:
                continue
            gone, separator, rest = data.partition(self.separator)
            self.offset += len(gone) + 1 if separator else len(gone)
            if separator:
                *lines, tail = rest.split(self.separator)
                return lines, tail
            self._stream_ended = not data and self._failure is None
        self.offset += 1
        return [], b""

    def refuse(self, error: InputError, skip_bad: SkipBad | None) -> InputError | None:
        """Return *error*, which :meth:`take` raised, or None when it was about one line and *skip_bad* had it left out."""
        if not self.can_step_over or skip_bad is None or not skip_bad(error):
            return error
        self.step_over()
        return None

    def undecodable(self, line: int, data: bytes) -> InputError | None:
        """Return what is wrong when *data*, the line of that number, is not UTF-8."""
        try:
            data.decode()
        except UnicodeDecodeError as error:
            return not_text(self.place(line), data, error.start, self.encoding)
        return None

    def _fill(self) -> None:
        self._lines, self._next = [], 0
        while not self._lines and not self._stream_ended:
            if self._failure is not None:
                raise self._sentence(self._failure)
            data = self._read()
            if data is not None:
                self._split(data)
            if self._stream.waits:
                break

    def _read(self) -> bytes | None:
        try:
            data = self._stream.read(BLOCK_BYTES)
        except (InputError, BrokenStreamError, BrokenTextError) as error:
            self._failure = error
            return b""
        if self._at_start and data:
            self._at_start = False
            if data.startswith(b"\xef\xbb\xbf"):
                self.offset += 3
                data = data[3:] or self._read()
        return data

    def _split(self, data: bytes) -> None:
        if not data and self._failure is None:
            self._stream_ended = True
            self._lines = [self._tail] if self._tail and not self._stream.is_cut else []
            self._tail = b""
        size = len(self._tail) + len(data)
        head, separator, rest = data.rpartition(self.separator)
        if separator:
            self._lines = (self._tail + head).split(self.separator)
            self._tail = rest
        else:
            self._tail += rest
        if size > self.limit_bytes:
            self._refuse_long_lines()

    def _refuse_long_lines(self) -> None:
        limit = self.limit_bytes
        if self._lines and max(map(len, self._lines)) > limit:
            index = next(index for index, line in enumerate(self._lines) if len(line) > limit)
            self._long = len(self._lines[index]) + 1, self._lines[index + 1 :], self._tail
            del self._lines[index:]
        elif len(self._tail) > limit:
            self._long = len(self._tail), None, b""
        else:
            return
        self._tail = b""
        self._failure = too_large(self.place(self.line + len(self._lines) + 1), limit)

    def _sentence(self, failure: InputError | BrokenStreamError | BrokenTextError) -> InputError:
        if isinstance(failure, InputError):
            return failure
        if isinstance(failure, BrokenStreamError):
            return failure.at(self.where, self.items)
        column = len(self._tail.decode()) + 1
        return InputError(self.place(self.line + 1), f"not {self.encoding.upper()} ({failure.fault} at column {column})", "Use --encoding.")
