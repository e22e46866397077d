"""
Chunks of documents as items. The key is ``PATH#1`` and so on, the payload path, number, place and text.

Places are bytes of the text as UTF-8, which for a plain file of UTF-8 are bytes of the file. An empty document has no chunks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic_core import to_json

from durabatch.errors import InputError, UsageError
from durabatch.flow.chunking import Chunking
from durabatch.intake.document import Document
from durabatch.intake.files import FilesPart
from durabatch.intake.keys import UnusableKeyError, key_text
from durabatch.intake.problems import printable
from durabatch.intake.source import Batch, Row
from durabatch.intake.text import BLOCK_BYTES, too_large
from durabatch.options import shown_size

__all__ = ["ChunksPart", "ChunksReader"]


@dataclass
class ChunksPart:
    """
    Documents of one or several arguments that stand side by side.

    Args:
        files: Which documents. A document that cannot be read, or not to its end, is passed over from there on if files would be.
        chunking: How they are cut.
        encoding: Their encoding.
        max_item_bytes: Most bytes of an item's payload.

    Raises:
        UsageError: Chunks may be larger than items.
    """

    files: FilesPart
    chunking: Chunking
    encoding: str = "utf-8"
    max_item_bytes: int = 16 << 20
    repeatable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.chunking.size > self.max_item_bytes:
            why = f"--chunk-size {shown_size(self.chunking.size)} is larger than an item may be, {shown_size(self.max_item_bytes)}"
            raise UsageError(why, "Use smaller chunks, or raise --max-item-bytes.")

    @property
    def path(self) -> str | None:
        """Path of the document when it is a single plain file that was named; None for directories, patterns and several."""
        root = self.files.roots[0]
        return root.path if len(self.files.roots) == 1 and root.pattern is None and os.path.isfile(root.path) else None

    def open(self, state: dict[str, Any] | None, base: int) -> ChunksReader:
        """Return a reader behind *state*."""
        return ChunksReader(self, state or {"files": None, "document": None, "count": 0}, base)


class ChunksReader:
    """Cuts one document after the other."""

    waits = False

    def __init__(self, part: ChunksPart, state: dict[str, Any], base: int) -> None:
        self._part = part
        self._base = base
        self._count: int = state["count"]
        self._files = part.files.open(state["files"], 0)
        self._place: dict[str, Any] | None = state["document"]
        self._document: Document | None = None

    def read(self, max_items: int, max_bytes: int) -> Batch:
        """Return the next chunks."""
        rows: list[Row] = []
        size = 0
        try:
            while len(rows) < max_items and (size < max_bytes or not rows):
                row = self._next_row()
                if row is None:
                    return Batch(rows, size, ended=True)
                rows.append(row)
                size += len(row[1])
        except InputError as error:
            return Batch(rows, size, error)
        return Batch(rows, size)

    def _next_row(self) -> Row | None:
        while self._place is not None or self._find():
            try:
                row = self._cut()
            except InputError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    self._part.files.step_over(error)
                row = None
            if row is not None:
                return row
            self._leave()
        return None

    def _find(self) -> bool:
        """Go to the next document, if there is one."""
        batch = self._files.read(1, BLOCK_BYTES)
        if batch.problem is not None:
            raise batch.problem
        self._place = {"path": batch.rows[0][0], "start": 0, "chunk": 0} if batch.rows else None
        return self._place is not None

    def _cut(self) -> Row | None:
        """Return the next chunk of the document; None behind its end."""
        assert self._place is not None
        path, number = self._place["path"], self._place["chunk"] + 1
        if self._document is None:
            self._document = Document(path, self._part.encoding, self._part.chunking, self._place["start"])
        cut = self._document.cut(number - 1)
        if cut is None:
            return None
        start, end, text = cut
        try:
            key = key_text(f"{path}#{number}")
        except UnusableKeyError as error:
            raise InputError(printable(path), str(error)) from None
        payload = to_json({"path": path, "chunk": number, "start": start, "end": end, "text": text}).decode()
        if len(payload) > self._part.max_item_bytes // 4 and len(payload.encode()) > self._part.max_item_bytes:
            raise too_large(printable(key), self._part.max_item_bytes)
        self._count += 1
        self._place = {"path": path, "start": self._document.start, "chunk": number}
        return key, payload, self._base + self._count

    def _leave(self) -> None:
        self._place = None
        if self._document is not None:
            self._document.close()
            self._document = None

    def state(self) -> dict[str, Any]:
        """Return the last document that was begun, and where its next chunk begins."""
        return {"files": self._files.state(), "document": self._place, "count": self._count}

    def position(self) -> int:
        """Return the position of the last chunk."""
        return self._base + self._count

    def ready(self) -> bool:
        """Files are always ready."""
        return True

    def close(self) -> None:
        """Close the document that is open."""
        place = self._place
        self._leave()
        self._place = place
