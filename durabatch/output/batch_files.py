"""
One JSON file a batch, written when the batch has finished: ``batch_0001.json``.

    {"run": name, "batch": number, "items": [{"key", "state", "value", "error", "attempts"}, ...]}

Items stand in input order, one on a line, failed ones included. Values are the stored JSON text, byte for byte. A directory belongs to
one run: the name in the files that are there must be the run's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from json import JSONDecodeError, JSONDecoder
from pathlib import Path

from pydantic_core import to_json

from durabatch.errors import UsageError
from durabatch.models import Result
from durabatch.output.atomic import write_whole
from durabatch.output.lines import members

__all__ = ["BATCH_FILES", "BatchFiles", "make_directory", "refuse_foreign"]

#: The names of the files.
BATCH_FILES, SUMMARY = "batch_*.json", "summary.json"
#: What each of them begins with: by the name behind it a directory is known.
OPENING = re.compile(r'\{\s*"run":\s*')
#: Bytes in which the run's name must stand; names are far shorter.
HEAD_BYTES = 16 << 10


class BatchFiles:
    """
    Writes the batches of the run *run_name* into *directory*, which is made when it is missing.

    Raises:
        UsageError: The directory cannot be used, or holds the output of another run. Nothing was written.
    """

    def __init__(self, directory: str | os.PathLike[str], run_name: str) -> None:
        self.directory = Path(directory)
        self.run_name = run_name
        make_directory(self.directory)
        refuse_foreign(self.directory, run_name)

    def write(self, number: int, results: Sequence[Result]) -> Path:
        """
        Write the file of batch *number*, in place of an earlier one, and return its path; on return it is on disk.

        Raises:
            OutputError: It could not be written; no part of it is left.
        """
        path = self.directory / f"batch_{number:04d}.json"
        write_whole(path, self.pieces(number, results))
        return path

    def pieces(self, number: int, results: Sequence[Result]) -> Iterator[str]:
        """Yield the text of the file, an item at a time."""
        yield f'{{"run":{to_json(self.run_name).decode()},"batch":{number},"items":['
        for index, result in enumerate(results):
            yield (",\n" if index else "\n") + members(result, ("key", "state", "value", "error", "attempts"))
        yield "\n]}\n"


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
    for path in (*sorted(directory.glob(BATCH_FILES))[:1], directory / SUMMARY):
        owner = run_of(path)
        if owner is None:
            raise UsageError(f"--output: {path} was not written by durabatch", "Choose an empty directory.")
        if owner not in ("", run_name):
            raise UsageError(f"--output: {directory} holds the output of run {owner!r}", "Choose another directory, or remove those files.")


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
