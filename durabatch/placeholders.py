"""
Braces in the words of a command: where a value goes, and why one may be refused there.

Two kinds of commands have them: those that are run for items, and the one that undoes what they did. A placeholder becomes (part of) one
word, and its value can never become anything but a value.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from durabatch.codec import encode_value
from durabatch.errors import HandlerImportError

__all__ = ["Placeholder", "as_text", "field_at", "guarded", "parts_of", "refusal_of"]

TOKEN = re.compile(r"(\{\{|\}\}|\{[^{}]*\}|[{}])")
MAX_VALUE_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True, slots=True)
class Placeholder:
    """A place for a value; ``is_guarded`` when an option could stand there."""

    name: str
    is_guarded: bool


def parts_of(text: str) -> list[str | Placeholder]:
    """Return *text* as literal texts and (unguarded) placeholders; HandlerImportError on a lone brace."""
    parts: list[str | Placeholder] = []
    for token in filter(None, TOKEN.split(text)):
        if token in ("{", "}"):
            raise HandlerImportError(f"lone {token!r} in the command {text[:100]!r}", "A brace itself is written {{ or }}.")
        if token in ("{{", "}}"):
            parts.append(token[0])
        else:
            parts.append(Placeholder(token[1:-1].strip(), is_guarded=False) if token[0] == "{" else token)
    return parts


def guarded(parts: list[str | Placeholder], *, is_open: bool) -> list[str | Placeholder]:
    """Return *parts* with those placeholders guarded that may begin the argument, if an option can stand there."""
    begin = next((index for index, part in enumerate(parts) if isinstance(part, str)), len(parts))
    return [dataclasses.replace(part, is_guarded=is_open) if isinstance(part, Placeholder) else part for part in parts[:begin]] + parts[
        begin:
    ]


def refusal_of(text: str, place: Placeholder) -> str | None:
    """Return why *text* cannot stand in a place: a NUL character, or an option in disguise; None when it can."""
    if "\0" in text:
        return f"the value of {{{place.name}}} holds a NUL character, which no command can be given"
    if place.is_guarded and text.startswith("-"):
        return f"the value of {{{place.name}}}, {text[:100]!r}, would be read as an option. Put -- before the placeholder"
    return None


def field_at(item: object, name: str) -> Any:
    """Return the field *name* of an object, a dotted one from inside it; LookupError when there is none."""
    if isinstance(item, dict) and name in item:
        return item[name]
    value: Any = item
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise LookupError(name)
        value = value[part]
    return value


def as_text(value: object) -> str:
    """Return a text as it is and any other value as compact JSON."""
    return value if isinstance(value, str) else encode_value(value, limit_bytes=MAX_VALUE_BYTES)
