"""
One file a batch, written when the batch has finished: ``batch_0001.json``, or ``.jsonl``, ``.csv``, ``.jsonl.zst``.

    {"run": name, "batch": number, "items": [{"key", "state", "value", "error", "attempts"}, ...]}

is what a ``.json`` file holds; the others hold its items, an object or a row each. Items stand in input order, one on a line, failed ones
included. Values are the stored JSON text, byte for byte. A directory belongs to one run: the name in the files that are there must be the
run's own; beside files that cannot hold it stands ``.durabatch.json``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from durabatch.errors import UsageError
from durabatch.output.atomic import write_whole
from durabatch.output.columns import ColumnFinder
from durabatch.output.rows import ExportRow, Leaving, object_pieces
from durabatch.output.sinks import SinkSettings, sink, write_rows

__all__ = ["BATCH_FILES", "BatchFiles", "export_row", "is_batch_file", "make_directory", "refuse_foreign"]

#: The names of the files.
BATCH_FILES, SUMMARY, MARK = "batch_*", "summary.json", ".durabatch.json"
BATCH_FILE = re.compile(r"batch_\d{4,}\.(json|jsonl|csv|jsonl\.zst)")
#: What each of them begins with: by the name behind it a directory is known.
OPENING = re.compile(r'\{\s*"run":\s*')
#: Bytes in which the run's name must stand; names are far shorter.
HEAD_BYTES = 16 << 10
#: What a batch file tells of each item.
MEMBERS = ("key", "state", "value", "error", "attempts")
#: Sinks and compressions by the format of batch files; ``json`` is a document of its own.
FORMATS = {"jsonl": ("jsonl", ""), "csv": ("csv", ""), "jsonl.zst": ("jsonl", "zstd")}


class BatchFiles:
    """
    Writes the batches of the run *run_name* into *directory*, which is made when it is missing.

    Args:
        format: ``json``, ``jsonl``, ``csv`` or ``jsonl.zst``.

    Attributes:
        streams: Batches leave as they finish.

    Raises:
        UsageError: The directory cannot be used, or holds the output of another run. Nothing was written.
    """

    streams = True

    def __init__(self, directory: str | os.PathLike[str], run_name: str, format: str = "json") -> None:
        self.directory = Path(directory)
        self.run_name = run_name
        self.format = format
        make_directory(self.directory)
        refuse_foreign(self.directory, run_name)
        if format != "json" and not (self.directory / MARK).exists():
            write_whole(self.directory / MARK, (f'{{"run":{to_json(run_name).decode()}}}\n',))

    @property
    def record(self) -> dict[str, Any]:
        """What is remembered of the place."""
        return {"path": str(self.directory), "format": self.format}

    def take_up(self, record: dict[str, Any], published: int) -> bool:
        """Tell whether the files that are marked as written are those of this place and format."""
        return not published or {**self.record, **record, "batches": None} == {**self.record, "batches": None}

    def path_of(self, number: int) -> Path:
        """Return the path of the file of batch *number*."""
        return self.directory / f"batch_{number:04d}.{self.format}"

    def write(self, number: int, rows: Iterable[Leaving]) -> Path:
        """
        Write the file of batch *number*, in place of an earlier one, and return its path; on return it is on disk.

        Args:
            rows: The items, which are looked at twice for a table.

        Raises:
            OutputError: It could not be written; no part of it is left.
        """
        path = self.path_of(number)
        if self.format == "json":
            write_whole(path, self.pieces(number, rows))
            return path
        name, compression = FORMATS[self.format]
        made = sink(name, SinkSettings(members=MEMBERS, compression=compression), option="--output-format")
        finder = ColumnFinder(MEMBERS)
        if made.wants_columns:
            for row in rows:
                finder.add(row.value_json)
        write_rows(made, path, finder.columns(), map(export_row, rows))
        return path

    def pieces(self, number: int, rows: Iterable[Leaving]) -> Iterator[str]:
        """Yield the text of a JSON document, a value at a time."""
        yield f'{{"run":{to_json(self.run_name).decode()},"batch":{number},"items":['
        for index, row in enumerate(rows):
            yield ",\n" if index else "\n"
            yield from object_pieces(row, MEMBERS)
        yield "\n]}\n"

    def settle(self) -> dict[str, Any]:
        """Return what is to be remembered; every file is on disk already."""
        return self.record

    def undo(self) -> None:
        """Do nothing: a file that is written again has the same content."""

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def output_bytes(self) -> int:
        """Return the size of all batch files together."""
        return sum(path.stat().st_size for path in self.directory.glob(BATCH_FILES) if is_batch_file(path.name))


def is_batch_file(name: str) -> bool:
    """Tell whether a file of this name may be one that is written here."""
    return BATCH_FILE.fullmatch(name) is not None or name in (SUMMARY, MARK)


def export_row(row: Leaving) -> ExportRow:
    """Return what a sink writes."""
    return ExportRow(row.key, row.state, row.value_json, row.error, row.attempts)


def make_directory(directory: Path) -> None:
    """Make sure that *directory* is a directory that we may write to; its parents are made too."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"--output: {directory} is not a directory", "Choose another.") from None
    except OSError as error:
        raise UsageError(f"--output: cannot make {directory} ({error.strerror})", "Choose another place.") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"--output: no permission to write in {directory}", "Change its permissions or choose another.")


def refuse_foreign(directory: Path, run_name: str) -> None:
    """Refuse a directory in which a file of ours tells of another run, or a file of another program has one of our names."""
    for path in (*first_batch_file(directory), directory / SUMMARY, directory / MARK):
        owner = run_of(path)
        if owner is None:
            raise UsageError(f"--output: {path} was not written by durabatch", "Choose an empty directory.")
        if owner not in ("", run_name):
            raise UsageError(f"--output: {directory} holds the output of run {owner!r}", "Choose another directory, or remove those files.")


def first_batch_file(directory: Path) -> list[Path]:
    """Return the first batch file by name; one that cannot tell of its run only where nothing beside it does."""
    found = sorted(path for path in directory.glob(BATCH_FILES) if BATCH_FILE.fullmatch(path.name))
    documents = [path for path in found if path.suffix == ".json"]
    return documents[:1] if documents or (directory / MARK).exists() else found[:1]


def run_of(path: Path) -> str | None:
    """Return the name of the run that wrote *path*, '' when there is no such file, None when it is none of ours."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UsageError(f"--output: cannot read {path} ({error.strerror})", "Choose another directory.") from error
    found = OPENING.match(head)
    if found is None:
        return None
    try:
        name, _ = JSONDecoder().raw_decode(head, found.end())
    except JSONDecodeError:
        return None
    return name if isinstance(name, str) and name else None
