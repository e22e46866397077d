"""
Who gets what next: items are claimed for workers that have room, as many as the limits of the run leave.
"""

from __future__ import annotations

from durabatch.clock import monotonic_s
from durabatch.engine.claim import Claim
from durabatch.flow.sizing import DispatchSize
from durabatch.runner.crew import Crew, Held, Member
from durabatch.runner.phases import Phase
from durabatch.runner.round import Round
from durabatch.settings import RunSettings

__all__ = ["LONG_IDLE_S", "Allotter"]

#: A neighbour gives items away when its own would last longer than this.
WORTH_SHARING_S = 0.05
#: So long a worker may be idle beside one that has more than one item.
LONG_IDLE_S = 0.1


class Allotter:
    """
    Claims items for the workers of one run.

    Attributes:
        phase: What the items are handed out for.
        concurrency: Items at once in each worker.
        share: Items after which a worker is replaced, so that it is not given more than that; None for no bound.
        was_cut_short: More items could be ended without a worker than the last tick had time for.
        idle_since_s: Since when a worker is idle beside one that could give something away; None while there is no such pair.
    """

    def __init__(self, crew: Crew, phase: Phase, settings: RunSettings, concurrency: int) -> None:
        self.crew = crew
        self.phase = phase
        self.size = DispatchSize()
        self.depth = settings.pipeline_depth
        self.concurrency = concurrency
        self.share = settings.max_items_per_worker
        self.was_cut_short = False
        self.idle_since_s: float | None = None

    def answer(self, now: Round, *, may: bool) -> None:
        """End items that need no worker, before anybody has room for others; where limits hold everything back (*may* False), none."""
        made = self.phase.answer() if may else None
        if made is not None:
            self.note_answered(made, now)
        self.was_cut_short = may and self.phase.was_cut_short

    def hand_out(self, now: Round, *, workers: int, allowance: int | None, intake_done: bool) -> None:
        """
        Claim items for every worker that has room, those first that have least.

        Args:
            workers: Workers that may get items.
            allowance: Items that may be handed out now; None for no limit.
            intake_done: No more items will come.
        """
        takers = self.crew.open_to_work(workers)
        for level in range(self.depth):
            for member in takers:
                left = None if allowance is None else allowance - now.taken
                if left is not None and left <= 0:
                    return
                if len(member.held) <= level and not self.claim_for(member, left, now, intake_done=intake_done, workers=len(takers)):
                    return

    def claim_for(self, member: Member, allowance: int | None, now: Round, *, intake_done: bool, workers: int) -> bool:
        """Claim one dispatch for a worker; False when nothing is ready for anybody."""
        waiting = self.phase.waiting_count
        if not waiting:
            return False
        limit = self.size.for_worker(waiting=waiting if intake_done else None, workers=workers, least=self.concurrency)
        bounds = [
            limit,
            *([] if allowance is None else [allowance]),
            *([] if self.share is None else [self.share - member.ended_count - member.item_count]),
        ]
        if min(bounds) <= 0:
            # This worker has done its share; the next one may have room.
            return True
        made = self.phase.claim(min(bounds))
        if made is None:
            return False
        self.note_answered(made, now)
        self.was_cut_short = self.phase.was_cut_short
        if made.item_count:
            self.hold(member, made, now)
        return made.item_count > 0

    def note_answered(self, made: Claim, now: Round) -> None:
        """Note what has ended in a claim already."""
        now.ended += made.answered
        now.answered += len(made.answered)

    def hold(self, member: Member, made: Claim, now: Round) -> None:
        """Note what a worker is about to be sent."""
        limits = self.phase.limits(made)
        member.held[made.dispatch_id] = Held.of(made, limits)
        now.outgoing.append((member.number, made, limits))
        now.taken += made.item_count

    def giver(self, *, is_end: bool) -> Member | None:
        """Return the worker that is to give half of its unstarted items to an idle one; nobody while there are others (*is_end* False)."""
        busiest = self.crew.busiest_beside_idle() if is_end else None
        if busiest is None:
            self.idle_since_s = None
            return None
        self.idle_since_s = self.idle_since_s or monotonic_s()
        each_s = self.size.seconds_per_item
        # Nothing measured yet: the first items may be long ones. Measured, and yet somebody is idle for long: one of them must be.
        is_worth = each_s is None or each_s * busiest.item_count > WORTH_SHARING_S
        return busiest if is_worth or monotonic_s() - self.idle_since_s > LONG_IDLE_S else None

    def isolate(self, now: Round) -> None:
        """Give a group of suspects to a worker that has nothing else; where there is none yet, have one emptied for it."""
        reserved = next((member for member in self.crew.members.values() if member.is_reserved), None)
        if reserved is None:
            takers = [member for member in self.crew.members.values() if member.takes_items]
            reserved = min(takers, key=lambda member: member.item_count, default=None)
            if reserved is None:
                return
            reserved.is_reserved = True
        if reserved.held:
            self.empty(reserved, now)
            return
        made = self.phase.claim_suspects()
        if made is not None:
            reserved.suspects = tuple(made.suspects)
            self.hold(reserved, made, now)

    def empty(self, member: Member, now: Round) -> None:
        """Have a worker give back what it has not started, unless it was asked already."""
        if not member.release_asked and not member.suspects:
            member.release_asked = True
            now.emptied.append(member.number)

    def unreserve(self) -> None:
        """Let every worker have items of the ordinary kind again."""
        for member in self.crew.members.values():
            if member.is_reserved and not member.held:
                member.is_reserved = False
