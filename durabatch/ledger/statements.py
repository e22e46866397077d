"""
The SQL of the project, read from ``schema/``: the tables, the views, the migrations, and every named statement.

A statement stands in ``schema/queries/<table>.sql`` under a line ``-- name: <table>_<verb>``. The files are found beside the package
(checkout, editable install) or inside it (wheel).
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

__all__ = ["migrations", "named", "schema_dir", "schema_text"]

NAME_LINE = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@functools.cache
def schema_dir() -> Path:
    """Return the directory that holds ledger.sql."""
    package = Path(__file__).resolve().parents[1]
    inside, beside = package / "schema", package.parent / "schema"
    return inside if inside.is_dir() else beside


@functools.cache
def schema_text() -> str:
    """Return the statements that make an empty ledger: the tables, then the views."""
    return "\n".join((schema_dir() / name).read_text(encoding="utf-8") for name in ("ledger.sql", "views.sql"))


@functools.cache
def named() -> dict[str, str]:
    """Return every named statement by its name."""
    statements: dict[str, str] = {}
    for path in sorted((schema_dir() / "queries").glob("*.sql")):
        parts = NAME_LINE.split(path.read_text(encoding="utf-8"))
        # What follows the semicolon is the comment of the next statement; SQLite would take it for one more statement.
        statements.update(zip(parts[1::2], (text[: text.index(";\n") + 1].strip() for text in parts[2::2]), strict=True))
    return statements


def migrations(directory: Path | None = None) -> dict[int, Path]:
    """Return the migration files by the version to which each leads, ascending. File names are ``NNNN_<what>.sql``."""
    folder = directory or schema_dir() / "migrations"
    return {int(path.name[:4]): path for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))}
