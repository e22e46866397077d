"""
The control table: what people ask of a running coordinator from other terminals, and what became of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from durabatch.errors import LedgerDamagedError
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.paths import shown

__all__ = ["Order", "get", "insert", "last_of_run", "list_of_run", "list_open", "settle", "settle_all"]


@dataclass(frozen=True, slots=True)
class Order:
    """One order; ``outcome`` is None until it was carried out or refused."""

    control_id: int
    run_id: int
    verb: str
    argument: dict[str, Any]
    asked_by: dict[str, Any]
    asked_at_us: int
    applied_at_us: int | None
    outcome: str | None


def insert(ledger: Connection, run_id: int, verb: str, argument: Mapping[str, object], asked_by: Mapping[str, object], now_us: int) -> int:
    """Add an order and return its id."""
    row = {
        "run_id": run_id, "verb": verb, "argument": to_json(argument).decode(), "asked_by": to_json(asked_by).decode(), "asked_at_us": now_us,
    }  # fmt: skip
    return int(ledger.value("control_insert", row))


def decode(ledger: Executor, row: tuple[Any, ...]) -> Order:
    """Return the order in *row*; LedgerDamagedError when its JSON is none."""
    try:
        return Order(row[0], row[1], row[2], dict(from_json(row[3])), dict(from_json(row[4])), *row[5:])
    except (TypeError, ValueError) as error:
        raise LedgerDamagedError(
            shown(ledger.files.ledger), f"is damaged (order {row[0]} is no JSON)", "`durabatch verify` lists what is broken."
        ) from error


def get(ledger: Executor, control_id: int) -> Order | None:
    """Return one order, or None."""
    row = ledger.row("control_get", (control_id,))
    return None if row is None else decode(ledger, row)


def list_open(ledger: Executor, run_id: int) -> list[Order]:
    """Return the orders for a run that nobody has carried out or refused, oldest first."""
    return [decode(ledger, row) for row in ledger.rows("control_list_open", (run_id,))]


def list_of_run(ledger: Executor, run_id: int) -> list[Order]:
    """Return all orders for a run, oldest first."""
    return [decode(ledger, row) for row in ledger.rows("control_list", (run_id,))]


def last_of_run(ledger: Executor, run_id: int) -> Order | None:
    """Return the last order for a run, or None."""
    row = ledger.row("control_last", (run_id,))
    return None if row is None else decode(ledger, row)


def settle(ledger: Connection, control_id: int, outcome: str, now_us: int) -> bool:
    """Note what became of an order; False when that stands there already."""
    ledger.execute("control_settle", (control_id, now_us, outcome))
    return ledger.changes() == 1


def settle_all(ledger: Connection, run_id: int, outcome: str, now_us: int) -> int:
    """Give all open orders of a run the same end; return how many."""
    ledger.execute("control_settle_all", (run_id, now_us, outcome))
    return ledger.changes()
