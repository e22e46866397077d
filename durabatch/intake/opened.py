"""
An input that was opened: its source, what it has to say, and how keys that come again are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from durabatch.intake.remarks import Remarks
from durabatch.intake.source import Page, Source

__all__ = ["PAGE_BYTES", "PAGE_ITEMS", "OpenedInput"]

#: Rows and input bytes of a page. A page is one insert: bigger ones spread random keys over fewer passes through the index.
PAGE_ITEMS, PAGE_BYTES = 10_000, 8 << 20


@dataclass(frozen=True, slots=True)
class OpenedInput:
    """
    One input of a run.

    Attributes:
        dedupe: ``error``, ``first``, ``last`` or ``keep``.
    """

    source: Source
    remarks: Remarks
    dedupe: str

    def pages(self, position: str | None = None) -> Iterator[Page]:
        """Yield the pages from *position*, by default the start, each with what was left out of it."""
        return self.remarks.pages(self.source, position, max_items=PAGE_ITEMS, max_bytes=PAGE_BYTES)
