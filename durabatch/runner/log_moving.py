"""
Moving the log into the ledger while a run works: SQLite's own way of doing it swallows errors.
"""

from __future__ import annotations

from durabatch.clock import monotonic_s
from durabatch.ledger.connection import Connection
from durabatch.runner.room import Room

__all__ = ["LogMover"]

#: Frames of the log after which it is moved into the ledger, and the seconds after which it is moved anyway.
FRAMES, SECONDS = 4000, 2.0


class LogMover:
    """Keeps the log of a ledger short; a full disk is waited for."""

    def __init__(self, ledger: Connection, room: Room) -> None:
        self.ledger = ledger
        self.room = room
        self.moved_s = monotonic_s()

    def move_when_due(self) -> None:
        """Move the log into the ledger when it has grown, or some time has passed."""
        frames, now = self.ledger.wal_frames, monotonic_s()
        if frames >= FRAMES or (frames and now - self.moved_s > SECONDS):
            self.room.until_done(self.ledger.checkpoint)
            self.moved_s = now
