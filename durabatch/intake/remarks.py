"""
What a source has to say beside its rows: lines that cannot be items, and sentences for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from durabatch.errors import InputError
from durabatch.intake.source import Page, Source

__all__ = ["Remarks"]


class Remarks:
    """
    Hears what the readers of one source say. Sentences that come before anybody listens wait for them.

    Args:
        skips: Lines that cannot be items are left out; else they end intake.
    """

    def __init__(self, *, skips: bool = False) -> None:
        self.skips = skips
        self._left_out: list[InputError] = []
        self._listener: Callable[[str], None] | None = None
        self._waiting: list[str] = []

    def skip_bad(self, error: InputError) -> bool:
        """Return whether a reader is to step over a line; if so, *error* is kept for the page that it stands in."""
        if self.skips:
            self._left_out.append(error)
        return self.skips

    def note(self, sentence: str) -> None:
        """Tell a person *sentence*."""
        if self._listener is None:
            self._waiting.append(sentence)
        else:
            self._listener(sentence)

    def listen(self, listener: Callable[[str], None]) -> None:
        """Hand all sentences to *listener* from now on, those that wait first."""
        self._listener = listener
        for sentence in self._waiting:
            listener(sentence)
        self._waiting = []

    def pages(self, source: Source, position: str | None, *, max_items: int, max_bytes: int) -> Iterator[Page]:
        """Yield the pages of *source* from *position* on, each with what was left out of it; the arguments are those of ``Source.pages``."""
        for page in source.pages(position, max_items=max_items, max_bytes=max_bytes):
            page.left_out, self._left_out = self._left_out, []
            yield page
