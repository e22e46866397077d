"""
A set of numbers from 0 to a bound in one bit each: which of ten million items were met costs 1.25 MB.
"""

from __future__ import annotations

__all__ = ["Bits"]

#: The lowest n bits of a byte.
LOWEST = tuple((1 << count) - 1 for count in range(9))


class Bits:
    """
    Numbers from 0 to *size* - 1, none of them in it at first.

    Attributes:
        count: How many are in it.
        end: One more than the highest of them, 0 when there is none.
    """

    def __init__(self, size: int) -> None:
        self.bytes = bytearray(-(-size // 8))
        self.count = 0
        self.end = 0

    def __contains__(self, number: int) -> bool:
        """Tell whether *number* is in it."""
        return bool(self.bytes[number >> 3] >> (number & 7) & 1)

    def add(self, number: int) -> bool:
        """Add *number*; tell whether it was not in it before."""
        index, bit = number >> 3, 1 << (number & 7)
        if self.bytes[index] & bit:
            return False
        self.bytes[index] |= bit
        self.count += 1
        self.end = max(self.end, number + 1)
        return True

    def add_stretch(self, first: int, count: int) -> None:
        """Add *count* numbers from *first* on; none of them may be in it before."""
        last = first + count
        whole_first, whole_last = -(-first // 8), last // 8
        if whole_first > whole_last:
            self.bytes[whole_last] |= LOWEST[count] << (first & 7)
        else:
            if first & 7:
                self.bytes[first >> 3] |= 0xFF & ~LOWEST[first & 7]
            self.bytes[whole_first:whole_last] = b"\xff" * (whole_last - whole_first)
            if last & 7:
                self.bytes[whole_last] |= LOWEST[last & 7]
        self.count += count
        self.end = max(self.end, last)
