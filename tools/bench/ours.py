"""
What durabatch does, measured: whole runs, and the verbs of the engine one by one. Each function is called in a fresh process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from handlers import calibrate

import durabatch
from durabatch.clock import now_us
from durabatch.engine.active import ActiveRun, load
from durabatch.engine.claim import Claim, claim
from durabatch.engine.finish import Returned, finish
from durabatch.engine.start import create_run, open_session
from durabatch.flow.batching import FixedBatches
from durabatch.intake.open import open_source
from durabatch.ledger.connection import Connection
from durabatch.ledger.opening import open_ledger
from durabatch.models import Progress, RunSettings, Summary
from durabatch.runner.feeding import Feeder, first_page

__all__ = ["claims", "finishes", "first_result", "half_run", "noop", "pages", "real", "resume", "spin", "status", "submits", "version"]

MIB = 1 << 20
#: Items of a claim or a finish that is measured alone; one transaction each.
DISPATCH_ITEMS, DISPATCH_BYTES, BATCH_ITEMS = 1000, 1 << 20, 100
#: Rows and bytes of a page that is measured alone.
PAGE_ITEMS, PAGE_BYTES = 5000, 8 << 20
#: A run that is to be looked at when it has just begun.
Stop = Callable[[Progress], None]


def peak_mib() -> float:
    """Return the most memory that this process has had."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def run_figures(summary: Summary, path: str, value: float) -> dict[str, float]:
    """Return *value* and what stands beside it for a whole run; the run must have gone well."""
    counts = summary.status.counts
    if summary.exit_code or counts.succeeded != counts.total:
        raise RuntimeError(f"{counts.succeeded} of {counts.total} items succeeded: {summary.status.reason or summary.errors[:1]}")
    return {
        "value": value,
        "startup_s": summary.startup_s,
        "first_result_s": summary.first_result_s or 0.0,
        "coordinator_mib": peak_mib(),
        "bytes_per_item": os.path.getsize(path) / counts.total,
    }


def noop(*, directory: str, source: str, workers: int) -> dict[str, float]:
    """Return the items a second of a whole run over a JSON lines file, keys unique, every commit synced."""
    path = os.path.join(directory, "bench.db")
    summary = durabatch.Ledger(path).run("handlers:bump", durabatch.jsonl(source, key="k"), workers=workers)
    return run_figures(summary, path, summary.status.counts.total / summary.work_s)


def real(*, directory: str, sources: str, workers: int) -> dict[str, float]:
    """Return the files a minute of the recipe that parses and measures Python files."""
    path = os.path.join(directory, "bench.db")
    files = durabatch.files(sources, include="*.py")
    summary = durabatch.Ledger(path).run("durabatch.recipes.python_ast:analyse", files, workers=workers)
    return run_figures(summary, path, 60 * summary.status.counts.total / summary.work_s)


def spin(*, directory: str, count: int, workers: int) -> dict[str, float]:
    """Return how much of the cores' time goes into items of about one millisecond of arithmetic, in percent."""
    path = os.path.join(directory, "bench.db")
    items = ({"n": number} for number in range(count))
    ledger = durabatch.Ledger(path)
    summary = ledger.run("handlers:spin", items, workers=workers, params={"loops": calibrate(1.0)})
    busy_s = sum(result.value for result in ledger.latest().results())
    return run_figures(summary, path, 100 * busy_s / workers / summary.work_s)


def pages(*, directory: str, source: str) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the rows a second of reading, parsing and checking alone."""
    opened = open_source((source,), key="k")
    started = time.perf_counter()
    count = sum(len(page.rows) for page in opened.pages(None, max_items=PAGE_ITEMS, max_bytes=PAGE_BYTES))
    return {"value": count / (time.perf_counter() - started), "coordinator_mib": peak_mib()}


def filled(directory: str, source: str) -> tuple[Connection, ActiveRun, float]:
    """Return a ledger with all items of a file in it, one transaction a page, and the rows a second that took."""
    ledger = open_ledger(os.path.join(directory, "bench.db"), create=True)
    open_session(ledger, {}, now_us=now_us())
    opened = open_source((source,), key="k")
    started = time.perf_counter()
    page, rest = first_page(opened)
    run_id = create_run(ledger, series="bench", handler={}, source={}, fingerprint=None, settings=RunSettings().as_json(), now_us=now_us())
    active = load(ledger, run_id)
    feeder = Feeder(ledger, active, opened)
    with ledger.transaction():
        feeder.begin(page, rest)
        active.write_tally(ledger)
    while not feeder.is_done:
        with ledger.transaction():
            feeder.feed()
            active.write_tally(ledger)
        if ledger.wal_frames > 1000:
            ledger.checkpoint()
    return ledger, active, active.total_count / (time.perf_counter() - started)


def submits(*, directory: str, source: str) -> dict[str, float]:
    """Return the rows a second from a file into the ledger, nothing else going on."""
    ledger, _, rate = filled(directory, source)
    ledger.close()
    return {"value": rate, "coordinator_mib": peak_mib()}


def claim_all(ledger: Connection, active: ActiveRun) -> tuple[list[Claim], float]:
    """Return every item of the run, claimed, and the items a second that took."""
    made: list[Claim] = []
    batches = FixedBatches(BATCH_ITEMS)
    started = time.perf_counter()
    while active.pending_count:
        with ledger.transaction():
            found = claim(ledger, active, batches, limit=DISPATCH_ITEMS, max_bytes=DISPATCH_BYTES, now_us=now_us())
            active.write_tally(ledger)
        if found is None:
            break
        made.append(found)
        if ledger.wal_frames > 1000:
            ledger.checkpoint()
    return made, active.total_count / (time.perf_counter() - started)


def claims(*, directory: str, source: str) -> dict[str, float]:
    """Return the items a second that can be handed out, nothing else going on."""
    ledger, active, _ = filled(directory, source)
    _, rate = claim_all(ledger, active)
    ledger.close()
    return {"value": rate}


def returned_of(made: Claim) -> Returned:
    """Return what a worker would send back for a claim."""
    inline = [(work[0], work[1], 1, 1_700_000_000_000_000 + work[0], 2, f'{{"n":{work[0]}}}') for _, works in made.groups for work in works]
    return Returned(made.dispatch_id, inline=inline, batch_of={work[0]: batch_id for batch_id, works in made.groups for work in works})


def finishes(*, directory: str, source: str) -> dict[str, float]:
    """Return the items a second that can be recorded, nothing else going on."""
    ledger, active, _ = filled(directory, source)
    made, _ = claim_all(ledger, active)
    spent_s, count = 0.0, 0
    for one in made:
        returned = returned_of(one)
        started = time.perf_counter()
        with ledger.transaction():
            count += finish(ledger, active, returned, max_attempts=1, now_us=now_us())
            active.write_tally(ledger)
        if ledger.wal_frames > 1000:
            ledger.checkpoint()
        spent_s += time.perf_counter() - started
    ledger.close()
    return {"value": count / spent_s}


def when_ended(more_than: Callable[[Progress], bool], number: int) -> Stop:
    """Return a callback that sends this process a signal once the progress says so."""

    def look(progress: Progress) -> None:
        if more_than(progress):
            os.kill(os.getpid(), number)

    return look


def half_run(*, directory: str, source: str, workers: int, count: int) -> dict[str, float]:
    """Run until half of the items have ended, and be killed there."""
    path = os.path.join(directory, "bench.db")
    look = when_ended(lambda progress: progress.counts.ended >= count // 2, signal.SIGKILL)
    durabatch.Ledger(path).run("handlers:bump", durabatch.jsonl(source, key="k"), workers=workers, on_progress=look)
    raise RuntimeError("the run ended before it was killed")


def resume(*, directory: str, half: str, source: str, workers: int) -> dict[str, float]:
    """Return the seconds from the same call again to the first dispatch, on a copy of a ledger whose run was killed half-way."""
    work = os.path.join(directory, "half")
    shutil.copytree(half, work)
    before: list[int] = []

    def look(progress: Progress) -> None:
        before.append(progress.counts.ended)
        if before[-1] > before[0]:
            os.kill(os.getpid(), signal.SIGINT)

    ledger = durabatch.Ledger(os.path.join(work, "bench.db"))
    summary = ledger.run("handlers:bump", durabatch.jsonl(source, key="k"), workers=workers, on_progress=look)
    return {"value": summary.startup_s, "first_result_s": summary.first_result_s or 0.0, "coordinator_mib": peak_mib()}


def first_result(*, directory: str, source: str, workers: int) -> dict[str, float]:
    """Return the seconds from the call to the first recorded result on a large text file."""
    stop = when_ended(lambda progress: progress.counts.ended > 0, signal.SIGINT)
    summary = durabatch.Ledger(os.path.join(directory, "bench.db")).run("builtins:len", durabatch.lines(source), workers=workers, on_progress=stop)
    return {"value": summary.first_result_s or 0.0, "startup_s": summary.startup_s, "coordinator_mib": peak_mib()}


def status(*, directory: str, ledger: str) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the seconds of one look at all runs of a ledger, opening it included."""
    opened = durabatch.Ledger(ledger)  # loads the modules
    started = time.perf_counter()
    opened.runs()
    return {"value": time.perf_counter() - started}


def version(*, directory: str) -> dict[str, float]:
    """Return the seconds of ``durabatch --version``."""
    return {"value": seconds_of([sys.executable, "-m", "durabatch", "--version"], directory)}


def seconds_of(argv: list[str], directory: str) -> float:
    """Return the seconds of a command, the second time it is called: by then it is in the page cache, and compiled."""
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    elapsed = 0.0
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run(argv, cwd=directory, env=environment, check=True, stdout=subprocess.DEVNULL)
        elapsed = time.perf_counter() - started
    return elapsed
