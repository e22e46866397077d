"""
Is the schema of a ledger, to the letter, the one of its version? A schema is input: nothing in it may be ours in name only.

The present version is compared with what ``schema/`` makes. An older one is made anew in memory, empty, from its own text, and led through
the migrations; what comes out must be the present version. So a ledger of any version is known before a byte of it is touched.

Texts are compared without comments and white space: a column that was added to a table stands elsewhere on the line than one that was
always there.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Mapping
from pathlib import Path

import apsw

from durabatch import errors
from durabatch.ledger import statements
from durabatch.ledger.executor import harden

__all__ = ["SCHEMA_VERSION", "check_schema", "expected_schema", "folded", "schema_of"]

#: What `PRAGMA user_version` of a ledger says: 1 plus the number of migrations.
SCHEMA_VERSION = 1 + len(statements.migrations())

#: Kind and name to text, of everything in a schema.
Schema = dict[str, str | None]
#: What SQL is made of: comments and white space, names and texts in quotes, words and numbers, everything else one by one.
TOKEN = re.compile(r"(--[^\n]*|/\*.*?\*/|\s+)|('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\[[^\]]*\]|\w+|.)", re.DOTALL)
#: How the texts begin that a ledger of ours consists of.
OURS = ({"CREATE"}, {"TABLE", "INDEX", "VIEW"})


def check_schema(found: Schema, version: int, name: str) -> None:
    """
    Return when *found* is the schema of that version.

    Raises:
        LedgerDamagedError: It differs in any table, index, view or trigger.
    """
    if version < SCHEMA_VERSION:
        found = migrated(found, version, name)
    if found == expected_schema():
        return
    have, expected = folded(found), folded(expected_schema())
    if have != expected:
        odd = sorted(have.keys() - expected.keys()) or sorted(expected.keys() - have.keys())
        raise unexpected(name, (odd or [thing for thing in sorted(expected) if have[thing] != expected[thing]])[0])


def unexpected(name: str, thing: str) -> errors.LedgerDamagedError:
    """Return the error for a schema that is not ours."""
    return errors.LedgerDamagedError(
        name, f"has an unexpected schema ({thing})", "It was changed by another program; use a copy from before."
    )


def folded(schema: Schema) -> dict[str, tuple[str, ...] | None]:
    """Return the texts of a schema as the words that they consist of."""
    return {thing: None if text is None else words(text) for thing, text in schema.items()}


def words(text: str) -> tuple[str, ...]:
    """Return what a text says: its words, names and signs."""
    return tuple(word for _, word in TOKEN.findall(text) if word)


def migrated(found: Schema, version: int, name: str) -> Schema:
    """Return what becomes of an older schema by the migrations that it lacks; LedgerDamagedError when they do not fit."""
    for thing, text in found.items():
        if text is not None and not is_one_of_ours(words(text)):
            raise unexpected(name, thing)
    with contextlib.closing(apsw.Connection(":memory:")) as connection:
        harden(connection)
        try:
            for text in sorted(filter(None, found.values()), key=makes_a_table, reverse=True):
                connection.execute(text)
            for path in missing_steps(version).values():
                connection.execute(path.read_text(encoding="utf-8"))
            return schema_of(connection)
        except apsw.Error as error:
            raise unexpected(name, f"version {version}: {error}") from error


def is_one_of_ours(text: tuple[str, ...]) -> bool:
    """Tell whether a text makes one table, index or view, and nothing else."""
    begins = all(word.upper() in known for word, known in zip(text, OURS, strict=False))
    return begins and len(text) > len(OURS) and ";" not in text


def makes_a_table(text: str) -> bool:
    """Tell tables from indexes and views, which need them."""
    return words(text)[1].upper() == "TABLE"


def missing_steps(version: int) -> Mapping[int, Path]:
    """Return the migrations that a ledger of *version* lacks, ascending."""
    return {target: path for target, path in statements.migrations().items() if target > version}


def schema_of(connection: apsw.Connection) -> Schema:
    """Return the text of everything in the schema, by kind and name."""
    rows = connection.execute(statements.named()["schema_list"])
    return {f"{kind} {name!r}": text if text is None or isinstance(text, str) else repr(text) for kind, name, text in rows}


@functools.cache
def expected_schema() -> Schema:
    """Return what ``schema_of`` finds in a new ledger of the present version."""
    with contextlib.closing(apsw.Connection(":memory:")) as connection:
        connection.execute(statements.schema_text())
        return schema_of(connection)
