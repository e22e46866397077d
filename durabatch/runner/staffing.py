"""
How many workers there are: started, replaced when they die or have done their share, fewer when they cannot start, more or fewer on request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from durabatch.clock import monotonic_s
from durabatch.errors import RunHaltedError
from durabatch.runner.crew import Crew, Member
from durabatch.runner.pool import Pool
from durabatch.workers.protocol import Release, Stop

__all__ = ["Staff"]

#: Tries in a row to start a worker, and the wait before the second; each further one waits four times as long.
MAX_TRIES, FIRST_WAIT_S = 3, 0.05


@dataclass(slots=True)
class Seat:
    """The place of one worker: starts in a row that came to nothing, and when the next one may be."""

    failures: int = 0
    next_s: float = 0.0


class Staff:
    """
    The seats of the workers, numbered from 1.

    Args:
        share: Items after which a worker is replaced; None never.
        note: Tells the person something.

    Attributes:
        last_words: What the worker said that could not be started last.
    """

    def __init__(self, pool: Pool, crew: Crew, workers: int, share: int | None, note: Callable[[str], None]) -> None:
        self.pool = pool
        self.crew = crew
        self.share = share
        self.note = note
        self.seats = {number: Seat() for number in range(1, workers + 1)}
        self.last_words = ""

    def fill(self) -> None:
        """Start a worker for every empty seat whose time has come."""
        now_s = monotonic_s()
        for number, seat in self.seats.items():
            if number not in self.crew.members and now_s >= seat.next_s:
                self.crew.join(number, now_s)
                self.pool.start(number)

    def wait_s(self) -> float | None:
        """Return the seconds until a seat can be filled, None when all are taken."""
        waits = [seat.next_s for number, seat in self.seats.items() if number not in self.crew.members]
        return max(0.0, min(waits) - monotonic_s()) if waits else None

    def lost(self, member: Member, words: str) -> None:
        """Note the death of a worker; its seat is given up when again and again it died before it had done anything."""
        seat = self.seats.get(member.number)
        if seat is None:
            return
        if member.is_ready and (member.ended_count or member.is_leaving or member.doom):
            seat.failures = 0
            return
        seat.failures += 1
        seat.next_s = monotonic_s() + FIRST_WAIT_S * 4**seat.failures
        self.last_words = " ".join(words.split())[-300:]
        if seat.failures >= MAX_TRIES:
            del self.seats[member.number]
            if self.seats:
                self.note(f"worker {member.number} could not be started {MAX_TRIES} times; going on with {len(self.seats)}")

    def give_up(self) -> None:
        """Raise RunHaltedError when no worker can be started, with what it said."""
        if not self.seats and not self.crew.members:
            words = self.last_words or "it said nothing"
            raise RunHaltedError(f"no worker could be started ({words})", "Try the same command with --workers 0 to see the error itself.")

    def scale(self, workers: int) -> None:
        """Have *workers* workers from now on: the ones with the highest numbers leave, or the lowest free seats are opened."""
        for number in sorted(self.seats, reverse=True)[: max(0, len(self.seats) - workers)]:
            del self.seats[number]
            self.dismiss(number)
        free = (number for number in range(1, 2 * workers + len(self.crew.members) + 1) if number not in self.seats)
        while len(self.seats) < workers:
            self.seats[next(free)] = Seat()

    def dismiss(self, number: int) -> None:
        """Let a worker go: it gives back what it has not started, and ends when it has nothing left."""
        member = self.crew.members.get(number)
        if member is not None and not member.is_leaving:
            member.is_leaving = True
            self.pool.send(number, Release())

    def let_go(self) -> None:
        """Dismiss workers that have done their share, and end those that are leaving and have nothing left."""
        for member in self.crew.members.values():
            if self.share is not None and member.ended_count >= self.share:
                self.dismiss(member.number)
            if member.is_leaving and member.left_s is None and not member.held:
                member.left_s = monotonic_s()
                self.pool.send(member.number, Stop())
