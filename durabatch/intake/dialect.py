"""
What separates the columns of a table: found out from its first lines.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence

__all__ = ["DELIMITERS", "sniffed"]

#: What may separate columns, the likeliest first.
DELIMITERS = (",", ";", "\t", "|")


def sniffed(lines: Sequence[str]) -> str:
    """
    Return the delimiter of the table that begins with *lines*: a header, and rows of which the last may be cut.

    It is the one that gives most rows as many fields as the header, of which there must be several; a comma when none does. Delimiters
    inside quotes do not count.
    """
    return max(DELIMITERS, key=lambda delimiter: (*agreement(lines, delimiter), -DELIMITERS.index(delimiter)))


def agreement(lines: Sequence[str], delimiter: str) -> tuple[float, int]:
    """Return the share of rows that are as wide as the header, 0.0 for a header of one column, and the width."""
    rows = [row for row in table(lines, delimiter) if row]
    width = len(rows[0]) if rows else 0
    if width < 2:
        return 0.0, 0
    return sum(len(row) == width for row in rows) / len(rows), width


def table(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """Return the rows that *lines* hold, up to a fault or the end of the lines in the middle of one."""
    rows: list[list[str]] = []
    try:
        rows.extend(csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True))
    except csv.Error:
        return rows
    return rows
