"""
The bare operations: what Python and SQLite do when nothing is remembered, checked or resumed. Each function is called in a fresh process.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import functools
import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import apsw
from coroutines import nap
from handlers import bump, calibrate, spin

from durabatch.recipes.python_ast import analyse

__all__ = [
    "claims",
    "executor_real",
    "executor_spin",
    "finishes",
    "interpreter",
    "naps",
    "pages",
    "pool_noop",
    "status",
    "xargs",
]

#: Items sent to a process at once.
NOOP_CHUNK, SPIN_CHUNK, FILE_CHUNK = 200, 50, 20
#: Rows of a transaction of one statement, of a claim, and of a finish.
PAGE_ITEMS, DISPATCH_ITEMS = 10_000, 1000
WAL_BYTES = 16_000_000
SCHEMA = """
CREATE TABLE item (
    item_id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, payload TEXT NOT NULL, source_position INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending', batch_id INTEGER, dispatch_id INTEGER, attempt_count INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE attempt (item_id INTEGER PRIMARY KEY, worker INTEGER, outcome TEXT NOT NULL, started_at_us INTEGER, duration_us INTEGER) STRICT;
CREATE TABLE result (item_id INTEGER PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""


def pool_noop(*, directory: str, count: int, workers: int) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the items a second of ``multiprocessing.Pool``, which forgets everything when it ends."""
    with multiprocessing.Pool(workers) as pool:
        pool.map(bump, [{"n": 0}] * workers)
        started = time.perf_counter()
        found = sum(1 for _ in pool.imap_unordered(bump, ({"n": number} for number in range(count)), chunksize=NOOP_CHUNK))
        return {"value": found / (time.perf_counter() - started)}


def executor_run(function: Any, items: list[dict[str, Any]], workers: int, chunk: int) -> tuple[list[Any], float]:
    """Return results and seconds of ``ProcessPoolExecutor.map`` over *items*, its processes started before."""
    with ProcessPoolExecutor(workers) as executor:
        list(executor.map(bump, [{"n": 0}] * (4 * workers)))
        started = time.perf_counter()
        results = list(executor.map(function, items, chunksize=chunk))
        return results, time.perf_counter() - started


def executor_real(*, directory: str, sources: str, workers: int) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the files a minute of ``ProcessPoolExecutor.map`` with chunks over the recipe."""
    items = [{"path": str(path)} for path in sorted(Path(sources).iterdir())]
    _, seconds = executor_run(analyse, items, workers, FILE_CHUNK)
    return {"value": 60 * len(items) / seconds}


def executor_spin(*, directory: str, count: int, workers: int) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return how much of the cores' time goes into items of about one millisecond, in percent."""
    function = functools.partial(spin, loops=calibrate(1.0))
    busy, seconds = executor_run(function, [{"n": number} for number in range(count)], workers, SPIN_CHUNK)
    return {"value": 100 * sum(busy) / workers / seconds}


async def gathered(count: int, concurrency: int) -> float:
    """Wait for *count* naps, so many at once, and return the seconds."""
    free = asyncio.Semaphore(concurrency)

    async def one(number: int) -> dict[str, int]:
        async with free:
            return await nap({"n": number})

    started = time.perf_counter()
    await asyncio.gather(*map(one, range(count)))
    return time.perf_counter() - started


def naps(*, directory: str, count: int, concurrency: int) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the items a second of one event loop that a semaphore keeps from starting more at once."""
    return {"value": count / asyncio.run(gathered(count, concurrency))}


def xargs(*, directory: str, source: str, processes: int) -> dict[str, float]:
    """Return the items a second of ``xargs`` with one process for each line."""
    with open(source, encoding="ascii") as file:
        count = sum(1 for _ in file)
        file.seek(0)
        started = time.perf_counter()
        subprocess.run(["xargs", "-P", str(processes), "-n1", "true"], stdin=file, cwd=directory, check=True)
        return {"value": count / (time.perf_counter() - started)}


def records(source: str) -> Iterator[tuple[str, str, int]]:
    """Yield key, payload and line of each record, trusting the input."""
    with open(source, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            yield json.loads(line)["k"], line[:-1], number


def pages(*, directory: str, source: str) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the rows a second of a generator over the lines with the standard library's parser."""
    started = time.perf_counter()
    count = sum(1 for _ in records(source))
    return {"value": count / (time.perf_counter() - started)}


def opened(directory: str, schema: str = SCHEMA) -> apsw.Connection:
    """Return a database with these tables, as durable as a ledger."""
    database = apsw.Connection(os.path.join(directory, "bare.db"))
    for pragma in ("journal_mode=wal", "synchronous=full", "wal_autocheckpoint=0", "cache_size=-8000"):
        database.execute("PRAGMA " + pragma).fetchall()
    database.execute(schema)
    return database


def checkpoint(database: apsw.Connection) -> None:
    """Move the log into the database when it has grown."""
    if os.path.getsize(database.db_filename("main") + "-wal") > WAL_BYTES:
        database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def fill(database: apsw.Connection, rows: list[tuple[str, str, int]]) -> float:
    """Insert *rows*, a page a transaction, and return the seconds."""
    started = time.perf_counter()
    for start in range(0, len(rows), PAGE_ITEMS):
        with database:
            database.executemany("INSERT INTO item (key, payload, source_position) VALUES (?, ?, ?)", rows[start : start + PAGE_ITEMS])
        checkpoint(database)
    return time.perf_counter() - started


def claim_all(database: apsw.Connection, count: int) -> float:
    """Mark all items as running, some at a time, reading what a worker needs; return the seconds."""
    started = time.perf_counter()
    for first in range(1, count + 1, DISPATCH_ITEMS):
        bounds = (first, first + DISPATCH_ITEMS - 1)
        with database:
            database.execute(
                "SELECT item_id, key, payload FROM item WHERE item_id BETWEEN ? AND ? AND state = 'pending'", bounds
            ).fetchall()
            database.execute("UPDATE item SET state = 'running', batch_id = ?1, dispatch_id = ?1 WHERE item_id BETWEEN ?1 AND ?2", bounds)
        checkpoint(database)
    return time.perf_counter() - started


def claims(*, directory: str, source: str) -> dict[str, float]:
    """Return the items a second of reading and marking ranges of rows."""
    database, rows = opened(directory), list(records(source))
    fill(database, rows)
    return {"value": len(rows) / claim_all(database, len(rows))}


def finishes(*, directory: str, source: str) -> dict[str, float]:
    """Return the items a second of writing attempts and results with ``executemany`` and marking their items."""
    database, rows = opened(directory), list(records(source))
    fill(database, rows)
    claim_all(database, len(rows))
    spent_s = 0.0
    for first in range(1, len(rows) + 1, DISPATCH_ITEMS):
        done = [
            (number, 1, 1_700_000_000_000_000 + number, 2, f'{{"n":{number}}}')
            for number in range(first, min(first + DISPATCH_ITEMS, len(rows) + 1))
        ]
        started = time.perf_counter()
        with database:
            finish(database, done)
        checkpoint(database)
        spent_s += time.perf_counter() - started
    return {"value": len(rows) / spent_s}


def finish(database: apsw.Connection, done: list[tuple[int, int, int, int, str]]) -> None:
    """Record what a worker would have finished."""
    database.executemany("INSERT INTO attempt VALUES (?1, ?2, 'succeeded', ?3, ?4)", [row[:4] for row in done])
    database.executemany("INSERT INTO result VALUES (?, ?)", [(row[0], row[4]) for row in done])
    ids: Any = apsw.carray(array.array("q", [row[0] for row in done]))
    database.execute("UPDATE item SET state = 'succeeded', dispatch_id = NULL, attempt_count = 1 WHERE item_id IN carray(?)", (ids,))


def status(*, directory: str, ledger: str) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the seconds of counting the items by state."""
    started = time.perf_counter()
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute("SELECT state, count(*) FROM item GROUP BY state").fetchall()
    return {"value": time.perf_counter() - started}


def interpreter(*, directory: str) -> dict[str, float]:
    """Return the seconds of an interpreter that does nothing."""
    elapsed = 0.0
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], cwd=directory, check=True)
        elapsed = time.perf_counter() - started
    return {"value": elapsed}
