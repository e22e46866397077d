"""
Command templates: where a value of the item goes into a command, so that it can never become anything but a value.

    {}        the item: a text as it is, the path of a file item, anything else as compact JSON
    {key}     the item's key
    {#}       the item's number in the ledger, the same at every try
    {name}    a field of an item that is an object; {a.b} the field b of the object in field a
    {{ }}     the braces themselves

Without a shell a placeholder becomes (part of) one argument. With a shell it becomes an expansion of an environment variable, in double
quotes, so whatever the value holds is never read as shell code; inside single quotes nothing would be expanded, so a placeholder there is
refused. A value that begins with ``-`` where an option could stand is refused, unless ``--`` stands before it; a path gets ``./``.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from durabatch.codec import decode_value
from durabatch.errors import HandlerImportError
from durabatch.placeholders import Placeholder, as_text, field_at, guarded, parts_of, refusal_of
from durabatch.workers.command_error import CommandError
from durabatch.workers.context import Context

__all__ = ["ArgvTemplate", "ShellTemplate", "Values", "check_fields", "environment_of"]

#: Where a simple command ends in a shell, as far as a ``--`` before a placeholder is concerned.
COMMAND_END = re.compile(r"[|;&\n(]")
WORD_START = re.compile(r"(^|\s)\"?$")
#: Names whose value is a path when the item is a file.
PATH_NAMES = ("", "key", "path")
#: What an item is that stands for a file.
FILE_FIELDS = {"path", "bytes", "mtime"}
VARIABLE = "DURABATCH_VALUE_"
#: Where the shell would not expand a variable.
REFUSED = {"'": "inside single quotes", "\\": "after a backslash"}
SHELL = "/bin/sh"


class Values:
    """The values of one attempt at one item, for the placeholders of a template."""

    def __init__(self, payload: str, context: Context) -> None:
        self._item: Any = decode_value(payload)
        self._context = context
        self._is_file = isinstance(self._item, dict) and self._item.keys() == FILE_FIELDS

    def text(self, place: Placeholder) -> str:
        """Return the text for *place*; CommandError when there is none or it is not safe there."""
        text = self._look_up(place.name)
        if place.is_guarded and self._is_file and place.name in PATH_NAMES and text.startswith("-"):
            text = f"./{text}"
        refusal = refusal_of(text, place)
        if refusal is not None:
            raise CommandError(refusal)
        return text

    def _look_up(self, name: str) -> str:
        if name == "":
            return as_text(self._item["path"] if self._is_file else self._item)
        if name == "key":
            return self._context.item_key
        return str(self._context.item_id) if name == "#" else as_text(field_of(self._item, name))


class ArgvTemplate:
    """A command as a list of arguments, run without a shell."""

    def __init__(self, argv: Sequence[str]) -> None:
        if not argv or not argv[0]:
            raise HandlerImportError("no command given", "Put it after --, as in: durabatch exec INPUT -- gzip {}")
        if any(isinstance(part, Placeholder) for part in parts_of(argv[0])):
            raise HandlerImportError(f"the program {argv[0]!r} would come from the item", "Name the program; items are its arguments.")
        self._arguments = [guarded(parts_of(text), is_open="--" not in argv[1:index]) for index, text in enumerate(argv)]

    def render(self, values: Values) -> tuple[list[str], dict[str, str]]:
        """Return the arguments for one item, and no environment."""
        return ["".join(part if isinstance(part, str) else values.text(part) for part in parts) for parts in self._arguments], {}


class ShellTemplate:
    """A script for the shell: the arguments as typed, joined by blanks."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._places: list[Placeholder] = []
        self._script = "".join(self._expansion(*found) for found in quoted(parts_of(" ".join(argv))))
        if not self._script.strip():
            raise HandlerImportError("no command given", "Put it after --, as in: durabatch exec --shell INPUT -- 'gzip {} && echo ok'")

    def render(self, values: Values) -> tuple[list[str], dict[str, str]]:
        """Return the shell's arguments, the same for all items, and the environment variables with the item's values."""
        environment = {f"{VARIABLE}{number}": values.text(place) for number, place in enumerate(self._places, 1)}
        return [SHELL, "-c", self._script], environment

    def _expansion(self, part: str | Placeholder, quote: str) -> str:
        if isinstance(part, str):
            return part
        if quote in REFUSED:
            raise HandlerImportError(
                f"{{{part.name}}} stands {REFUSED[quote]}, where no value can be put in", "Leave the quotes to durabatch."
            )
        self._places.append(part)
        variable = f"${{{VARIABLE}{len(self._places)}}}"
        return variable if quote == '"' else f'"{variable}"'


def check_fields(argv: Sequence[str], payload: str) -> None:
    """
    Return when an item with this payload has every field that the template names.

    Raises:
        HandlerImportError: It has not; the message lists the fields that are there.
    """
    item = decode_value(payload)
    names = {part.name for text in argv for part in parts_of(text) if isinstance(part, Placeholder)} - {"", "key", "#"}
    for name in sorted(names):
        try:
            field_of(item, name)
        except CommandError as error:
            there = f"; available: {', '.join(map(str, item))}" if isinstance(item, dict) else ""
            raise HandlerImportError(
                f"the command names {{{name}}}, which the first item does not have{there}", "A brace itself is written {{ or }}."
            ) from error


def field_of(item: object, name: str) -> object:
    """Return the field *name* of an item, a dotted one from inside it; CommandError when there is none."""
    try:
        return field_at(item, name)
    except LookupError:
        raise CommandError(f"the item has no field {name!r}. A brace itself is written {{{{ or }}}}") from None


def quoted(parts: list[str | Placeholder]) -> list[tuple[str | Placeholder, str]]:
    """Return each part with the shell's quoting where it begins (see :func:`quoting_after`); placeholders guarded where words begin."""
    found: list[tuple[str | Placeholder, str]] = []
    quoting, before = "", ""
    for part in parts:
        found.append((part, quoting[-1:]))
        if isinstance(part, str):
            quoting = quoting_after(part, quoting, before)
            before += part
        else:
            is_guarded = bool(WORD_START.search(before)) and "--" not in COMMAND_END.split(before)[-1].split()
            found[-1] = (dataclasses.replace(part, is_guarded=is_guarded), quoting[-1:])
            before += "x"
    return found


def quoting_after(text: str, quoting: str, before: str) -> str:
    r"""
    Return what is open in the shell at the end of *text*, outermost first: quotes (``'``, ``"``), ``(``, a comment (``#``), ``\``.

    An approximation: where it errs, a placeholder is refused or its value split into words, but never read as code.

    Args:
        quoting: What is open at its beginning.
        before: The script up to there.
    """
    previous = before[-1:]
    for character in text:
        inner = quoting[-1:]
        if closes(inner, character):
            quoting = quoting[:-1]
        elif opens(inner, character, previous):
            quoting += character
        previous = character
    return quoting


def closes(inner: str, character: str) -> bool:
    """Return whether *character* ends what is open innermost."""
    return inner == "\\" or character == {"'": "'", '"': '"', "#": "\n", "(": ")"}.get(inner)


def opens(inner: str, character: str, previous: str) -> bool:
    """Return whether *character* begins something inside what is open innermost."""
    if inner == '"':
        return character == "\\" or (character == "(" and previous == "$")
    if inner in ("'", "#"):
        return False
    return character in "'\"\\(" or (character == "#" and (not previous or previous.isspace()))


def environment_of(context: Context, values: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command: that of the worker, the item's identity, and the values of its template."""
    identity = {
        "DURABATCH_KEY": context.item_key,
        "DURABATCH_ATTEMPT": str(context.attempt),
        "DURABATCH_IDEMPOTENCY_KEY": context.idempotency_key,
    }
    return {**os.environ, **{name: text for name, text in identity.items() if "\0" not in text}, **values}
