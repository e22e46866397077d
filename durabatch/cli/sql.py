"""
``durabatch sql``: a query over the ledger, which only reads and has a deadline.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from durabatch.cli import printing
from durabatch.cli.looking import opened_ledger, terminal_width
from durabatch.cli.options import json_option, parsed, verb
from durabatch.errors import UsageError
from durabatch.options import parse_timeout

__all__ = ["command"]


@verb(
    "sql",
    'durabatch sql "SELECT state, count(*) AS items FROM v_item GROUP BY state"',
    "durabatch sql \"SELECT key, item_value(item_id) FROM v_item WHERE state = 'succeeded'\" --csv > out.csv",
    "durabatch sql < query.sql",
)
@click.argument("query", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values.")
@click.option("--tsv", "as_tsv", is_flag=True, help="Tab-separated values.")
@json_option
@click.option(
    "--sql-timeout", metavar="T", default="30s", show_default=True, callback=parsed(parse_timeout), help="Time for the whole query."
)
def command(query: str | None, as_csv: bool, as_tsv: bool, as_json: bool, sql_timeout: float, ledger: str) -> int:
    """
    Query the ledger, read-only.

    QUERY is one SQL statement; without it, it is read from standard input. v_run, v_item, v_attempt, v_batch, v_error and v_undo are the
    views to use; item_value(item_id) is the result of an item as JSON, however it is stored.
    """
    if as_csv + as_tsv + as_json > 1:
        raise UsageError("--csv, --tsv and --json exclude each other", "Choose one.")
    columns, rows = opened_ledger(ledger).sql(query or typed_query(), timeout_s=sql_timeout)
    if as_json:
        printing.emit_lines(json_lines(columns, rows))
    elif as_csv or as_tsv:
        printing.emit_lines(delimited_lines(columns, rows, "," if as_csv else "\t"))
    elif columns:
        for line in printing.table(columns, (list(map(cell, row)) for row in rows), width=terminal_width()):
            printing.emit(line)
    return 0


def typed_query() -> str:
    """Return the query on standard input; UsageError when nothing can be there."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("no query is given", 'Write it behind the verb, as in: durabatch sql "SELECT * FROM v_run".')
    text = sys.stdin.read().strip()
    if not text:
        raise UsageError("the query on standard input is empty")
    return text


def json_lines(columns: list[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    """Yield the lines of one JSON document, a row a line; bytes are hexadecimal text."""
    yield f'{{"schema_version":1,"columns":{printing.json_text(columns)},"rows":['
    before = None
    for row in rows:
        if before is not None:
            yield f"{before},"
        before = printing.json_text([plain(value) for value in row])
    if before is not None:
        yield before
    yield "]}"


def delimited_lines(columns: list[str], rows: Iterable[tuple[Any, ...]], delimiter: str) -> Iterator[str]:
    """Yield lines that spreadsheets and csv readers understand; NULL is an empty field."""
    yield delimited(columns, delimiter)
    for row in rows:
        yield delimited(row, delimiter)


def delimited(row: Iterable[Any], delimiter: str) -> str:
    """Return one line without its end."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="").writerow([plain(value) for value in row])
    return buffer.getvalue()


def cell(value: Any) -> str:
    """Return a value for people."""
    return "NULL" if value is None else str(plain(value))


def plain(value: Any) -> Any:
    """Return *value*, bytes as hexadecimal text."""
    return value.hex() if isinstance(value, bytes) else value
