"""
Several inputs as one source: one after the other, with one count of positions and one decision about keys.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from durabatch.errors import InputError, UsageError
from durabatch.intake.keys import Keys
from durabatch.intake.problems import cannot_read
from durabatch.intake.source import FIRST_PAGE_ITEMS, Page, Part, Reader, Row

__all__ = ["ChainSource"]


class ChainSource:
    """
    The parts of a source in their order.

    Args:
        description: The inputs as typed.
        parts: At least one.
        keys: The key decision that the parts share.
    """

    def __init__(self, description: str, parts: list[Part], keys: Keys) -> None:
        self.description = description
        self._parts = parts
        self._keys = keys
        self._cursor: Cursor | None = None

    @property
    def key_note(self) -> str | None:
        """The key field that was chosen by itself, as a sentence."""
        return self._keys.note

    def fingerprint(self) -> list[dict[str, Any]] | None:
        """
        Return path, size and time of every input file, None when one of the inputs is no plain file.

        Raises:
            InputError: A file is gone.
        """
        prints = []
        for part in self._parts:
            if part.path is None:
                return None
            try:
                status = os.stat(part.path)
            except OSError as error:
                raise cannot_read(part.path, error) from error
            prints.append({"path": os.path.abspath(part.path), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns})
        return prints

    @property
    def repeatable(self) -> bool:
        """Whether every part can be opened more than once."""
        return all(part.repeatable for part in self._parts)

    def ready(self) -> bool:
        """Return False when the next page would wait for a program that writes to a pipe."""
        return self._cursor is None or self._cursor.ready()

    def pages(self, position: str | None, *, max_items: int, max_bytes: int) -> Iterator[Page]:
        """
        Yield the pages after *position*; see :class:`~durabatch.intake.source.Source`.

        Raises:
            UsageError: *position* is not one of this source.
        """
        cursor = Cursor(self._parts, self._keys, position)
        self._cursor = cursor
        limit = min(FIRST_PAGE_ITEMS, max_items)
        try:
            while True:
                page = cursor.page(limit, max_bytes)
                yield page
                if page.done or page.problem is not None:
                    return
                limit = max_items
        finally:
            cursor.close()
            self._cursor = None


class Cursor:
    """One reading of a chain, from one position to the end."""

    def __init__(self, parts: list[Part], keys: Keys, position: str | None) -> None:
        place: dict[str, Any] = json.loads(position) if position is not None else {"input": 0, "base": 0}
        if not isinstance(place, dict) or not {"input", "base"} <= place.keys() or place["input"] > len(parts):
            raise UsageError("the input differs in kind from the one that the run was started with")
        self._parts = parts
        self._keys = keys
        self._input: int = place["input"]
        self._base: int = place["base"]
        self._state: dict[str, Any] | None = place.get("state")
        self._reader: Reader | None = None
        keys.restore(place)

    def ready(self) -> bool:
        """Return False when the next page would wait; the next part is opened to know it."""
        try:
            return self._input == len(self._parts) or self._open().ready()
        except InputError:
            # The next page tells what is wrong.
            return True

    def close(self) -> None:
        """Close the part that is open."""
        if self._reader is not None:
            self._state = self._reader.state()
            self._reader.close()
            self._reader = None

    def position(self) -> str:
        """Return where to go on."""
        state = self._state if self._reader is None else self._reader.state()
        return json.dumps({"input": self._input, "base": self._base, "state": state, **self._keys.state()})

    def page(self, max_items: int, max_bytes: int) -> Page:
        """Return the next page, over the borders of parts, shorter when a pipe has no more at the moment."""
        rows: list[Row] = []
        size = 0
        while self._input < len(self._parts):
            try:
                reader = self._open()
            except InputError as error:
                return Page(rows, self.position(), error)
            if rows and not reader.ready():
                # What is there is handed on before anybody waits for a pipe.
                break
            batch = reader.read(max_items - len(rows), max_bytes - size)
            rows += batch.rows
            size += batch.bytes
            if batch.problem is not None:
                return Page(rows, self.position(), batch.problem)
            if batch.ended:
                self._advance(reader)
            elif reader.waits:
                return Page(rows, self.position())
            if len(rows) >= max_items or size >= max_bytes:
                break
        return Page(rows, self.position(), done=self._input == len(self._parts))

    def _open(self) -> Reader:
        if self._reader is None:
            self._reader = self._parts[self._input].open(self._state, self._base)
        return self._reader

    def _advance(self, reader: Reader) -> None:
        self._base = reader.position()
        reader.close()
        self._reader, self._state = None, None
        self._input += 1
