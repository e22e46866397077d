"""
The coordinator: one thread, one loop; a tick is one write transaction.

    wait for the workers  →  record · take in · hand out, in one commit  →  send · publish · tell

Everything that happened since the last tick shares one fsync, and nothing is sent or shown that is not on disk.
"""

from __future__ import annotations

from durabatch.clock import monotonic_s, now_us
from durabatch.engine.active import ActiveRun
from durabatch.engine.claim import Claim, claim, seal_when_exhausted
from durabatch.engine.finish import Returned, finish
from durabatch.engine.release import release
from durabatch.errors import HandlerImportError, RunHaltedError
from durabatch.flow.batching import FixedBatches
from durabatch.flow.sizing import DispatchSize
from durabatch.ledger import run
from durabatch.ledger.connection import Connection
from durabatch.models import RunSettings
from durabatch.runner.crew import Crew, Held, Member
from durabatch.runner.feeding import Feeder
from durabatch.runner.pace import Pace
from durabatch.runner.pool import Arrived, Died, Event, Pool
from durabatch.runner.returns import crashed, interrupted, of_flush, seconds_of
from durabatch.workers.protocol import Dispatch, Flush, Group, Ready, Refused, Release, Released

__all__ = ["Coordinator"]

#: Characters of payload in one dispatch, and so at most ``pipeline_depth`` times that in a worker.
DISPATCH_BYTES = 1 << 20
#: Frames of the log after which it is moved into the ledger, and the seconds after which it is moved anyway.
CHECKPOINT_FRAMES, CHECKPOINT_S = 4000, 2.0
#: Workers in a row that may die before they are ready.
MAX_FAILED_STARTS = 3
#: A neighbour gives items away when its own would last longer than this.
WORTH_SHARING_S = 0.05
#: Seconds in which flushes are gathered for one commit when there is time.
TOGETHER_S = 0.025
#: The longest wait without anything happening.
PATIENCE_S = 0.5


class Coordinator:
    """
    Drives one run until nothing is left to do or ``stop_handing_out`` was called and everything has come back.

    Args:
        pool: Where items run.
        feeder: The input; None when the run takes no more in.
    """

    def __init__(self, ledger: Connection, active: ActiveRun, pool: Pool, settings: RunSettings, feeder: Feeder | None, pace: Pace) -> None:
        self.ledger = ledger
        self.active = active
        self.pool = pool
        self.settings = settings
        self.feeder = feeder
        self.pace = pace
        self.batches = FixedBatches(settings.batch_size)
        self.size = DispatchSize()
        self.crew = Crew()
        self.outgoing: list[tuple[int, Claim]] = []
        #: Ids of the items whose end the last tick recorded as a success or a final failure.
        self.ended: list[int] = []
        self.collect_ended = False
        self.draining = False
        self.interrupting = False
        self.refusal: HandlerImportError | None = None
        self.was_idle = False
        self.checkpointed_s = self.gathered_s = monotonic_s()
        self.last_words = ""

    def start_workers(self) -> None:
        """Start as many workers as the settings say; they become ready while the first pages are taken in."""
        for number in range(1, max(1, self.settings.workers) + 1):
            self.start_worker(number)

    def start_worker(self, number: int) -> None:
        """Start one worker."""
        self.crew.join(number)
        self.pool.start(number)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do, or everything has come back after ``stop_handing_out``."""
        if self.crew.item_count or self.outgoing:
            return False
        if self.draining:
            return True
        return self.active.open_count == 0 and (self.feeder is None or self.feeder.is_done)

    def stop_handing_out(self) -> None:
        """Claim nothing more and have the workers give back what they have not started."""
        if not self.draining:
            self.draining = True
            for member in self.crew.members.values():
                self.pool.send(member.number, Release())

    def interrupt(self) -> None:
        """Have the workers stop at once; what they were running counts as interrupted, and what they have not started comes back."""
        if not self.interrupting:
            self.draining = self.interrupting = True
            self.pool.interrupt()

    def tick(self) -> None:
        """
        Do one round. On return everything it recorded is on disk and everything it claimed is with the workers.

        Raises:
            LedgerError: See ``Connection.transaction``; the run can only stop.
            HandlerImportError: A worker cannot use the handler.
            RunHaltedError: Workers die before they are ready.
        """
        events = self.gather()
        self.was_idle = not events
        self.ended.clear()
        with self.ledger.transaction():
            recorded = self.record(events)
            self.take_in()
            self.hand_out()
            seal_when_exhausted(self.ledger, self.active, now_us())
            self.write_counters(recorded)
        self.send()
        self.share()
        self.checkpoint()
        self.give_up_on_starts()

    def gather(self) -> list[Event]:
        """Wait for the workers. While all of them have enough to do, wait a moment longer, so that several flushes share a commit."""
        events = self.pool.poll(self.patience())
        while events and self.nobody_waits and (left_s := self.gathered_s + TOGETHER_S - monotonic_s()) > 0:
            events += self.pool.poll(left_s)
        self.gathered_s = monotonic_s()
        return events

    @property
    def nobody_waits(self) -> bool:
        """Whether every worker holds work for much longer than a moment."""
        each_s = self.size.seconds_per_item or 0
        return not self.draining and all(member.item_count * each_s > 2 * TOGETHER_S for member in self.crew.members.values())

    def drain_tick(self) -> None:
        """Do one round that only records; for a run that has been given up. Errors as for ``tick``, except those of workers."""
        events = self.pool.poll(PATIENCE_S)
        with self.ledger.transaction():
            self.write_counters(self.record(events))

    def write_counters(self, recorded: int) -> None:
        """Write the differences of this round to the run row."""
        self.active.write_tally(self.ledger)
        self.pace.recorded(recorded)
        run.set_pace(self.ledger, self.active.run_id, elapsed_us=self.pace.elapsed_us, items_per_s=self.pace.rate)

    def patience(self) -> float:
        """Return how long the next wait may be."""
        if self.feeder is not None and not self.draining and self.feeder.wants_page(idle=True):
            return 0.0
        return PATIENCE_S

    def record(self, events: list[Event]) -> int:
        """Write down what the workers did; return how many attempts that were."""
        recorded = 0
        for event in events:
            if isinstance(event, Died):
                recorded += self.record_death(event)
            else:
                recorded += self.record_message(event)
        return recorded

    def record_message(self, event: Arrived) -> int:
        """Write down one message."""
        member = self.crew.members.get(event.worker)
        if member is None:
            return 0
        match event.message:
            case Ready():
                member.is_ready = True
                self.crew.failed_starts = 0
            case Refused(message=message):
                self.refusal = HandlerImportError(message, "The run stays as it is; the same command goes on.")
            case Released(items=items):
                member.release_asked = False
                for dispatch_id, item_ids in items.items():
                    self.record_release(member, dispatch_id, item_ids)
            case Flush() as flush:
                return self.record_flush(member, flush)
        return 0

    def record_flush(self, member: Member, flush: Flush) -> int:
        """Write down what a worker finished, and learn from how long it took."""
        held = member.held.get(flush.dispatch_id)
        if held is None:
            return 0
        returned = of_flush(flush, held.batch_of)
        recorded = self.finish(returned)
        ids = returned.item_ids()
        self.size.measure(len(ids), seconds_of(flush))
        held.drop(ids)
        if self.collect_ended:
            self.ended.extend(ids)
        if flush.finished:
            self.take_back_rest(member, held)
        return recorded

    def finish(self, returned: Returned) -> int:
        """Record ends of items."""
        return finish(self.ledger, self.active, returned, max_attempts=self.settings.max_attempts, now_us=now_us())

    def record_release(self, member: Member, dispatch_id: int, item_ids: list[int]) -> None:
        """Write down what came back unstarted."""
        release(self.ledger, self.active, dispatch_id, item_ids)
        held = member.held.get(dispatch_id)
        if held is not None:
            held.drop(item_ids)

    def take_back_rest(self, member: Member, held: Held) -> None:
        """Close a dispatch: items of it that were neither ended nor given back can only be claimed again."""
        release(self.ledger, self.active, held.dispatch_id, list(held.batch_of))
        member.held.pop(held.dispatch_id, None)

    def record_death(self, event: Died) -> int:
        """Blame the item in the dead worker's cell, take all others back uncharged, and replace the worker while there is work."""
        member = self.crew.leave(event.worker)
        if member is None:
            return 0
        recorded = self.blame(member, event)
        for held in list(member.held.values()):
            self.take_back_rest(member, held)
        self.crew.failed_starts += not event.was_ready
        self.last_words = event.tail
        if not self.draining and self.refusal is None and self.crew.failed_starts < MAX_FAILED_STARTS:
            self.start_worker(event.worker)
        return recorded

    def blame(self, member: Member, event: Died) -> int:
        """Record the attempt that was running when a worker died: crashed, or interrupted when we ended it ourselves."""
        held = member.held.get(event.cell.dispatch_id)
        if held is None or event.cell.item_id not in held.batch_of:
            return 0
        attempt = interrupted(event, now_us()) if self.interrupting else crashed(event, now_us())
        recorded = self.finish(Returned(held.dispatch_id, failed=[attempt], batch_of=held.batch_of))
        held.batch_of.pop(event.cell.item_id, None)
        if self.collect_ended:
            self.ended.append(event.cell.item_id)
        return recorded

    def take_in(self) -> None:
        """Take a page of input in, when the workers run short or nothing else is to do."""
        if self.feeder is not None and not self.draining and self.feeder.wants_page(idle=self.was_idle):
            self.feeder.feed()

    def hand_out(self) -> None:
        """Claim items for every worker that has room."""
        if self.draining or self.refusal is not None:
            return
        ready = self.crew.ready()
        for _ in range(self.settings.pipeline_depth):
            for member in ready:
                if len(member.held) < self.settings.pipeline_depth:
                    self.claim_for(member, len(self.crew.members))

    def claim_for(self, member: Member, workers: int) -> None:
        """Claim one dispatch for a worker, if anything is ready."""
        if not self.active.pending_count:
            return
        waiting = self.active.pending_count if self.feeder is None or self.feeder.is_done else None
        limit = self.size.for_worker(waiting=waiting, workers=workers)
        made = claim(self.ledger, self.active, self.batches, limit=limit, max_bytes=DISPATCH_BYTES, now_us=now_us())
        if made is not None:
            member.held[made.dispatch_id] = Held.of(made)
            self.outgoing.append((member.number, made))

    def send(self) -> None:
        """Send what was claimed; it is on disk."""
        for number, made in self.outgoing:
            self.pool.send(number, Dispatch(made.dispatch_id, [Group(batch_id, works) for batch_id, works in made.groups]))
            self.pace.dispatched()
        self.outgoing.clear()

    def share(self) -> None:
        """Near the end, have the busiest worker give half of what it has not started to an idle one."""
        if self.draining or self.active.pending_count:
            return
        busiest = self.crew.busiest_beside_idle()
        each_s = self.size.seconds_per_item
        # Nothing measured yet: the first items may be long ones.
        if busiest is not None and (each_s is None or each_s * busiest.item_count > WORTH_SHARING_S):
            busiest.release_asked = True
            self.pool.send(busiest.number, Release(busiest.item_count // 2))

    def checkpoint(self) -> None:
        """Move the log into the ledger when it has grown, or some time has passed."""
        frames, now = self.ledger.wal_frames, monotonic_s()
        if frames >= CHECKPOINT_FRAMES or (frames and now - self.checkpointed_s > CHECKPOINT_S):
            self.ledger.checkpoint()
            self.checkpointed_s = now

    def give_up_on_starts(self) -> None:
        """Stop when workers cannot start, with what they said."""
        if self.refusal is not None:
            raise self.refusal
        if self.crew.failed_starts >= MAX_FAILED_STARTS and not self.crew.members:
            words = " ".join(self.last_words.split())[-300:]
            raise RunHaltedError(f"no worker could be started ({words or 'it said nothing'})", "Try the same command with --workers 0 to see the error itself.")
