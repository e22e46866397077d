"""
JSON values with their keys, as rows: what JSON lines and JSON arrays have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from durabatch.codec import InvalidJsonError, parse_item, parse_items
from durabatch.errors import InputError
from durabatch.intake.keys import Keys, UnusableKeyError
from durabatch.intake.problems import not_text
from durabatch.intake.source import Row
from durabatch.strictness import has_unwieldy_number

__all__ = ["Records", "as_input_error"]

#: Text of at most so many characters has at most 512 bytes, so that most keys need no closer look.
SHORT_KEY = 128
#: Whole numbers below it need no closer look either.
SAFE_NUMBER = 2**63
#: So many records are parsed at once, if they are small.
TOGETHER, TOGETHER_BYTES = 1000, 1 << 20

#: What is wrong with one value.
Fault = InvalidJsonError | UnusableKeyError | InputError


class Records:
    """
    Makes rows of JSON values.

    Args:
        keys: The key decision of the source; the first record makes it.
        where: The input, for messages.
        numbers: ``text`` keeps numbers as their text where they cannot be kept exactly.
        met: The first record was met before.
    """

    def __init__(self, keys: Keys, where: str, numbers: str, *, met: bool) -> None:
        self._keys = keys
        self._where = where
        self._as_text = numbers == "text"
        self._met = met

    def add(self, rows: list[Row], texts: Sequence[bytes], base: int) -> tuple[int, Fault] | None:
        """
        Append the rows of *texts*, the first of which has the position *base* + 1; blank texts are left out.

        Returns:
            None, or the index of the first text that cannot be an item and what is wrong with it; nothing from there on was added.
        """
        start = 0
        while start < len(texts):
            # The first record decides about keys before the others are looked at.
            part = texts[start : start + (TOGETHER if self._met else 1)]
            if not self._met or not self._add_together(rows, part, base + start):
                bad = self._add_one_by_one(rows, part, base + start)
                if bad is not None:
                    return start + bad[0], bad[1]
            start += len(part)
        return None

    def _add_together(self, rows: list[Row], texts: Sequence[bytes], base: int) -> bool:
        """Append the rows of *texts* and return True, or return False when one of them needs a closer look."""
        if sum(map(len, texts)) > TOGETHER_BYTES or (self._as_text and any(map(has_unwieldy_number, texts))):
            return False
        parsed = parse_items(texts)
        if parsed is None:
            return False
        values, payloads = parsed
        keys = [None] * len(payloads) if self._keys.field is None else plain_keys(values, self._keys.field)
        if keys is not None:
            rows.extend(zip(keys, payloads, range(base + 1, base + len(payloads) + 1), strict=True))
        return keys is not None

    def _add_one_by_one(self, rows: list[Row], texts: Sequence[bytes], base: int) -> tuple[int, Fault] | None:
        """As :meth:`add`."""
        for index, data in enumerate(texts):
            try:
                value, payload = parse_item(data, numbers_as_text=self._as_text)
                if not self._met:
                    self._meet(value)
                key = None if self._keys.field is None else self._keys.of(value)
            except (InvalidJsonError, UnusableKeyError, InputError) as error:
                if not data or data.isspace():
                    continue
                return index, error
            rows.append((key, payload, base + index + 1))
        return None

    def watch(self, rows: Sequence[Row], base: int) -> None:
        """Look for keys that nearly meet."""
        self._keys.watch(rows, self._where, base)

    def _meet(self, value: object) -> None:
        self._keys.decide(value)
        self._keys.refuse_unknown(value, self._where, "field")
        self._met = True


def plain_keys(values: list[Any], field: str) -> list[str | None] | None:
    """Return the keys of *values* when all of them are short texts or whole numbers in *field* itself; None when they need a closer look."""
    try:
        keys = [value[field] for value in values]
    except (KeyError, TypeError, IndexError):
        return None
    try:
        is_fit = "".join(keys).isprintable() and all(keys) and max(map(len, keys)) <= SHORT_KEY
    except TypeError:
        is_fit = set(map(type, keys)) == {int} and min(keys) > -SAFE_NUMBER and max(keys) < SAFE_NUMBER
        keys = list(map(str, keys)) if is_fit else []
    return keys if is_fit else None


def as_input_error(fault: Fault, data: bytes, place: Callable[[int], str], line: int, column: int = 0) -> InputError:
    """Return what is wrong with the value *data* that begins in *line*, behind *column* bytes of it."""
    if isinstance(fault, InputError):
        return fault
    if isinstance(fault, UnusableKeyError):
        blanks = len(data) - len(data.lstrip())
        return InputError(place(line + data.count(b"\n", 0, blanks)), str(fault))
    try:
        data.decode()
    except UnicodeDecodeError as broken:
        start = data.rfind(b"\n", 0, broken.start) + 1
        return not_text(place(line + fault.line_offset), data[start:], broken.start - start, "utf-8")
    at = fault.column if fault.line_offset else fault.column + column
    return InputError(place(line + fault.line_offset), f"{fault.message} at column {at}", fault.hint)
