"""
Many rows in one statement: SQLite reads a list of values in place, and ids that follow each other need not be sent at all.
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

import apsw

__all__ = ["carray", "compact", "is_stretch"]


def carray(values: Sequence[int] | Sequence[str]) -> Any:
    """Return *values*, at least one, all whole numbers or all text, as a table-valued parameter with the columns rowid (from 1) and value."""
    return apsw.carray(tuple(values) if isinstance(values[0], str) else array.array("q", values))


def is_stretch(ids: Sequence[int]) -> bool:
    """Tell whether *ids* ascend one by one; of what ``compact`` returned that is known."""
    return isinstance(ids, range) or (ids[-1] - ids[0] + 1 == len(ids) and tuple(ids) == tuple(range(ids[0], ids[-1] + 1)))


def compact(ids: Sequence[int]) -> Sequence[int]:
    """Return *ids* as a range when they ascend one by one, else as they are: who looks at them several times need not compare them again."""
    return range(ids[0], ids[-1] + 1) if is_stretch(ids) else ids
