"""
Choosing the source: what is a list, what is an item itself, and how a list is read.

Suffix, kind of path and settings decide before anything is read; what cannot be is refused here, with the remedy.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from durabatch.errors import InputError, UsageError
from durabatch.flow.chunking import Chunking
from durabatch.intake.chain import ChainSource
from durabatch.intake.chunks import ChunksPart
from durabatch.intake.combining import check_formats, check_key, check_spec
from durabatch.intake.compressed import bare_name
from durabatch.intake.files import FilesPart
from durabatch.intake.filtering import FileFilter
from durabatch.intake.grouping import Grouped
from durabatch.intake.iterable import IterableSource
from durabatch.intake.keys import Keys
from durabatch.intake.problems import cannot_read, printable
from durabatch.intake.registry import FILE_FORMATS, FORMATS, format_by_name, part_of_package
from durabatch.intake.runs import PREFIX, RunPart
from durabatch.intake.selecting import Selected, parse_range
from durabatch.intake.source import Part, Source
from durabatch.intake.spec import InputSpec
from durabatch.intake.text_part import TextPart
from durabatch.intake.walking import root_of
from durabatch.intake.workbook import WorkbookPart

__all__ = ["DEFAULT_MAX_ITEM_BYTES", "open_items", "open_source"]

DEFAULT_MAX_ITEM_BYTES = 16 << 20


def open_items(
    items: Iterable[object],
    *,
    key: str | None = None,
    max_item_bytes: int = DEFAULT_MAX_ITEM_BYTES,
    skip_bad: Callable[[InputError], bool] | None = None,
) -> Source:
    """Return the source of Python values, *skip_bad* as for ``open_source``; UsageError when *items* is text or cannot be iterated."""
    check_key(key)
    return IterableSource(items, key=key, max_item_bytes=max_item_bytes, skip_bad=skip_bad)


def open_source(
    inputs: Sequence[str] | InputSpec,
    *,
    max_item_bytes: int = DEFAULT_MAX_ITEM_BYTES,
    never: Collection[str] = (),
    stdin: BinaryIO | None = None,
    ledger: str | None = None,
    series: str | None = None,
    skip_bad: Callable[[InputError], bool] | None = None,
    notes: Callable[[str], None] | None = None,
    **fields: Any,
) -> Source:
    """
    Return the source of *inputs*, one after the other. Nothing is read yet, but every path and every run was found.

    Args:
        inputs: Paths, directories, patterns, ``run:NAME``, or ``-``; none at all means standard input. Or a spec.
        max_item_bytes: Most bytes of one item.
        never: Paths that are never file items, nor anything below them.
        stdin: Standard input in bytes, if it may be read.
        ledger: Where ``run:NAME`` is looked for.
        series: Name of the run that reads the source, which cannot be its own input.
        skip_bad: Told of an item that cannot be one; True leaves it out. None stops before the first.
        notes: Told what a person should know.
        fields: Those of :class:`~durabatch.intake.spec.InputSpec`, when *inputs* is none.

    Raises:
        UsageError: Settings that do not go together, an unknown format or encoding, no input.
        InputError: A path or a run is not there or cannot be read.
    """
    if not isinstance(inputs, InputSpec):
        inputs = InputSpec(inputs=(inputs,) if isinstance(inputs, str) else tuple(inputs), **fields)
    check_spec(inputs)
    FileFilter.of(inputs).check()
    keys = Keys(inputs.key, notes)
    maker = _Parts(inputs, keys, max_item_bytes, never, stdin, ledger, series, skip_bad, notes)
    source: Source = ChainSource(inputs.description, maker.parts(), keys)
    if inputs.group_by is not None:
        source = Grouped(source, inputs.group_by, max_item_bytes=max_item_bytes, skip_bad=skip_bad)
    return _selected(source, inputs)


def _selected(source: Source, spec: InputSpec) -> Source:
    """Return those items of *source* that the spec chooses; of groups, groups."""
    if (spec.range, spec.limit, spec.select, spec.sample) == (None, None, (), None):
        return source
    span = None if spec.range is None else parse_range(spec.range)
    return Selected(source, range=span, limit=spec.limit, select=spec.select, sample=spec.sample)


@dataclass
class _Parts:
    """Makes the parts of a source from its spec; the fields are those of :func:`open_source`."""

    spec: InputSpec
    keys: Keys
    max_item_bytes: int
    never: Collection[str]
    stdin: BinaryIO | None
    ledger: str | None
    series: str | None
    skip_bad: Callable[[InputError], bool] | None
    notes: Callable[[str], None] | None

    def parts(self) -> list[Part]:
        """Return one part per list and one per group of neighbouring file items; UsageError and InputError as in open_source."""
        parts: list[Part] = []
        formats: list[str] = []
        for argument in self.spec.inputs or ("-",):
            format, part = self._part(argument)
            formats.append(format)
            if not (parts and joined(parts[-1], part)):
                parts.append(part)
        check_formats(self.spec, formats)
        return parts

    def _part(self, argument: str) -> tuple[str, Part]:
        """Return the part of one input, and its format."""
        if argument == "-":
            return self._standard_input()
        if argument.startswith(PREFIX):
            return "run", self._run(argument)
        brought = part_of_package(self.spec, argument)
        if brought is not None:
            return str(self.spec.format), brought
        root = root_of(argument)
        try:
            mode = os.stat(root.path or ".").st_mode
        except (OSError, ValueError) as error:
            raise cannot_read(argument, error if isinstance(error, OSError) else OSError(0, str(error))) from error
        if root.pattern is not None or stat.S_ISDIR(mode):
            return self._many(argument, "a pattern" if root.pattern is not None else "a directory")
        wanted = self.spec.wanted_format
        if wanted in FILE_FORMATS:
            return self._files(argument, wanted)
        return self._list(argument, mode)

    def _standard_input(self) -> tuple[str, Part]:
        if self.stdin is None or (not self.spec.inputs and self.stdin.isatty()):
            raise UsageError("no input", "Give a file, a directory or a pattern, or write a list to standard input.")
        format = self.spec.wanted_format or "lines"
        if format in FILE_FORMATS:
            raise UsageError(f"standard input is a list, it cannot be read as {format}", "Give a directory or a pattern.")
        if format == "xlsx":
            raise UsageError("standard input cannot be read as xlsx", "Give the path of the workbook.")
        if format not in FORMATS:
            raise UsageError(f"standard input cannot be read as {format}", "Name the input.")
        return format, self._text("stdin", None, format, self.stdin)

    def _run(self, argument: str) -> Part:
        if self.spec.wanted_format is not None:
            raise UsageError(f"--format {self.spec.wanted_format} is not for {printable(argument)}: results are read from the ledger")
        return RunPart.of(argument, self.ledger, self.series, max_item_bytes=self.max_item_bytes, skip_bad=self.skip_bad, notes=self.notes)

    def _many(self, argument: str, kind: str) -> tuple[str, Part]:
        wanted = self.spec.wanted_format or "files"
        if wanted in FILE_FORMATS:
            return self._files(argument, wanted)
        why = f"{printable(argument)} is {kind}, which gives one item per file: --format {wanted} reads lists"
        raise UsageError(why, "Name the lists one by one, or leave --format out.")

    def _files(self, argument: str, format: str) -> tuple[str, Part]:
        files = FilesPart([root_of(argument)], FileFilter.of(self.spec), self.never, self.skip_bad)
        if format == "files":
            return format, files
        return format, ChunksPart(files, Chunking(self.spec.chunk_size, self.spec.overlap), self.spec.encoding, self.max_item_bytes)

    def _list(self, path: str, mode: int) -> tuple[str, Part]:
        format = self.spec.format or format_by_name(bare_name(path))
        if not os.access(path, os.R_OK):
            raise cannot_read(path, PermissionError())
        plain = path if stat.S_ISREG(mode) else None
        if format != "xlsx":
            return format, self._text(path, plain, format, None)
        if plain is None or bare_name(path) != path:
            kind = "a pipe" if plain is None else "compressed"
            raise UsageError(f"{printable(path)} is {kind}, it cannot be read as xlsx", "Give the path of the workbook.")
        return format, WorkbookPart(path, self.spec.sheet, self.keys, self.max_item_bytes, self.skip_bad)

    def _text(self, where: str, path: str | None, format: str, stdin: BinaryIO | None) -> TextPart:
        return TextPart(
            where=where, path=path, format=format, spec=self.spec, keys=self.keys, max_item_bytes=self.max_item_bytes, stdin=stdin,
            skip_bad=self.skip_bad, notes=self.notes,
        )  # fmt: skip


def joined(part: Part, other: Part) -> bool:
    """Put the files of *other* behind those of *part*, if both give files or both give chunks; return whether that was so."""
    if isinstance(part, FilesPart) and isinstance(other, FilesPart):
        part.roots += other.roots
        return True
    return isinstance(part, ChunksPart) and isinstance(other, ChunksPart) and joined(part.files, other.files)
