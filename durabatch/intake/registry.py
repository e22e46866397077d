"""
Formats of input by name and by suffix: those of durabatch, and those that installed packages bring.

A package brings one by an entry point of the group ``durabatch.sources``; it names a function (or class) that takes an
:class:`~durabatch.intake.spec.InputSpec` and one input as typed, and returns a :class:`~durabatch.intake.source.Part`. What the input
stands for is the package's business, be it a path or not. Names of durabatch cannot be taken by others.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from durabatch.errors import UsageError
from durabatch.intake.problems import did_you_mean, printable
from durabatch.intake.source import Part
from durabatch.intake.spec import InputSpec

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

__all__ = ["ENTRY_POINTS", "FILE_FORMATS", "FORMATS", "TEXT_FORMATS", "check_format", "format_by_name", "format_names", "part_of_package"]

ENTRY_POINTS = "durabatch.sources"
#: Lists that are text, which standard input can be.
TEXT_FORMATS = ("lines", "csv", "tsv", "jsonl", "json")
#: Formats whose items are files or come from them, so that directories and patterns can be given.
FILE_FORMATS = ("files", "chunks")
FORMATS = (*TEXT_FORMATS, "xlsx", *FILE_FORMATS)
SUFFIXES = {
    ".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".tab": "tsv", ".tsv": "tsv", ".xlsm": "xlsx", ".xlsx": "xlsx",
}  # fmt: skip
#: Suffixes that say that a file is no list of lines.
FOREIGN_SUFFIXES = frozenset(
    {
        ".7z", ".bz2", ".db", ".doc", ".docx", ".feather", ".lz4", ".ods", ".parquet", ".pdf", ".sqlite", ".tar", ".tgz", ".xls", ".xlsb",
        ".xml", ".xz", ".yaml", ".yml", ".zip",
    }
)  # fmt: skip


def format_names() -> list[str]:
    """Return the names of all formats there are: our own, then those of packages, sorted."""
    return [*FORMATS, *sorted(brought_in().names - set(FORMATS))]


def check_format(name: str | None) -> None:
    """Raise UsageError unless *name* is that of a format, or None."""
    if name is None or name in FORMATS or name in brought_in().names:
        return
    names = format_names()
    raise UsageError(f"unknown format '{printable(name)}'; formats: {', '.join(names)}", did_you_mean(name, names))


def format_by_name(path: str) -> str:
    """
    Return the format of the list *path*, by its suffix.

    Raises:
        UsageError: The suffix is that of something that is no list.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix in FOREIGN_SUFFIXES:
        raise UsageError(
            f"{printable(path)}: a {suffix} file is no list",
            "Give lines, csv, tsv, jsonl, json or xlsx; --files makes the file itself an item.",
        )
    return SUFFIXES.get(suffix, "lines")


def part_of_package(spec: InputSpec, argument: str) -> Part | None:
    """
    Return the part for one input of a format that a package brings; None when the format is one of durabatch.

    Raises:
        UsageError: The package refuses the input, or does not work.
    """
    if spec.format is None or spec.format in FORMATS:
        return None
    return next((made_by(point, spec, argument) for point in brought_in().select(name=spec.format)), None)


def brought_in() -> EntryPoints:
    """Return what installed packages bring; looked for when asked, as the import alone costs more than a small run."""
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINTS)


def made_by(point: EntryPoint, spec: InputSpec, argument: str) -> Part:
    """Return the part of an entry point; whatever goes wrong in it is the package's, and said as such, but for wrong use."""
    try:
        made = point.load()(spec, argument)
    except UsageError:
        raise
    except Exception as error:
        raise broken(point, " ".join(f"{type(error).__name__}: {error}".split())) from error
    missing = [name for name in ("path", "repeatable", "open") if not hasattr(made, name)]
    if missing:
        raise broken(point, f"{type(made).__name__} lacks {', '.join(missing)}")
    part: Part = made
    return part


def broken(point: EntryPoint, why: str) -> UsageError:
    """Return the error for a format that a package brings and that does not work."""
    package = f" of {point.dist.name}" if point.dist else ""
    return UsageError(
        f"--format: '{point.name}'{package} ({point.value}) cannot be used: {why}", f"Use {', '.join(FORMATS)}, or mend the package."
    )
