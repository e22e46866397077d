"""
A run as a queue, measured. Each function is called in a fresh process.

How fast do producers add items beside a coordinator that is at work, how long does that one wait for its turn, what do many items at once take?
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from verbs import BATCH_ITEMS

import durabatch
from durabatch.clock import now_us
from durabatch.engine.active import load
from durabatch.engine.claim import claim
from durabatch.engine.start import open_session
from durabatch.flow.batching import FixedBatches
from durabatch.ledger.opening import open_ledger
from durabatch.loading import parse_target
from durabatch.runner.request import RunRequest
from durabatch.runner.session import Session

__all__ = ["claims_in_bulk", "longest_wait", "submits", "submits_in_bulk"]

#: What a producer is: so many calls, one item each.
PRODUCER = """
import sys
import durabatch

path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with durabatch.Ledger(path) as ledger:
    for number in range(count):
        ledger.submit("q", [{"k": f"{name}-{number}", "n": number}], key="k")
"""


def worked(path: str, producers: int, count: int) -> tuple[float, float]:
    """Return the items a minute of that many producers with *count* calls each, and the seconds that the coordinator beside them waited at most."""
    ledger = durabatch.Ledger(path)
    ledger.submit("q", [])
    spent: list[float] = []

    def produce() -> None:
        started = time.perf_counter()
        argv = [sys.executable, "-c", PRODUCER, path]
        environ = {**os.environ, "PYTHONPATH": str(Path(durabatch.__file__).parents[1])}
        children = [subprocess.Popen([*argv, f"p{number}", str(count)], env=environ) for number in range(producers)]
        codes = [child.wait() for child in children]
        spent.append(0.0 if any(codes) else time.perf_counter() - started)
        ledger["q"].close()

    session = Session(
        RunRequest(verb="resume", ledger=path, run="q", handler=parse_target("handlers:bump"), open=True, overrides={"workers": 1})
    )
    thread = threading.Thread(target=produce)
    longest_s = 0.0
    for connection, _ in session.ticks():
        if thread.ident is None:
            thread.start()
        longest_s = connection.turn.longest_wait_s
    thread.join()
    if not spent[0] or session.summary is None or session.summary.status.counts.succeeded != producers * count:
        raise RuntimeError("not every item was added and done once")
    return 60 * producers * count / spent[0], longest_s


def submits(*, directory: str, producers: int, count: int) -> dict[str, float]:
    """Return the items a minute that producers add by calls of one item each, while a coordinator works on them."""
    return {"value": worked(os.path.join(directory, "bench.db"), producers, count)[0]}


def longest_wait(*, directory: str, producers: int, count: int) -> dict[str, float]:
    """Return the seconds that the coordinator beside them waited at most for its turn to write."""
    return {"value": worked(os.path.join(directory, "bench.db"), producers, count)[1]}


def submits_in_bulk(*, directory: str, count: int) -> dict[str, float]:
    """Return the seconds in which one call adds all items."""
    items = [{"k": f"k{number}", "n": number} for number in range(count)]
    with durabatch.Ledger(os.path.join(directory, "bench.db")) as ledger:
        ledger.submit("q", [])
        started = time.perf_counter()
        ledger.submit("q", items, key="k")
        return {"value": time.perf_counter() - started}


def claims_in_bulk(*, directory: str, count: int) -> dict[str, float]:
    """Return the seconds in which one transaction hands out all items."""
    path = os.path.join(directory, "bench.db")
    submits_in_bulk(directory=directory, count=count)
    ledger = open_ledger(path)
    open_session(ledger, {}, now_us=now_us())
    active = load(ledger, 1)
    started = time.perf_counter()
    with ledger.transaction():
        made = claim(ledger, active, FixedBatches(BATCH_ITEMS), limit=count, max_bytes=1 << 30, now_us=now_us())
        active.write_tally(ledger)
    spent_s = time.perf_counter() - started
    ledger.close()
    if made is None or made.item_count != count:
        raise RuntimeError("not all items were handed out at once")
    return {"value": spent_s}
