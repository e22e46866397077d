"""
One item on its way out, and the text of its members. Values are the stored JSON text, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from pydantic_core import to_json

from durabatch.models import Result

__all__ = ["MEMBERS", "ExportRow", "Leaving", "member", "members", "object_pieces", "row_of"]

#: What there is to tell of an item; ``value`` and ``payload`` are JSON already.
MEMBERS = ("key", "state", "value", "error", "attempts", "payload")


class ExportRow(NamedTuple):
    """
    One item, as a sink writes it.

    Attributes:
        value_json: What the handler returned as JSON text, None when there is no result.
        error: What was wrong with the last attempt, None when there is nothing to say.
        attempts: Charged attempts.
        payload_json: The item itself as JSON text; None when nobody asked for it.
    """

    key: str
    state: str
    value_json: str | None
    error: str | None = None
    attempts: int = 1
    payload_json: str | None = None


class Leaving(Protocol):
    """What :class:`ExportRow` and :class:`~durabatch.models.Result` have in common."""

    @property
    def key(self) -> str:
        """The item's key."""
        ...

    @property
    def state(self) -> str:
        """Its state."""
        ...

    @property
    def error(self) -> str | None:
        """What was wrong."""
        ...

    @property
    def attempts(self) -> int:
        """Charged attempts."""
        ...

    @property
    def value_json(self) -> str | None:
        """Its value as JSON text."""
        ...


def row_of(result: Result) -> ExportRow:
    """Return what a sink writes of *result*."""
    return ExportRow(result.key, result.state, result.value_json, result.error, result.attempts)


def members(row: Leaving, names: Iterable[str]) -> str:
    """Return a JSON object with these members of *row*, in this order."""
    return "".join(object_pieces(row, names))


def object_pieces(row: Leaving, names: Iterable[str]) -> list[str]:
    """Return the text of :func:`members` in pieces, the value as one of them: a big one is not copied."""
    pieces: list[str] = []
    before = "{"
    for name in names:
        pieces += (f'{before}"{name}":', member(row, name))
        before = ","
    pieces.append("}")
    return pieces


def member(row: Leaving, name: str) -> str:
    """Return one member as JSON text."""
    if name == "value":
        return row.value_json or "null"
    if name == "payload":
        return getattr(row, "payload_json", None) or "null"
    return to_json(getattr(row, name)).decode()
