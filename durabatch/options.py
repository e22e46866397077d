"""
From the text of an option to its value. Pure functions; every fault is a UsageError of the form ``OPTION: 'TEXT' is not ...``.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable

from durabatch.errors import UsageError

__all__ = [
    "MAX_DURATION_S",
    "MAX_SIZE_BYTES",
    "MAX_WORKERS",
    "did_you_mean",
    "nearest",
    "parse_codes",
    "parse_count",
    "parse_deadline",
    "parse_duration",
    "parse_names",
    "parse_number",
    "parse_param",
    "parse_params",
    "parse_seconds",
    "parse_share",
    "parse_size",
    "parse_switch",
    "parse_timeout",
    "parse_workers",
    "shown_size",
    "usable_cores",
]

#: More worker processes than this are a slip of the finger.
MAX_WORKERS = 4096
#: Ten years: sums of an instant and a duration stay dates that every program can show.
MAX_DURATION_S = 10 * 365 * 86400.0
#: 1 PiB: sums of sizes stay far from the end of 64 bit numbers.
MAX_SIZE_BYTES = 1 << 50

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
FACTORS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "": 1}

DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:us|ms|[smhdw]))+", re.ASCII)
DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([a-z]+)", re.ASCII)
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]i?|)b?", re.ASCII | re.IGNORECASE)
WHOLE = re.compile(r"[+-]?\d{1,30}", re.ASCII)
PERCENT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)%", re.ASCII)
NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)
PARAM_NAME = re.compile(r"[^\W\d]\w*")
#: How a switch is written where it has a text.
SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def usable_cores() -> int:
    """Return how many cores this process may use, 1 or more."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``Did you mean 'x'?`` for the choice nearest to *word*, or empty text."""
    near = nearest(word, choices)
    return "" if near is None else f"Did you mean '{near}'?"


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that *word* is probably meant for, or None."""
    return next(iter(difflib.get_close_matches(word, list(choices), n=1)), None)


def parse_workers(text: str, *, option: str = "--workers") -> int:
    """
    Return the number of worker processes in *text*.

    ``4`` means 4, ``50%`` half of the usable cores (rounded down, at least 1), ``auto`` all of them, ``0`` none: items run in the calling
    process.
    """
    if text == "auto":
        return usable_cores()
    percent = PERCENT.fullmatch(text)
    count = max(1, int(usable_cores() * float(percent[1]) / 100)) if percent else _whole(text)
    if count is None or not 0 <= count <= MAX_WORKERS or (percent and float(percent[1]) == 0):
        raise UsageError(
            f"{option}: {text!r} is not a number of workers", f"Use 1 to {MAX_WORKERS}, 'auto' or 'N%'; 0 runs items in this process."
        )
    return count


def parse_duration(text: str, *, option: str) -> float:
    """Return the seconds in *text*: ``90s``, ``1h30m``, ``1.5h``, ``250ms``, ``2d``, up to ten years; a bare ``0`` is 0."""
    if text == "0":
        return 0.0
    if not DURATION.fullmatch(text):
        raise UsageError(f"{option}: {text!r} is not a duration", "Use 30s, 5m, 1h30m.")
    seconds = math.fsum(float(number) * SECONDS[unit] for number, unit in DURATION_PART.findall(text))
    if seconds > MAX_DURATION_S:
        raise UsageError(f"{option}: {text!r} is longer than ten years", "Use 30s, 5m, 1h30m.")
    return seconds


def parse_timeout(text: str, *, option: str = "--timeout") -> float:
    """Return the seconds in *text*, above 0."""
    seconds = parse_duration(text, option=option)
    if seconds == 0:
        raise UsageError(f"{option}: 0 would end every item at once", "Leave it out for no timeout.")
    return seconds


def parse_deadline(text: str, *, option: str, minimum_s: float = 0.0) -> float:
    """Return the seconds in *text*, above 0 and not less than *minimum_s*."""
    seconds = parse_duration(text, option=option)
    if seconds == 0:
        raise UsageError(f"{option}: 0 leaves no time at all", "Leave it out for no limit.")
    if seconds < minimum_s:
        raise UsageError(f"{option}: {text!r} is less than {minimum_s:g} s", f"Use {minimum_s:g}s or more.")
    return seconds


def parse_seconds(text: str, *, option: str) -> float:
    """Return the seconds in *text*, above 0: a plain number of them, or a duration."""
    return parse_deadline(f"{text}s" if NUMBER.fullmatch(text) else text, option=option)


def parse_number(text: str, *, option: str, minimum: float, maximum: float) -> float:
    """Return the number in *text*, from *minimum* to *maximum*; fractions are allowed."""
    if not NUMBER.fullmatch(text) or not minimum <= float(text) <= maximum:
        raise UsageError(f"{option}: {text!r} is not a number from {minimum:g} to {maximum:g}")
    return float(text)


def parse_share(text: str, *, option: str) -> float:
    """Return the share in *text*, above 0 and up to 1: ``80%`` or ``0.8``."""
    percent = PERCENT.fullmatch(text)
    share = float(percent[1]) / 100 if percent else float(text) if NUMBER.fullmatch(text) else 0.0
    if not 0 < share <= 1:
        raise UsageError(f"{option}: {text!r} is not a share", "Use 1% to 100%.")
    return share


def parse_switch(text: str, *, option: str) -> bool:
    """Return True for ``1 true yes on`` and False for ``0 false no off``."""
    if text.lower() not in SWITCH:
        raise UsageError(f"{option}: {text!r} is neither yes nor no", "Use true or false.")
    return SWITCH[text.lower()]


def parse_names(texts: Iterable[str], *, option: str) -> tuple[str, ...]:
    """Return the names in *texts*, plain or dotted, each once."""
    names = tuple(dict.fromkeys(texts))
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"{option}: {name!r} is not the name of an exception", "Use ConnectionError, or package.module.Error.")
    return names


def parse_codes(texts: Iterable[str], *, option: str) -> tuple[int, ...]:
    """Return the exit codes in *texts*, 1 to 255, each once."""
    return tuple(dict.fromkeys(parse_count(text, option=option, minimum=1, maximum=255) for text in texts))


def parse_size(text: str, *, option: str, minimum: int = 1, maximum: int = MAX_SIZE_BYTES) -> int:
    """Return the bytes in *text*: ``512MiB``, ``1.5GiB``, ``64kB`` (1,000s), ``4096``; fractions of a byte are dropped."""
    match = SIZE.fullmatch(text)
    if not match or ("." in match[1] and not match[2]):
        raise UsageError(f"{option}: {text!r} is not a size", "Use 64KiB, 512MiB, 2GiB.")
    factor = FACTORS[match[2].lower()]
    # Whole numbers stay whole: a double holds no more than 53 bits of them.
    size = float(match[1]) * factor if "." in match[1] or len(match[1]) > 20 else int(match[1]) * factor
    if not minimum <= size <= maximum:
        raise UsageError(f"{option}: {text!r} is out of range", f"Use {minimum:,} to {maximum:,} bytes.")
    return int(size)


def parse_count(text: str, *, option: str, minimum: int = 0, maximum: int = 2**31 - 1) -> int:
    """Return the whole number in *text*, from *minimum* to *maximum*."""
    number = _whole(text)
    if number is None or number < minimum:
        raise UsageError(f"{option}: {text!r} is not a whole number >= {minimum}", f"Use {minimum:,} to {maximum:,}.")
    if number > maximum:
        raise UsageError(f"{option}: {text!r} is more than {maximum:,}", f"Use {minimum:,} to {maximum:,}.")
    return number


def parse_param(text: str, *, option: str = "--param") -> tuple[str, str]:
    """Return name and value of ``NAME=VALUE``; the value stays text, may be empty and may hold ``=``."""
    name, equals, value = text.partition("=")
    if not equals or not PARAM_NAME.fullmatch(name):
        raise UsageError(f"{option}: {text!r} is not NAME=VALUE", "NAME is a keyword-only parameter of the handler.")
    if "\0" in value:
        raise UsageError(f"{option}: the value of {name!r} holds a NUL character")
    return name, value


def parse_params(texts: Iterable[str], *, option: str = "--param") -> dict[str, str]:
    """Return the values of all ``NAME=VALUE`` by name, in the order given; a name given twice is refused."""
    params: dict[str, str] = {}
    for name, value in (parse_param(text, option=option) for text in texts):
        if name in params:
            raise UsageError(f"{option}: {name!r} is given twice", "Give each name once.")
        params[name] = value
    return params


def shown_size(size_bytes: int) -> str:
    """Return a size as ``parse_size`` reads it, in the largest unit that leaves a whole number: ``16MiB``, ``1000``."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def _whole(text: str) -> int | None:
    return int(text) if WHOLE.fullmatch(text) else None
