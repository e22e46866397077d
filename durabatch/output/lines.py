"""
One item as one line of JSON: what `results` prints. Values are the stored JSON text, byte for byte.
"""

from __future__ import annotations

from durabatch.models import Result
from durabatch.output.rows import members

__all__ = ["members", "result_line"]


def result_line(result: Result, *, all: bool = False) -> str:
    """
    Return the item as a JSON object without line breaks: key and value.

    Args:
        all: Add its state, its charged attempts and its error (null when there is none).
    """
    return members(result, ("key", "value", "state", "attempts", "error") if all else ("key", "value"))
