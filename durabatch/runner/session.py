"""
One call of ``run``, ``resume``, ``retry`` or ``rollback``, from the request to the summary.

    choose or create the run  →  feeder, pool, coordinator  →  ticks until over or stopped  →  conclude, publish, summarise

Where the end of a run has everything undone, that is a session of its own behind it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from durabatch.clock import monotonic_s, now_us
from durabatch.engine.claim import seal_when_exhausted
from durabatch.engine.status import error_groups, skipped_groups, status
from durabatch.engine.steer import expire
from durabatch.errors import LedgerError, RunHaltedError
from durabatch.ledger import run
from durabatch.ledger.connection import Connection
from durabatch.models import Progress, Summary
from durabatch.provenance import cache_identity
from durabatch.runner.beginning import first_phase, handling, limited
from durabatch.runner.choosing import Choice, Peeked, choose, peek
from durabatch.runner.coordinator import Coordinator
from durabatch.runner.delivering import EndCommand, deliverer_of
from durabatch.runner.ending import HALTED, own_code, verdict, write_end
from durabatch.runner.governing import Governor
from durabatch.runner.kinds import kind_of
from durabatch.runner.obeying import Obedience
from durabatch.runner.opening import OwnedLedger, owned_ledger
from durabatch.runner.pace import Pace
from durabatch.runner.parts import Parts
from durabatch.runner.pools import make_pool
from durabatch.runner.publishing import Publisher
from durabatch.runner.request import RunRequest
from durabatch.runner.rolling_back import choose_rollback, is_owed_alone, settled_end, undone_by, undone_in_all
from durabatch.runner.room import Room
from durabatch.runner.shell import ShellCommand
from durabatch.runner.signals import Signals
from durabatch.runner.telling import progress_of, reason_of, resuming_text, rolling_back_text, stopping_text
from durabatch.runner.undoing import Undone
from durabatch.states import RunState

__all__ = ["Session", "execute"]

#: Exit codes above it tell the signal that ended the command.
FIRST_SIGNAL = 128
#: Groups of errors in a summary.
SUMMARY_GROUPS = 20
#: Seconds between two looks at signals while batches are delivered at the end.
WAIT_S = 0.25


class Session:
    """
    One request at work. ``ticks`` drives it; the caller may look at what happened between two of them, or leave.

    Leaving early (closing the generator) drains: running items finish, everything else waits for the next call.
    """

    def __init__(self, request: RunRequest) -> None:
        self.request = request
        self.called_s = monotonic_s()
        self.pid = os.getpid()
        self.summary: Summary | None = None
        #: Id of the run, once it was chosen.
        self.run_id = 0
        self.told_signal = False
        #: Something is to be undone now that the run has ended.
        self.owes = False
        self.workers = 1
        #: Tells the command of --on-end how the run went, once the ledger is free.
        self.ending: EndCommand | None = None

    def ticks(self) -> Generator[tuple[Connection, list[int]], None, None]:
        """
        Work until the run is over or stopped; yield the ledger and the ids of items that ended, after each tick.

        ``summary`` is set when the generator has ended by itself.

        Raises:
            DurabatchError: See :mod:`durabatch.errors`. What was recorded stays, and the run can be resumed.
        """
        peeked = peek(self.request)
        try:
            yield from self.ticks_of(peeked)
            if self.owes and self.summary is not None:
                self.summary = self.undo(self.summary)
        finally:
            if self.ending is not None and os.getpid() == self.pid:
                self.ending()

    def ticks_of(self, peeked: Peeked | None) -> Generator[tuple[Connection, list[int]], None, None]:
        """Do what ``ticks`` does, while the ledger is ours."""
        with owned_ledger(self.request) as owned, ExitStack() as stack:
            choice = self.choose(owned, peeked)
            self.run_id = choice.active.run_id
            if choice.nothing_to_do:
                self.publish_rest(owned, choice)
                self.summary = self.summarise(owned, choice, None, exit_code=own_code(owned.connection, choice))
                return
            owned.describe(choice.active.name)
            if choice.ended_before is not None:
                self.request.note(rolling_back_text(choice.active) if choice.is_rollback else resuming_text(choice.active))
            stack.enter_context(calm_collector())
            parts = self.assemble(owned, choice, stack)
            yield from self.work(parts)
            self.summary = self.finish(parts)

    def choose(self, owned: OwnedLedger, peeked: Peeked | None) -> Choice:
        """Return the run that is meant, with what is to be done with it on disk."""
        if self.request.verb == "rollback":
            return choose_rollback(owned.connection, self.request)
        if is_owed_alone(owned.connection, self.request):
            return choose_rollback(owned.connection, replace(self.request, scope=None))
        choice = choose(owned.connection, self.request, peeked)
        choice.undone_before = choice.active.view().undone
        return choice

    def assemble(self, owned: OwnedLedger, choice: Choice, stack: ExitStack) -> Parts:
        """Make the pool and what surrounds it; *stack* takes all of it down again."""
        ledger, request = owned.connection, self.request
        settings = choice.settings if choice.is_rollback else limited(choice.settings)
        self.workers = settings.workers
        signals = stack.enter_context(Signals(patience=3 if settings.workers else 2))
        if settings.cache and cache_identity(choice.handler, choice.provenance) is None:
            request.note("--cache: the handler declares no version and has no code that can be read, so its results are not used again")
        row = run.get(ledger, choice.active.run_id)
        expire(ledger, row.run_id, now_us())
        pace = Pace(row.elapsed_us)
        kind = kind_of(choice.handler, settings, is_async=choice.is_async)
        room = Room(ledger.files.ledger, wake=signals.read_end, is_told_to_stop=lambda: signals.count > 0, note=request.note)
        pool = make_pool(owned, choice, kind, request, signals, room, stack)
        coordinator = Coordinator(
            ledger, choice.active, pool, settings, choice.feeder, pace, phase=first_phase(ledger, choice, row.flow), kind=kind,
            governor=Governor(settings, choice.active, row.flow), flow=dict(row.flow), room=room, request=request,
        )  # fmt: skip
        publisher = stack.enter_context(closing(self.publisher(owned, choice, signals.wake)))
        return Parts(owned, choice, coordinator, publisher, pool, pace, signals)

    def publisher(self, owned: OwnedLedger, choice: Choice, wake: Callable[[], None] | None = None) -> Publisher:
        """Return what writes finished batches out, and has them delivered."""
        active, settings = choice.active, choice.settings
        deliverer = deliverer_of(self.request.on_batch, settings.batch_command, owned.connection.files.ledger, wake)
        return Publisher(owned.connection, active.run_id, active.name, settings, deliverer)

    def publish_rest(self, owned: OwnedLedger, choice: Choice) -> None:
        """Write out and deliver what an earlier session of a finished run has left; a call that fails now leaves it finished."""
        with closing(self.publisher(owned, choice)) as publisher:
            publisher.finish()
            while not publisher.is_delivered:
                publisher.wait(WAIT_S)
                publisher.publish()
            if publisher.failure is not None:
                raise publisher.failure.error

    def seal(self, parts: Parts) -> None:
        """Close the last batch where it turned out only now that no more items come: there may be no tick left to do it."""
        seal_when_exhausted(parts.owned.connection, parts.choice.active, now_us())

    def work(self, parts: Parts) -> Iterator[tuple[Connection, list[int]]]:
        """Tick until the run is over, or everything has come back after a stop."""
        coordinator, obedience = parts.coordinator, Obedience(parts.coordinator)
        coordinator.room.until_done(lambda: self.seal(parts))
        coordinator.start_workers()
        try:
            while not self.is_over(parts):
                self.heed_signals(parts)
                coordinator.tick()
                coordinator.room.until_done(obedience.heed)
                if not parts.choice.is_rollback:
                    # What takes results back, item by item, has the output written anew once, behind the last of them.
                    coordinator.room.until_done(parts.publisher.publish)
                self.heed_delivery(parts)
                self.tell(parts)
                yield parts.owned.connection, coordinator.ended
        except LedgerError:
            # Nothing can be written any more; the next start recovers.
            raise
        except (GeneratorExit, Exception) as error:
            # A forked child that ends must not talk to the workers of its parent.
            if os.getpid() == self.pid:
                self.leave(parts, "the caller left" if isinstance(error, GeneratorExit) else reason_of(error, parts.publisher.failure))
            raise

    def is_over(self, parts: Parts) -> bool:
        """Tell whether the work is over; behind the last preflight check comes the first item."""
        coordinator = parts.coordinator
        if not coordinator.is_over:
            return False
        checking = coordinator.checking
        if checking is None or coordinator.stopping is not None:
            return True
        coordinator.go_on_with(handling(parts.owned.connection, parts.choice, coordinator.flow))
        if checking.skipped:
            self.request.note(f"preflight: {checking.skipped:,} of {parts.choice.active.total_count:,} items are skipped")
        if self.request.preflight_only:
            coordinator.stop("preflight only", at_once=False, exit_code=int(checking.skipped > 0))
        return coordinator.is_over

    def heed_signals(self, parts: Parts) -> None:
        """Drain after the first signal; interrupt after the second, or when a drain takes too long."""
        signals, coordinator = parts.signals, parts.coordinator
        if signals.count and not self.told_signal:
            self.told_signal = True
            coordinator.stop(f"stopped by {signals.name}", at_once=False, exit_code=signals.exit_code)
            self.request.note(stopping_text(parts.choice.active, parts.choice.settings))
        stopping = coordinator.stopping
        if coordinator.interrupted_s is not None:
            self.kill_late_workers(parts, coordinator.interrupted_s)
        elif stopping is not None and (signals.count > 1 or monotonic_s() - stopping.since_s > parts.choice.settings.drain_s):
            coordinator.interrupt()

    def heed_delivery(self, parts: Parts) -> None:
        """Stop when a call about a batch has failed; what the caller's own function raised comes through."""
        failure = parts.publisher.failure
        if failure is None:
            return
        if not isinstance(failure.error, RunHaltedError):
            raise failure.error
        parts.coordinator.stop(failure.reason, at_once=False)

    def kill_late_workers(self, parts: Parts, since_s: float) -> None:
        """End workers that did not obey an interruption within the grace time."""
        if monotonic_s() - since_s > parts.choice.settings.term_grace_s:
            parts.pool.kill()

    def leave(self, parts: Parts, reason: str) -> None:
        """Let running items end as after a signal, within the same times, take everything else back, and mark the run as halted."""
        parts.coordinator.stop(reason, at_once=False)
        while not parts.coordinator.is_over and parts.coordinator.crew.members:
            self.heed_signals(parts)
            parts.coordinator.drain_tick()
        settings = parts.choice.settings
        parts.coordinator.room.until_done(lambda: parts.publisher.settle(drain_s=settings.drain_s, grace_s=settings.term_grace_s))
        self.conclude(parts, RunState.HALTED, reason, HALTED)
        self.end(parts)

    def tell(self, parts: Parts) -> None:
        """Emit progress, a few times a second."""
        if self.request.on_progress is not None and parts.pace.wants_to_tell():
            self.request.on_progress(self.progress(parts))

    def progress(self, parts: Parts) -> Progress:
        """Return what a progress line shows now."""
        undone = undone_by(parts.coordinator.phase) if parts.choice.is_rollback else None
        return progress_of(parts.choice.active, parts.pace, undone)

    def finish(self, parts: Parts) -> Summary:
        """Write out what is left, give the run its end, and sum up."""
        try:
            self.let_out(parts)
            self.heed_delivery(parts)
        except LedgerError:
            raise
        except Exception as error:
            self.leave(parts, reason_of(error, parts.publisher.failure))
            raise
        end = settled_end(parts.owned.connection, parts.choice, parts.coordinator.flow, verdict(parts))
        exit_code = end[2]
        self.conclude(parts, *end)
        parts.coordinator.room.until_done(parts.publisher.finish)
        self.end(parts)
        if self.request.on_progress is not None:
            self.request.on_progress(self.progress(parts))
        return self.summarise(parts.owned, parts.choice, parts.pace, exit_code=exit_code, undone=undone_by(parts.coordinator.phase))

    def let_out(self, parts: Parts) -> None:
        """
        Write out everything that has finished, and wait until it is delivered.

        After a signal only the call at hand is waited for, as long as a running item would be.
        """
        publisher, coordinator, settings = parts.publisher, parts.coordinator, parts.choice.settings
        while coordinator.room.until_done(publisher.publish) or not publisher.is_delivered:
            publisher.wait(WAIT_S)
            self.heed_signals(parts)
            if parts.signals.count:
                publisher.hurry(at_once=coordinator.interrupted_s is not None, grace_s=settings.term_grace_s)
                if coordinator.interrupted_s is not None:
                    return

    def end(self, parts: Parts) -> None:
        """Have the command of --on-end told how the run went, once the ledger is free."""
        settings, publisher = parts.choice.settings, parts.publisher
        if settings.end_command is not None:
            folder = os.path.dirname(parts.owned.connection.files.ledger)
            self.ending = EndCommand(ShellCommand(settings.end_command, folder), publisher.summary(), settings.output, self.request.note)

    def conclude(self, parts: Parts, state: RunState, reason: str | None, exit_code: int) -> None:
        """Record the end and move the log into the ledger."""
        parts.pool.close(parts.choice.settings.term_grace_s)
        self.owes = parts.coordinator.room.until_done(lambda: write_end(parts, (state, reason, exit_code)))

    def undo(self, summary: Summary) -> Summary:
        """Undo what the end of the run has marked; return the summary with what became of the run by that."""
        self.request.note(f"undoing what {'was left behind' if summary.status.state == RunState.CANCELLED else 'the run did'}")
        request = replace(
            self.request, verb="rollback", run=self.run_id, scope=None, source=None, overrides={"workers": self.workers}, keep_going=True,
            trust_ledger=True, on_batch=None,
        )  # fmt: skip
        undone = execute(request)
        code = undone.exit_code if undone.exit_code > FIRST_SIGNAL else summary.exit_code or undone.exit_code
        return replace(summary, status=undone.status, rolled_back=undone.rolled_back, exit_code=code)

    def summarise(self, owned: OwnedLedger, choice: Choice, pace: Pace | None, *, exit_code: int, undone: Undone | None = None) -> Summary:
        """Return what this call did."""
        ledger, run_id = owned.connection, choice.active.run_id
        items = choice.active.view().undone - choice.undone_before
        first_s = pace.first_result_s if pace else None
        return Summary(
            status=status(ledger, run_id),
            errors=tuple(error_groups(ledger, run_id, SUMMARY_GROUPS)),
            skipped=tuple(skipped_groups(ledger, run_id, SUMMARY_GROUPS)),
            exit_code=exit_code,
            resumed=choice.ended_before,
            executed=pace.ended if pace else 0,
            recovered=owned.recovered.get(run_id, (0, 0)),
            output=choice.settings.output,
            startup_s=(pace.first_dispatch_s - self.called_s) if pace and pace.first_dispatch_s else 0.0,
            first_result_s=first_s - self.called_s if first_s else None,
            work_s=pace.work_s if pace else 0.0,
            rolled_back=undone_in_all(ledger, choice, undone or Undone(), items),
        )


def execute(request: RunRequest) -> Summary:
    """
    Carry out *request* and return how it ended.

    Returns:
        The summary; its ``exit_code`` is that of the command line: 0, 1, 3, or 128 and a signal's number.

    Raises:
        DurabatchError: See :mod:`durabatch.errors`. What was recorded stays.
    """
    session = Session(request)
    for _ in session.ticks():
        continue
    if session.summary is None:
        raise RuntimeError("a session ended without a summary")
    return session.summary


@contextmanager
def calm_collector() -> Iterator[None]:
    """
    Have the garbage collector look less often while the context is open.

    A tick makes and drops tens of thousands of tuples, none of them in a cycle; looking at them again and again is a twentieth of its time.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*before)
