"""
Choosing the source: what is a list, what is an item itself, and how a list is read.

Suffix, kind of path and flags decide before anything is read; what cannot be is refused here, with the remedy.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from durabatch.errors import UsageError
from durabatch.intake.chain import ChainSource
from durabatch.intake.delimited import DelimitedReader
from durabatch.intake.files import FilesPart, check_include, root_of
from durabatch.intake.iterable import IterableSource
from durabatch.intake.jsonl import JsonlReader
from durabatch.intake.keys import Keys
from durabatch.intake.lines import LinesReader
from durabatch.intake.problems import cannot_read, did_you_mean, printable
from durabatch.intake.source import Part, Reader, Source
from durabatch.intake.spec import InputSpec
from durabatch.intake.streams import ByteStream, PipeStream, RecodedStream, check_encoding, is_utf8, open_stream
from durabatch.intake.text import LineReader

__all__ = ["DEFAULT_MAX_ITEM_BYTES", "FORMATS", "open_items", "open_source"]

FORMATS = ("lines", "csv", "tsv", "jsonl", "files")
SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
#: Suffixes that say that a file is no list of lines.
FOREIGN_SUFFIXES = frozenset(
    {
        ".7z",
        ".bz2",
        ".db",
        ".doc",
        ".docx",
        ".feather",
        ".gz",
        ".json",
        ".lz4",
        ".ods",
        ".parquet",
        ".pdf",
        ".sqlite",
        ".tar",
        ".tgz",
        ".xls",
    }
    | {".xlsx", ".xml", ".xz", ".yaml", ".yml", ".zip", ".zst"}
)
DEFAULT_MAX_ITEM_BYTES = 16 << 20
DELIMITERS = {"csv": ",", "tsv": "\t"}


def open_items(items: Iterable[object], *, key: str | None = None, max_item_bytes: int = DEFAULT_MAX_ITEM_BYTES) -> Source:
    """Return the source of Python values; UsageError when *items* is text or cannot be iterated."""
    _check_key(key)
    return IterableSource(items, key=key, max_item_bytes=max_item_bytes)


def open_source(
    inputs: Sequence[str] | InputSpec,
    *,
    format: str | None = None,
    key: str | None = None,
    include: tuple[str, ...] = (),
    as_files: bool = False,
    null: bool = False,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    max_item_bytes: int = DEFAULT_MAX_ITEM_BYTES,
    exclude: Collection[str] = (),
    stdin: BinaryIO | None = None,
) -> Source:
    """
    Return the source of *inputs*, one after the other. Nothing is read yet, but every path was found.

    Args:
        inputs: Paths, directories, patterns, or ``-``; none at all means standard input. A spec brings its own settings, and those
            given beside it are not looked at, apart from *max_item_bytes*, *exclude* and *stdin*.
        format: One of :data:`FORMATS`; None goes by the suffix.
        key: Field of records that is the key, dotted for a field inside a field; None looks at the first record.
        include: Patterns for the names of file items.
        as_files: Plain files are items too, not lists.
        null: Lines end with NUL.
        encoding: Encoding of lists.
        delimiter: What separates columns; None goes by the format.
        max_item_bytes: Most bytes of one line or row.
        exclude: Paths that are never file items, nor anything below them.
        stdin: Standard input in bytes, if it may be read.

    Raises:
        UsageError: Options that do not go together, an unknown format or encoding, no input.
        InputError: A path is not there or cannot be read.
    """
    if isinstance(inputs, str):
        inputs = (inputs,)
    if not isinstance(inputs, InputSpec):
        wanted = "files" if as_files and format is None else format
        if as_files and wanted != "files":
            raise UsageError(f"--files and --format {format} contradict each other")
        inputs = InputSpec(inputs=tuple(inputs), format=wanted, key=key, include=include, null=null, encoding=encoding, delimiter=delimiter)
    _check(inputs)
    keys = Keys(inputs.key)
    parts = _Parts(inputs, keys, max_item_bytes, exclude, stdin).parts()
    return ChainSource(inputs.description, parts, keys)


def _check(spec: InputSpec) -> None:
    if spec.format is not None and spec.format not in FORMATS:
        raise UsageError(f"unknown format '{spec.format}'; formats: {', '.join(FORMATS)}", did_you_mean(spec.format, FORMATS))
    if spec.inputs.count("-") > 1:
        raise UsageError("standard input ('-') can be read only once")
    if spec.delimiter is not None and (len(spec.delimiter) != 1 or spec.delimiter in '"\r\n\0'):
        raise UsageError(f"--delimiter {spec.delimiter!r} is not one character that can separate columns")
    _check_key(spec.key)
    check_encoding(spec.encoding)
    check_include(spec.include)


def _check_key(key: str | None) -> None:
    if key == "":
        raise UsageError("--key is empty", "Name the field that identifies an item, or leave the option out.")


@dataclass
class TextPart:
    """
    One list of items: a file, a named pipe, or standard input.

    Args:
        where: Its path, or ``stdin``, for messages.
        path: Path of a plain file; None for what cannot be read twice.
        stdin: Standard input, when it is that.
    """

    where: str
    path: str | None
    format: str
    spec: InputSpec
    keys: Keys
    max_item_bytes: int
    stdin: BinaryIO | None = None

    def open(self, state: dict[str, Any] | None, base: int) -> Reader:
        """Return a reader behind *state*, whose rows count from *base* + 1."""
        separator = b"\0" if self.spec.null else b"\n"
        encoding = self.spec.encoding
        lines = LineReader(self._stream(), self.where, encoding=encoding, limit_bytes=self.max_item_bytes, separator=separator)
        try:
            return self._reader(lines, state, base)
        except BaseException:
            lines.close()
            raise

    def _stream(self) -> ByteStream:
        if self.stdin is None:
            return open_stream(self.where, self.spec.encoding)
        stream: ByteStream = PipeStream(self.where, self.stdin, owned=False)
        return stream if is_utf8(self.spec.encoding) else RecodedStream(stream, self.spec.encoding)

    def _reader(self, lines: LineReader, state: dict[str, Any] | None, base: int) -> Reader:
        if self.format in DELIMITERS:
            delimiter = self.spec.delimiter or DELIMITERS[self.format]
            return DelimitedReader(lines, base, self.keys, delimiter=delimiter, state=state)
        if state is not None:
            lines.go_to(state)
        return JsonlReader(lines, base, self.keys) if self.format == "jsonl" else LinesReader(lines, base)


@dataclass
class _Parts:
    """Makes the parts of a source from its spec."""

    spec: InputSpec
    keys: Keys
    max_item_bytes: int
    exclude: Collection[str]
    stdin: BinaryIO | None

    def parts(self) -> list[Part]:
        """Return one part per list and one per group of neighbouring file items; UsageError and InputError as in open_source."""
        parts: list[Part] = []
        for argument in self.spec.inputs or ("-",):
            part = self._standard_input() if argument == "-" else self._part(argument)
            if isinstance(part, FilesPart) and parts and isinstance(parts[-1], FilesPart):
                parts[-1].roots += part.roots
            else:
                parts.append(part)
        self._check_parts(parts)
        return parts

    def _check_parts(self, parts: list[Part]) -> None:
        texts = [part for part in parts if isinstance(part, TextPart)]
        if self.spec.include and len(texts) == len(parts):
            raise UsageError("--include is for files as items", "Give a directory or a pattern, or --files.")
        unkeyed = next((part for part in parts if not isinstance(part, TextPart) or part.format == "lines"), None)
        if self.spec.key is not None and unkeyed is not None:
            why = (
                f"{unkeyed.where} is read as lines, each its own key"
                if isinstance(unkeyed, TextPart)
                else "a file item is known by its path"
            )
            raise UsageError(f"--key '{self.spec.key}' needs records: {why}", "For records use --format csv, tsv or jsonl.")
        foreign = next((part.format for part in texts if part.format != "lines"), None)
        if self.spec.null and foreign is not None:
            raise UsageError(f"--null is for lines, the input is {foreign}")
        if self.spec.delimiter is not None and not any(part.format in DELIMITERS for part in texts):
            raise UsageError("--delimiter is for csv and tsv")

    def _standard_input(self) -> Part:
        if self.stdin is None or (not self.spec.inputs and self.stdin.isatty()):
            raise UsageError("no input", "Give a file, a directory or a pattern, or write a list to standard input.")
        if self.spec.format == "files":
            raise UsageError("standard input is a list, it cannot be read as files", "Give a directory or a pattern.")
        return TextPart("stdin", None, self.spec.format or "lines", self.spec, self.keys, self.max_item_bytes, self.stdin)

    def _part(self, argument: str) -> Part:
        root = root_of(argument)
        try:
            mode = os.stat(root.path or ".").st_mode
        except (OSError, ValueError) as error:
            raise cannot_read(argument, error if isinstance(error, OSError) else OSError(0, str(error))) from error
        if root.pattern is not None or stat.S_ISDIR(mode):
            kind = "a pattern" if root.pattern is not None else "a directory"
            if self.spec.format not in {None, "files"}:
                why = f"{printable(argument)} is {kind}, which gives one item per file: --format {self.spec.format} reads lists"
                raise UsageError(why, "Name the lists one by one, or leave --format out.")
            return self._files(argument)
        return self._files(argument) if self.spec.format == "files" else self._text(argument, mode)

    def _files(self, argument: str) -> Part:
        return FilesPart([root_of(argument)], self.spec.include, self.exclude)

    def _text(self, path: str, mode: int) -> Part:
        suffix = os.path.splitext(path)[1].lower()
        format = self.spec.format or SUFFIXES.get(suffix, "lines")
        if self.spec.format is None and suffix in FOREIGN_SUFFIXES:
            raise UsageError(
                f"{printable(path)}: a {suffix} file is no list", "Give csv, tsv, jsonl or lines; --files makes the file itself an item."
            )
        if not os.access(path, os.R_OK):
            raise cannot_read(path, PermissionError())
        plain = path if stat.S_ISREG(mode) else None
        return TextPart(path, plain, format, self.spec, self.keys, self.max_item_bytes)
