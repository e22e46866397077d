"""
The coordinator: one thread, one loop; a tick is one write transaction.

    wait for the workers  →  record · take in · hand out, in one commit  →  learn · send · supervise · obey · publish · tell

Everything that happened since the last tick shares one fsync, and nothing is sent or shown that is not on disk.
"""

from __future__ import annotations

from durabatch.clock import monotonic_s, now_us
from durabatch.engine.active import ActiveRun, reload
from durabatch.engine.claim import seal_when_exhausted
from durabatch.errors import LedgerFullError
from durabatch.flow.batching import Measured
from durabatch.flow.timing import until_due
from durabatch.ledger import run
from durabatch.ledger.connection import Connection
from durabatch.runner.allotting import LONG_IDLE_S, Allotter
from durabatch.runner.binding import Binding
from durabatch.runner.checking import CHECKED, Checking
from durabatch.runner.crew import Crew
from durabatch.runner.feeding import Feeder
from durabatch.runner.governing import Governor
from durabatch.runner.handling import Handling
from durabatch.runner.kinds import Kind
from durabatch.runner.log_moving import LogMover
from durabatch.runner.machine import Machine
from durabatch.runner.pace import Pace
from durabatch.runner.phases import Phase
from durabatch.runner.pool import Event, Pool, awaits_commit, size_of
from durabatch.runner.recording import Recorder
from durabatch.runner.request import RunRequest
from durabatch.runner.room import Room
from durabatch.runner.round import Round
from durabatch.runner.staffing import Staff
from durabatch.runner.stopping import Stopping
from durabatch.runner.supervising import Supervisor
from durabatch.runner.undoing import Undoing
from durabatch.runner.vigil import Vigil
from durabatch.settings import RunSettings
from durabatch.workers.protocol import Dispatch, Group, Release, Tune

__all__ = ["Coordinator"]

#: Seconds in which flushes are gathered for one commit when there is time, and bytes of them that are enough.
TOGETHER_S, TOGETHER_BYTES = 0.025, 4 << 20
#: The longest wait without anything happening.
PATIENCE_S = 0.5


class Coordinator:
    """
    Drives one run until nothing is left to do, or until everything has come back after ``stop``.

    Args:
        pool: Where items run.
        phase: What they are handed out for.
        feeder: The input; None when the run takes no more in.
        room: Waits when the disk is full.

    Attributes:
        ended: Ids of the items of which the last tick recorded an attempt.
        stopping: Set by the first ``stop``.
        interrupted_s: When the workers were told to stop at once; None before.
    """

    def __init__(
        self, ledger: Connection, active: ActiveRun, pool: Pool, settings: RunSettings, feeder: Feeder | None, pace: Pace, *,
        phase: Phase, kind: Kind, governor: Governor, flow: dict[str, object], room: Room, request: RunRequest,
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self.active = active
        self.pool = pool
        self.settings = settings
        self.feeder = feeder
        self.pace = pace
        self.kind = kind
        self.governor = governor
        self.flow = flow
        self.room = room
        self.request = request
        self.crew = Crew()
        self.machine = Machine(pool, governor, ledger.files.ledger)
        self.binding = Binding(ledger, active, governor, self.machine, room)
        self.vigil = Vigil(ledger, active, settings.idle_exit_s, room, request.note)
        self.staff = Staff(pool, self.crew, max(1, settings.workers), settings.max_items_per_worker, request.note)
        self.allotter = Allotter(self.crew, phase, settings, kind.concurrency)
        wants_durations = governor.limit.percent is not None
        self.recorder = Recorder(self.crew, phase, cpu_limit_s=settings.cpu_limit_s, wants_durations=wants_durations)
        self.supervisor = Supervisor(
            pool, self.crew, settings, lambda: governor.limit_s, ends_itself=kind.ends_itself, resident=self.machine.resident, note=request.note
        )
        self.ended: list[int] = []
        self.stopping: Stopping | None = None
        self.interrupted_s: float | None = None
        self.told_timeout_s: float | None = None
        self.was_idle = self.is_taught = False
        self.commit_s = 0.0
        self.gathered_s = monotonic_s()
        self.log = LogMover(ledger, room)

    def start_workers(self) -> None:
        """Start as many workers as the settings say; they become ready while the first pages are taken in."""
        self.staff.fill()

    @property
    def phase(self) -> Phase:
        """What the items are handed out for."""
        return self.allotter.phase

    @property
    def interrupting(self) -> bool:
        """Whether the workers were told to stop at once."""
        return self.recorder.interrupting

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do, or everything has come back after ``stop``."""
        if self.crew.item_count:
            return False
        if self.stopping is not None:
            return True
        # What is undone is known from the beginning, whoever may add items.
        return self.phase.is_over and self.is_read and (not self.active.is_open or isinstance(self.phase, Undoing))

    @property
    def is_read(self) -> bool:
        """Whether no more input will come."""
        return self.feeder is None or self.feeder.is_done

    # What may be asked of a run that works: by signals, by orders from other terminals, by its own limits.

    def stop(self, reason: str, *, at_once: bool, exit_code: int | None = 3, cancelled: bool = False, by_limit: bool = False) -> None:
        """
        Hand nothing out any more and have the workers give back what they have not started; the first reason stays.

        Args:
            at_once: Also interrupt what is running.
            exit_code: None: that of a run that has finished.
            cancelled: The run is not to be resumed.
            by_limit: One of its own limits halts the run.
        """
        if self.stopping is None:
            self.stopping = Stopping(reason, monotonic_s(), cancelled, exit_code, by_limit)
            self.call_back()
        if at_once:
            self.interrupt()

    def cancel(self, reason: str) -> None:
        """End the run for good: what is running is interrupted, everything that has not ended will be cancelled."""
        self.stop(reason, at_once=True, exit_code=1, cancelled=True)
        if self.stopping is not None and not self.stopping.cancelled:
            self.stopping = Stopping(reason, self.stopping.since_s, cancelled=True, exit_code=1)

    def interrupt(self) -> None:
        """Have the workers stop at once; what they were running counts as interrupted, and what they have not started comes back."""
        if not self.recorder.interrupting:
            self.recorder.interrupting = True
            self.interrupted_s = monotonic_s()
            self.pool.interrupt()

    def call_back(self) -> None:
        """Have all workers give back what they have not started."""
        for member in self.crew.members.values():
            self.pool.send(member.number, Release())

    def tune(self) -> None:
        """Tell the workers what has changed for what they run."""
        self.told_timeout_s = self.governor.limit_s
        for number in self.crew.members:
            self.pool.send(number, self.tuning)

    @property
    def tuning(self) -> Tune:
        """What a worker must know of the limits of what it runs."""
        return Tune(self.told_timeout_s, self.allotter.concurrency)

    # One tick.

    def tick(self) -> None:
        """
        Do one round. On return everything it recorded is on disk and everything it claimed is with the workers.

        Raises:
            LedgerError: See ``Connection.transaction``; the run can only stop. LedgerFullError only when a signal came while the disk was full.
            HandlerImportError: A worker cannot use the handler.
            RunHaltedError: Workers die before they are ready.
        """
        events = self.gather()
        self.was_idle, self.is_taught = not events, False
        waited_s = self.room.waited_s
        now = self.room.until_done(lambda: self.commit(events))
        if self.room.waited_s > waited_s:
            self.supervisor.forgive()
        self.learn(now)
        self.send(now)
        self.share()
        self.log.move_when_due()
        self.supervise()
        self.give_up_on_starts()

    def gather(self) -> list[Event]:
        """Wait for the workers. While all of them have enough to do, wait a moment longer, so that several flushes share a commit."""
        patience_s = self.patience()
        events = self.vigil.poll(self.pool, patience_s) if self.stopping is None else self.pool.poll(patience_s)
        while (
            events
            and self.nobody_waits
            and not awaits_commit(events)
            and size_of(events) < TOGETHER_BYTES
            and (left_s := self.gathered_s + TOGETHER_S - monotonic_s()) > 0
        ):
            events += self.pool.poll(left_s)
        self.gathered_s = monotonic_s()
        return events

    @property
    def nobody_waits(self) -> bool:
        """Whether every worker holds work for much longer than a moment."""
        each_s = self.allotter.size.seconds_per_item or 0
        return self.stopping is None and all(member.item_count * each_s > 2 * TOGETHER_S for member in self.crew.members.values())

    def patience(self) -> float:
        """Return how long the next wait may be: until the clock alone changes what can be done."""
        if self.stopping is None and (self.allotter.was_cut_short or (self.feeder is not None and self.feeder.wants_page(idle=True))):
            return 0.0
        waits = [
            self.vigil.patience(PATIENCE_S),
            self.supervisor.patience,
            self.staff.wait_s() if self.stopping is None else None,
            self.governor.wait_s(),
            LONG_IDLE_S if self.allotter.idle_since_s is not None else None,
            # What is due already waits for a worker, and that wakes us by itself.
            until_due(self.active.next_due_at_us, now_us()),
            until_due(self.active.next_step_at_us, now_us()),
        ]
        return min(wait for wait in waits if wait is not None)

    def commit(self, events: list[Event]) -> Round:
        """Write down what happened and claim what comes next; when the disk is too full for it, nothing has happened."""
        members, handed = self.crew.mark(), self.phase.mark()
        fed = self.feeder.mark() if self.feeder is not None else None
        now, begun_s = Round(), self.pace.begin()
        try:
            with self.ledger.transaction():
                self.vigil.notice()
                self.recorder.record(events, now)
                self.teach(now)
                self.take_in()
                self.hand_out(now)
                self.vigil.seal(now.taken + now.answered)
                seal_when_exhausted(self.ledger, self.active, now_us())
                self.write_counters(now.recorded)
        except LedgerFullError:
            self.crew.members = members
            self.phase.rewind(handed)
            if self.feeder is not None and fed is not None:
                self.feeder.rewind(fed)
            reload(self.ledger, self.active)
            raise
        self.commit_s = monotonic_s() - begun_s
        return now

    def drain_tick(self) -> None:
        """Do one round that only records; for a run that has been given up. Errors as for ``tick``, except those of workers."""
        events = self.pool.poll(PATIENCE_S)
        now = Round()
        with self.ledger.transaction():
            self.recorder.record(events, now)
            self.write_counters(now.recorded)
        self.acknowledge(now)
        self.supervisor.look()

    def write_counters(self, recorded: int) -> None:
        """Write the differences of this round to the run row."""
        self.active.write_tally(self.ledger)
        self.pace.recorded(recorded)
        run.set_pace(self.ledger, self.active.run_id, elapsed_us=self.pace.elapsed_us, items_per_s=self.pace.rate)

    def take_in(self) -> None:
        """Take a page of input in, when the workers run short or nothing else is to do."""
        if self.feeder is not None and self.stopping is None and self.feeder.wants_page(idle=self.was_idle):
            self.feeder.feed()

    def hand_out(self, now: Round) -> None:
        """Claim items for every worker that has room, as many as the limits leave."""
        if self.stopping is not None or self.recorder.refusal is not None or self.governor.stop() is not None:
            return
        active, next_due_us = self.active, self.active.next_due_at_us
        scheduled = active.counts["scheduled"] + active.tally.scheduled
        leave = self.governor.leave(
            out=self.crew.item_count, scheduled=scheduled, is_due=next_due_us is not None and next_due_us <= now_us(),
            intake_complete=active.intake_complete,
        )  # fmt: skip
        if self.binding.calls_back(leave):
            now.emptied += self.crew.members
        self.binding.show(leave)
        if self.phase.suspect_count and leave.items != 0:
            self.allotter.isolate(now)
        self.allotter.answer(now, may=leave.answers)
        self.allotter.hand_out(now, workers=self.governor.window.allowed, allowance=leave.items, intake_done=self.is_read)
        self.remember(now)

    def remember(self, now: Round) -> None:
        """Have on the run row what a later session must know: how far the check is, and what the rate leaves."""
        before = dict(self.flow)
        if self.checking is not None:
            self.flow["preflight"] = self.checking.position
        if self.governor.bucket is not None and now.taken:
            self.flow |= self.governor.as_json(now.taken)
        if self.flow != before:
            run.set_flow(self.ledger, self.active.run_id, self.flow)

    def teach(self, now: Round) -> None:
        """Tell the limits what has ended before more is handed out; once a tick, however often the disk is too full for it."""
        if not self.is_taught:
            self.is_taught = True
            for one in now.finished:
                self.governor.learn(one)

    def learn(self, now: Round) -> None:
        """Learn from what is on disk now."""
        self.ended = now.ended
        for duration_s in now.durations:
            self.governor.limit.observe(duration_s)
        for items, seconds in now.timings:
            self.allotter.size.measure(items, seconds)
            if isinstance(self.phase, Handling):
                self.phase.batches.learn(Measured(items, seconds * self.allotter.concurrency, self.machine.memory_used))
        self.governor.gave_back(now.given_back)
        self.governor.took(now.taken)
        for member in now.ready:
            if self.told_timeout_s is not None or self.allotter.concurrency != self.kind.concurrency:
                self.pool.send(member.number, self.tuning)
        for member, event in now.departed:
            self.staff.lost(member, event.tail)
        if not self.active.suspect_count:
            self.allotter.unreserve()

    def send(self, now: Round) -> None:
        """Send what was claimed; it is on disk, and so is what somebody waits for to be."""
        self.acknowledge(now)
        for number in now.emptied:
            self.pool.send(number, Release())
        for number, made, limits in now.outgoing:
            groups = [Group(batch_id, works) for batch_id, works in made.groups]
            self.pool.send(number, Dispatch(made.dispatch_id, groups, self.phase.task(made.dispatch_id), limits, made.blobs))
            self.pace.dispatched()

    def acknowledge(self, now: Round) -> None:
        """Tell those who wait for it that their undo entries are on disk."""
        for number, answer in now.recorded_promises:
            self.pool.send(number, answer)

    def share(self) -> None:
        """Near the end, have the busiest worker give half of what it has not started to an idle one."""
        # An item that waits until what it did is undone is nobody's next: the step may stand behind a long item.
        is_end = self.stopping is None and self.active.pending_count <= self.active.undoing_count
        busiest = self.allotter.giver(is_end=is_end)
        if busiest is not None:
            busiest.release_asked = True
            self.pool.send(busiest.number, Release(busiest.item_count // 2))

    def supervise(self) -> None:
        """End workers that must be ended, fill empty seats, look at the machine, and see whether the run must stop."""
        self.supervisor.look()
        self.staff.let_go()
        if self.stopping is None and self.recorder.refusal is None:
            self.staff.fill()
            self.binding.look_at_machine(self.commit_s)
            stop = self.governor.stop()
            if stop is not None:
                self.stop(stop.reason, at_once=stop.now, by_limit=True)
            leaving = self.vigil.look(is_quiet=self.phase.is_over and self.is_read and not (self.is_over or self.crew.item_count))
            if leaving is not None:
                self.stop(leaving, at_once=False, exit_code=None)
        if self.governor.limit_s != self.told_timeout_s:
            self.tune()

    def give_up_on_starts(self) -> None:
        """Stop when no worker can start."""
        if self.recorder.refusal is not None:
            raise self.recorder.refusal
        self.staff.give_up()

    def go_on_with(self, phase: Phase) -> None:
        """Hand items out for something else from here on; every check was made, and nothing is with a worker."""
        self.allotter.phase = self.recorder.phase = phase
        self.flow["preflight"] = CHECKED
        self.room.until_done(lambda: run.set_flow(self.ledger, self.active.run_id, self.flow))

    @property
    def checking(self) -> Checking | None:
        """The preflight check, while it goes on."""
        return self.phase if isinstance(self.phase, Checking) else None
