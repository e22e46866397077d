"""Handlers that worker processes import by this module's name; they write down their calls in the file that CALLS names."""

from __future__ import annotations

import os
import time

import durabatch


def note(item: object) -> None:
    """Append one line for one call; short appends by several processes do not mix."""
    calls = os.open(os.environ["CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(calls, f"{item}\n".encode())
    os.close(calls)


def double(item):
    note(item)
    return item * 2


def picky(item):
    """Fail for 7, 17, 27 and so on, unless they were mended."""
    note(item)
    if item % 10 == 7 and not os.path.exists("mended"):
        raise ValueError(f"not {item % 10}")
    return item * 2


def bulky(item):
    """Return more than stands in a row."""
    return {"item": item, "text": f"{item}," * 1000}


def slow(item):
    note(item)
    time.sleep(0.01)
    return item


@durabatch.handler(max_attempts=3)
def third_time(item, ctx: durabatch.Context):
    """Succeed at the third try."""
    note(item)
    if ctx.attempt < 3:
        raise OSError(f"try {ctx.attempt}")
    return [ctx.attempt, ctx.item_key, ctx.run_name]


def shifted(item, *, by: int, label: str = ""):
    return f"{item + by}{label}"


def name_of(item):
    return item["name"]
