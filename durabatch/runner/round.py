"""
What happened in one tick, gathered while its transaction is open and acted upon once that is on disk.

A transaction that fails for lack of room is made again from the same events; what was gathered for it is dropped with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from durabatch.engine.claim import Claim
from durabatch.engine.finish import Finished
from durabatch.runner.crew import Member
from durabatch.runner.pool import Died
from durabatch.workers.protocol import Recorded

__all__ = ["Round"]


@dataclass(slots=True)
class Round:
    """
    One tick.

    Attributes:
        ended: Ids of items whose attempt was recorded.
        finished: What the engine said about each recorded message.
        timings: (items, seconds of one worker) of each flush.
        durations: Seconds of successes, as far as somebody wants them.
        ready: Workers that have imported the handler.
        departed: Workers that are gone.
        outgoing: (worker, claim, seconds left of items with less time than others).
        emptied: Workers that are to give back what they have not started.
        recorded_promises: (worker, answer) for those who wait until an undo entry is on disk.
        taken: Items that were handed out.
        answered: Items that ended without a worker, since their results were known.
        given_back: Items that came back unstarted.
    """

    ended: list[int] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)
    timings: list[tuple[int, float]] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    ready: list[Member] = field(default_factory=list)
    departed: list[tuple[Member, Died]] = field(default_factory=list)
    outgoing: list[tuple[int, Claim, dict[int, float]]] = field(default_factory=list)
    emptied: list[int] = field(default_factory=list)
    recorded_promises: list[tuple[int, Recorded]] = field(default_factory=list)
    taken: int = 0
    answered: int = 0
    given_back: int = 0

    @property
    def recorded(self) -> int:
        """Attempts that were recorded."""
        return sum(one.recorded for one in self.finished) + self.answered
