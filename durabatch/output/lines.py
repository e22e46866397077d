"""
One item as one line of JSON: what `results` prints. Values are the stored JSON text, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic_core import to_json

from durabatch.models import Result

__all__ = ["members", "result_line"]


def result_line(result: Result, *, all: bool = False) -> str:
    """
    Return the item as a JSON object without line breaks: key and value.

    Args:
        all: Add its state, its charged attempts and its error (null when there is none).
    """
    return members(result, ("key", "value", "state", "attempts", "error") if all else ("key", "value"))


def members(result: Result, names: Iterable[str]) -> str:
    """Return a JSON object with these members of *result*, in this order."""
    return "{" + ",".join(f'"{name}":{member(result, name)}' for name in names) + "}"


def member(result: Result, name: str) -> str:
    """Return one member as JSON text."""
    if name == "value":
        return result.value_json or "null"
    return to_json(getattr(result, name)).decode()
