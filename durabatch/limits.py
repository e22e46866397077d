"""
The small languages of the limits: how a person writes a timeout, a rate, when to halt, when to pause, and what is tolerated.

Each is a frozen value with ``parse``, the inverse of ``str``; a fault is a UsageError of one line that shows the grammar. Values are kept as
text on the run, so that a resume and ``check`` show what a person wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from durabatch.errors import UsageError
from durabatch.options import parse_count, parse_timeout

__all__ = ["Breaker", "Budget", "Halt", "Limit", "Rate", "Timeout", "shown_duration"]

PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%", re.ASCII)
#: Percentages of a median: 100% would end half of all items.
MIN_TIMEOUT_PERCENT, MAX_TIMEOUT_PERCENT = 110.0, 100_000.0
TIMEOUT_PERCENT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)%", re.ASCII)
AMOUNT = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)
UNIT = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
MAX_COUNT = 2**31 - 1
#: How long a breaker stays open at first.
BREAKER_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Limit:
    """A number of items, or a share of them in percent: exactly one of the two is set."""

    count: int | None = None
    percent: float | None = None

    @classmethod
    def parse(cls, text: str, *, option: str, minimum: int = 0) -> Limit:
        """Return the limit in *text*: ``5`` or ``2.5%``."""
        match = PERCENT.fullmatch(text)
        if match and float(match[1]) <= 100:
            return cls(percent=float(match[1]))
        if match or not text.isascii() or not text.isdigit() or len(text) > 10 or not minimum <= int(text) <= MAX_COUNT:
            raise UsageError(f"{option}: {text!r} is not a number of items or a share", f"Use N, {minimum} or more, or N%, up to 100%.")
        return cls(count=int(text))

    def __str__(self) -> str:
        return str(self.count) if self.percent is None else f"{self.percent:g}%"


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop the run at so many failures: at once (``now``: running items are interrupted), or when running items have ended."""

    now: bool
    limit: Limit

    @classmethod
    def parse(cls, text: str, *, option: str = "--halt") -> Halt:
        """Return the rule in *text*: ``now,fail=1`` or ``soon,fail=10%``."""
        when, comma, rest = text.partition(",")
        word, equals, limit = rest.partition("=")
        if when not in ("now", "soon") or not comma or word != "fail" or not equals or not limit:
            raise UsageError(f"{option}: {text!r} is not a halt rule", "Use now,fail=N, now,fail=N%, soon,fail=N or soon,fail=N%.")
        return cls(when == "now", Limit.parse(limit, option=option, minimum=1))

    def __str__(self) -> str:
        return f"{'now' if self.now else 'soon'},fail={self.limit}"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most *items* starts in *period_s* seconds."""

    items: int
    period_s: float
    text: str

    @classmethod
    def parse(cls, text: str, *, option: str = "--rate") -> Rate:
        """Return the rate in *text*: ``50/1m``, ``50/m``."""
        number, slash, period = text.partition("/")
        if not slash or not period:
            raise UsageError(f"{option}: {text!r} lacks a period", f"Use {number if number.isdigit() else 50}/1m.")
        items = parse_count(number, option=option, minimum=1, maximum=10**9)
        return cls(items, parse_timeout(period if period[0].isdigit() else f"1{period}", option=option), text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Timeout:
    """The longest time of one attempt: *seconds*, or *percent* of the median of the successes so far; exactly one is set."""

    seconds: float | None = None
    percent: float | None = None
    text: str = ""

    @classmethod
    def parse(cls, text: str, *, option: str = "--timeout") -> Timeout:
        """Return the timeout in *text*: ``30s`` or ``200%``."""
        match = TIMEOUT_PERCENT.fullmatch(text)
        if not match:
            return cls(seconds=parse_timeout(text, option=option), text=text)
        if not MIN_TIMEOUT_PERCENT <= float(match[1]) <= MAX_TIMEOUT_PERCENT:
            raise UsageError(f"{option}: {text!r} of the median is out of range", "Use 110% to 100000%, or a duration such as 30s.")
        return cls(percent=float(match[1]), text=text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Breaker:
    """Hand nothing out for *wait_s* when *percent* of the latest attempts failed, or *same* in a row with the same error; at least one is set."""

    percent: float | None = None
    same: int | None = None
    wait_s: float = BREAKER_WAIT_S
    text: str = ""

    @classmethod
    def parse(cls, text: str, *, option: str = "--breaker") -> Breaker:
        """Return the breaker in *text*: ``50%``, ``same=10``, ``50%,same=10,wait=1m``."""
        percent, same, wait_s = None, None, BREAKER_WAIT_S
        for part in text.split(","):
            word, equals, value = part.partition("=")
            match = PERCENT.fullmatch(part)
            if match and percent is None and 0 < float(match[1]) <= 100:
                percent = float(match[1])
            elif word == "same" and equals and same is None:
                same = parse_count(value, option=option, minimum=2)
            elif word == "wait" and equals:
                wait_s = parse_timeout(value, option=option)
            else:
                percent, same = None, None
                break
        if percent is None and same is None:
            raise UsageError(f"{option}: {text!r} is not a breaker", "Use N%, same=N, or both, and wait=T, as in 50%,same=10,wait=30s.")
        return cls(percent, same, wait_s, text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Budget:
    """At most *amount* of *unit* for the whole run."""

    unit: str
    amount: float

    @classmethod
    def parse(cls, text: str, *, option: str = "--budget") -> Budget:
        """Return the budget in *text*: ``usd=5``, ``tokens=1000000``."""
        unit, equals, amount = text.partition("=")
        if not equals or not UNIT.fullmatch(unit) or not AMOUNT.fullmatch(amount) or float(amount) == 0:
            raise UsageError(
                f"{option}: {text!r} is not UNIT=AMOUNT", "Use usd=5 or tokens=1000000; the unit is what the handler gives to ctx.spend."
            )
        return cls(unit, float(amount))

    def __str__(self) -> str:
        return f"{self.unit}={self.amount:g}"


def shown_duration(seconds: float) -> str:
    """Return *seconds* as ``parse_duration`` reads it, in the largest unit that leaves a whole number: ``90s``, ``5m``, ``250ms``."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"
