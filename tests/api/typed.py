"""A handler whose item and result are pydantic models."""

from __future__ import annotations

import datetime

import pydantic


class Order(pydantic.BaseModel):
    id: str
    amount: float
    day: datetime.date


class Bill(pydantic.BaseModel):
    total: float
    due: datetime.date


def bill(order: Order) -> Bill:
    return Bill(total=order.amount * 1.5, due=order.day + datetime.timedelta(days=30))
