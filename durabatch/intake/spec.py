"""
What Python users hand in for files: ``durabatch.csv("servers.csv", key="host")``. Nothing is opened before the run starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from durabatch import options

__all__ = ["Choice", "FileChoice", "InputSpec", "chunks", "csv", "files", "json", "jsonl", "lines", "results_of", "xlsx"]

#: One path, as users write it.
PathText = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """
    Inputs and how to read them. The fields have the names of the settings, but for ``inputs``, and only values that JSON can hold.

    Attributes:
        inputs: Paths, directories, patterns, ``run:NAME`` or ``run:NAME@LEDGER``, or ``-`` for standard input.
        format: A name of :func:`durabatch.intake.registry.format_names`; None goes by the suffix.
        key: Field of a record that is its key; None looks at the first record.
        delimiter: What separates columns; None goes by the format and the first lines.
        sheet: Sheet of a workbook; None for the first.
        encoding: Encoding of text.
        null: Lines end with NUL instead of a newline.
        numbers: ``exact`` refuses numbers of JSON that cannot be kept exactly, ``text`` keeps their text.
        files: Plain files are items too, not lists.
        include: Patterns for the names of files, one of which must match; empty takes all.
        exclude: Patterns for names or paths that are left out.
        hidden: Names that begin with a dot are taken, too.
        gitignore: What .gitignore files name is left out.
        min_size: Fewest bytes of a file.
        max_size: Most bytes of a file.
        chunk_size: Most bytes of a chunk.
        overlap: Bytes that a chunk repeats of the one before it.
        group_by: One item for each value of that field.
        range: ``A:B``, counted from 1, both included; either may be missing.
        limit: Most items.
        select: The keys of the items to take; empty takes all.
        sample: So many items, chosen at random.
    """

    inputs: tuple[str, ...]
    format: str | None = None
    key: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    encoding: str = "utf-8"
    null: bool = False
    numbers: str = "exact"
    files: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = True
    gitignore: bool = False
    min_size: int | None = None
    max_size: int | None = None
    chunk_size: int = 4096
    overlap: int = 0
    group_by: str | None = None
    range: str | None = None
    limit: int | None = None
    select: tuple[str, ...] = ()
    sample: int | None = None

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> InputSpec:
        """Return the spec that a run has on record, where tuples became lists."""
        fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
        return cls(**fields)

    @property
    def wanted_format(self) -> str | None:
        """The format that is asked for, by name or because files are items; None leaves it to the suffix."""
        return "files" if self.files and self.format is None else self.format

    @property
    def description(self) -> str:
        """The inputs as typed."""
        return " ".join(self.inputs) or "-"


class Choice(TypedDict, total=False):
    """Which items of an input are taken, and how: keywords of every function here. They are fields of :class:`InputSpec`."""

    group_by: str | None
    range: str | None
    limit: int | None
    select: str | Iterable[str]
    sample: int | None


class FileChoice(Choice, total=False):
    """Which files of directories and patterns are taken. They are fields of :class:`InputSpec`."""

    include: str | Iterable[str]
    exclude: str | Iterable[str]
    hidden: bool
    gitignore: bool
    min_size: int | str | None
    max_size: int | str | None


def lines(*paths: PathText, null: bool = False, encoding: str = "utf-8", **choice: Unpack[Choice]) -> InputSpec:
    """Return the lines of text files as items: each is its own key. With *null*, names that end with NUL, as ``find -print0`` writes them."""
    return InputSpec(inputs=_texts(paths), format="lines", null=null, encoding=encoding, **_fields(choice))


def csv(
    *paths: PathText, key: str | None = None, delimiter: str | None = None, encoding: str = "utf-8", **choice: Unpack[Choice]
) -> InputSpec:
    """Return the rows of CSV files as items: objects of column name to text, known by the column *key*. The delimiter is found out."""
    return InputSpec(inputs=_texts(paths), format="csv", key=key, delimiter=delimiter, encoding=encoding, **_fields(choice))


def jsonl(*paths: PathText, key: str | None = None, encoding: str = "utf-8", numbers: str = "exact", **choice: Unpack[Choice]) -> InputSpec:
    """Return the JSON values of files with one value a line as items, known by the field *key*, dotted for a field inside a field."""
    return InputSpec(inputs=_texts(paths), format="jsonl", key=key, encoding=encoding, numbers=numbers, **_fields(choice))


def json(*paths: PathText, key: str | None = None, encoding: str = "utf-8", numbers: str = "exact", **choice: Unpack[Choice]) -> InputSpec:
    """Return the elements of JSON files that hold one array as items, known as those of :func:`jsonl`. The array is never in memory."""
    return InputSpec(inputs=_texts(paths), format="json", key=key, encoding=encoding, numbers=numbers, **_fields(choice))


def xlsx(*paths: PathText, sheet: str | None = None, key: str | None = None, **choice: Unpack[Choice]) -> InputSpec:
    """Return the rows of a sheet (None: the first) as items: objects of column name to value, known by the column *key*."""
    return InputSpec(inputs=_texts(paths), format="xlsx", key=key, sheet=sheet, **_fields(choice))


def files(*paths: PathText, **choice: Unpack[FileChoice]) -> InputSpec:
    """Return files as items, each ``{"path", "bytes", "mtime"}``: plain paths, directories with all below, patterns such as ``src/**/*.py``."""
    return InputSpec(inputs=_texts(paths), format="files", **_fields(choice))


def chunks(
    *paths: PathText, chunk_size: int | str = 4096, overlap: int | str = 0, encoding: str = "utf-8", **choice: Unpack[FileChoice]
) -> InputSpec:
    """Return pieces of documents as items, each ``{"path", "chunk", "start", "end", "text"}`` of at most *chunk_size* bytes."""
    sizes: dict[str, Any] = {"chunk_size": _size("chunk_size", chunk_size), "overlap": _size("overlap", overlap)}
    return InputSpec(inputs=_texts(paths), format="chunks", encoding=encoding, **sizes, **_fields(choice))


def results_of(name: str, *, ledger: PathText | None = None, **choice: Unpack[Choice]) -> InputSpec:
    """Return the succeeded results of an earlier run as items: key and value, in input order. *ledger* is another one than the run's own."""
    return InputSpec(inputs=(f"run:{name}" if ledger is None else f"run:{name}@{os.fspath(ledger)}",), **_fields(choice))


def _fields(choice: Choice | FileChoice) -> dict[str, Any]:
    """Return keywords as fields: one text where several may stand is one of them, and sizes are bytes."""
    return {name: _field(name, value) for name, value in choice.items()}


def _field(name: str, value: object) -> object:
    if name in {"include", "exclude", "select"}:
        return _several(value)
    return _size(name, value) if name in {"min_size", "max_size"} else value


def _size(name: str, value: object) -> object:
    """Return bytes for a text such as ``10MiB``; anything else as it is, to be checked with the rest."""
    return options.parse_size(value, option=name, minimum=0) if isinstance(value, str) else value


def _several(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)  # type: ignore[arg-type]


def _texts(paths: tuple[PathText, ...]) -> tuple[str, ...]:
    return tuple(os.fspath(path) for path in paths)
