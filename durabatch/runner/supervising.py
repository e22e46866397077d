"""
Workers that must be ended: they run an item for too long, take too much memory, or do not leave when told to.

    sync handler    at its limit: SIGTERM to the worker's group, after the grace time SIGKILL
    async, command  end their items themselves at the limit; a worker that has not managed it within the grace time is killed

What a worker runs and since when stands in its cells, so a blocked event loop and a call into C that never returns are seen like any other.
Nothing is recorded here: the worker's death comes back as an event, and its ``Doom`` says what it means.
"""

from __future__ import annotations

from collections.abc import Callable

from durabatch.clock import monotonic_s
from durabatch.runner.crew import Crew, Doom, Member
from durabatch.runner.pool import Pool
from durabatch.settings import RunSettings
from durabatch.workers.cells import Cell
from durabatch.workers.failure import timeout_text
from durabatch.workers.protocol import Ask

__all__ = ["Supervisor"]

#: Seconds between two looks at the cells, and at the memory of the workers.
LOOK_S, MEMORY_S = 0.1, 0.25
#: At the end of the grace time a worker kills a command itself: it gets this much longer to say so.
BESIDE_S = 0.3
#: A worker that is asked what holds it up answers within this time, or cannot.
ANSWER_S = 0.2
#: A worker that is not ready after so many seconds is told about.
SLOW_START_S = 5.0


class Supervisor:
    """
    Watches the workers of one run.

    Args:
        limit_s: Returns the longest time of an attempt, None for none.
        ends_itself: The workers end an item at its limit by themselves.
        resident: Returns the resident bytes of processes, each with its children.
        note: Tells the person something.
    """

    def __init__(
        self, pool: Pool, crew: Crew, settings: RunSettings, limit_s: Callable[[], float | None], *,
        ends_itself: bool, resident: Callable[[dict[int, int]], dict[int, int]], note: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.pool = pool
        self.crew = crew
        self.limit_s = limit_s
        self.grace_s = settings.term_grace_s
        self.memory_limit_bytes = settings.memory_limit_bytes
        self.ends_itself = ends_itself
        self.resident = resident
        self.note = note
        self.looked_s = self.weighed_s = monotonic_s()
        self.told_slow = False

    @property
    def patience(self) -> float | None:
        """Seconds after which a look is due again; None when nothing is to be watched."""
        if self.limit_s() is not None or any(member.doom or member.left_s for member in self.crew.members.values()):
            return LOOK_S
        return MEMORY_S if self.memory_limit_bytes is not None else None

    def look(self) -> None:
        """End what has to be ended. Call it each tick, it is cheap when it is not time yet."""
        now_s = monotonic_s()
        if now_s - self.looked_s >= LOOK_S / 2:
            self.looked_s = now_s
            for member in list(self.crew.members.values()):
                self.look_at(member, now_s)
        if self.memory_limit_bytes is not None and now_s - self.weighed_s >= MEMORY_S:
            self.weighed_s = now_s
            self.weigh(self.memory_limit_bytes, now_s)

    def forgive(self) -> None:
        """Wait with the next look: the coordinator itself stood still, and could not take what the workers wanted to send."""
        self.looked_s = self.weighed_s = monotonic_s() + 1.0

    def look_at(self, member: Member, now_s: float) -> None:
        """Look at one worker."""
        if member.doom is not None:
            self.insist(member, member.doom, now_s)
        elif member.left_s is not None:
            if now_s - member.left_s > self.grace_s:
                self.pool.kill_one(member.number)
        elif member.is_ready:
            if self.limit_s() is not None:
                self.watch_time(member, now_s)
        elif not self.told_slow and now_s - member.started_s > SLOW_START_S:
            self.told_slow = True
            self.note(f"worker {member.number} is still starting after {SLOW_START_S:.0f} s (it imports the handler)")

    def watch_time(self, member: Member, now_s: float) -> None:
        """Begin to end a worker that runs an item for too long."""
        running = self.pool.running(member.number)
        late = {cell: limit_s for cell in running if (limit_s := self.overrun(member, cell, now_s)) is not None}
        if not late:
            member.asked_s = member.answer = None
            return
        if self.ends_itself and len(running) > 1 and not self.has_heard(member, now_s):
            return
        guilty = self.guilty(member, late, running)
        member.doom = Doom(
            now_s, timed_out={cell.item_id or 0: timeout_text(limit_s) for cell, limit_s in guilty.items()}, killed=self.ends_itself
        )
        if self.ends_itself:
            self.pool.kill_one(member.number)
        else:
            self.pool.terminate(member.number)

    def has_heard(self, member: Member, now_s: float) -> bool:
        """Ask a worker with several items what holds it up; tell whether it has answered, or had its time to."""
        if member.asked_s is None:
            member.asked_s = now_s
            self.pool.send(member.number, Ask())
        return member.answer is not None or now_s - member.asked_s > ANSWER_S

    def guilty(self, member: Member, late: dict[Cell, float], running: list[Cell]) -> dict[Cell, float]:
        """
        Return the items whose time is up through their own fault, with their limits.

        All that are late, unless one item holds up the others: the one that the worker names, or the one that began last when it cannot.
        """
        answer = member.answer
        if not self.ends_itself or len(running) == 1 or (answer is not None and answer.item_id is None):
            return late
        named = [cell for cell in running if answer is not None and cell.item_id == answer.item_id]
        cell = named[0] if named else max(late, key=lambda one: one.monotonic_us)
        return {cell: late.get(cell, min(late.values()))}

    def overrun(self, member: Member, cell: Cell, now_s: float) -> float | None:
        """Return the limit of what a cell shows, when that is over and nothing but a signal will help."""
        held = member.held.get(cell.dispatch_id)
        if held is None or cell.item_id is None or cell.item_id not in held.batch_of:
            return None
        limits = [limit for limit in (self.limit_s(), held.limits.get(cell.item_id)) if limit is not None]
        if not limits:
            return None
        patience_s = min(limits) + (self.grace_s + BESIDE_S if self.ends_itself else 0)
        return min(limits) if now_s - cell.monotonic_us / 1e6 > patience_s else None

    def insist(self, member: Member, doom: Doom, now_s: float) -> None:
        """Kill a worker that was asked to end and is still there after the grace time."""
        if not doom.killed and now_s - doom.since_s > self.grace_s:
            doom.killed = True
            doom.timed_out = {item_id: f"{text} (SIGKILL needed)" for item_id, text in doom.timed_out.items()}
            self.pool.kill_one(member.number)

    def weigh(self, limit_bytes: int, now_s: float) -> None:
        """Kill workers that take too much memory."""
        for number, bytes_ in self.resident(self.pool.pids()).items():
            member = self.crew.members.get(number)
            if bytes_ > limit_bytes and member is not None and member.doom is None:
                member.doom = Doom(
                    now_s, out_of_memory=f"out of memory ({bytes_ >> 20:,} MiB, limit {limit_bytes >> 20:,} MiB)", killed=True
                )
                self.pool.kill_one(number)
