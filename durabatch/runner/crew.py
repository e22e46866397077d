"""
What the coordinator knows of its workers: who is there, who holds which dispatch, and how much of it is unfinished.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from durabatch.engine.claim import Claim

__all__ = ["Crew", "Held", "Member"]


@dataclass(slots=True)
class Held:
    """A dispatch that a worker holds: the batch of each of its items that has neither ended nor come back."""

    dispatch_id: int
    batch_of: dict[int, int]

    @classmethod
    def of(cls, claim: Claim) -> Held:
        """Return the record for a claim that is about to be sent."""
        return cls(claim.dispatch_id, {work[0]: batch_id for batch_id, works in claim.groups for work in works})

    def drop(self, item_ids: Iterable[int]) -> None:
        """Forget items that have ended or come back."""
        for item_id in item_ids:
            self.batch_of.pop(item_id, None)


@dataclass(slots=True)
class Member:
    """One worker."""

    number: int
    is_ready: bool = False
    held: dict[int, Held] = field(default_factory=dict)
    release_asked: bool = False

    @property
    def item_count(self) -> int:
        """Items it holds that have neither ended nor come back."""
        return sum(len(held.batch_of) for held in self.held.values())


class Crew:
    """
    The workers by number.

    Attributes:
        failed_starts: Workers in a row that died before they were ready.
    """

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}
        self.failed_starts = 0

    def join(self, number: int) -> None:
        """Note that a worker was started."""
        self.members[number] = Member(number)

    def leave(self, number: int) -> Member | None:
        """Forget a worker that is gone; return what was known of it."""
        return self.members.pop(number, None)

    def ready(self) -> Iterable[Member]:
        """Return the workers that can take items."""
        return [member for member in self.members.values() if member.is_ready]

    @property
    def item_count(self) -> int:
        """Items that are with workers."""
        return sum(member.item_count for member in self.members.values())

    def busiest_beside_idle(self) -> Member | None:
        """Return the worker that holds most, when another has nothing to do and it could give something away."""
        ready = [member for member in self.members.values() if member.is_ready]
        busiest = max(ready, key=lambda member: member.item_count, default=None)
        if busiest is None or all(member.held for member in ready) or busiest.item_count < 2 or busiest.release_asked:
            return None
        return busiest
