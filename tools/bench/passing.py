"""
What durabatch does with what goes in and comes out, measured. Each function is called in a fresh process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ours import peak_mib
from verbs import claim_all, filled, opened_input

import durabatch
from durabatch.engine.compare import Comparison, Kind
from durabatch.flow.chunking import Chunking
from durabatch.intake.open import open_source
from durabatch.intake.plan import Plan
from durabatch.ledger.reader import Reader

__all__ = ["chunks", "cuts", "export_csv", "export_jsonl", "files", "planned_tree", "stepped", "taken", "touched"]

#: How documents are cut, as it is by default.
CHUNK_BYTES = 4096


def taken(*, directory: str, source: str) -> dict[str, float]:
    """Return the megabytes a second from a file into the ledger, nothing else going on."""
    ledger, active, rate = filled(directory, open_source((source,)))
    ledger.close()
    return {"value": os.path.getsize(source) / 1e6 * rate / active.total_count, "coordinator_mib": peak_mib()}


def files(*, directory: str, source: str) -> dict[str, float]:
    """Return the seconds from the name of a directory to all files below it handed out in batches."""
    started = time.perf_counter()
    ledger, active, _ = filled(directory, open_source((source,)))
    claim_all(ledger, active)
    ledger.close()
    return {"value": time.perf_counter() - started, "coordinator_mib": peak_mib()}


def cuts(*, directory: str, source: str) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the seconds in which the places are found where a text is cut."""
    text, chunking = Path(source).read_bytes(), Chunking(CHUNK_BYTES)
    started = time.perf_counter()
    count = sum(1 for _ in ends(text, chunking))
    seconds = time.perf_counter() - started
    if not len(text) / CHUNK_BYTES <= count < 2 * len(text) / CHUNK_BYTES:
        raise RuntimeError(f"{len(text)} bytes became {count} chunks")
    return {"value": seconds}


def ends(text: bytes, chunking: Chunking) -> Iterator[int]:
    """Yield where the chunks of a text end."""
    start = 0
    while start < len(text):
        end = chunking.end(text, start, is_last=True) or len(text)
        start = chunking.next_start(text, end)
        yield end


def chunks(*, directory: str, source: str) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the seconds in which a text becomes the items that its chunks are."""
    started = time.perf_counter()
    opened = opened_input(open_source(durabatch.chunks(source, chunk_size=CHUNK_BYTES)))
    if not sum(len(page.rows) for page in opened.pages()):
        raise RuntimeError("there were no chunks")
    return {"value": time.perf_counter() - started, "coordinator_mib": peak_mib()}


def plan_figures(made: Plan, seconds: float) -> dict[str, float]:
    """Return what stands in the table for a plan; nothing may have changed."""
    if made.is_changed or not made.counts["same"]:
        raise RuntimeError(f"the input was not found to be the same: {made.sentence()}")
    return {"value": seconds, "coordinator_mib": peak_mib()}


def touched(*, directory: str, ledger: str, source: str) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the seconds of a plan for a file that has another time than it had, and is the same."""
    os.utime(source)
    opened = durabatch.Ledger(ledger)
    started = time.perf_counter()
    return plan_figures(opened.plan("handlers:bump", durabatch.jsonl(source, key="k")), time.perf_counter() - started)


def planned_tree(*, directory: str, ledger: str, source: str) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the seconds of a plan for a directory in which nothing has changed."""
    opened = durabatch.Ledger(ledger)
    started = time.perf_counter()
    return plan_figures(opened.plan("builtins:len", durabatch.files(source)), time.perf_counter() - started)


def stepped(*, directory: str, ledger: str, source: str) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the seconds in which all rows of an input are found to be those of the items beside them."""
    started = time.perf_counter()
    with Reader(Path(ledger)) as reader, closing(Comparison(reader, 1)) as comparison:
        opened = opened_input(open_source((source,), key="k"))
        is_same = all(one.kind is Kind.SAME for page in opened.pages() for one in comparison.page(page.rows))
        if not (is_same and comparison.met_all):
            raise RuntimeError("the input was not found to be the same")
    return {"value": time.perf_counter() - started, "coordinator_mib": peak_mib()}


def exported(directory: str, ledger: str, suffix: str) -> dict[str, float]:
    """Return the rows a second of an export of all results."""
    run = durabatch.Ledger(ledger).latest()
    total = run.status().counts.total
    started = time.perf_counter()
    done = run.export(os.path.join(directory, "results" + suffix))
    seconds = time.perf_counter() - started
    if done.count != total:
        raise RuntimeError(f"{done.count} of {total} results were exported")
    return {"value": done.count / seconds, "coordinator_mib": peak_mib()}


def export_jsonl(*, directory: str, ledger: str) -> dict[str, float]:
    """Return the rows a second of an export as JSON lines."""
    return exported(directory, ledger, ".jsonl")


def export_csv(*, directory: str, ledger: str) -> dict[str, float]:
    """Return the rows a second of an export as a table of comma separated values."""
    return exported(directory, ledger, ".csv")
