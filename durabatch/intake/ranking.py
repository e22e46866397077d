"""
Where an item stands in the line, read from its payload: ``--priority`` and ``--order``.

An item that is to run out of input order has a due time in the past, which serves as its rank: of items with the same priority the one that
was due first is claimed first. Ranks depend on the item alone, never on the clock, so that items taken in after a resume find their place
among those that were there; all of them lie between 1970 and 2006, behind what was given back (due at 0) and before any retry.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from durabatch.errors import InputError, UsageError
from durabatch.intake.keys import MISSING, lookup
from durabatch.intake.problems import did_you_mean, printable
from durabatch.settings import RunSettings

__all__ = ["INPUT_ORDER", "MAX_PRIORITY", "ORDERS", "Place", "first_misplaced", "place_of"]

#: (priority, due time in UTC microseconds that stands for the rank; None leaves the item in input order)
Place = tuple[int, int | None]
Rank = Callable[[str, object], int]

INPUT_ORDER = "input"
#: Priorities reach from minus this number to this number.
MAX_PRIORITY = 10**9
#: The largest size that is told from smaller ones: 1 TiB.
MAX_RANKED_BYTES = 1 << 40
#: Microseconds until 2255. Times are told apart to 8 of them: an eighth of this bound is a due time that has passed.
MAX_RANKED_US, RANK_STEP_US = 1 << 53, 8
WHOLE = re.compile(r"[+-]?\d{1,10}", re.ASCII)


def place_of(settings: RunSettings) -> Callable[[str], Place] | None:
    """
    Return the function from a payload (JSON text) to its place; None when all items run in input order.

    The function raises InputError when the payload does not hold what a place is made of.

    Raises:
        UsageError: There is no such order.
    """
    field = settings.priority
    if settings.shuf is not None and settings.order != INPUT_ORDER:
        raise UsageError(f"--shuf and --order {settings.order} contradict each other", "Leave one of them out.")
    rank = rank_by(settings.order) if settings.shuf is None else shuffled(settings.shuf)
    if field is None and rank is None:
        return None

    def place(payload: str) -> Place:
        value: object = from_json(payload)
        priority = 0 if field is None else priority_in(value, field)
        if rank is not None:
            return priority, rank(payload, value)
        return priority, 0 if priority else None

    return place


def first_misplaced(place: Callable[[str], Place] | None, rows: Sequence[tuple[Any, str, int]]) -> tuple[int, InputError] | None:
    """Return the index of the first row (key, payload, position) that has no place, and what is wrong with it; None when all have one."""
    if place is None:
        return None
    for index, row in enumerate(rows):
        try:
            place(row[1])
        except InputError as error:
            return index, error
    return None


def rank_by(order: str) -> Rank | None:
    """Return how *order* ranks an item; None for input order."""
    if order != INPUT_ORDER and order not in RANKS:
        raise UsageError(f"--order: {order!r} is not one of {', '.join(ORDERS)}", did_you_mean(order, ORDERS))
    return RANKS.get(order)


def shuffled(seed: int) -> Rank:
    """Return a rank that is random, and the same for the same seed and payload."""
    salt = seed.to_bytes(16, "little")
    return lambda payload, _value: int.from_bytes(hashlib.blake2b(payload.encode(), digest_size=5, salt=salt).digest())


def priority_in(value: object, field: str) -> int:
    """Return the priority in an item: 0 where the field is missing, null or an empty cell."""
    if not isinstance(value, Mapping):
        raise InputError(f"--priority {printable(field)}", "the item is no object with fields", "Leave --priority out, or use records.")
    found = lookup(value, field)
    if found is MISSING or found is None or found == "":
        return 0
    number = whole(found)
    if number is None or abs(number) > MAX_PRIORITY:
        raise InputError(
            f"--priority {printable(field)}",
            f"{shown(found)} is no priority",
            f"Use whole numbers from -{MAX_PRIORITY:,} to {MAX_PRIORITY:,}; missing is 0.",
        )
    return number


def whole(value: object) -> int | None:
    """Return *value* as a whole number, also one written as text, as in a CSV file; None when it is none."""
    if isinstance(value, str):
        return int(value) if WHOLE.fullmatch(value.strip()) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def shown(value: object) -> str:
    """Return a value of the input for a message, cut and harmless."""
    text = repr(value)
    return printable(text if len(text) <= 60 else f"{text[:57]}...")


def size_of(payload: str, value: object) -> int:
    """Return the bytes of a file item, of any other item those of its payload."""
    facts = file_facts(value)
    size = facts["bytes"] if facts else len(payload) if payload.isascii() else len(payload.encode())
    return int(min(max(size, 0), MAX_RANKED_BYTES))


def time_of(value: object, order: str) -> int:
    """Return when a file item was changed, in steps since 1970."""
    changed_s = min(max(facts_for(order, value)["mtime"], 0), MAX_RANKED_US / 1e6)
    return int(changed_s * 1e6) // RANK_STEP_US


def kind_of(value: object) -> int:
    """Return a number that is the same for file items with the same suffix, so that they run together."""
    suffix = os.path.splitext(facts_for("kind", value)["path"])[1]
    return zlib.crc32(suffix.lower().encode())


def facts_for(order: str, value: object) -> Mapping[str, Any]:
    """Return what is known of a file item; InputError for any other item."""
    facts = file_facts(value)
    if facts is None:
        raise InputError(
            f"--order {order}", f"the item {shown(value)} is no file", "Use --format files, or the order input, smallest or largest."
        )
    return facts


def file_facts(value: object) -> Mapping[str, Any] | None:
    """Return *value* when it is a file item, with path, bytes and time of change; else None."""
    if not isinstance(value, Mapping):
        return None
    is_file = isinstance(value.get("path"), str) and is_number(value.get("bytes")) and is_number(value.get("mtime"))
    return value if is_file else None


def is_number(value: object) -> bool:
    """Tell whether *value* is a number that others can be compared with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # noqa: PLR0124 - NaN is not equal to itself


RANKS: dict[str, Rank] = {
    "smallest": size_of,
    "largest": lambda payload, value: MAX_RANKED_BYTES - size_of(payload, value),
    "newest": lambda _payload, value: MAX_RANKED_US // RANK_STEP_US - time_of(value, "newest"),
    "oldest": lambda _payload, value: time_of(value, "oldest"),
    "kind": lambda _payload, value: kind_of(value),
}
#: Every order there is, the plain one first.
ORDERS = (INPUT_ORDER, *RANKS)
