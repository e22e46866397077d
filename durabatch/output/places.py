"""
Where the output of a run goes: a directory, into which each batch goes as a file, or one file for all.

What the name of a file asks for decides: ``out/results.csv`` is a file, ``out`` a directory, and so is everything that is one already.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from durabatch.errors import UsageError
from durabatch.output.batch_files import is_batch_file
from durabatch.output.failures import sibling
from durabatch.output.sinks import format_of

__all__ = ["PARTIAL", "file_format", "is_file_output", "own_places", "partial_of", "refuse_same"]

#: What a file is called while it grows.
PARTIAL = ".partial"


def file_format(output: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Return (name of the sink, compression) of the file that *output* is, or None when it is a directory."""
    path = Path(output)
    return None if path.is_dir() else format_of(path)


def is_file_output(output: str | os.PathLike[str]) -> bool:
    """Tell whether *output* is one file for all batches."""
    return file_format(output) is not None


def partial_of(path: Path) -> Path:
    """Return what the file *path* is called while it grows."""
    return path.with_name(path.name + PARTIAL)


def own_places(output: str | None) -> tuple[str, ...]:
    """Return everything that *output* may consist of, so that none of it is taken for an input: a directory or file, and what lies beside it."""
    if output is None:
        return ()
    path = Path(output)
    return (output, str(partial_of(path)), str(sibling(path)))


def refuse_same(output: str | None, inputs: Iterable[str], ledger_files: Iterable[str]) -> None:
    """
    Make sure that the output goes neither over the input nor over the ledger.

    Args:
        inputs: What is read, as it was given; ``-`` and patterns do no harm.
        ledger_files: The ledger and its side files.

    Raises:
        UsageError: It would. Nothing was written.
    """
    if output is None:
        return
    place = os.path.realpath(output)
    partial = os.path.realpath(partial_of(Path(output)))
    if {place, partial} & {os.path.realpath(one) for one in ledger_files}:
        raise UsageError(f"--output: {output} is the ledger", "Choose another file.")
    for one in inputs:
        if one != "-" and os.path.exists(one):
            refuse_input(output, place, partial, os.path.realpath(one))


def refuse_input(output: str, place: str, partial: str, found: str) -> None:
    """Refuse an input that the output is, or that is one of the files which the output consists of."""
    if found in (place, partial):
        what = "directory" if os.path.isdir(found) else "file"
        raise UsageError(f"output and input are the same {what}: {output}", f"Choose another {what} for --output.")
    if not is_file_output(output) and os.path.dirname(found) == place and is_batch_file(os.path.basename(found)):
        raise UsageError(f"output and input are the same file: {found} would be written by --output {output}", "Choose another directory.")
