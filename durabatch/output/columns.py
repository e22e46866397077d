"""
Values as cells: which columns the values of a run have, and what stands in each of them for one value.

A value that is an object has a column for each of its fields, any other value the one column ``value``; where a run has both, it has both
kinds of columns. What is no text, number or truth value becomes JSON text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from pydantic_core import from_json, to_json

from durabatch.output.rows import ExportRow

__all__ = [
    "EXACT",
    "MORE",
    "Column",
    "ColumnFinder",
    "Columns",
    "Kind",
    "Role",
    "Table",
    "cell_text",
    "columns_from_json",
    "columns_to_json",
    "typed",
]

#: Columns that are found; fields beyond stand together in one more, as JSON.
MOST_COLUMNS = 1000
#: Name of the column for fields that have none of their own.
MORE = "_more"
#: Whole numbers up to here are exact as doubles, too.
EXACT = 1 << 53
LEAST_WHOLE, MOST_WHOLE = -(1 << 63), (1 << 63) - 1


class Kind(StrEnum):
    """What all cells of a column are, apart from empty ones."""

    EMPTY = "empty"
    TRUTH = "truth"
    WHOLE = "whole"
    BIG = "big"
    NUMBER = "number"
    TEXT = "text"
    JSON = "json"


class Role(StrEnum):
    """What a column holds: a field of values that are objects, the value itself, the fields without a column, or something else of the item."""

    MEMBER = "member"
    FIELD = "field"
    VALUE = "value"
    MORE = "more"


#: What the columns of members hold.
MEMBER_KINDS = {"key": Kind.TEXT, "state": Kind.TEXT, "error": Kind.TEXT, "attempts": Kind.WHOLE, "payload": Kind.TEXT}


@dataclass(frozen=True, slots=True)
class Column:
    """
    One column for values.

    Attributes:
        heading: Its name in the file, different from that of every other column.
        kind: ``big`` are whole numbers of up to 64 bits, ``whole`` those that are exact as doubles; ``json`` is JSON text of values of any kind.
        field: Name of the field; empty for the other roles.
    """

    heading: str
    kind: Kind = Kind.JSON
    role: Role = Role.FIELD
    field: str = ""


class ColumnFinder:
    """
    Finds the columns that a file needs, by looking at every value once; memory grows with the columns, not with the values.

    Args:
        members: What else has a column in the file: ``key``, ``state`` ...; their names are not given to fields.
    """

    def __init__(self, members: Collection[str] = ("key",)) -> None:
        self.members = members
        self.fields: dict[str, Kind] = {}
        self.value: Kind | None = None
        self.has_more = False

    def add(self, value_json: str | None) -> None:
        """Look at one value; None, an item without one, has no say."""
        if value_json is None:
            return
        value = from_json(value_json)
        if not isinstance(value, dict):
            self.value = merged(self.value or Kind.EMPTY, kind_of(value))
            return
        for name, one in value.items():
            if name in self.fields or len(self.fields) < MOST_COLUMNS:
                self.fields[name] = merged(self.fields.get(name, Kind.EMPTY), kind_of(one))
            else:
                self.has_more = True

    def columns(self, *, more: bool = False) -> list[Column]:
        """
        Return the columns, those of fields in the order in which they were first seen; without any value the one for the value itself.

        Args:
            more: Values that were not looked at will come: there is a place for whatever fields they have.
        """
        taken = set(self.members) - {"value"}
        found = []
        if self.value is not None or not self.fields:
            found.append(Column(free("value", taken), merged(self.value or Kind.EMPTY, Kind.EMPTY), Role.VALUE))
        found += [Column(free(name, taken), kind, Role.FIELD, name) for name, kind in self.fields.items()]
        if self.has_more or (more and self.fields):
            found.append(Column(free(MORE, taken), Kind.JSON, Role.MORE))
        return found


class Columns:
    """The cells of values, one for each of *columns*."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = columns
        self.place = {column.field: index for index, column in enumerate(columns) if column.role is Role.FIELD}
        roles = [column.role for column in columns]
        self.value = roles.index(Role.VALUE) if Role.VALUE in roles else None
        self.more = roles.index(Role.MORE) if Role.MORE in roles else None

    def cells(self, value_json: str | None) -> list[Any]:
        """Return the cells of one value: what the JSON holds, None where it holds nothing; in the column for what has none, JSON text."""
        cells: list[Any] = [None] * len(self.columns)
        if value_json is None:
            return cells
        value = from_json(value_json)
        if isinstance(value, dict) and self.place:
            self.place_fields(cells, value)
        elif self.value is not None:
            cells[self.value] = value
        elif self.more is not None:
            cells[self.more] = value_json
        return cells

    def place_fields(self, cells: list[Any], value: Mapping[str, Any]) -> None:
        """Put the fields of an object where they belong."""
        rest = {}
        for name, one in value.items():
            index = self.place.get(name)
            if index is None:
                rest[name] = one
            else:
                cells[index] = one
        if rest and self.more is not None:
            cells[self.more] = json_text(rest)


class Table:
    """
    Rows as lists of cells: the members, and in the place of ``value`` a cell for each column.

    Attributes:
        columns: All columns of the file, those of members included.
    """

    def __init__(self, members: Sequence[str], columns: Sequence[Column]) -> None:
        self.members = members
        self.spread = Columns(columns)
        parts = (columns if name == "value" else [Column(name, MEMBER_KINDS[name], Role.MEMBER)] for name in members)
        self.columns = [one for part in parts for one in part]

    def cells(self, row: ExportRow) -> list[Any]:
        """Return the cells of *row*, one for each of ``columns``."""
        cells: list[Any] = []
        for name in self.members:
            if name == "value":
                cells += self.spread.cells(row.value_json)
            else:
                cells.append(row.payload_json if name == "payload" else getattr(row, name))
        return cells


def kind_of(value: object) -> Kind:
    """Return the kind of one cell."""
    if value is None:
        return Kind.EMPTY
    if isinstance(value, bool):
        return Kind.TRUTH
    if isinstance(value, int):
        if -EXACT <= value <= EXACT:
            return Kind.WHOLE
        return Kind.BIG if LEAST_WHOLE <= value <= MOST_WHOLE else Kind.JSON
    if isinstance(value, float):
        return Kind.NUMBER
    return Kind.TEXT if isinstance(value, str) else Kind.JSON


def merged(one: Kind, other: Kind) -> Kind:
    """Return the kind of a column that has cells of both; nothing of them is lost in it."""
    if one == other or other is Kind.EMPTY:
        return one
    if one is Kind.EMPTY:
        return other
    both = {one, other}
    if both == {Kind.WHOLE, Kind.BIG}:
        return Kind.BIG
    return Kind.NUMBER if both == {Kind.WHOLE, Kind.NUMBER} else Kind.JSON


def free(name: str, taken: set[str]) -> str:
    """Return a heading like *name* that is not *taken*, and take it."""
    made, number = name, 1
    while made in taken:
        number += 1
        made = f"value.{name}" if number == 2 else f"value.{name}.{number - 1}"
    taken.add(made)
    return made


def cell_text(value: object) -> str:
    """Return a cell as text: a text as it is, nothing for None, JSON for all else."""
    if isinstance(value, str):
        return value
    return "" if value is None else json_text(value)


def typed(value: object, column: Column) -> object:
    """Return a cell as a value of the kind of its column: in a column of mixed kinds JSON text, in one of numbers a double."""
    if value is None or column.kind in (Kind.TEXT, Kind.EMPTY) or column.role in (Role.MORE, Role.MEMBER):
        return value
    if column.kind is Kind.NUMBER:
        return float(cast("float", value))
    return json_text(value) if column.kind is Kind.JSON else value


def json_text(value: object) -> str:
    """Return *value*, which came from JSON, as JSON."""
    return to_json(value).decode()


def columns_to_json(columns: Sequence[Column]) -> list[list[str]]:
    """Return *columns* as they are stored."""
    return [[column.heading, column.kind, column.role, column.field] for column in columns]


def columns_from_json(stored: Sequence[Sequence[str]]) -> list[Column]:
    """Return the columns that were stored."""
    return [Column(heading, Kind(kind), Role(role), field) for heading, kind, role, field in stored]
