"""
Where to cut a text: at the end of a paragraph, else of a sentence, a line, a word, looked for in the last quarter of a chunk; else where it is full.

Everything is about bytes of UTF-8 and decided with searches from the right, so that long texts cost nearly nothing. A character is never
split, nor a line break of two bytes. Chunks follow on each other without a gap; with an overlap each begins a little before the end of the
one before it. Where a chunk ends depends on the text from its beginning on alone, so that a text can be gone on with at any cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from durabatch.errors import UsageError
from durabatch.options import shown_size

__all__ = ["MIN_CHUNK_BYTES", "Chunking"]

#: Below this, characters of four bytes and an overlap leave no room to go forwards.
MIN_CHUNK_BYTES = 16
#: Quotation marks and brackets that may stand between the end of a sentence and the blank behind it.
CLOSING = (b"", b'"', b"'", b")", "”".encode(), "’".encode())
#: What ends a paragraph, a sentence, a line, a word, in the order of preference; each end belongs to what it ends. They stand under their
#: first byte: where that is not found, none of them is looked for.
PARAGRAPH = {b"\n": (b"\n\n", b"\n\r\n")}
SENTENCE = {
    **{mark: tuple(mark + closing + blank for closing in CLOSING for blank in (b" ", b"\n", b"\r\n")) for mark in (b".", b"!", b"?")},
    b"\xe3": ("。".encode(), "。」".encode()),
    b"\xef": ("！".encode(), "？".encode(), "！」".encode(), "？」".encode()),
}
LINE = {b"\n": (b"\n",)}
WORD = {b" ": (b" ",), b"\t": (b"\t",), b"\xe3": ("\u3000".encode(),)}
BREAKS = (PARAGRAPH, SENTENCE, LINE, WORD)
#: Blanks at which an overlap may begin.
BLANKS = b" \t\n"


@dataclass(frozen=True, slots=True)
class Chunking:
    """
    How texts are cut.

    Attributes:
        size: Most bytes of a chunk.
        overlap: Most bytes that a chunk repeats of the one before it.

    Raises:
        UsageError: The size is below :data:`MIN_CHUNK_BYTES`, or the overlap above half of it.
    """

    size: int
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.size < MIN_CHUNK_BYTES:
            raise UsageError(f"--chunk-size {self.size} is too small", f"Use at least {MIN_CHUNK_BYTES} bytes.")
        if not 0 <= self.overlap <= self.size // 2:
            why = f"--overlap {shown_size(self.overlap)} is more than half of --chunk-size {shown_size(self.size)}"
            raise UsageError(why, f"Use at most {shown_size(self.size // 2)}.")

    def end(self, text: bytes, start: int, *, is_last: bool) -> int | None:
        """
        Return where the chunk that begins at *start* ends.

        Args:
            text: At least what has been read of the text from *start* on.
            is_last: Nothing follows *text*.

        Returns:
            A place behind *start*, also behind the end of the chunk before; None when more of the text is needed to tell.
        """
        limit = start + self.size
        if limit >= len(text):
            return len(text) if is_last else None
        nearest = limit - self.size // 4
        for ends in BREAKS:
            found = last_break(text, ends, nearest, limit)
            if found:
                return found
        return whole_character(text, limit)

    def next_start(self, text: bytes, end: int) -> int:
        """Return where the chunk behind the one that ends at *end* begins: there, or as far before as may be repeated, at a word if possible."""
        if not self.overlap:
            return end
        earliest = end - self.overlap
        start = first_word(text, earliest, end - self.overlap // 2)
        if start is not None:
            return start
        while earliest < end and (text[earliest] & 0xC0 == 0x80 or text[earliest - 1 : earliest + 1] == b"\r\n"):
            earliest += 1
        return earliest


def last_break(text: bytes, ends: Mapping[bytes, Sequence[bytes]], begin: int, limit: int) -> int:
    """Return the place behind the last of *ends* (by their first byte) that stands whole between *begin* and *limit*; 0 when there is none."""
    best = 0
    for first, group in ends.items():
        if text.rfind(first, begin, limit) < 0:
            continue
        for end in group:
            found = text.rfind(end, begin, limit)
            if found >= 0:
                best, begin = max(best, found + len(end)), found
    return best


def whole_character(text: bytes, limit: int) -> int:
    """Return the last place up to *limit* that splits neither a character nor a line break of two bytes. *text* goes on behind *limit*."""
    place = limit
    while limit - place < 3 and text[place] & 0xC0 == 0x80:
        place -= 1
    if text[place - 1 : place + 1] == b"\r\n":
        place -= 1
    return place


def first_word(text: bytes, begin: int, limit: int) -> int | None:
    """Return where the first word begins whose blank before it stands between *begin* - 1 and *limit*; None when there is no blank."""
    places = [found for blank in BLANKS if (found := text.find(blank, begin - 1, limit)) >= 0]
    return min(places) + 1 if places else None
