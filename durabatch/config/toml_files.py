"""
TOML: read with the line of every key, and written.

``tomllib`` tells the line of a mistake alone, so lines are found by a look-up of our own that knows strings, brackets and comments.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

from durabatch.errors import UsageError

__all__ = ["Lines", "Place", "first_lines", "line_of", "parse_toml", "toml_text"]

PIECES = (
    r'"""(?:[^\\]|\\.)*?"""+',
    r"'''.*?'''+",
    r'"(?:[^"\\\n]|\\.)*"',
    r"'[^'\n]*'",
    r"#[^\n]*",
    r"[\[\]{}=\n]",
    r"""[^"'#\[\]{}=\n]+""",
    r".",
)
PIECE = re.compile("|".join(PIECES), re.S)
POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
BARE = re.compile(r"[A-Za-z0-9_-]+")

#: The path of a key or a table, and its line.
Place = tuple[tuple[str, ...], int]
#: The line where each key and table stands first.
Lines = dict[tuple[str, ...], int]


def parse_toml(text: str, shown: str) -> tuple[dict[str, Any], Lines]:
    """
    Return the values of a TOML file, and where its keys stand.

    Raises:
        UsageError: It is no TOML; ``FILE:LINE: what``.
    """
    text = text.replace("\r\n", "\n")
    try:
        return tomllib.loads(text), first_lines(places(text))
    except RecursionError as error:
        raise UsageError(f"{shown}: values are nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(toml_fault(str(error), text, shown)) from error
    except ValueError as error:
        raise UsageError(f"{shown}: a number has too many digits") from error


def toml_fault(message: str, text: str, shown: str) -> str:
    """Return what tomllib says, with the line first; of a key or table that stands twice both lines."""
    found = POSITION.search(message)
    line = int(found[1]) if found and found[1] else text.rstrip("\n").count("\n") + 1
    what = POSITION.sub("", message)
    if what.startswith("Cannot"):
        *before, (path, line) = [place for place in places(text) if place[1] <= line] or [((), line)]
        same = [(other, number) for other, number in before if path[: len(other)] == other or other[: len(path)] == path]
        if same:
            _, first = max(same, key=lambda place: min(len(place[0]), len(path)))
            return f"{shown}:{line}: {'.'.join(path)!r} stands here and on line {first}"
    return f"{shown}:{line}: {what[:1].lower()}{what[1:]}"


def places(text: str) -> Iterator[Place]:
    """Yield the path of every key and table of a TOML text, with its line; what is no TOML gives no or wrong ones, never an error."""
    table: tuple[str, ...] = ()
    head, line, depth, in_value = "", 1, 0, False
    for piece in (*PIECE.findall(text), "\n"):
        if in_value:
            depth += (piece in {"[", "{"}) - (piece in {"]", "}"})
            in_value = piece != "\n" or depth > 0
        elif piece == "\n":
            if head.startswith("["):
                table = path_of(head.strip("[] \t"))
                yield table, line
            head = ""
        elif piece == "=" and not head.startswith("["):
            yield (*table, *path_of(head)), line
            head, depth, in_value = "", 0, True
        elif not piece.startswith("#"):
            head = (head + piece).lstrip()
        line += piece.count("\n")


def path_of(key: str) -> tuple[str, ...]:
    """Return the parts of a dotted key; empty when it is none."""
    try:
        found: Any = tomllib.loads(f"{key} = 0")
    except ValueError:
        return ()
    path = []
    while isinstance(found, dict) and found:
        name, found = next(iter(found.items()))
        path.append(name)
    return tuple(path)


def line_of(lines: Lines, path: tuple[str, ...]) -> int:
    """Return the line where *path* or something below it stands first, else that of what it stands in; 1 when nothing does."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), 1)


def first_lines(found: Iterable[Place]) -> Lines:
    """Return the first line of every path and of everything above it."""
    lines: Lines = {}
    for path, line in found:
        for end in range(1, len(path) + 1):
            lines.setdefault(path[:end], line)
    return lines


def toml_text(value: Any) -> str:
    """Return *value* as it is written in a TOML file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # TOML's escapes are those of JSON, but for one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{name if BARE.fullmatch(name) else toml_text(name)} = {toml_text(one)}" for name, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return str(value)
