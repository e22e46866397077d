"""
What stands in a file, read by other programs than ours.
"""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing


def read_back(path) -> list[tuple]:
    """Return the rows of a file without the heading; cells as the format has them."""
    return READERS[path.suffix](path)


def rows_of_database(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT * FROM result").fetchall()


def rows_of_parquet(path):
    import pyarrow.parquet

    return [tuple(row.values()) for row in pyarrow.parquet.read_table(path).to_pylist()]


def rows_of_workbook(path):
    import openpyxl

    with closing(openpyxl.load_workbook(path, read_only=True)) as book:
        tables = [list(sheet.values) for sheet in book.worksheets]
        return [row + (None,) * (len(heading) - len(row)) for heading, *rows in tables for row in rows]


READERS = {
    ".csv": lambda path: [tuple(row) for row in csv.reader(io.StringIO(path.read_bytes().decode(), newline=""))][1:],
    ".db": rows_of_database,
    ".json": lambda path: [tuple(one.values()) for one in json.loads(path.read_text())],
    ".jsonl": lambda path: [tuple(json.loads(line).values()) for line in path.read_text().splitlines()],
    ".parquet": rows_of_parquet,
    ".xlsx": rows_of_workbook,
}
