"""
Text lines as items: the text is the payload and the key. Blank lines are left out.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import to_json

from durabatch.errors import InputError
from durabatch.intake.keys import MAX_KEY_BYTES, Keys
from durabatch.intake.source import Batch, Row
from durabatch.intake.text import LineReader, SkipBad

__all__ = ["LinesReader"]

#: What JSON text escapes; a piece of text without them is its own JSON between quotes.
ESCAPED = re.compile(r'[\x00-\x09\x0b-\x1f"\\]')


class LinesReader:
    """
    Reads lines.

    Args:
        lines: The opened input. A separator other than the newline keeps blanks and carriage returns: those are names of files.
        base: Source position before the first line.
        keys: Looks for keys that nearly meet.
        skip_bad: Leaves out lines that cannot be items; None stops before the first.
    """

    def __init__(self, lines: LineReader, base: int, keys: Keys, skip_bad: SkipBad | None = None) -> None:
        self.waits = lines.waits
        self._lines = lines
        self._base = base
        self._keys = keys
        self._skip_bad = skip_bad
        self._newlines = lines.separator == b"\n"

    def read(self, max_items: int, max_bytes: int) -> Batch:
        """Return the next items; blank lines count neither as items nor as the end."""
        reader, before = self._lines, self._lines.offset
        try:
            raw = reader.take(max_items, max_bytes)
        except InputError as error:
            return Batch([], problem=reader.refuse(error, self._skip_bad))
        first, size = reader.line - len(raw), reader.offset - before
        joined, problem = self._text(raw), None
        if joined is None:
            rows, problem = self._one_by_one(raw, first)
        else:
            rows = self._rows(joined, self._base + first) if raw else []
        reader.items += len(rows)
        self._keys.watch(rows, reader.where, self._base)
        return Batch(rows, size, problem, ended=reader.ended and problem is None)

    def _text(self, raw: list[bytes]) -> str | None:
        """Return the lines in one piece, or None when one of them needs a closer look."""
        if max(map(len, raw), default=0) > MAX_KEY_BYTES:
            return None
        try:
            joined = self._lines.separator.join(raw).decode()
        except UnicodeDecodeError:
            return None
        return None if self._newlines and "\0" in joined else joined

    def _rows(self, joined: str, position: int) -> list[Row]:
        if not self._newlines:
            return [(text, _json(text), number) for number, text in enumerate(joined.split("\0"), position + 1) if text]
        texts = joined.split("\n")
        if "\r" in joined:
            texts = [text.removesuffix("\r") for text in texts]
            joined = "\n".join(texts)
        if ESCAPED.search(joined) is None:
            return [(text, f'"{text}"', number) for number, text in enumerate(texts, position + 1) if text and not text.isspace()]
        return [(text, _json(text), number) for number, text in enumerate(texts, position + 1) if text and not text.isspace()]

    def _one_by_one(self, raw: list[bytes], first: int) -> tuple[list[Row], InputError | None]:
        """Return the items of *raw*; at a line that cannot be one and is not left out the place is set before it."""
        rows: list[Row] = []
        for line, data in enumerate(raw, first + 1):
            problem = self._lines.undecodable(line, data)
            if problem is None:
                text = data.decode().removesuffix("\r") if self._newlines else data.decode()
                if not text or (self._newlines and text.isspace()):
                    continue
                why = _unusable(text)
                problem = InputError(self._lines.place(line), *why) if why is not None else None
            if problem is None:
                rows.append((text, _json(text), self._base + line))
            elif self._skip_bad is None or not self._skip_bad(problem):
                self._lines.give_back(raw, line - 1 - first)
                return rows, problem
        return rows, None

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


def _json(text: str) -> str:
    return to_json(text).decode()


def _unusable(text: str) -> tuple[str, str] | None:
    size = len(text.encode())
    if size > MAX_KEY_BYTES:
        why = f"the line is its own key, and a key has at most {MAX_KEY_BYTES} bytes, not {size:,}"
        return why, "Give JSON lines (--format jsonl), where a field can be the key."
    if "\0" in text:
        return "it holds a NUL byte", "Is this a text file? For lists that end each name with NUL use --null."
    return None
