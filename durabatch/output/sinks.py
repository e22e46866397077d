"""
Sinks by name: where rows go, one value at a time.

    json, jsonl, csv     text; a suffix .gz or .zst compresses it; jsonl and csv grow while a run is on
    parquet, xlsx, db    tables in a file of their own, written whole

A package brings one by an entry point of the group ``durabatch.sinks``, whose name is the suffix of its files without the dot. It names a
function (or class) that takes :class:`SinkSettings` and returns a :class:`Sink`. Names of durabatch cannot be taken by others.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from durabatch.errors import UsageError
from durabatch.options import did_you_mean
from durabatch.output.atomic import replacing
from durabatch.output.columns import Column
from durabatch.output.rows import ExportRow

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

__all__ = ["ENTRY_POINTS", "GrowingSink", "Sink", "SinkSettings", "format_of", "require", "sink", "sink_names", "write_rows"]

ENTRY_POINTS = "durabatch.sinks"
#: Names to where they are made: module and class. They are imported when asked for, as some need packages of an extra.
BUILT_IN = {
    "csv": "durabatch.output.text_file:CsvFile",
    "db": "durabatch.output.database_file:DatabaseFile",
    "json": "durabatch.output.text_file:JsonFile",
    "jsonl": "durabatch.output.text_file:JsonLinesFile",
    "parquet": "durabatch.output.parquet_file:ParquetFile",
    "xlsx": "durabatch.output.workbook_file:WorkbookFile",
}
#: Other names of the same.
ALSO = {"sqlite": "db", "ndjson": "jsonl", "sqlite3": "db"}
#: What compresses text, by suffix.
COMPRESSIONS = {"gz": "gzip", "zst": "zstd"}
TEXTS = frozenset({"csv", "json", "jsonl"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """
    What a sink writes.

    Attributes:
        members: Of each row, in this order: of ``key``, ``state``, ``value``, ``error``, ``attempts``, ``payload``.
        raw_formulas: Texts that a spreadsheet would take for a formula are written as they are, in csv and xlsx.
        compression: ``gzip``, ``zstd`` or nothing; text formats alone know it.
    """

    members: tuple[str, ...] = ("key", "value")
    raw_formulas: bool = False
    compression: str = ""


@runtime_checkable
class Sink(Protocol):
    """
    Writes rows into one file. After an error it is closed, and what it wrote is worth nothing.

    Attributes:
        wants_columns: Whether ``open`` must know the fields of the values; a caller then looks at all of them first.
    """

    wants_columns: bool

    def open(self, path: Path, columns: Sequence[Column]) -> None:
        """Begin a new file at *path*, in place of what is there; *columns* are the fields of the values, empty for sinks that want none."""
        ...

    def write(self, row: ExportRow) -> None:
        """Write one row; nothing of it is kept."""
        ...

    def close(self) -> None:
        """Write the end and close the file; a second time does nothing. It need not be synced."""
        ...


@runtime_checkable
class GrowingSink(Sink, Protocol):
    """A sink whose file is of use before its end, and can be continued."""

    def cut(self) -> int:
        """Return how many bytes there are so far. They are on disk, and whatever follows can be taken away from behind them."""
        ...

    def forget(self) -> None:
        """Close the file as it is: what was written since the last cut is worth nothing."""
        ...

    def continue_at(self, path: Path, offset: int, columns: Sequence[Column]) -> None:
        """Take everything behind *offset*, which ``cut`` returned, away from the file at *path*, and go on there."""
        ...


def sink_names() -> list[str]:
    """Return the names of all sinks there are, sorted."""
    return sorted({*BUILT_IN, *brought_in().names})


def format_of(path: Path) -> tuple[str, str] | None:
    """Return (name of the sink, compression) that the suffix of *path* asks for, or None when it asks for none."""
    *_, before, last = ("", "", *path.name.lower().split("."))
    compression = COMPRESSIONS.get(last, "")
    name = ALSO.get(found := before if compression else last, found)
    if name in BUILT_IN:
        return (name, compression) if name in TEXTS or not compression else None
    return (name, compression) if name and not compression and name in brought_in().names else None


def sink(name: str, settings: SinkSettings, *, option: str = "--format") -> Sink:
    """
    Return the sink called *name*, new.

    Raises:
        UsageError: There is none of that name, it needs a package that is not installed, or a package brings one that does not work.
    """
    name = ALSO.get(name, name)
    if settings.compression and name not in TEXTS:
        raise UsageError(f"{option}: {name} is not compressed by its suffix", f"Leave .{settings.compression} out.")
    if name in BUILT_IN:
        module, _, made = BUILT_IN[name].partition(":")
        return cast("Sink", getattr(importlib.import_module(module), made)(settings))
    for point in brought_in().select(name=name):
        return made_by(point, settings, option)
    names = sink_names()
    raise UsageError(f"{option}: {name!r} is not one of {', '.join(names)}", did_you_mean(name, names))


def write_rows(made: Sink, path: Path, columns: Sequence[Column], rows: Iterable[ExportRow]) -> int:
    """
    Write *rows* to *path*, in place of what is there, and return how many they were; on return the file is on disk under its name.

    Raises:
        OutputError: It could not be written; OutputFullError for lack of room. What was at *path* before is there still, and nothing is left beside it.
    """
    count = 0
    with replacing(path) as part:
        try:
            made.open(part, columns)
            for row in rows:
                made.write(row)
                count += 1
        finally:
            made.close()
    return count


def require(package: str, extra: str, what: str) -> None:
    """Make sure that *package* is installed; UsageError that says how to get it when it is not."""
    if importlib.util.find_spec(package) is None:
        raise UsageError(f"{what} needs the package {package}", f"pip install 'durabatch[{extra}]'")


def brought_in() -> EntryPoints:
    """Return what installed packages bring."""
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINTS)


def made_by(point: EntryPoint, settings: SinkSettings, option: str) -> Sink:
    """Return the sink of an entry point; whatever goes wrong in making it is the package's, and said as such."""
    try:
        factory: Callable[[SinkSettings], object] = point.load()
        made = factory(settings)
    except Exception as error:
        raise broken(point, " ".join(f"{type(error).__name__}: {error}".split()), option) from error
    if not isinstance(made, Sink):
        raise broken(point, f"{type(made).__name__} lacks wants_columns, open, write or close", option)
    return made


def broken(point: EntryPoint, why: str, option: str) -> UsageError:
    """Return the error for a sink that a package brings and that does not work."""
    package = f" of {point.dist.name}" if point.dist else ""
    return UsageError(
        f"{option}: {point.name!r}{package} ({point.value}) cannot be used: {why}", f"Use {', '.join(BUILT_IN)}, or mend the package."
    )
