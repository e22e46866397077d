"""
What works together during one session.
"""

from __future__ import annotations

from dataclasses import dataclass

from durabatch.runner.choosing import Choice
from durabatch.runner.coordinator import Coordinator
from durabatch.runner.opening import OwnedLedger
from durabatch.runner.pace import Pace
from durabatch.runner.pool import Pool
from durabatch.runner.publishing import Publisher
from durabatch.runner.signals import Signals

__all__ = ["Parts"]


@dataclass(slots=True)
class Parts:
    """The parts of a session."""

    owned: OwnedLedger
    choice: Choice
    coordinator: Coordinator
    publisher: Publisher
    pool: Pool
    pace: Pace
    signals: Signals
