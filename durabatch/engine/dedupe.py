"""
Keys that come again in the input: the first or the last row counts, or both are kept under keys of their own.

Pure but for looking keys up: what is to be written is returned to the verb that writes the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from durabatch.engine.submit import InputRow, locate
from durabatch.ledger.executor import Executor

__all__ = ["Distinct", "numbered", "without_repeats"]


@dataclass(slots=True)
class Distinct:
    """
    The rows of a page, each key once.

    Attributes:
        rows: Rows to add; none of their keys is in the run.
        replaced: (item_id, payload, position) of items whose payload a later row replaces.
        dropped: Payloads of rows that do not count, whether another row of the page or an item of the run stands for them.
    """

    rows: list[InputRow] = field(default_factory=list)
    replaced: list[tuple[int, str, int]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def numbered(key: str, occurrence: int) -> str:
    """Return the key of the *occurrence*-th row with *key*: the second is ``KEY#2``."""
    return f"{key}#{occurrence}"


def without_repeats(ledger: Executor, run_id: int, rows: Sequence[InputRow], how: str) -> Distinct:
    """
    Return what becomes of the rows of a page in which keys come again.

    Args:
        how: ``first``, ``last`` or ``keep``.
    """
    made = Distinct()
    places: dict[str, int] = {}
    replaced: dict[int, tuple[int, str, int]] = {}
    for row in rows:
        key = row[0]
        item_id = None if key is None or key in places else locate(ledger, run_id, key)
        if key is None or (key not in places and item_id is None):
            add(made, places, row)
        elif how == "keep":
            add(made, places, (free_key(ledger, run_id, key, places), row[1], row[2]))
        elif how == "last" and key in places:
            made.dropped.append(made.rows[places[key]][1])
            made.rows[places[key]] = row
        elif how == "last" and item_id is not None:
            made.dropped.append(row[1])
            replaced[item_id] = (item_id, row[1], row[2])
        else:
            made.dropped.append(row[1])
    made.replaced = list(replaced.values())
    return made


def add(made: Distinct, places: dict[str, int], row: InputRow) -> None:
    """Add a row whose key is new."""
    if row[0] is not None:
        places[row[0]] = len(made.rows)
    made.rows.append(row)


def free_key(ledger: Executor, run_id: int, key: str, places: dict[str, int]) -> str:
    """Return the first of ``KEY#2``, ``KEY#3`` ... that neither the run nor the page has."""
    occurrence = 2
    while (candidate := numbered(key, occurrence)) in places or locate(ledger, run_id, candidate) is not None:
        occurrence += 1
    return candidate
