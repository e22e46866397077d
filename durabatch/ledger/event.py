"""
The event table: what happened to the ledger and its runs, for people and for telling coordinators apart.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json, to_json

from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor

__all__ = ["first_opened", "is_copy", "record"]


def record(ledger: Connection, kind: str, *, run_id: int | None, now_us: int, **detail: object) -> int:
    """Add one event and return its id."""
    row = {"run_id": run_id, "kind": kind, "happened_at_us": now_us, "detail": to_json(detail).decode()}
    return int(ledger.value("event_insert", row))


def first_opened(ledger: Executor) -> dict[str, Any]:
    """Return what the ledger's maker wrote about itself: host, machine, user; empty when nobody ever ran it."""
    detail = ledger.value("event_first_opened")
    return {} if detail is None else dict(from_json(detail))


def is_copy(ledger: Executor) -> bool:
    """Tell whether the ledger is a copy of one that was in use, and was opened now for the first time."""
    return bool(ledger.value("event_before_last") == "copied")
