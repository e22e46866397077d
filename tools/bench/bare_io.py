"""
The bare operations beside intake, plan and export: loops that trust what they read and write. Each function is called in a fresh process.
"""

from __future__ import annotations

import contextlib
import csv as tables
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator
from hashlib import blake2b

import apsw
from bare import PAGE_ITEMS, checkpoint, opened, pages, records

from durabatch.codec import key_hashes
from durabatch.ledger.statements import schema_text

__all__ = ["csv", "export_csv", "export_jsonl", "files", "finding", "jsonl", "lines", "reading", "submits", "submits_alike", "text"]

#: An item as a row: what a ledger has of it, without its state, its index and its checks.
TABLE = """
CREATE TABLE taken (
    item_id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL, key TEXT NOT NULL, payload TEXT NOT NULL, digest BLOB NOT NULL,
    source_position INTEGER NOT NULL
) STRICT;
"""
RUN = "INSERT INTO run (run_id, name, series, handler, source, settings, created_at_us) VALUES (1, 'bare', 'bare', '{}', '{}', '{}', 0)"
ITEM = "INSERT INTO item (item_id, run_id, key, payload, digest, source_position) VALUES (?, ?, ?, ?, ?, ?)"
SELECT = "SELECT item.key, result.value FROM item JOIN result USING (item_id) ORDER BY item_id"
MIB = 1 << 20
Row = tuple[int, int, str, str, bytes, int]


def inserted(directory: str, rows: Iterable[Row]) -> tuple[int, float]:
    """Insert *rows*, a page a transaction; return how many they were and the seconds, those of making them included."""
    database = opened(directory, TABLE)
    started, count, left = time.perf_counter(), 0, iter(rows)
    while page := list(itertools.islice(left, PAGE_ITEMS)):
        with database:
            database.executemany("INSERT INTO taken VALUES (?, ?, ?, ?, ?, ?)", page)
        checkpoint(database)
        count += len(page)
    return count, time.perf_counter() - started


def row(number: int, key: str, payload: str) -> Row:
    """Return an item as a row."""
    return number, 1, key, payload, blake2b(payload.encode(), digest_size=16).digest(), number


def submits(*, directory: str, source: str) -> dict[str, float]:
    """Return the rows a second of ``executemany`` over the same rows, made before."""
    count, seconds = inserted(directory, [row(number, key, payload) for key, payload, number in records(source)])
    return {"value": count / seconds}


def submits_alike(*, directory: str, source: str) -> dict[str, float]:
    """Return the rows a second of ``executemany`` over the same rows, made before, into the tables of a ledger: its checks, its index of keys."""
    rows = [row(number, key, payload) for key, payload, number in records(source)]
    places = [(1, place, one[0]) for one, place in zip(rows, key_hashes([one[2] for one in rows]), strict=True)]
    database = opened(directory, schema_text())
    database.execute("PRAGMA foreign_keys=1")
    database.execute(RUN)
    started = time.perf_counter()
    for start in range(0, len(rows), PAGE_ITEMS):
        with database:
            database.executemany("INSERT INTO item_key VALUES (?, ?, ?)", sorted(places[start : start + PAGE_ITEMS]))
            database.executemany(ITEM, rows[start : start + PAGE_ITEMS])
        checkpoint(database)
    return {"value": len(rows) / (time.perf_counter() - started)}


def megabytes(directory: str, source: str, rows: Iterable[Row]) -> dict[str, float]:
    """Return the megabytes a second of *source* that become *rows* of a table."""
    return {"value": os.path.getsize(source) / 1e6 / inserted(directory, rows)[1]}


def jsonl(*, directory: str, source: str) -> dict[str, float]:
    """Return the megabytes a second of JSON lines, their keys looked up."""
    with open(source, encoding="utf-8") as file:
        return megabytes(directory, source, (row(number, json.loads(line)["id"], line[:-1]) for number, line in enumerate(file, 1)))


def csv(*, directory: str, source: str) -> dict[str, float]:
    """Return the megabytes a second of a table, a JSON object for each row."""
    with open(source, encoding="utf-8", newline="") as file:
        found = enumerate(tables.DictReader(file), 1)
        return megabytes(directory, source, (row(number, one["id"], json.dumps(one, separators=(",", ":"))) for number, one in found))


def lines(*, directory: str, source: str) -> dict[str, float]:
    """Return the megabytes a second of lines that are their own keys."""
    with open(source, encoding="utf-8") as file:
        stripped = enumerate((line[:-1] for line in file), 1)
        return megabytes(directory, source, (row(number, line, f'"{line}"') for number, line in stripped))


def found_below(directory: str) -> Iterator[os.DirEntry[str]]:
    """Yield the files below a directory, in the order of their names."""
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            if entry.is_dir(follow_symlinks=False):
                yield from found_below(entry.path)
            else:
                yield entry


def files(*, directory: str, source: str) -> dict[str, float]:
    """Return the seconds in which all files below a directory are found, looked at and inserted."""

    def rows() -> Iterator[Row]:
        for number, entry in enumerate(found_below(source), 1):
            status = entry.stat()
            yield row(number, entry.path, json.dumps({"path": entry.path, "bytes": status.st_size, "mtime": status.st_mtime}))

    return {"value": inserted(directory, rows())[1]}


def finding(*, directory: str, ledger: str, source: str) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the seconds in which all files below a directory are found and looked at."""
    started = time.perf_counter()
    for entry in found_below(source):
        entry.stat()
    return {"value": time.perf_counter() - started}


def reading(*, directory: str, ledger: str, source: str) -> dict[str, float]:  # noqa: ARG001 - as the sides beside it
    """Return the seconds of a generator over the lines with the standard library's parser."""
    started = time.perf_counter()
    pages(directory=directory, source=source)
    return {"value": time.perf_counter() - started}


def text(*, directory: str, source: str) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the seconds in which a text is read and decoded, a mebibyte at a time."""
    started = time.perf_counter()
    with open(source, encoding="utf-8") as file:
        while file.read(MIB):
            pass
    return {"value": time.perf_counter() - started}


def selected(ledger: str) -> Iterator[tuple[str, str]]:
    """Yield key and value of all results of a ledger."""
    with contextlib.closing(apsw.Connection(ledger, flags=apsw.SQLITE_OPEN_READONLY)) as database:
        yield from database.execute(SELECT)


def export_jsonl(*, directory: str, ledger: str) -> dict[str, float]:
    """Return the rows a second of a SELECT whose rows are written as JSON lines, and synced."""
    started, count = time.perf_counter(), 0
    with open(os.path.join(directory, "results.jsonl"), "w", encoding="utf-8") as file:
        for key, value in selected(ledger):
            file.write(f'{{"key":{json.dumps(key)},"value":{value}}}\n')
            count += 1
        os.fsync(file.fileno())
    return {"value": count / (time.perf_counter() - started)}


def export_csv(*, directory: str, ledger: str) -> dict[str, float]:
    """Return the rows a second of a SELECT whose rows are written as a table with one column for the only field, and synced."""
    started, count = time.perf_counter(), 0
    with open(os.path.join(directory, "results.csv"), "w", encoding="utf-8", newline="") as file:
        writer = tables.writer(file)
        writer.writerow(("key", "n"))
        for key, value in selected(ledger):
            writer.writerow((key, json.loads(value)["n"]))
            count += 1
        os.fsync(file.fileno())
    return {"value": count / (time.perf_counter() - started)}
