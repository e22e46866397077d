"""
What a command prints, bounded: the beginning as its value, the end for the record of a failure.
"""

from __future__ import annotations

__all__ = ["MAX_CAPTURE_BYTES", "TAIL_BYTES", "Capture"]

#: Of what a command prints, this much is kept of each stream as its value.
MAX_CAPTURE_BYTES = 64 * 1024
#: Of what a failed command printed, this much of the end is recorded.
TAIL_BYTES = 8 * 1024


class Capture:
    """The beginning and the end of a stream, whatever its length."""

    def __init__(self, limit_bytes: int) -> None:
        self.total_bytes = 0
        self.head = bytearray()
        self._limit_bytes = limit_bytes
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        """Take in the next bytes; beyond the limit only the end is kept."""
        self.total_bytes += len(data)
        self.head += data[: max(0, self._limit_bytes - len(self.head))]
        self._tail += data[-TAIL_BYTES:]
        del self._tail[:-TAIL_BYTES]

    def text(self) -> str:
        """Return the beginning as text, with a note when something is missing. Bytes that are not UTF-8 become U+FFFD."""
        note = f"\n[cut, {self.total_bytes:,} bytes in all]" if self.total_bytes > len(self.head) else ""
        return self.head.decode("utf-8", "replace") + note

    def tail(self) -> str:
        """Return the end as text."""
        return self._tail.decode("utf-8", "replace")
