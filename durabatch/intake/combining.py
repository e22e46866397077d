"""
Which settings of an input go together, decided before anything is read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from durabatch.errors import UsageError
from durabatch.intake.problems import printable
from durabatch.intake.registry import FILE_FORMATS, FORMATS, TEXT_FORMATS, check_format
from durabatch.intake.spec import InputSpec
from durabatch.intake.streams import check_encoding

__all__ = ["check_formats", "check_key", "check_spec"]

#: Settings that mean something for some formats only: the formats, and what is said of them.
MEANT_FOR: dict[str, tuple[tuple[str, ...], str]] = {
    "delimiter": (("csv", "tsv"), "csv and tsv"),
    "sheet": (("xlsx",), "xlsx"),
    "numbers": (("json", "jsonl"), "json and jsonl"),
    "null": (("lines",), "lines"),
    "encoding": ((*TEXT_FORMATS, "chunks"), "text"),
    **dict.fromkeys(("include", "exclude", "hidden", "gitignore", "min_size", "max_size"), (FILE_FORMATS, "files as items")),
    **dict.fromkeys(("chunk_size", "overlap"), (("chunks",), "chunks")),
}
#: Why records are missing where a key field is given.
UNKEYED = {
    "lines": "{} is read as lines, each its own key",
    "files": "a file item is known by its path",
    "chunks": "a chunk is known by its path and number",
    "run": "results keep the keys of their items",
}
#: Settings that are numbers, and the least of each.
LEAST = {"limit": 1, "sample": 1, "chunk_size": 16, "overlap": 0, "min_size": 0, "max_size": 0}


def check_spec(spec: InputSpec) -> None:
    """Raise UsageError for settings that cannot be, whatever the inputs are."""
    check_format(spec.format)
    if spec.files and spec.format not in {None, "files"}:
        raise UsageError(f"--files and --format {spec.format} contradict each other", "Leave one of them out.")
    if spec.inputs.count("-") > 1:
        raise UsageError("standard input ('-') can be read only once")
    if spec.delimiter is not None and (len(spec.delimiter) != 1 or spec.delimiter in '"\r\n\0'):
        raise UsageError(f"--delimiter {spec.delimiter!r} is not one character that can separate columns")
    if spec.numbers not in {"exact", "text"}:
        raise UsageError(f"--numbers {spec.numbers!r} is neither exact nor text")
    check_key(spec.key)
    check_encoding(spec.encoding)
    check_numbers(spec)
    if spec.group_by == "" or "" in spec.select:
        raise UsageError(f"--{'group-by' if spec.group_by == '' else 'select'} is empty", "Leave the option out.")


def check_numbers(spec: InputSpec) -> None:
    """Raise UsageError for a number that is none or too small."""
    for name, least in LEAST.items():
        value = getattr(spec, name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise UsageError(f"{flag(name)} {value!r} is not a whole number of {least} or more")


def check_key(key: str | None) -> None:
    """Raise UsageError for a key field without a name."""
    if key == "":
        raise UsageError("--key is empty", "Name the field that identifies an item, or leave the option out.")


def check_formats(spec: InputSpec, formats: Sequence[str]) -> None:
    """
    Raise UsageError for settings that mean nothing for the inputs.

    Args:
        formats: Formats of the inputs in their order, ``run`` for results.
    """
    if any(format not in (*FORMATS, "run") for format in formats):
        # What a package makes of its settings is not known here.
        return
    for name, (meant, words) in MEANT_FOR.items():
        if getattr(spec, name) != default(name):
            check_meant(flag(name, off=getattr(spec, name) is False), meant, words, formats, all_lists=name == "null")
    unkeyed = next((index for index, format in enumerate(formats) if format in UNKEYED), None)
    if spec.key is not None and unkeyed is not None:
        why = UNKEYED[formats[unkeyed]].format(printable((spec.inputs or ("-",))[unkeyed]))
        raise UsageError(f"--key '{printable(spec.key)}' needs records: {why}", "For records use --format csv, tsv, jsonl, json or xlsx.")


def check_meant(option: str, meant: tuple[str, ...], words: str, formats: Collection[str], *, all_lists: bool) -> None:
    """Raise UsageError when none of the *formats* is one that *option* is meant for; with *all_lists* also when a text list is none."""
    foreign = next((one for one in formats if one not in meant and (not all_lists or one in TEXT_FORMATS)), None)
    if foreign is not None and (all_lists or not any(one in meant for one in formats)):
        hint = "Give a directory or a pattern, or --files." if meant == FILE_FORMATS else ""
        raise UsageError(f"{option} is for {words}, the input is {foreign}", hint)


def default(name: str) -> Any:
    """Return the value of a setting that was not given."""
    return InputSpec.__dataclass_fields__[name].default


def flag(name: str, *, off: bool = False) -> str:
    """Return the option of a setting; *off*: the one that switches it off."""
    return f"--{'no-' if off else ''}{name.replace('_', '-')}"
