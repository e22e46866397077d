"""
Text lines as items: the text is the payload and the key. Blank lines are left out.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import to_json

from durabatch.errors import InputError
from durabatch.intake.keys import MAX_KEY_BYTES
from durabatch.intake.source import Batch, Row
from durabatch.intake.text import LineReader

__all__ = ["LinesReader"]

#: What JSON text escapes; a piece of text without them is its own JSON between quotes.
ESCAPED = re.compile(r'[\x00-\x09\x0b-\x1f"\\]')


class LinesReader:
    """
    Reads lines.

    Args:
        lines: The opened input. A separator other than the newline keeps blanks and carriage returns: those are names of files.
        base: Source position before the first line.
    """

    def __init__(self, lines: LineReader, base: int) -> None:
        self.waits = lines.waits
        self._lines = lines
        self._base = base
        self._newlines = lines.separator == b"\n"

    def read(self, max_items: int, max_bytes: int) -> Batch:
        """Return the next items; blank lines count neither as items nor as the end."""
        reader = self._lines
        try:
            raw = reader.take(max_items, max_bytes)
        except InputError as error:
            return Batch([], problem=error)
        first, size = reader.line - len(raw), sum(map(len, raw)) + len(raw)
        longest = max(map(len, raw), default=0)
        joined, problem = reader.decode(raw)
        rows = self._rows(joined, self._base + first) if raw and reader.line > first else []
        if longest > MAX_KEY_BYTES or ("\0" in joined and self._newlines):
            rows, problem = self._usable(rows, raw, first, problem)
        return Batch(rows, size, problem, ended=reader.ended and problem is None)

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

    def _usable(self, rows: list[Row], raw: list[bytes], first: int, problem: InputError | None) -> tuple[list[Row], InputError | None]:
        """Cut *rows* before the first text that cannot be a key."""
        for index, (key, _payload, position) in enumerate(rows):
            why = _unusable(key or "")
            if why is not None:
                line = position - self._base
                self._lines.give_back(raw[: self._lines.line - first], line - 1 - first)
                return rows[:index], InputError(self._lines.place(line), *why)
        return rows, problem

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
