"""
What strict JSON refuses, and where it stands: the slow, exact half of :mod:`durabatch.codec`.

Three questions are answered here. Of a Python value: which plain JSON value is meant, or what in it cannot be stored (:func:`plain`). Of a
text: where is its fault (:func:`syntax_fault`, :func:`find_fault`), and how does it read with its unwieldy numbers as texts
(:func:`quoted_numbers`).
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import to_json

from durabatch.errors import ResultError

__all__ = [
    "MAX_DEPTH",
    "NUMBERS_HINT",
    "JsonFault",
    "find_fault",
    "has_unwieldy_number",
    "is_about_number",
    "plain",
    "quoted_numbers",
    "syntax_fault",
]

#: Levels of lists and objects: what the parser reads back, no more.
MAX_DEPTH = 200
#: First whole number that is too long to be read back.
NUMBER_LIMIT = 10**4300
#: Longest path and name in a message, in characters.
MESSAGE_CHARACTERS = 200

#: What is wrong with a text, and the offset of the byte where.
JsonFault = tuple[str, int]
#: Where a value stands inside the one returned: the path of its container and its key or index; None for the value itself.
Path = tuple[Any, str | int] | None

HINTS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((bytes, bytearray, memoryview), "Decode it to text, or use base64."),
    ((set, frozenset), "Make it a list, sorted if its order matters."),
    (float, "Use None for a missing number."),
    (str, 'Replace lone surrogates: text.encode("utf-8", "replace").decode().'),
)


def plain(value: object) -> Any:
    """
    Return *value* made of None, bool, int, float, str, list and dict only, by the conversions of ``encode_value``.

    Raises:
        ResultError: Something in it cannot be stored; the message names it and its path.
    """
    return _plain(value, None, 0)


def _plain(value: object, path: Path, depth: int) -> Any:
    convert = CONVERSIONS.get(type(value))
    if convert is None:
        convert = next((known for kind, known in CONVERSIONS.items() if isinstance(value, kind)), _other)
    return convert(value, path, depth)


def _same(value: object, _path: Path, _depth: int) -> object:
    return value


def _text(value: str, path: Path, _depth: int) -> str:
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise _refusal("text with a lone surrogate", value, path)
    return str.__str__(value)


def _integer(value: int, path: Path, _depth: int) -> int:
    if not -NUMBER_LIMIT < value < NUMBER_LIMIT:
        raise _refusal("whole number of more than 4,300 digits", value, path)
    return int(value)


def _float(value: float, path: Path, _depth: int) -> float:
    if not math.isfinite(value):
        raise _refusal("NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity", value, path)
    return float(value)


def _decimal(value: decimal.Decimal, path: Path, _depth: int) -> str:
    if not value.is_finite():
        raise _refusal(f"Decimal {value}", value, path)
    return str(value)


def _list(value: list[object] | tuple[object, ...], path: Path, depth: int) -> list[Any]:
    _enter(value, path, depth)
    return [_plain(inner, (path, index), depth + 1) for index, inner in enumerate(value)]


def _dict(value: Mapping[Any, object], path: Path, depth: int) -> dict[str, Any]:
    _enter(value, path, depth)
    result: dict[str, Any] = {}
    for key, inner in value.items():
        name = _key(key, path)
        if name in result:
            raise _refusal(f"key {_short(json.dumps(name))}, twice,", value, path)
        result[name] = _plain(inner, (path, name), depth + 1)
    return result


def _key(key: object, path: Path) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if not isinstance(key, str):
        raise _refusal(f"key {_short(_safely(repr, key))} of type {type(key).__name__}", None, path, "Keys must be text.")
    return _text(key, path, 0)


def _enter(value: object, path: Path, depth: int) -> None:
    """Refuse to go deeper than the parser reads; cycles end here, too."""
    if depth >= MAX_DEPTH:
        # The path of a cycle or a runaway nesting says little after its first steps.
        while path is not None and depth > 5:
            path, depth = path[0], depth - 1
        raise _refusal(f"{type(value).__name__} nested deeper than {MAX_DEPTH} levels below, or in itself,", value, path)


def _enum(value: enum.Enum, path: Path, depth: int) -> Any:
    return _plain(value.value, path, depth)


def _iso_text(value: Any, _path: Path, _depth: int) -> str:
    return str(value.isoformat())


def _duration(value: datetime.timedelta, _path: Path, _depth: int) -> str:
    return to_json(value).decode().strip('"')


def _as_text(value: object, path: Path, depth: int) -> str:
    return _text(str(value), path, depth)


def _other(value: object, path: Path, depth: int) -> Any:
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    if serializer is not None:
        _enter(value, path, depth)
        return _model(value, serializer, path, depth)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _dict(fields, path, depth)
    if isinstance(value, Mapping):
        return _dict(value, path, depth)
    raise _refusal(_name(value), value, path)


def _model(value: object, serializer: Any, path: Path, depth: int) -> Any:
    """Return a pydantic model as it dumps itself; its NaN would become null there, so they are looked for before that."""
    try:
        as_python = serializer.to_python(value, mode="python")
        as_json = serializer.to_python(value, mode="json")
    except Exception as error:
        why = _short(" ".join(_safely(str, error).split()))
        raise ResultError(f"{_name(value)} at {_shown(path)} cannot be stored: {why}") from error
    _refuse_non_finite(as_python, path)
    return _plain(as_json, path, depth)


def _refuse_non_finite(value: object, path: Path) -> None:
    if isinstance(value, float):
        _float(value, path, 0)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_non_finite(inner, (path, key if isinstance(key, str) else repr(key)))
    elif isinstance(value, list | tuple | set | frozenset):
        for index, inner in enumerate(value):
            _refuse_non_finite(inner, (path, index))


#: By exact type first, then by the first that fits: an IntEnum is an Enum before it is an int, a datetime before it is a date.
CONVERSIONS: dict[type, Callable[[Any, Path, int], Any]] = {
    type(None): _same,
    bool: _same,
    enum.Enum: _enum,
    str: _text,
    int: _integer,
    float: _float,
    list: _list,
    tuple: _list,
    dict: _dict,
    datetime.datetime: _iso_text,
    datetime.date: _iso_text,
    datetime.time: _iso_text,
    datetime.timedelta: _duration,
    decimal.Decimal: _decimal,
    uuid.UUID: _as_text,
    pathlib.PurePath: _as_text,
}


def _refusal(what: str, value: object, path: Path, hint: str = "") -> ResultError:
    found = hint or next((text for kind, text in HINTS if isinstance(value, kind)), "")
    return ResultError(f"{what} at {_shown(path)} cannot be stored", found)


def _shown(path: Path) -> str:
    steps: list[str] = []
    while path is not None:
        path, step = path
        if isinstance(step, int):
            steps.append(f"[{step}]")
        else:
            steps.append(f".{step}" if step.isidentifier() else f"[{json.dumps(step)}]")
    return _short("$" + "".join(reversed(steps)))


def _name(value: object) -> str:
    if isinstance(value, type):
        return f"<class {value.__qualname__}>"
    name = getattr(value, "__name__", None)
    if callable(value) and isinstance(name, str):
        return name if name.startswith("<") else f"<function {name}>"
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _short(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARACTERS else text[: MESSAGE_CHARACTERS - 1] + "…"


def _safely(show: Callable[[Any], str], value: object) -> str:
    try:
        return show(value)
    except Exception:  # noqa: BLE001 - a __str__ of the user's that raises must not hide what is wrong with the value.
        return f"<{type(value).__name__}>"


#: The parser's words for a fault, and ours.
SYNTAX_WORDS = (
    ("recursion limit exceeded", f"nested deeper than {MAX_DEPTH} levels"),
    ("number out of range", "number too long (more than 4,300 digits)"),
    ("lone leading surrogate", "lone surrogate, cannot be stored as text"),
    ("unexpected end of hex escape", "lone surrogate, cannot be stored as text"),
    ("trailing characters", "not JSON: more text after the value"),
    ("EOF while parsing", "not JSON: it ends in the middle"),
)
#: What faults about numbers say, and what helps.
NUMBER_FAULTS = ("number too long", "is too large for a number", "is not a JSON number")
NUMBERS_HINT = "Use --numbers text to keep its text."
#: What every unwieldy number has in it, and others rarely.
SUSPECT = re.compile(rb"[0-9]{19}|[eE]\+?[0-9]{3}|NaN|Infinity")
NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
COLON = re.compile(rb"\s*:")
#: Digits that always fit in 64 bits.
SAFE_DIGITS = 18
TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],:]|[^\s{}\[\],:"]++')


def syntax_fault(text: bytes, message: str) -> JsonFault:
    """Return what is wrong with *text*, about which the parser said *message*, and the offset of the byte where it is."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte 0x{text[error.start]:02x})", error.start
    if not text.strip():
        return "not JSON: empty", 0
    said, _, place = message.rpartition(" at line ")
    line, _, column = place.partition(" column ")
    lines = text.split(b"\n", int(line) - 1)
    offset = len(text) - len(lines[-1]) + max(int(column), 1) - 1
    for theirs, ours in SYNTAX_WORDS:
        if said.startswith(theirs):
            return ours, offset
    offset -= text[offset - 1 : offset] == b"-" and text[offset : offset + 8] == b"Infinity"
    word = re.match(rb"-?(?:NaN|Infinity)", text[offset : offset + 9])
    if word:
        return f"{word[0].decode()} is not a JSON number", offset
    found = text[offset : offset + 4].decode(errors="ignore")[:1]
    return f"not JSON: {said}" + (f", found {found!r}" if found else ""), offset


def find_fault(text: bytes) -> JsonFault | None:
    """Return the first equal key or infinite number in *text*, which is JSON otherwise, and its offset; None when there is none."""
    objects: list[set[str] | None] = []
    awaiting_key = False
    for token in TOKEN.finditer(text):
        word = token[0]
        if word == b"{":
            objects.append(set())
        elif word == b"[":
            objects.append(None)
        elif word in b"}]":
            objects.pop()
        elif awaiting_key and word[:1] == b'"':
            keys, key = objects[-1], json.loads(word)
            if keys is not None and key in keys:
                return f"key {_short(word.decode())} stands twice in one object", token.start()
            if keys is not None:
                keys.add(key)
        elif word[0] in b"-0123456789" and word.strip(b"-0123456789") and math.isinf(float(word)):
            return f"{_short(word.decode())} is too large for a number", token.start()
        awaiting_key = word == b"{" or (word == b"," and bool(objects) and objects[-1] is not None)
    return None


def is_about_number(message: str) -> bool:
    """Return whether *message* is about a number that cannot be kept, but for its text."""
    return any(words in message for words in NUMBER_FAULTS)


def has_unwieldy_number(text: bytes) -> bool:
    """Return whether the JSON *text* may hold a number that cannot be kept exactly."""
    return SUSPECT.search(text) is not None


def quoted_numbers(text: bytes) -> tuple[bytes, list[int]]:
    """
    Return the JSON *text* with quotes about every number that cannot be kept exactly, and the offsets of these quotes in it.

    Such are whole numbers beyond 64 bits, numbers that overflow, NaN and Infinity. Decimals become the nearest double all the same.
    """
    if not has_unwieldy_number(text):
        return text, []
    pieces: list[bytes] = []
    quotes: list[int] = []
    end = 0
    for token in TOKEN.finditer(text):
        if _is_unwieldy(token[0]) and COLON.match(text, token.end()) is None:
            added = len(quotes)
            quotes += [token.start() + added, token.end() + added + 1]
            pieces += [text[end : token.start()], b'"', token[0], b'"']
            end = token.end()
    return b"".join([*pieces, text[end:]]), quotes


def _is_unwieldy(word: bytes) -> bool:
    if word in {b"NaN", b"Infinity", b"-Infinity"}:
        return True
    number = NUMBER.fullmatch(word)
    if number is None:
        return False
    if number[1] is None and number[2] is None:
        return len(word) > SAFE_DIGITS and (len(word) > 20 or not -(2**63) <= int(word) < 2**63)
    return math.isinf(float(word))
