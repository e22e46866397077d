"""
JSON lines as items: one value a line, strict; objects may have a key field. Blank lines are left out.
"""

from __future__ import annotations

from typing import Any

from durabatch.errors import InputError
from durabatch.intake.keys import Keys
from durabatch.intake.records import Records, as_input_error
from durabatch.intake.source import Batch, Row
from durabatch.intake.text import LineReader, SkipBad

__all__ = ["JsonlReader"]


class JsonlReader:
    """
    Reads JSON lines.

    Args:
        lines: The opened input.
        base: Source position before the first line.
        keys: The key decision of the source; the first record makes it.
        skip_bad: Leaves out lines that cannot be items; None stops before the first.
        numbers: ``text`` keeps numbers as their text where they cannot be kept exactly; ``exact`` refuses those that cannot be kept at all.
    """

    def __init__(self, lines: LineReader, base: int, keys: Keys, skip_bad: SkipBad | None = None, *, numbers: str = "exact") -> None:
        self.waits = lines.waits
        self._lines = lines
        self._base = base
        self._records = Records(keys, lines.where, numbers, met=lines.line > 0)
        self._skip_bad = skip_bad

    def read(self, max_items: int, max_bytes: int) -> Batch:
        """Return the next items; blank lines count neither as items nor as the end."""
        reader, before = self._lines, self._lines.offset
        try:
            raw = reader.take(max_items, max_bytes)
        except InputError as error:
            return Batch([], problem=reader.refuse(error, self._skip_bad))
        first, size = reader.line - len(raw), reader.offset - before
        rows: list[Row] = []
        problem = self._add(rows, raw, first)
        reader.items += len(rows)
        self._records.watch(rows, self._base)
        return Batch(rows, size, problem, ended=reader.ended and problem is None)

    def _add(self, rows: list[Row], raw: list[bytes], first: int) -> InputError | None:
        """Append the items of *raw*; at a bad line that is not left out the place is set before it and what is wrong is returned."""
        start = 0
        while start < len(raw):
            bad = self._records.add(rows, raw[start:] if start else raw, self._base + first + start)
            if bad is None:
                return None
            index, error = start + bad[0], bad[1]
            problem = as_input_error(error, raw[index], self._lines.place, first + 1 + index)
            if self._skip_bad is None or not self._skip_bad(problem):
                self._lines.give_back(raw, index)
                return problem
            start = index + 1
        return None

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
