"""
A run that is open waits for what other processes add.

It wakes when they write, lets its last batch leave when nothing comes, and goes when nothing has come for long enough.

    quiet ──1 s──▶ the open batch is sealed ──idle_exit_s──▶ the coordinator leaves; the run stays open
"""

from __future__ import annotations

from collections.abc import Callable

from durabatch.clock import monotonic_s, now_us
from durabatch.engine.active import ActiveRun
from durabatch.engine.claim import seal_last_batch
from durabatch.engine.notice import notice
from durabatch.errors import UsageError
from durabatch.ledger import queue
from durabatch.ledger.connection import Connection
from durabatch.limits import shown_duration
from durabatch.runner.pool import Event, Pool
from durabatch.runner.room import Room
from durabatch.settings import RunSettings

__all__ = ["Vigil", "refuse_unfit"]

#: How often a coordinator looks whether others have written, while it waits.
LOOK_S = 0.05
#: A wait that is shorter by that was ended by something.
EARLY_S = 0.002
#: After so long without a new item the open batch takes no more, so that its results leave.
SEAL_S = 1.0
#: The longest wait while there is nothing to do.
QUIET_S = 2.0
#: No version of a ledger.
NOTHING = -1


def refuse_unfit(settings: RunSettings, *, is_open: bool) -> None:
    """
    Return when the settings fit a run that is open, or one that is not.

    Raises:
        UsageError: They need the end of an input that has none, or are about waiting for items that cannot come.
    """
    if not is_open:
        if settings.idle_exit_s is not None:
            raise UsageError("--idle-exit is about a run that waits for items", "Say --open, too, or leave it out.")
        return
    wants_all = {
        "--preflight": settings.preflight is not None,
        f"--order {settings.order}": settings.order != "input",
        "--shuf": settings.shuf is not None,
        "--dedupe last": settings.dedupe == "last",
    }
    for option, is_given in wants_all.items():
        if is_given:
            raise UsageError(f"{option} needs the whole input first, and an open run has no last item", "Leave it out, or --open.")


class Vigil:
    """
    What the coordinator of a run does about items that others may add; nothing, when the run is not open.

    Args:
        idle_exit_s: Seconds without anything to do after which to leave; None never.
        room: Knows whether a signal came.
        note: Tells the person something.

    Attributes:
        seen: The version of the ledger that is known.
        quiet_since_s: Since when there is nothing to do; None while there is.
        joined_s: When an item was handed out last.
        is_told: The person knows that the run waits.
    """

    def __init__(self, ledger: Connection, active: ActiveRun, idle_exit_s: float | None, room: Room, note: Callable[[str], None]) -> None:
        self.ledger = ledger
        self.active = active
        self.idle_exit_s = idle_exit_s
        self.room = room
        self.note = note
        self.seen = NOTHING
        self.quiet_since_s: float | None = None
        self.joined_s = monotonic_s()
        self.is_told = False

    def patience(self, otherwise_s: float) -> float:
        """Return the longest wait; *otherwise_s* while there is something to do, or where nobody can add anything."""
        if not self.active.is_open:
            return otherwise_s
        waits = [otherwise_s if self.quiet_since_s is None else QUIET_S]
        now_s = monotonic_s()
        if self.has_batch_to_seal:
            waits.append(self.joined_s + SEAL_S - now_s)
        if self.quiet_since_s is not None and self.idle_exit_s is not None:
            waits.append(self.quiet_since_s + self.idle_exit_s - now_s)
        return max(0.0, min(waits))

    @property
    def has_batch_to_seal(self) -> bool:
        """Whether a batch waits for items of which none is there."""
        return self.active.is_open and self.active.open_batch is not None and not self.active.pending_count

    def poll(self, pool: Pool, patience_s: float) -> list[Event]:
        """Wait for the workers, in an open run also for what others write; whatever wakes the pool ends the wait."""
        if not self.active.is_open:
            return pool.poll(patience_s)
        until_s = monotonic_s() + patience_s
        while True:
            begun_s = monotonic_s()
            step_s = max(0.0, min(LOOK_S, until_s - begun_s))
            events = pool.poll(step_s)
            now_s = monotonic_s()
            is_woken = bool(events) or now_s - begun_s < step_s - EARLY_S or self.room.is_told_to_stop()
            if is_woken or now_s >= until_s or queue.version(self.ledger) != self.seen:
                return events

    def notice(self) -> None:
        """Know what others have written, at the beginning of the tick's transaction."""
        version = self.ledger.data_version
        if version != self.seen and (self.active.is_open or self.seen == NOTHING):
            notice(self.ledger, self.active)
        self.seen = version

    def seal(self, taken: int) -> None:
        """Let the open batch take no more when nothing was handed out for some time and nothing waits; inside the tick's transaction."""
        if taken:
            self.joined_s = monotonic_s()
        elif self.has_batch_to_seal and monotonic_s() - self.joined_s >= SEAL_S:
            seal_last_batch(self.ledger, self.active, now_us())

    def look(self, *, is_quiet: bool) -> str | None:
        """
        Look whether there is nothing to do, and return why to leave when that has lasted long enough.

        Args:
            is_quiet: Every known item has ended, and there is no input to be read.
        """
        if not (self.active.is_open and is_quiet):
            self.quiet_since_s = None
            return None
        if self.quiet_since_s is None:
            self.quiet_since_s = monotonic_s()
            self.tell()
        if self.idle_exit_s is None or monotonic_s() - self.quiet_since_s < self.idle_exit_s:
            return None
        return f"idle for {shown_duration(self.idle_exit_s)}; the run is open"

    def tell(self) -> None:
        """Say once what is waited for."""
        if not self.is_told:
            self.is_told = True
            name = self.active.name
            self.note(f"run {name} is open: waiting for `durabatch submit {name}`; `durabatch close {name}` lets it finish")
