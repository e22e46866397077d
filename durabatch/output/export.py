"""
Results of a run as one file, at any time, from one consistent moment; the failures beside it.

    take what is wanted  →  look at all values, if there are columns to be found  →  write  →  rename  →  remember what the target has got

A value is in memory alone, whatever there are. An export that is repeated gives the same bytes. Damaged values are named and left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from durabatch import process
from durabatch.clock import now_us
from durabatch.engine.export import FAILED_STATES, Snapshot, record
from durabatch.engine.results import OnDamage
from durabatch.errors import LedgerDamagedError, UsageError
from durabatch.ledger import run
from durabatch.ledger.connection import Connection
from durabatch.ledger.locks import Ownership
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.paths import ledger_files
from durabatch.ledger.reader import Reader
from durabatch.ledger.schema import SCHEMA_VERSION
from durabatch.ledger.scratch import Scratch
from durabatch.options import did_you_mean
from durabatch.output.atomic import explained
from durabatch.output.columns import Column, ColumnFinder
from durabatch.output.failures import sibling, write_failures
from durabatch.output.places import refuse_same
from durabatch.output.rows import ExportRow, row_of
from durabatch.output.sinks import Sink, SinkSettings, format_of, sink, sink_names, write_rows
from durabatch.output.text_file import TextFile
from durabatch.states import ItemState

__all__ = ["ExportRequest", "Exported", "export"]

#: What is written of each item when all of them succeeded, and when they may have ended in other ways.
VALUES, EVERYTHING = ("key", "value"), ("key", "state", "value", "error", "attempts")
#: Compression by the last suffix.
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
STDOUT = "-"
PRINTABLE = ("json", "jsonl", "csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """
    What is wanted.

    Attributes:
        ledger: Its path.
        output: The file; None writes to *stream*.
        stream: Standard output, in bytes.
        format: Name of a sink; None goes by the suffix of *output*, and for a stream is ``jsonl``.
        states: Items in these states.
        where: Only those for which this SQL expression over v_item holds.
        incremental: Only what *output* has not got by an earlier incremental export.
        failures: File of the failures; None is the one beside *output*, which is there only when there are any.
        raw_formulas: Texts that a spreadsheet would take for a formula are written as they are.
        timeout_s: Seconds for the search by *where*.
    """

    ledger: Path
    run_id: int
    output: Path | None = None
    stream: BinaryIO | None = None
    format: str | None = None
    states: tuple[str, ...] = (ItemState.SUCCEEDED,)
    where: str | None = None
    incremental: bool = False
    failures: Path | None = None
    raw_formulas: bool = False
    timeout_s: float = 30.0
    allow_network_fs: bool = False

    @property
    def target(self) -> str:
        """What the ledger calls the place where results go."""
        return STDOUT if self.output is None else str(self.output.absolute())

    @property
    def members(self) -> tuple[str, ...]:
        """What is written of each item."""
        return VALUES if set(self.states) == {ItemState.SUCCEEDED} else EVERYTHING

    @property
    def failures_path(self) -> Path | None:
        """Where failures go; None when they stand in the file itself, or there is no file beside which they could stand."""
        if self.failures is not None or self.output is None or set(self.states) & set(FAILED_STATES):
            return self.failures
        return sibling(self.output)


@dataclass(frozen=True, slots=True)
class Exported:
    """
    What an export has written.

    Attributes:
        format: Name of the sink.
        output: The file; None for a stream, and for an incremental export that found nothing new and left the file as it was.
        count: Items in it.
        failures: The file of failures; None when none was written.
        failed_count: Items in that.
        damaged_count: Items that were left out, or stand there without a value, because their stored value is damaged.
    """

    format: str
    output: Path | None
    count: int
    failures: Path | None
    failed_count: int
    damaged_count: int


@dataclass(slots=True)
class Damage:
    """The damaged values that were met, each told to *on_damage*."""

    on_damage: OnDamage
    is_last: bool = False
    item_ids: list[int] = field(default_factory=list)

    def note(self, error: LedgerDamagedError) -> None:
        """Note that the item at hand is damaged."""
        self.is_last = True
        self.on_damage(error)


def export(request: ExportRequest, *, on_damage: OnDamage) -> Exported:
    """
    Write what *request* wants and return what that was; on return files are on disk under their names.

    Args:
        on_damage: Called with an error for each item whose stored value is damaged.

    Raises:
        UsageError: Format, output or states do not go together. Nothing was written.
        OutputError: A file could not be written; what was there before is there still.
        LedgerError: The ledger cannot be read, or for an incremental export not written.
    """
    check_states(request.states)
    name, made = chosen_sink(request)
    if request.incremental:
        bring_up_to_date(request)
    with Reader(request.ledger) as reader, Scratch() as wanted, Scratch() as failed:
        snapshot, failures = Snapshot(reader, wanted, request.run_id), Snapshot(reader, failed, request.run_id)
        with reader.snapshot():
            take(request, snapshot, request.states, request.target)
            if request.failures_path is not None:
                take(request, failures, FAILED_STATES, str(request.failures_path.absolute()))
        return Exporting(request, snapshot, failures, Damage(on_damage)).write(name, made)


def check_states(states: Sequence[str]) -> None:
    """Refuse states that there are not, and none at all."""
    words = tuple(ItemState)
    for state in states:
        if state not in words:
            raise UsageError(f"--state: {state!r} is not one of {', '.join(words)}", did_you_mean(state, words))
    if not states:
        raise UsageError("--state: no state is named", f"Choose of {', '.join(words)}.")


def take(request: ExportRequest, snapshot: Snapshot, states: Sequence[str], target: str) -> None:
    """Note the items that go to *target*."""
    snapshot.take(states, where=request.where, target=target if request.incremental else None, timeout_s=request.timeout_s)


def chosen_sink(request: ExportRequest) -> tuple[str, Sink]:
    """Return the sink that is asked for, with its name; UsageError when there is none, or it cannot write there."""
    by_suffix = None if request.output is None else format_of(request.output)
    suffix = "" if request.output is None else request.output.suffix.lower()
    if request.format is not None:
        name, compression = request.format, COMPRESSIONS.get(suffix, "")
    elif by_suffix is not None:
        name, compression = by_suffix
    elif request.output is None:
        name, compression = "jsonl", ""
    else:
        raise UsageError(f"--output: the suffix of {request.output.name} names no format", f"Give --format: {', '.join(sink_names())}.")
    if request.output is None and name not in PRINTABLE:
        raise UsageError(f"--format {name} cannot be printed", f"Give --output, or one of {', '.join(PRINTABLE)}.")
    refuse_place(request)
    settings = SinkSettings(members=request.members, raw_formulas=request.raw_formulas, compression=compression)
    return name, sink(name, settings)


def refuse_place(request: ExportRequest) -> None:
    """Refuse a file that is a directory, in a directory that is not there, the input, the ledger, or the other file."""
    paths = [path for path in (request.output, request.failures_path) if path is not None]
    if len({path.absolute() for path in paths}) < len(paths):
        raise UsageError("--output and --failures are the same file", "Give another for one of them.")
    with Reader(request.ledger) as reader:
        inputs = [one["path"] for one in run.get(reader, request.run_id).fingerprint or []]
    for path in paths:
        refuse_same(str(path), inputs, ledger_files(request.ledger).all())
        if path.is_dir() or not path.parent.is_dir():
            why = "is a directory" if path.is_dir() else "cannot be made: its directory is not there"
            raise UsageError(f"{path} {why}", "Give a file in a directory that is there.")


@dataclass(slots=True)
class Exporting:
    """One export, once it is known what leaves."""

    request: ExportRequest
    snapshot: Snapshot
    failures: Snapshot
    damage: Damage

    def write(self, name: str, made: Sink) -> Exported:
        """Write the files, remember it if that is wanted, and return what was done."""
        is_nothing_new = self.request.incremental and not self.snapshot.counts()
        count = 0 if is_nothing_new else self.write_results(made)
        failures, failed_count = self.write_failures()
        if self.request.incremental:
            self.remember()
        output = None if is_nothing_new else self.request.output
        return Exported(name, output, count, failures, failed_count, len(self.damage.item_ids))

    def write_results(self, made: Sink) -> int:
        """Write what was taken and return how many items it was."""
        columns = self.columns() if made.wants_columns else []
        if self.request.output is not None:
            return write_rows(made, self.request.output, columns, self.rows())
        text, count = cast("TextFile", made), 0
        text.attach(cast("BinaryIO", self.request.stream), columns)
        for row in self.rows():
            text.write(row)
            count += 1
        text.close()
        return count

    def columns(self) -> list[Column]:
        """Return the columns for all values that were taken."""
        finder = ColumnFinder([name for name in self.request.members if name != "value"])
        for _, result in self.snapshot.results(ignored):
            finder.add(result.value_json)
        return finder.columns()

    def rows(self) -> Iterator[ExportRow]:
        """Yield what was taken; an item whose value is damaged is left out, or stands there with the error if errors are shown."""
        for item_id, result in self.snapshot.results(self.damage.note):
            if self.damage.is_last:
                self.damage.is_last = False
                self.damage.item_ids.append(item_id)
                if self.request.members == VALUES:
                    continue
            yield row_of(result)

    def write_failures(self) -> tuple[Path | None, int]:
        """Write the file of failures, if there is to be one; one of an earlier export that has become untrue is removed."""
        path, count = self.request.failures_path, sum(self.failures.counts().values())
        if path is None:
            return None, 0
        if count or (self.request.failures is not None and not self.request.incremental):
            write_failures(path, self.failures.payloads())
            return path, count
        if not self.request.incremental:
            with explained(path):
                path.unlink(missing_ok=True)
        return None, 0

    def remember(self) -> None:
        """Note in the ledger what has left; damaged values have not."""
        self.snapshot.forget(self.damage.item_ids)
        both = ((self.snapshot, self.request.target), (self.failures, str((self.request.failures_path or Path()).absolute())))
        made = [(snapshot, target) for snapshot, target in both if snapshot.counts()]
        if not made:
            return
        with closing(opened(self.request)) as ledger, ledger.transaction():
            for snapshot, target in made:
                record(ledger, snapshot, target, now_us())


def ignored(_error: LedgerDamagedError) -> None:
    """Say nothing of a damaged value: it is met again when it is written."""


def bring_up_to_date(request: ExportRequest) -> None:
    """Have a ledger of an earlier version migrated, so that it can remember exports; LedgerInUseError when somebody is at work with it."""
    with Reader(request.ledger) as reader:
        version = reader.raw.pragma("user_version")
    if version < SCHEMA_VERSION:
        with closing(open_owned(request)):
            return


def open_owned(request: ExportRequest) -> Connection:
    """Return a connection that was opened, and by that migrated, while nobody else worked with the ledger."""
    owner = Ownership(ledger_files(request.ledger), {"pid": os.getpid(), "host": process.host_name()})
    try:
        return opened(request)
    finally:
        owner.release()


def opened(request: ExportRequest) -> Connection:
    """Return a connection to write what an export leaves in the ledger."""
    return open_ledger(request.ledger, allow_network_fs=request.allow_network_fs)
