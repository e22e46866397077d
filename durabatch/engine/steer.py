"""
Orders to a running coordinator: other processes leave them in the ledger, the coordinator carries them out and says what became of them.

    another terminal: order ──▶ control ──▶ coordinator: open_orders, settle ──▶ outcome_of: the answer

The rows stay: who asked for what, when, and with what result.
"""

from __future__ import annotations

from collections.abc import Mapping

from durabatch.errors import NotFoundError
from durabatch.ledger import control
from durabatch.ledger.connection import Connection
from durabatch.ledger.control import Order
from durabatch.ledger.executor import Executor

__all__ = ["EXPIRED", "Order", "expire", "open_orders", "order", "orders_of_run", "outcome_of", "settle"]

#: What becomes of an order whose coordinator ended before it was carried out.
EXPIRED = "not carried out: the coordinator had ended"


def order(ledger: Connection, run_id: int, verb: str, argument: Mapping[str, object], *, by: Mapping[str, object], now_us: int) -> int:
    """
    Leave an order for the coordinator of the run and return its id.

    One write transaction; the coordinator sees it with its next one.

    Args:
        verb: ``pause``, ``unpause``, ``scale``, ``set``, ``drain`` or ``cancel``.
        by: Who asks: user, host, process.
    """
    with ledger.transaction():
        return control.insert(ledger, run_id, verb, argument, by, now_us)


def open_orders(ledger: Executor, run_id: int) -> list[Order]:
    """Return the orders for the run that were neither carried out nor refused, oldest first."""
    return control.list_open(ledger, run_id)


def settle(ledger: Connection, control_id: int, outcome: str, now_us: int) -> bool:
    """Say what became of an order; False when that was said before, which stays. One write transaction."""
    with ledger.transaction():
        return control.settle(ledger, control_id, outcome, now_us)


def expire(ledger: Connection, run_id: int, now_us: int) -> int:
    """Settle the orders that an earlier coordinator has left open; they were not meant for the present one. Return how many there were."""
    with ledger.transaction():
        return control.settle_all(ledger, run_id, EXPIRED, now_us)


def outcome_of(reader: Executor, control_id: int) -> str | None:
    """
    Return what became of an order, None while it is open.

    Raises:
        NotFoundError: There is no such order.
    """
    found = control.get(reader, control_id)
    if found is None:
        raise NotFoundError(f"no order {control_id} in this ledger", "It was never given.")
    return found.outcome


def orders_of_run(reader: Executor, run_id: int) -> list[Order]:
    """Return all orders that were ever given for the run, oldest first."""
    return control.list_of_run(reader, run_id)
