"""
Reading a ledger of an earlier version as if it were of the present one, without changing it.

What the earlier schema lacks is put in front of it, for one connection alone: a table that has got columns since is covered by a view that
adds them with their defaults, a table that is new is there and empty, and the views for people are those of the present. So every statement
and every verb that only reads works on any ledger that there ever was.
"""

from __future__ import annotations

import contextlib

import apsw

from durabatch.ledger import statements
from durabatch.ledger.executor import apply_pragma
from durabatch.ledger.schema import expected_schema, schema_of

__all__ = ["put_on"]

#: (name, type, default as SQL text) of a column
Column = tuple[str, str, str | None]


def put_on(connection: apsw.Connection) -> None:
    """Let *connection*, to a ledger of an earlier version that was found to be ours, read it as one of the present version."""
    # Over a view SQLite would rather index a whole table than search it by its key, as our statements mean it to.
    apply_pragma(connection, "automatic_index", 0)
    present = expected_schema()
    there = schema_of(connection)
    with contextlib.closing(apsw.Connection(":memory:")) as model:
        model.execute(statements.schema_text())
        for thing in (thing for thing in present if thing.startswith("table ")):
            cover(connection, name_of(thing), columns(model, name_of(thing)), is_there=thing in there)
    for thing, text in present.items():
        if thing.startswith("view "):
            definition = (text or "").split(None, 2)[2]
            connection.execute(template("schema_make_view").replace(":definition", definition))


def cover(connection: apsw.Connection, table: str, wanted: list[Column], *, is_there: bool) -> None:
    """Put what a table lacks in front of it: columns, or the whole of it."""
    have = {name for name, _, _ in columns(connection, table)} if is_there else set()
    if have >= {name for name, _, _ in wanted}:
        return
    if is_there:
        text = ", ".join(name if name in have else f"{default or 'NULL'} AS {name}" for name, _, default in wanted)
        connection.execute(template("schema_make_lens").replace(":name", table).replace(":columns", text))
    else:
        text = ", ".join(f"{name} {kind}" for name, kind, _ in wanted)
        connection.execute(template("schema_make_missing").replace(":name", table).replace(":columns", text))


def columns(connection: apsw.Connection, table: str) -> list[Column]:
    """Return the columns of a table of the file, in their order."""
    return list(connection.execute(template("schema_columns"), (table, "main")))


def name_of(thing: str) -> str:
    """Return the name in ``table 'item'``."""
    return thing.partition(" ")[2].strip("'")


def template(name: str) -> str:
    """Return a statement, in which names are still to be put."""
    return statements.named()[name]
