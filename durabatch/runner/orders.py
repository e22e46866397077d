"""
The orders that a coordinator takes from other processes, and what each may carry: the words of the command line become fields of RunSettings.

    pause, unpause, drain, cancel    nothing
    scale N                          {"workers": N}
    set KEY=VALUE...                 any of rate, timeout (None: off), batch_size, concurrency
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from durabatch.errors import UsageError
from durabatch.limits import Rate, Timeout
from durabatch.options import MAX_WORKERS, did_you_mean, parse_count

__all__ = ["MAX_BATCH", "MAX_CONCURRENCY", "REFUSED", "Verb", "argument_of"]

Verb = Literal["pause", "unpause", "scale", "set", "drain", "cancel"]

#: What the outcome of an order begins with that the coordinator could not carry out; the reason follows.
REFUSED = "refused: "
MAX_BATCH, MAX_CONCURRENCY = 1_000_000, 10_000
GRAMMAR = "Use rate=50/1m|off, batch-size=N, concurrency=N, timeout=30s|200%|off."


def argument_of(verb: Verb, words: Sequence[str]) -> dict[str, Any]:
    """
    Return what an order carries, from what stands behind the verb on the command line.

    Raises:
        UsageError: *words* are wrong; the error shows the grammar.
    """
    if verb == "scale":
        return {"workers": parse_count(" ".join(words), option="scale", minimum=1, maximum=MAX_WORKERS)}
    return read_settings(words) if verb == "set" else {}


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Return the fields of RunSettings in ``KEY=VALUE`` texts, each given once."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        field = name.replace("-", "_")
        if not equals or not text:
            raise UsageError(f"set: {pair!r} is not KEY=VALUE", GRAMMAR)
        if field not in READERS:
            hint = did_you_mean(name, [known.replace("_", "-") for known in READERS])
            raise UsageError(f"set: {name!r} cannot be changed while a run works", f"{hint} {GRAMMAR}".lstrip())
        if field in settings:
            raise UsageError(f"set: {name!r} is given twice", GRAMMAR)
        settings[field] = READERS[field](text)
    if not settings:
        raise UsageError("set: there is nothing to set", GRAMMAR)
    return settings


def read_rate(text: str) -> str | None:
    """Return a rate as it is kept; None for ``off``."""
    return None if text == "off" else str(Rate.parse(text, option="set rate"))


def read_timeout(text: str) -> str | None:
    """Return a timeout as it is kept; None for ``off``."""
    return None if text == "off" else str(Timeout.parse(text, option="set timeout"))


def read_batch_size(text: str) -> int:
    """Return the number of items in a batch."""
    return parse_count(text, option="set batch-size", minimum=1, maximum=MAX_BATCH)


def read_concurrency(text: str) -> int:
    """Return the number of items at once in a worker."""
    return parse_count(text, option="set concurrency", minimum=1, maximum=MAX_CONCURRENCY)


READERS: dict[str, Callable[[str], Any]] = {
    "rate": read_rate,
    "batch_size": read_batch_size,
    "concurrency": read_concurrency,
    "timeout": read_timeout,
}
