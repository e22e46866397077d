"""
New items go into the item table and its index of keys, a page at once: many rows a statement, which costs half of one statement a row.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import BORDER_ERRORS, translate
from durabatch.ledger.stretch import carray

__all__ = ["KeyTakenError", "NewItems", "Place", "insert"]

#: Rows of one statement; with more the statement itself grows dear.
ROWS_TOGETHER = 50
#: Priority and due time of an item.
Place = tuple[int, int | None]


@dataclass(frozen=True, slots=True)
class NewItems:
    """
    A page of new items, at least one, as columns: all of them of one run, their ids following each other.

    Attributes:
        hashes: Of the keys, for the index.
        positions: In the source.
        places: For items that may stand outside the input order; None when none does.
    """

    run_id: int
    first_item_id: int
    keys: Sequence[str]
    hashes: Sequence[int]
    payloads: Sequence[str]
    digests: Sequence[bytes]
    positions: Sequence[int]
    places: Sequence[Place] | None = None

    def __len__(self) -> int:
        """Return how many they are."""
        return len(self.keys)

    @property
    def last_item_id(self) -> int:
        """The id of the last one."""
        return self.first_item_id + len(self.keys) - 1

    def alone(self, index: int, key_hash: int) -> NewItems:
        """Return one of them as a page of its own, with this hash in place of its own."""
        at = slice(index, index + 1)
        places = None if self.places is None else self.places[at]
        return NewItems(
            self.run_id,
            self.first_item_id + index,
            self.keys[at],
            [key_hash],
            self.payloads[at],
            self.digests[at],
            self.positions[at],
            places,
        )

    def columns(self) -> list[Sequence[Any]]:
        """Return the columns that the statements want, in their order."""
        ids = range(self.first_item_id, self.first_item_id + len(self))
        found: list[Sequence[Any]] = [ids, [self.run_id] * len(self), self.keys, self.payloads, self.digests, self.positions]
        return found if self.places is None else [*found, *zip(*self.places, strict=True)]


class KeyTakenError(Exception):
    """A row of the page has a key hash that stands in the ledger. The statement was undone; which row it is must be looked for."""


def insert(ledger: Connection, new: NewItems) -> None:
    """
    Add *new*, all or none.

    Raises:
        KeyTakenError: A key hash is there already. No row was added.
    """
    ledger.check_owner()
    hashes = carray(new.hashes)
    try:
        ledger.raw.execute(ledger.sql["item_key_insert_stretch"], (new.run_id, new.first_item_id, hashes))
    except apsw.ConstraintError as error:
        if getattr(error, "extendedresult", 0) != apsw.SQLITE_CONSTRAINT_PRIMARYKEY:
            raise translate(error, ledger.files.ledger) from error
        ledger.execute("item_key_remove", (new.run_id, new.first_item_id, hashes))
        raise KeyTakenError("a key hash of the page is taken") from error
    except BORDER_ERRORS as error:
        raise translate(error, ledger.files.ledger) from error
    write(ledger, ledger.sql["item_insert" if new.places is None else "item_insert_placed"], new.columns())


def write(ledger: Connection, statement: str, columns: Sequence[Sequence[Any]]) -> None:
    """Run an INSERT of one row for all rows of *columns*, many of them at once."""
    width = len(columns)
    fields: list[Any] = [None] * (width * len(columns[0]))
    for index, column in enumerate(columns):
        fields[index::width] = column
    step = width * ROWS_TOGETHER
    rest = len(fields) - len(fields) % step
    with ledger.border():
        ledger.raw.executemany(for_many(statement), (fields[start : start + step] for start in range(0, rest, step)))
        ledger.raw.executemany(statement, (fields[start : start + width] for start in range(rest, len(fields), width)))


@functools.cache
def for_many(statement: str) -> str:
    """Return an INSERT of one row as one of ROWS_TOGETHER rows."""
    head, values, row = statement.rstrip(";").partition("VALUES ")
    return head + values + ", ".join([re.sub(r"\?\d+", "?", row)] * ROWS_TOGETHER)
