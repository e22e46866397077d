"""
What durabatch does, measured: whole runs. Each function is called in a fresh process.

Nothing but public names is used, so that the same functions measure other checkouts; what only some of them have is imported where it is used.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from handlers import calibrate

import durabatch
from durabatch.models import Progress, Summary

__all__ = [
    "commands",
    "first_result",
    "half_run",
    "naps",
    "noop",
    "noop_files",
    "peak_mib",
    "real",
    "remembering",
    "resume",
    "reusing",
    "spin",
    "spin_first",
    "spin_reusing",
    "status",
    "version",
]

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


def noop_files(*, directory: str, source: str, workers: int) -> dict[str, float]:
    """Return the files a second of a whole run over the files of a directory that looks at their names only."""
    path = os.path.join(directory, "bench.db")
    summary = durabatch.Ledger(path).run("builtins:len", durabatch.files(source), workers=workers)
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


def remembered(directory: str, source: str, workers: int, **settings: Any) -> tuple[Summary, Summary, str]:
    """Return how a run and another one over the same input ended, which may use the results of the first, and their ledger."""
    path = os.path.join(directory, "bench.db")
    ledger, items = durabatch.Ledger(path), durabatch.jsonl(source, key="k")
    first = ledger.run(items=items, workers=workers, name="first", cache=True, **settings)
    again = ledger.run(items=items, workers=workers, name="again", cache=True, **settings)
    if again.status.cached != again.status.counts.total:
        raise RuntimeError(f"the cache gave {again.status.cached} of {again.status.counts.total}")
    return first, again, path


def remembering(*, directory: str, source: str, workers: int) -> dict[str, float]:
    """Return the items a second of no-ops whose results are remembered."""
    first, _, path = remembered(directory, source, workers, handler="handlers:bump")
    return run_figures(first, path, first.counts.total / first.work_s)


def reusing(*, directory: str, source: str, workers: int) -> dict[str, float]:
    """Return the items a second of no-ops whose results are known, intake included."""
    _, again, path = remembered(directory, source, workers, handler="handlers:bump")
    return run_figures(again, path, again.counts.total / again.work_s)


def spin_reusing(*, directory: str, source: str, workers: int) -> dict[str, float]:
    """Return the seconds of a run of one millisecond items whose results are known; ``first_s`` are those of the run that made them."""
    first, again, path = remembered(directory, source, workers, handler="handlers:spin", params={"loops": calibrate(1.0)})
    return run_figures(again, path, again.work_s) | {"first_s": first.work_s}


def spin_first(*, directory: str, source: str, workers: int) -> dict[str, float]:
    """Return the seconds of a run of one millisecond items that nobody knows, without the cache."""
    path = os.path.join(directory, "bench.db")
    params = {"loops": calibrate(1.0)}
    summary = durabatch.Ledger(path).run("handlers:spin", durabatch.jsonl(source, key="k"), workers=workers, params=params)
    return run_figures(summary, path, summary.work_s)


def naps(*, directory: str, source: str, concurrency: int) -> dict[str, float]:
    """Return the items a second of one worker whose items wait, so many at once."""
    path = os.path.join(directory, "bench.db")
    ledger = durabatch.Ledger(path)
    summary = ledger.run("coroutines:nap", durabatch.jsonl(source, key="k"), workers=1, concurrency=concurrency)
    return run_figures(summary, path, summary.counts.total / summary.work_s)


def commands(*, directory: str, source: str, workers: int, concurrency: int) -> dict[str, float]:
    """Return the items a second of ``durabatch exec`` with a command that does nothing."""
    from durabatch.api.ledger import Wishes
    from durabatch.loading import command_ref
    from durabatch.runner.session import execute

    path = os.path.join(directory, "bench.db")
    settings = {"workers": workers, "concurrency": concurrency}
    request = durabatch.Ledger(path).request("handlers:bump", durabatch.lines(source), Wishes(name="commands"), settings)
    # Only the command line names a command as a handler.
    summary = execute(replace(request, handler=command_ref(("true", "{}"), shell=False, parse="none")))
    return run_figures(summary, path, summary.counts.total / summary.work_s)


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
    summary = durabatch.Ledger(os.path.join(directory, "bench.db")).run(
        "builtins:len", durabatch.lines(source), workers=workers, on_progress=stop
    )
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
