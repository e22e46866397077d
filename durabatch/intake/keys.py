"""
Keys: which field of a record is its key, and what a key may be.

One decision holds for all records of a source, so that the same item has the same key wherever it stands. A field chosen by itself
is part of the durable position: going on in the middle never chooses again.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from durabatch.errors import InputError
from durabatch.intake.problems import available, did_you_mean, printable
from durabatch.intake.source import Row
from durabatch.intake.streams import Notes

__all__ = ["MAX_KEY_BYTES", "MISSING", "Keys", "UnusableKeyError", "key_text", "lookup"]

#: Bytes of UTF-8 in a key.
MAX_KEY_BYTES = 512
#: Fields that are taken for the key when none was named and the first record has one.
KEY_FIELDS = ("key", "id")
#: Integers of more bits have more than 512 digits.
MAX_KEY_BITS = 1700

#: So many keys of a source are compared with one another to find those that nearly meet.
WATCHED_KEYS = 10_000

#: What ``lookup`` finds where nothing is.
MISSING = object()


class UnusableKeyError(ValueError):
    """A value cannot be a key; the text says why, without the place."""


class Keys:
    """
    How the records of a source get their keys.

    Args:
        field: The field that the user named, dotted for a field inside a field; None to look at the first record.
        notes: Hears of keys that are different, but not for the eye.
    """

    def __init__(self, field: str | None, notes: Notes | None = None) -> None:
        self.field = field
        self.decided = field is not None
        self.note: str | None = None
        self._named = field is not None
        self._notes = notes
        #: Keys as they would be if blanks at the end, case and form did not count; and where they stand.
        self._watched: dict[str, tuple[str, str, int]] = {}
        self._said: set[str] = set()

    def state(self) -> dict[str, Any]:
        """Return what of the decision must be kept with a position."""
        return {"key": self.field} if self.decided and not self._named else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the decision that stands in a position, or forget one made since."""
        if not self._named:
            self.field, self.decided = state.get("key"), "key" in state
            self._say()

    def decide(self, record: object) -> None:
        """Choose by the first *record* of the source, if nothing is decided yet."""
        if self.decided:
            return
        self.decided = True
        if isinstance(record, Mapping):
            self.field = next((field for field in KEY_FIELDS if _usable(record.get(field, MISSING))), None)
        self._say()

    def _say(self) -> None:
        self.note = None if self.field is None else f"items are keyed by field '{self.field}'"

    def watch(self, rows: Iterable[Row], where: str, base: int) -> None:
        """Say, once for each kind of difference, that two keys among the first of the source are nearly equal; they stay two keys."""
        if self._notes is None or len(self._watched) >= WATCHED_KEYS:
            return
        for key, _, position in rows:
            if key is not None:
                known = self._watched.setdefault(_folded(key), (key, where, position - base))
                if known[0] != key:
                    self._tell(known, key, f"{where}:{position - base}")

    def _tell(self, known: tuple[str, str, int], key: str, place: str) -> None:
        kind = _difference(known[0], key)
        if kind not in self._said and self._notes is not None:
            self._said.add(kind)
            was = f"{printable(known[1])}:{known[2]}"
            self._notes(f"{printable(place)}: key {key!r} differs only by {kind} from {known[0]!r} ({was}): these are two items")

    def of(self, record: object) -> str:
        """Return the key of *record*; UnusableKeyError when the field is missing or its value cannot be a key."""
        assert self.field is not None
        value = lookup(record, self.field)
        if value is MISSING:
            raise UnusableKeyError(f"key '{self.field}' is missing")
        try:
            return key_text(value)
        except UnusableKeyError as error:
            raise UnusableKeyError(f"key '{self.field}': {error}") from None

    def refuse_unknown(self, record: object, where: str, word: str) -> None:
        """Raise InputError, with the names there are, when the first *record* of *where* lacks the field that the user named."""
        if not self._named or self.field is None or lookup(record, self.field) is not MISSING:
            return
        names = [str(name) for name in record] if isinstance(record, Mapping) else []
        place = f"key {word} '{self.field}' is missing from {where}"
        if not names:
            raise InputError(place, "its first item is no object with fields")
        raise InputError(f"{place}; available", available(names), did_you_mean(self.field, names))


def lookup(record: object, field: str) -> object:
    """Return the value of *field* in *record*: the field of that very name, else the path with its dots; a marker when there is none."""
    if isinstance(record, Mapping) and field in record:
        return record[field]
    head, dot, rest = field.partition(".")
    if not dot or not isinstance(record, Mapping) or head not in record:
        return MISSING
    return lookup(record[head], rest)


def key_text(value: object) -> str:
    """Return *value* as a key; UnusableKeyError unless it is text or a whole number of 1 to 512 bytes."""
    if isinstance(value, str):
        return _checked(str.__str__(value))
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < MAX_KEY_BITS:
        return int.__repr__(value)
    raise UnusableKeyError(f"a key must be text or a whole number of at most {MAX_KEY_BYTES} bytes, not {_kind(value)}")


def _checked(text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise UnusableKeyError("a key with a lone surrogate cannot be stored as text") from None
    if not 0 < size <= MAX_KEY_BYTES:
        kind = f"{size:,} bytes" if size else "empty"
        raise UnusableKeyError(f"a key must be text or a whole number of at most {MAX_KEY_BYTES} bytes, not {kind}")
    if "\0" in text:
        raise UnusableKeyError("a key must not hold a NUL character")
    return text


def _folded(key: str) -> str:
    if key.isascii():
        return key.lower().rstrip()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold()).rstrip()


def _difference(one: str, other: str) -> str:
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        return "Unicode form"
    if one.rstrip() == other.rstrip():
        return "blanks at the end"
    return "case" if one.casefold() == other.casefold() else "case, blanks at the end or Unicode form"


def _usable(value: object) -> bool:
    try:
        key_text(value)
    except UnusableKeyError:
        return False
    return True


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return "a number this long"
    if isinstance(value, float):
        return f"{value!r}"
    return "an object" if isinstance(value, Mapping) else "a list"
