"""
Packages that do something similar, where they are installed: no-ops from the first enqueued to the last result, in their durable setting.

Nothing is installed here: ``pip install huey litequeue persist-queue joblib`` in the environment of the benchmark makes them all available.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import multiprocessing
import os
import sqlite3
import time
from typing import Any

from case import Case, Side
from handlers import bump
from inputs import Inputs

__all__ = ["HINT", "PEERS", "huey", "joblib", "litequeue", "peer_case", "persist_queue"]

#: Peers by the name of their package: the module that must be importable, the function below, and items at full size.
PEERS = {
    "huey": ("huey", "peers.huey", 10_000),
    "litequeue": ("litequeue", "peers.litequeue", 5_000),
    "persist-queue": ("persistqueue", "peers.persist_queue", 5_000),
    "joblib": ("joblib", "peers.joblib", 200_000),
}
HINT = "Peers are installed by hand: pip install " + " ".join(PEERS)


def peer_case(names: list[str], inputs: Inputs, *, scale: float, workers: int) -> Case:
    """Return the case of those *names* that can be imported, beside durabatch."""
    count = int(100_000 * scale)
    sides = [Side("durabatch", "ours.noop", lambda: {"source": inputs.records(count, "ordered"), "workers": workers})]
    for name in names:
        module, function, items = PEERS.get(name, ("", "", 0))
        if module and importlib.util.find_spec(module) is not None:
            sides.append(Side(name, function, functools.partial(dict, count=max(200, int(items * scale)), workers=workers)))
    return Case("peers", "items/s", tuple(sides))


def joblib(*, directory: str, count: int, workers: int) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the items a second of joblib, which is not durable."""
    package: Any = importlib.import_module("joblib")
    delayed = package.delayed
    with package.Parallel(n_jobs=workers) as parallel:
        parallel(delayed(bump)({"n": number}) for number in range(workers))
        started = time.perf_counter()
        parallel(delayed(bump)({"n": number}) for number in range(count))
        return {"value": count / (time.perf_counter() - started)}


def huey(*, directory: str, count: int, workers: int) -> dict[str, float]:
    """Return the items a second of huey on SQLite with fsync, its consumer with worker processes."""
    package: Any = importlib.import_module("huey")
    queue = package.SqliteHuey("bench", filename=os.path.join(directory, "huey.db"), fsync=True, journal_mode="wal")
    task = queue.task()(bump)
    started = time.perf_counter()
    for number in range(count):
        task({"n": number})
    consumer = queue.create_consumer(workers=workers, worker_type="process", periodic=False)
    consumer.start()
    try:
        while queue.result_count() < count:
            time.sleep(0.02)
        return {"value": count / (time.perf_counter() - started)}
    finally:
        consumer.stop()


def drain_litequeue(path: str) -> None:
    """Take messages and mark them as done until there are none."""
    queue: Any = importlib.import_module("litequeue").LiteQueue(path)
    while (message := queue.pop()) is not None:
        bump({"n": int(message.data)})
        queue.done(message.message_id)


def litequeue(*, directory: str, count: int, workers: int) -> dict[str, float]:
    """Return the items a second of litequeue, which keeps no results."""
    path = os.path.join(directory, "litequeue.db")
    queue: Any = importlib.import_module("litequeue").LiteQueue(path)
    started = time.perf_counter()
    for number in range(count):
        queue.put(str(number))
    processes = [multiprocessing.Process(target=drain_litequeue, args=(path,)) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return {"value": count / (time.perf_counter() - started)}


def persist_queue(*, directory: str, count: int, workers: int) -> dict[str, float]:  # noqa: ARG001 - one process only
    """Return the items a second of a persist-queue ack queue and a second queue for the results, both with synced commits."""
    persistqueue: Any = importlib.import_module("persistqueue")
    queue = persistqueue.SQLiteAckQueue(os.path.join(directory, "in"), auto_commit=True)
    results = persistqueue.SQLiteQueue(os.path.join(directory, "out"), auto_commit=True)
    for connection in (queue._conn, queue._putter, results._conn, results._putter):
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = FULL")
    started = time.perf_counter()
    for number in range(count):
        queue.put({"n": number})
    for _ in range(count):
        item = queue.get()
        results.put(bump(item))
        queue.ack(item)
    return {"value": count / (time.perf_counter() - started)}
