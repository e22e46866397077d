"""
How a setting of one value is written: as text on a command line or in a variable, typed in a file, and in Python.

Every fault is a UsageError of one line that begins with the place where the value stands.
"""

from __future__ import annotations

import datetime
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from durabatch import options
from durabatch.errors import UsageError
from durabatch.limits import shown_duration

__all__ = [
    "Directory",
    "Grammar",
    "Kind",
    "Number",
    "Retries",
    "Seconds",
    "Share",
    "Size",
    "Switch",
    "Text",
    "TimeLimit",
    "Whole",
    "Word",
    "Workers",
    "described",
    "typed_text",
]

WHOLE_TYPES: tuple[type, ...] = (int,)
#: Characters of a text in a file; the longest path has no more.
MAX_TEXT = 4096


class Kind(ABC):
    """
    One way to write values.

    Attributes:
        expected: What a file may hold, for messages.
        types: Types of it in a file.
    """

    expected: str = "a text"
    types: tuple[type, ...] = (str,)

    @abstractmethod
    def parse(self, text: str, *, option: str) -> Any:
        """Return the value of *text*, from a command line or a variable."""

    def read(self, value: object, *, option: str) -> Any:
        """Return the value of what a file holds."""
        return self.parse(typed_text(value, self.types, self.expected, option=option), option=option)

    def accept(self, value: object, *, name: str) -> Any:
        """Return the value of what a Python caller gave."""
        return self.read(value, option=name)

    def show(self, value: Any) -> Any:
        """Return *value* as a file would hold it."""
        return value


def typed_text(value: object, types: tuple[type, ...], expected: str, *, option: str) -> str:
    """Return the text of a typed value; UsageError when it is of another type than *types*."""
    if type(value) not in types:
        raise UsageError(f"{option}: expected {expected}, got {described(value)}")
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        raise UsageError(f"{option}: expected {expected}, got a number beyond all bounds")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not text or len(text) > MAX_TEXT or "\0" in text:
        raise UsageError(
            f"{option}: is empty"
            if not text
            else f"{option}: holds a NUL character"
            if "\0" in text
            else f"{option}: is longer than {MAX_TEXT:,}"
        )
    return text


def described(value: object) -> str:
    """Return type and value for a message: ``text 'many'``, ``the number 3``, ``a list``."""
    if isinstance(value, str):
        return f"text {value[:60]!r}{'…' if len(value) > 60 else ''}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}" if isinstance(value, float) or value.bit_length() < 128 else "a number beyond all bounds"
    if value is None:
        return "nothing"
    names = {
        list: "a list",
        dict: "a table",
        tuple: "a tuple",
        datetime.date: "a date",
        datetime.datetime: "a date",
        datetime.time: "a time",
    }
    return names.get(type(value), f"a value of type {type(value).__name__}")


def is_number(value: object) -> bool:
    """Return whether *value* is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """Any text that is not empty; with *may_be_empty* the reader of the value has a better word about that."""

    may_be_empty: bool = False

    def parse(self, text: str, *, option: str) -> str:
        """Return *text*."""
        if not text and not self.may_be_empty:
            raise UsageError(f"{option}: is empty")
        return text


@dataclass(frozen=True, slots=True)
class Directory(Kind):
    """A path, kept absolute."""

    def parse(self, text: str, *, option: str) -> str:
        """Return the absolute path."""
        if not text or "\0" in text:
            raise UsageError(f"{option}: {text!r} is no path")
        return os.path.abspath(text)

    def accept(self, value: object, *, name: str) -> str:
        """Return the absolute path of a text or a path object."""
        return self.parse(os.fspath(value) if isinstance(value, os.PathLike) else str(self.read(value, option=name)), option=name)


@dataclass(frozen=True, slots=True)
class Word(Kind):
    """One of *words*."""

    words: tuple[str, ...]

    def parse(self, text: str, *, option: str) -> str:
        """Return the word."""
        if text not in self.words:
            raise UsageError(f"{option}: {text!r} is not one of {', '.join(self.words)}", options.did_you_mean(text, self.words))
        return text


@dataclass(frozen=True, slots=True)
class Switch(Kind):
    """True or false."""

    expected = "true or false"
    types = (bool,)

    def parse(self, text: str, *, option: str) -> bool:
        """Return whether it is on."""
        return options.parse_switch(text, option=option)


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number from *least* to *most*."""

    least: int
    most: int

    expected = "a whole number"
    types = WHOLE_TYPES

    def parse(self, text: str, *, option: str) -> int:
        """Return the number."""
        return options.parse_count(text, option=option, minimum=self.least, maximum=self.most)

    def accept(self, value: object, *, name: str) -> Any:
        """Return *value* when it is such a number."""
        if not isinstance(value, int) or isinstance(value, bool) or not self.least <= value <= self.most:
            raise UsageError(f"{name}={value!r} is not a whole number from {self.least:,} to {self.most:,}")
        return value


class Workers(Whole):
    """A number of worker processes."""

    expected = "a number, 'auto' or 'N%'"
    types = (int, str)

    def parse(self, text: str, *, option: str) -> int:
        """Return the number that *text* stands for on this machine."""
        return options.parse_workers(text, option=option)

    def read(self, value: object, *, option: str) -> int:
        """Return the number that *value* stands for on this machine."""
        if isinstance(value, str) and value != "auto" and not value.endswith("%"):
            raise UsageError(f"{option}: expected {self.expected}, got {described(value)}")
        return int(super().read(value, option=option))


class Retries(Whole):
    """Tries after the first one; the value, as Python callers give it, counts the first."""

    def parse(self, text: str, *, option: str) -> int:
        """Return the number of tries."""
        return options.parse_count(text, option=option, minimum=self.least - 1, maximum=self.most - 1) + 1

    def show(self, value: int) -> int:
        """Return the tries after the first one."""
        return value - 1


@dataclass(frozen=True, slots=True)
class Number(Kind):
    """A number from *least* to *most*."""

    least: float
    most: float

    expected = "a number"
    types = (int, float)

    def parse(self, text: str, *, option: str) -> float:
        """Return the number."""
        return options.parse_number(text, option=option, minimum=self.least, maximum=self.most)


@dataclass(frozen=True, slots=True)
class Share(Kind):
    """A share, kept as a number up to 1."""

    expected = "a share such as '80%'"
    types = (str, float)

    def parse(self, text: str, *, option: str) -> float:
        """Return the share."""
        return options.parse_share(text, option=option)

    def show(self, value: float) -> str:
        """Return the share in percent."""
        return f"{value * 100:g}%"


@dataclass(frozen=True, slots=True)
class Seconds(Kind):
    """A duration, kept in seconds; *reader* has the bounds of its text, *least* and *is_open* those of a number in Python."""

    reader: Callable[..., float]
    least: float = 0.0
    is_open: bool = False

    expected = "a duration such as '30s'"
    types = (str, int)

    def parse(self, text: str, *, option: str) -> float:
        """Return the seconds."""
        return self.reader(text, option=option)

    def accept(self, value: object, *, name: str) -> float:
        """Return the seconds of a number, a text or a timedelta."""
        if isinstance(value, str):
            return self.reader(value, option=name)
        seconds = value.total_seconds() if isinstance(value, datetime.timedelta) else value
        if isinstance(seconds, int | float) and is_number(seconds) and self.holds(seconds):
            return seconds
        bound = "above 0" if self.is_open else f"{self.least:g} or more"
        raise UsageError(f"{name}={value!r} is not a number of seconds, {bound}")

    def holds(self, seconds: float) -> bool:
        """Return whether *seconds* are within the bounds."""
        return self.least <= seconds <= options.MAX_DURATION_S and not (self.is_open and seconds == 0)

    def show(self, value: float) -> str:
        """Return the duration as text."""
        return shown_duration(value)


@dataclass(frozen=True, slots=True)
class Size(Kind):
    """A number of bytes, *least* or more."""

    least: int = 1

    expected = "a size such as '16MiB'"
    types = (str, int)

    def parse(self, text: str, *, option: str) -> int:
        """Return the bytes."""
        return options.parse_size(text, option=option, minimum=self.least)

    def accept(self, value: object, *, name: str) -> int:
        """Return the bytes of a number or a text."""
        if isinstance(value, str):
            return self.parse(value, option=name)
        return int(Whole(self.least, options.MAX_SIZE_BYTES).accept(value, name=name))

    def show(self, value: int) -> str:
        """Return the size as text."""
        return options.shown_size(value)


class Parsed(Protocol):
    """A class of :mod:`durabatch.limits`: parsed from a text, and shown as one."""

    def parse(self, text: str, *, option: str) -> object:
        """Return the value of *text*."""
        ...


@dataclass(frozen=True, slots=True)
class Grammar(Kind):
    """A text of one of the small languages of :mod:`durabatch.limits`, kept as text."""

    language: Parsed
    types: tuple[type, ...] = (str,)

    def parse(self, text: str, *, option: str) -> str:
        """Return *text* in its usual form."""
        return str(self.language.parse(text, option=option))


class TimeLimit(Grammar):
    """A timeout: a duration or a percentage; in Python also a number of seconds or a timedelta."""

    expected = "a duration such as '30s', or a percentage"

    def accept(self, value: object, *, name: str) -> str:
        """Return the timeout as text."""
        if isinstance(value, str):
            return self.parse(value, option=name)
        return shown_duration(Seconds(options.parse_deadline, is_open=True).accept(value, name=name))
