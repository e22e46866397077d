"""
The ceiling: the hot path with everything left out that makes it durable in practice, to compare with.

Two or more workers behind pipes, one row per item, batch, attempt and result, unique keys, one synced commit a tick. No input is parsed,
no hash computed, nothing is checked, bounded or recovered, and no failure is expected.
"""

from __future__ import annotations

import array
import multiprocessing
import os
import pickle
import time
from multiprocessing.connection import Connection, wait
from typing import Any

import apsw
from handlers import bump
from inputs import KEYS
from pydantic_core import from_json, to_json

__all__ = ["run"]

SCHEMA = """
CREATE TABLE run (run_id INTEGER PRIMARY KEY, taken INTEGER, finished INTEGER) STRICT;
CREATE TABLE batch (batch_id INTEGER PRIMARY KEY, first_item_id INTEGER, last_item_id INTEGER) STRICT;
CREATE TABLE item (item_id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, payload TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'pending') STRICT;
CREATE TABLE attempt (item_id INTEGER PRIMARY KEY, outcome TEXT NOT NULL, started_at_us INTEGER, duration_us INTEGER) STRICT;
CREATE TABLE result (item_id INTEGER PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO run VALUES (1, 0, 0);
"""
PRAGMAS = ("page_size=8192", "journal_mode=wal", "synchronous=full", "wal_autocheckpoint=0", "cache_size=-12000")
DISPATCH_ITEMS, DEPTH = 1000, 2
PAGE_ITEMS, AHEAD = 10_000, 40_000
WAL_BYTES = 16_000_000
#: (item_id, started_at_us, duration_us, value) of one finished item.
Done = tuple[int, int, int, str]


def work(pipe: Connection) -> None:
    """Run what comes through *pipe* until an empty message."""
    clock = time.time_ns
    while message := pipe.recv_bytes():
        first, payloads = pickle.loads(message)  # noqa: S301 - from our own parent
        done: list[Done] = []
        started = clock()
        for item_id, payload in enumerate(payloads, first):
            value = to_json(bump(from_json(payload))).decode()
            ended = clock()
            done.append((item_id, started // 1000, (ended - started) // 1000, value))
            started = ended
        pipe.send_bytes(pickle.dumps(done, 5))


class Ceiling:
    """The coordinator of *total* items."""

    def __init__(self, path: str, total: int, keys: str, workers: int) -> None:
        self.path, self.total, self.key = path, total, KEYS[keys]
        self.taken = self.mark = self.finished = 0
        self.db = apsw.Connection(path)
        for pragma in PRAGMAS:
            self.db.execute("PRAGMA " + pragma).fetchall()
        self.db.execute(SCHEMA)
        self.held: dict[Connection, int] = {}
        for _ in range(workers):
            ours, theirs = multiprocessing.Pipe()
            multiprocessing.Process(target=work, args=(theirs,), daemon=True).start()
            self.held[ours] = 0

    def run(self) -> float:
        """Run everything and return the seconds it took."""
        started = time.perf_counter()
        arrived: list[tuple[Connection, list[Done]]] = []
        while self.finished < self.total:
            with self.db:
                for pipe, done in arrived:
                    self.finish(pipe, done)
                self.take_in()
                outgoing = [
                    self.claim(pipe) for _ in range(DEPTH) for pipe in self.held if self.held[pipe] < DEPTH and self.mark < self.taken
                ]
                self.db.execute("UPDATE run SET taken = ?, finished = ? WHERE run_id = 1", (self.taken, self.finished))
            for pipe, message in outgoing:
                pipe.send_bytes(message)
            if os.path.getsize(self.path + "-wal") > WAL_BYTES:
                self.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            arrived = self.wait()
        return time.perf_counter() - started

    def wait(self) -> list[tuple[Connection, list[Done]]]:
        """Return what has come from the workers."""
        if self.finished == self.total:
            return []
        ready: Any = wait(self.held, 0 if self.taken < self.total else None)
        return [(pipe, pickle.loads(pipe.recv_bytes())) for pipe in ready]  # noqa: S301 - from our own children

    def take_in(self) -> None:
        """Add a page of items when little is ahead."""
        if self.taken == self.total or self.taken - self.mark >= AHEAD:
            return
        page = [(self.key(number), f'{{"n":{number}}}') for number in range(self.taken, min(self.total, self.taken + PAGE_ITEMS))]
        self.db.executemany("INSERT INTO item (key, payload) VALUES (?, ?)", page)
        self.taken += len(page)

    def claim(self, pipe: Connection) -> tuple[Connection, bytes]:
        """Return the next items for a worker; a batch row says that it has them."""
        first, self.mark = self.mark + 1, min(self.taken, self.mark + DISPATCH_ITEMS)
        self.db.execute("INSERT INTO batch (first_item_id, last_item_id) VALUES (?, ?)", (first, self.mark))
        payloads = [row[0] for row in self.db.execute("SELECT payload FROM item WHERE item_id BETWEEN ? AND ?", (first, self.mark))]
        self.held[pipe] += 1
        return pipe, pickle.dumps((first, payloads), 5)

    def finish(self, pipe: Connection, done: list[Done]) -> None:
        """Record what a worker finished."""
        self.held[pipe] -= 1
        self.finished += len(done)
        self.db.executemany("INSERT INTO attempt VALUES (?1, 'succeeded', ?2, ?3)", [row[:3] for row in done])
        self.db.executemany("INSERT INTO result VALUES (?, ?)", [(row[0], row[3]) for row in done])
        ids: Any = apsw.carray(array.array("q", [row[0] for row in done]))
        self.db.execute("UPDATE item SET state = 'succeeded' WHERE item_id IN carray(?)", (ids,))


def run(*, directory: str, count: int, keys: str, workers: int) -> dict[str, float]:
    """Return the items a second of the ceiling, end to end."""
    path = os.path.join(directory, "ceiling.db")
    ceiling = Ceiling(path, count, keys, workers)
    seconds = ceiling.run()
    ceiling.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    return {"value": count / seconds, "bytes_per_item": os.path.getsize(path) / count}
