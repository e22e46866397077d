"""
What a session begins with: what the items of its run are handed out for, first the preflight check and then the handler.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from durabatch.engine.reuse import Cache
from durabatch.flow.batching import BatchSettings, strategy
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger.connection import Connection
from durabatch.provenance import cache_identity
from durabatch.runner.checking import CHECKED, Checking
from durabatch.runner.choosing import Choice
from durabatch.runner.handling import Handling
from durabatch.runner.phases import Phase
from durabatch.runner.rolling_back import ROLLBACK
from durabatch.runner.undoing import Undoing
from durabatch.settings import RunSettings

__all__ = ["first_phase", "handling", "limited"]

#: When a run halts of which everything is undone if one item fails.
ALL_OR_NOTHING = "now,fail=1"


def first_phase(ledger: Connection, choice: Choice, flow: dict[str, Any]) -> Phase:
    """Return what is done first: the preflight check where there is one that was not made, else the items are handled; or undone."""
    if choice.is_rollback:
        return undoing(ledger, choice, flow)
    checked = flow.get("preflight", 0)
    if choice.settings.preflight is None or checked == CHECKED:
        return handling(ledger, choice, flow)
    return Checking(ledger, choice.active, int(checked))


def handling(ledger: Connection, choice: Choice, flow: dict[str, Any]) -> Handling:
    """Return the phase in which items run through the handler."""
    settings = choice.settings
    chosen = BatchSettings(settings.batch_size, settings.batch_seconds, settings.memory_threshold)
    phase = Handling(
        ledger, choice.active, RetryPolicy.of(settings), strategy(settings.batch_strategy, chosen), undoing(ledger, choice, flow),
        is_atomic=settings.atomic == "batch", cache=cache_of(ledger, choice),
    )  # fmt: skip
    phase.begin()
    return phase


def undoing(ledger: Connection, choice: Choice, flow: dict[str, Any]) -> Undoing:
    """Return the phase in which effects are undone, as the rollback was wished that has asked for it, this one or one that was cut off."""
    # Without a rollback, what is undone are items and batches that failed: one of them says nothing of the others.
    wish = flow.get(ROLLBACK, {"keep_going": True})
    policy = RetryPolicy.of(choice.settings)
    return Undoing(ledger, choice.active, policy, is_forced=wish.get("force", False), keeps_going=wish.get("keep_going", False))


def limited(settings: RunSettings) -> RunSettings:
    """Return the settings with the limits that are meant where none is given: a run that is all or nothing ends at its first failure."""
    is_all_or_nothing = settings.atomic == "run" and settings.halt is None and settings.tolerate is None
    return replace(settings, halt=ALL_OR_NOTHING) if is_all_or_nothing else settings


def cache_of(ledger: Connection, choice: Choice) -> Cache | None:
    """Return the results that the run may use again; None when it is to run each item, or when nobody can tell what its results depend on."""
    settings = choice.settings
    identity = cache_identity(choice.handler, choice.provenance) if settings.cache and choice.provenance else None
    return Cache(ledger, identity, ttl_s=settings.cache_ttl_s, size_bytes=settings.cache_bytes) if identity is not None else None
