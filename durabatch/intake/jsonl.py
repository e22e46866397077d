"""
JSON lines as items: one value a line, strict; objects may have a key field. Blank lines are left out.
"""

from __future__ import annotations

from typing import Any

from durabatch.codec import InvalidJsonError, parse_item
from durabatch.errors import InputError
from durabatch.intake.keys import Keys, UnusableKeyError
from durabatch.intake.problems import not_text
from durabatch.intake.source import Batch, Row
from durabatch.intake.text import LineReader

__all__ = ["JsonlReader"]

#: Text of at most so many characters has at most 512 bytes, so that most keys need no closer look.
SHORT_KEY = 128


class JsonlReader:
    """
    Reads JSON lines.

    Args:
        lines: The opened input.
        base: Source position before the first line.
        keys: The key decision of the source; the first record makes it.
    """

    def __init__(self, lines: LineReader, base: int, keys: Keys) -> None:
        self.waits = lines.waits
        self._lines = lines
        self._base = base
        self._keys = keys
        self._met = lines.line > 0

    def read(self, max_items: int, max_bytes: int) -> Batch:
        """Return the next items; blank lines count neither as items nor as the end."""
        reader = self._lines
        rows: list[Row] = []
        raw: list[bytes] = []
        first = reader.line
        try:
            raw = reader.take(max_items, max_bytes)
            self._add(rows, raw, first)
        except InputError as error:
            return Batch(rows, problem=error)
        return Batch(rows, sum(map(len, raw)) + len(raw), ended=reader.ended)

    def _add(self, rows: list[Row], raw: list[bytes], first: int) -> None:
        """Append the items of *raw*; at a bad line the place is set before it and InputError raised, with *rows* up to it."""
        field = self._keys.field
        for line, data in enumerate(raw, first + 1):
            try:
                value, payload = parse_item(data)
                if not self._met:
                    field = self._meet(value)
                key = None
                if field is not None:
                    key = value.get(field) if type(value) is dict else None
                    if type(key) is not str or not 0 < len(key) <= SHORT_KEY or not key.isprintable():
                        key = self._keys.of(value)
            except (InvalidJsonError, UnusableKeyError, InputError) as error:
                if not data or data.isspace():
                    continue
                self._lines.give_back(raw, line - 1 - first)
                raise self._sentence(error, line, data) from None
            rows.append((key, payload, self._base + line))

    def _meet(self, value: object) -> str | None:
        self._keys.decide(value)
        self._keys.refuse_unknown(value, self._lines.where, "field")
        self._met = True
        return self._keys.field

    def _sentence(self, error: Exception, line: int, data: bytes) -> InputError:
        if isinstance(error, InputError):
            return error
        place = self._lines.place(line)
        if isinstance(error, UnusableKeyError):
            return InputError(place, str(error))
        try:
            data.decode()
        except UnicodeDecodeError as broken:
            return not_text(place, data, broken.start, "utf-8")
        return InputError(place, str(error))

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
