"""
What the coordinator knows of its workers: who is there, who holds which dispatch, how much of it is unfinished, and who is on the way out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from durabatch.engine.claim import Claim
from durabatch.workers.protocol import Busy

__all__ = ["Crew", "Doom", "Held", "Member"]


@dataclass(slots=True)
class Held:
    """
    A dispatch that a worker holds: the batch of each of its items that has neither ended nor come back.

    ``limits`` holds the seconds that items with less time than others may take, see ``Dispatch.limits``.
    """

    dispatch_id: int
    batch_of: dict[int, int]
    limits: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, claim: Claim, limits: Mapping[int, float]) -> Held:
        """Return the record for a claim that is about to be sent."""
        return cls(claim.dispatch_id, {work[0]: batch_id for batch_id, works in claim.groups for work in works}, limits)

    def drop(self, item_ids: Iterable[int]) -> None:
        """Forget items that have ended or come back."""
        for item_id in item_ids:
            self.batch_of.pop(item_id, None)


@dataclass(slots=True)
class Doom:
    """
    Why we end a worker ourselves.

    Attributes:
        timed_out: Item to the words for it; the others that it runs are innocent.
        out_of_memory: The words for what it runs, when it took too much memory.
        since_s: When it was asked to end.
        killed: It did not obey, or could not be asked, and was killed.
    """

    since_s: float
    timed_out: dict[int, str] = field(default_factory=dict)
    out_of_memory: str | None = None
    killed: bool = False


@dataclass(slots=True)
class Member:
    """
    One worker.

    Attributes:
        ended_count: Items that it has ended.
        suspects: The group of suspects that it runs, apart from everything else.
        is_reserved: It gets nothing but suspects.
        is_leaving: It gets nothing more and ends when it has nothing left.
        left_s: When it was told to end; None before.
        asked_s: When it was asked what holds it up, and ``answer`` what it said.
    """

    number: int
    started_s: float = 0.0
    is_ready: bool = False
    held: dict[int, Held] = field(default_factory=dict)
    release_asked: bool = False
    ended_count: int = 0
    suspects: tuple[int, ...] = ()
    is_reserved: bool = False
    is_leaving: bool = False
    left_s: float | None = None
    doom: Doom | None = None
    asked_s: float | None = None
    answer: Busy | None = None

    @property
    def item_count(self) -> int:
        """Items it holds that have neither ended nor come back."""
        return sum(len(held.batch_of) for held in self.held.values())

    @property
    def takes_items(self) -> bool:
        """Whether it may be given items of the ordinary kind."""
        return self.is_ready and not (self.is_reserved or self.is_leaving or self.doom)

    def copy(self) -> Member:
        """Return what it is now, for taking back what a transaction that fails has changed."""
        return replace(self, held={number: replace(held, batch_of=dict(held.batch_of)) for number, held in self.held.items()})


class Crew:
    """The workers by number."""

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}

    def join(self, number: int, now_s: float) -> None:
        """Note that a worker was started."""
        self.members[number] = Member(number, now_s)

    def leave(self, number: int) -> Member | None:
        """Forget a worker that is gone; return what was known of it."""
        return self.members.pop(number, None)

    def open_to_work(self, allowed: int) -> list[Member]:
        """Return up to *allowed* workers that can take items, those that have some first, so that a narrow window stays with the same ones."""
        takers = [member for member in self.members.values() if member.takes_items]
        if allowed >= len(takers):
            return takers
        return sorted(takers, key=lambda member: not member.held)[:allowed]

    @property
    def item_count(self) -> int:
        """Items that are with workers."""
        return sum(member.item_count for member in self.members.values())

    def mark(self) -> dict[int, Member]:
        """Return a copy of everything."""
        return {number: member.copy() for number, member in self.members.items()}

    def busiest_beside_idle(self) -> Member | None:
        """Return the worker that holds most, when another has nothing to do and it could give something away."""
        ready = [member for member in self.members.values() if member.takes_items]
        busiest = max(ready, key=lambda member: member.item_count, default=None)
        if busiest is None or all(member.held for member in ready) or busiest.item_count < 2 or busiest.release_asked:
            return None
        return busiest
