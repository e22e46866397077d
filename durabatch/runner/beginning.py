"""
What a session begins with: what the items of its run are handed out for, first the preflight check and then the handler.
"""

from __future__ import annotations

from typing import Any

from durabatch.engine.reuse import Cache
from durabatch.flow.batching import BatchSettings, strategy
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger.connection import Connection
from durabatch.provenance import cache_identity
from durabatch.runner.choosing import Choice
from durabatch.runner.phases import CHECKED, Checking, Handling, Phase

__all__ = ["first_phase", "handling"]


def first_phase(ledger: Connection, choice: Choice, flow: dict[str, Any]) -> Phase:
    """Return what the items are handed out for first: the preflight check where there is one that was not made, else to be handled."""
    checked = flow.get("preflight", 0)
    if choice.settings.preflight is None or checked == CHECKED:
        return handling(ledger, choice)
    return Checking(ledger, choice.active, int(checked))


def handling(ledger: Connection, choice: Choice) -> Handling:
    """Return the phase in which items run through the handler."""
    settings = choice.settings
    chosen = BatchSettings(settings.batch_size, settings.batch_seconds, settings.memory_threshold)
    return Handling(
        ledger, choice.active, RetryPolicy.of(settings), strategy(settings.batch_strategy, chosen), cache=cache_of(ledger, choice)
    )


def cache_of(ledger: Connection, choice: Choice) -> Cache | None:
    """Return the results that the run may use again; None when it is to run each item, or when nobody can tell what its results depend on."""
    settings = choice.settings
    identity = cache_identity(choice.handler, choice.provenance) if settings.cache and choice.provenance else None
    return Cache(ledger, identity, ttl_s=settings.cache_ttl_s, size_bytes=settings.cache_bytes) if identity is not None else None
