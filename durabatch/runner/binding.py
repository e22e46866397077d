"""
What holds a run back stands on its row, with an event for each change.
"""

from __future__ import annotations

from durabatch.clock import now_us
from durabatch.engine.active import ActiveRun
from durabatch.engine.note_limit import note_limit
from durabatch.ledger.connection import Connection
from durabatch.runner.governing import Governor, Leave
from durabatch.runner.machine import Machine
from durabatch.runner.room import Room

__all__ = ["Binding"]

#: Limits at which workers give back what they have not started.
CALLED_BACK = frozenset({"rate-limit pause", "breaker"})
#: Limits that hold everything back, so that nothing else binds.
STANDING = frozenset({"paused", "order", "rate-limit pause", "breaker", "canary", "rate"})


class Binding:
    """
    The limit that binds.

    Attributes:
        limit: What stands on the run's row; None when nothing holds it back.
    """

    def __init__(self, ledger: Connection, active: ActiveRun, governor: Governor, machine: Machine, room: Room) -> None:
        self.ledger = ledger
        self.active = active
        self.governor = governor
        self.machine = machine
        self.room = room
        self.limit: str | None = None

    def calls_back(self, leave: Leave) -> bool:
        """Tell whether a limit has come for which workers give back what they have not started."""
        return leave.limit in CALLED_BACK and leave.limit != self.limit

    def show(self, leave: Leave) -> None:
        """Have the limit that binds on the run row; inside the open transaction."""
        limit, text = (leave.limit, leave.text) if leave.limit in STANDING else (self.governor.window.binding, "")
        if limit != self.limit:
            self.limit = limit
            note_limit(self.ledger, self.active, limit, text, now_us=now_us())

    def look_at_machine(self, commit_s: float) -> None:
        """Once a second, narrow or widen the window; *commit_s* is what the last commit took."""
        change = self.machine.look(commit_lag_s=commit_s)
        if change is not None:
            self.room.until_done(
                lambda: note_limit(self.ledger, self.active, change.binding, change.text, now_us=now_us(), workers=change.allowed)
            )
            self.limit = change.binding
