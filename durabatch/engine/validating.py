"""
Are the checkpoints of a run still what was recorded? Results, counters, the input, and what can be undone, each recomputed.

Other than :mod:`durabatch.engine.verify`, which asks whether the ledger agrees with itself, this asks about one run, up to one checkpoint, and
looks at its input files, too. Nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from durabatch.clock import iso
from durabatch.engine.checkpoints import digest_text, point
from durabatch.engine.digests import digest_of_batch
from durabatch.engine.results import ValueReader
from durabatch.errors import LedgerDamagedError, ResultError
from durabatch.ledger import checkpoint, inspection, run
from durabatch.ledger.checkpoint import BatchPoint, UndoMismatch
from durabatch.ledger.executor import Executor
from durabatch.ledger.paths import shown
from durabatch.ledger.run import RunRow
from durabatch.models import Finding
from durabatch.states import UndoState

__all__ = ["refuse_differing", "validate"]

#: Findings of one kind about one batch.
MOST = 20


def validate(ledger: Executor, run_id: int, wanted: str | int | None = None) -> list[Finding]:
    """
    Return what differs from what was recorded, up to the checkpoint of that number or name; nothing when all is as it was.

    All of it is as of one moment, and in constant memory but for one segment.

    Args:
        wanted: None for all checkpoints; the counters of the run itself are then looked at, too.

    Raises:
        NotFoundError: There is no such checkpoint.
    """
    with ledger.snapshot():
        row = run.get(ledger, run_id)
        last = row.batch_count if wanted is None else point(ledger, run_id, wanted).number
        findings = list(source_differences(row))
        for one in checkpoint.list_batches(ledger, run_id):
            if one.number <= last and one.finished_at_us is not None:
                findings += [*count_differences(ledger, one), *result_differences(ledger, one)]
        findings += undo_differences(checkpoint.undo_mismatches(ledger, run_id, last, MOST))
        return findings + (list(run_differences(ledger, row)) if wanted is None else [])


def refuse_differing(ledger: Executor, run_id: int) -> None:
    """
    Return when the last checkpoint of a run has the counters and the digest that were recorded; reads one batch, and unpacks nothing.

    Raises:
        LedgerDamagedError: It has not. Nothing was changed.
    """
    last = checkpoint.last(ledger, run_id)
    if last is None:
        return
    findings = [*count_differences(ledger, last), *sum_differences(ledger, last)]
    if findings:
        raise LedgerDamagedError(
            shown(ledger.files.ledger), f"is not as it was recorded ({findings[0].where}: {findings[0].detail})",
            "`durabatch checkpoints --validate` says what differs; `durabatch resume --force` goes on anyway.",
        )  # fmt: skip


def count_differences(ledger: Executor, one: BatchPoint) -> Iterator[Finding]:
    """Yield which counters of a batch its rows do not add up to."""
    said, found = (one.item_count, one.ended_count, one.failed_count), checkpoint.recount(ledger, one.batch_id)
    for name, recorded, counted in zip(("items", "ended items", "failed items"), said, found, strict=True):
        if recorded != counted:
            yield Finding("counters", place(one), f"{recorded:,} {name} were recorded, there are {counted:,}")


def result_differences(ledger: Executor, one: BatchPoint) -> Iterator[Finding]:
    """Yield which results of a batch are missing, unreadable, or not what was recorded."""
    for key, state in checkpoint.result_mismatches(ledger, one.batch_id, MOST):
        yield Finding("results", place(one), f"item {key!r} is {state} and has {'no' if state == 'succeeded' else 'a'} result")
    reader = ValueReader(ledger)
    for segment_id, key in checkpoint.segments_of_batch(ledger, one.batch_id):
        try:
            reader.segment(segment_id)
        except ResultError as error:
            yield Finding("results", place(one), f"segment {segment_id}, in which the result of item {key!r} lies: {error.what}")
    yield from sum_differences(ledger, one)


def sum_differences(ledger: Executor, one: BatchPoint) -> Iterator[Finding]:
    """Yield whether the results of a batch come to something else than was recorded; where nothing was, there is nothing to compare."""
    if one.digest is None or one.result_bytes is None:
        return
    size, digest = digest_of_batch(ledger, one.batch_id)
    if size != one.result_bytes:
        yield Finding("results", place(one), f"{one.result_bytes:,} bytes of results were recorded, there are {size:,}")
    if digest != one.digest:
        yield Finding("results", place(one), f"the digest {digest_text(one.digest)} was recorded, the results have {digest_text(digest)}")


def source_differences(row: RunRow) -> Iterator[Finding]:
    """Yield which files of the input are not as they were when the run read them; inputs that are no files have nothing to compare."""
    for entry in row.fingerprint or ():
        yield from (Finding("input", shown(str(entry.get("path"))), what) for what in file_differences(entry))


def file_differences(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between a file and what was recorded of it."""
    try:
        facts = os.stat(entry["path"])
    except OSError as error:
        yield f"cannot be looked at: {error.strerror}"
        return
    if facts.st_size != entry["bytes"]:
        yield f"{entry['bytes']:,} bytes were recorded, there are {facts.st_size:,}"
    if facts.st_mtime_ns != entry["mtime_ns"]:
        yield f"it was changed last at {iso(entry['mtime_ns'] // 1000)} when it was read, and since at {iso(facts.st_mtime_ns // 1000)}"


def run_differences(ledger: Executor, row: RunRow) -> Iterator[Finding]:
    """Yield which counters of the run its rows do not add up to."""
    for name, (said, found) in inspection.counters_of_run(ledger, row.run_id).items():
        yield Finding("counters", f"run {row.name}", f"{name} {said:,} was recorded, the rows say {found:,}")
    entries = checkpoint.count_undo(ledger, row.run_id)
    if entries != row.undo_count:
        yield Finding("undo", f"run {row.name}", f"{row.undo_count:,} entries were recorded, there are {entries:,}")


def undo_differences(mismatches: Sequence[UndoMismatch]) -> list[Finding]:
    """Return what undo entries say that does not fit what became of their items."""
    return [Finding("undo", f"batch {one.batch_number}", f"item {one.key!r}: {undo_words(one)}") for one in mismatches]


def undo_words(one: UndoMismatch) -> str:
    """Return what is wrong with an undo entry, in words."""
    if one.state == UndoState.FAILED:
        return f"{one.action!r} of attempt {one.number} could not be undone: its effect remains"
    if one.is_wanted or one.state == UndoState.UNDOING:
        return f"{one.action!r} of attempt {one.number} is still to be undone"
    if one.state == UndoState.UNDONE:
        return f"it is {one.item_state}, but {one.action!r} of attempt {one.number} was undone"
    became = "undone" if one.item_state == "undone" else one.outcome or "missing"
    return f"attempt {one.number} is {became}, but {one.action!r} was not undone"


def place(one: BatchPoint) -> str:
    """Return where a finding about a batch is."""
    return f"batch {one.number}"
