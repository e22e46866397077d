"""
What Python users hand in for files: ``durabatch.csv("servers.csv", key="host")``. Nothing is opened before the run starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["InputSpec", "csv", "files", "jsonl", "lines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """
    Inputs and how to read them; the fields are those of :func:`durabatch.intake.open.open_source`.

    Attributes:
        inputs: Paths, directories, patterns, or ``-`` for standard input.
        format: ``lines``, ``csv``, ``tsv``, ``jsonl`` or ``files``; None goes by the suffix.
        key: Field of a record that is its key; None looks at the first record.
        include: Patterns for the names of files, one of which must match; empty takes all.
        null: Lines end with NUL instead of a newline.
        encoding: Encoding of text.
        delimiter: What separates columns; None goes by the format.
    """

    inputs: tuple[str, ...]
    format: str | None = None
    key: str | None = None
    include: tuple[str, ...] = ()
    null: bool = False
    encoding: str = "utf-8"
    delimiter: str | None = None

    @property
    def description(self) -> str:
        """The inputs as typed."""
        return " ".join(self.inputs) or "-"


def lines(*paths: str | os.PathLike[str], null: bool = False, encoding: str = "utf-8") -> InputSpec:
    """Return the lines of text files as items: each is its own key. With *null*, names that end with NUL, as ``find -print0`` writes them."""
    return InputSpec(inputs=_texts(paths), format="lines", null=null, encoding=encoding)


def csv(*paths: str | os.PathLike[str], key: str | None = None, delimiter: str = ",", encoding: str = "utf-8") -> InputSpec:
    """Return the rows of CSV files as items: objects of column name to text, known by the column *key*."""
    return InputSpec(inputs=_texts(paths), format="csv", key=key, delimiter=delimiter, encoding=encoding)


def jsonl(*paths: str | os.PathLike[str], key: str | None = None, encoding: str = "utf-8") -> InputSpec:
    """Return the JSON values of files with one value a line as items, known by the field *key*, dotted for a field inside a field."""
    return InputSpec(inputs=_texts(paths), format="jsonl", key=key, encoding=encoding)


def files(*paths: str | os.PathLike[str], include: str | Iterable[str] = ()) -> InputSpec:
    """Return files as items, each ``{"path", "bytes", "mtime"}``: plain paths, directories with all below, patterns such as ``src/**/*.py``."""
    wanted = (include,) if isinstance(include, str) else tuple(include)
    return InputSpec(inputs=_texts(paths), format="files", include=wanted)


def _texts(paths: tuple[str | os.PathLike[str], ...]) -> tuple[str, ...]:
    return tuple(os.fspath(path) for path in paths)
