"""
One call of ``run``, ``resume`` or ``retry``, from the request to the summary.

    choose or create the run  →  feeder, pool, coordinator  →  ticks until over or stopped  →  conclude, publish, summarise
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from durabatch.clock import monotonic_s, now_us
from durabatch.engine.active import ActiveRun
from durabatch.engine.claim import seal_when_exhausted
from durabatch.engine.conclude import conclude
from durabatch.engine.status import error_groups, skipped_groups, status
from durabatch.engine.steer import expire
from durabatch.errors import LedgerError, RunHaltedError
from durabatch.flow.halting import tolerated
from durabatch.ledger import run
from durabatch.ledger.connection import Connection
from durabatch.limits import Limit
from durabatch.models import RunSettings, Summary
from durabatch.provenance import cache_identity
from durabatch.runner.beginning import first_phase, handling
from durabatch.runner.cancelling import cancel_open_items
from durabatch.runner.choosing import BAD_INPUT, Choice, Peeked, choose, peek
from durabatch.runner.coordinator import Coordinator
from durabatch.runner.delivering import EndCommand, deliverer_of
from durabatch.runner.governing import Governor
from durabatch.runner.kinds import kind_of
from durabatch.runner.obeying import Obedience
from durabatch.runner.opening import OwnedLedger, owned_ledger
from durabatch.runner.pace import Pace
from durabatch.runner.pool import Pool
from durabatch.runner.pools import make_pool
from durabatch.runner.publishing import Publisher
from durabatch.runner.request import RunRequest
from durabatch.runner.room import Room
from durabatch.runner.shell import ShellCommand
from durabatch.runner.signals import Signals
from durabatch.runner.telling import progress_of, reason_of, resuming_text, stopping_text
from durabatch.states import RunState

__all__ = ["Session", "execute"]

#: Exit code of a run that stopped before its end and can be resumed.
HALTED = 3
#: Exit code of a run that was cancelled.
CANCELLED = 1
#: Groups of errors in a summary.
SUMMARY_GROUPS = 20
#: Seconds between two looks at signals while batches are delivered at the end.
WAIT_S = 0.25


@dataclass(slots=True)
class Parts:
    """What works together during one session."""

    owned: OwnedLedger
    choice: Choice
    coordinator: Coordinator
    publisher: Publisher
    pool: Pool
    pace: Pace
    signals: Signals


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
        finally:
            if self.ending is not None and os.getpid() == self.pid:
                self.ending()

    def ticks_of(self, peeked: Peeked | None) -> Generator[tuple[Connection, list[int]], None, None]:
        """Do what ``ticks`` does, while the ledger is ours."""
        with owned_ledger(self.request) as owned, ExitStack() as stack:
            choice = choose(owned.connection, self.request, peeked)
            self.run_id = choice.active.run_id
            if choice.nothing_to_do:
                self.publish_rest(owned, choice)
                self.summary = self.summarise(owned, choice, None, exit_code=finished_code(choice.active, choice.settings))
                return
            owned.describe(choice.active.name)
            if choice.ended_before is not None:
                self.request.note(resuming_text(choice.active))
            stack.enter_context(calm_collector())
            parts = self.assemble(owned, choice, stack)
            yield from self.work(parts)
            self.summary = self.finish(parts)

    def assemble(self, owned: OwnedLedger, choice: Choice, stack: ExitStack) -> Parts:
        """Make the pool and what surrounds it; *stack* takes all of it down again."""
        ledger, settings, request = owned.connection, choice.settings, self.request
        signals = stack.enter_context(Signals(patience=3 if settings.workers else 2))
        if settings.cache and cache_identity(choice.handler, choice.provenance) is None:
            request.note("--cache: the handler declares no version and has no code that can be read, so its results are not used again")
        row = run.get(ledger, choice.active.run_id)
        expire(ledger, row.run_id, now_us())
        pace = Pace(row.elapsed_us)
        kind = kind_of(choice.handler, settings, is_async=choice.is_async)
        pool = make_pool(owned, choice, kind, request, signals, stack)
        room = Room(ledger.files.ledger, wake=signals.read_end, is_told_to_stop=lambda: signals.count > 0, note=request.note)
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
        coordinator.go_on_with(handling(parts.owned.connection, parts.choice))
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
            self.request.on_progress(progress_of(parts.choice.active, parts.pace))

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
        state, reason, exit_code = self.verdict(parts)
        self.conclude(parts, state, reason, exit_code)
        parts.coordinator.room.until_done(parts.publisher.finish)
        self.end(parts)
        if self.request.on_progress is not None:
            self.request.on_progress(progress_of(parts.choice.active, parts.pace))
        return self.summarise(parts.owned, parts.choice, parts.pace, exit_code=exit_code)

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

    def verdict(self, parts: Parts) -> tuple[RunState, str | None, int]:
        """Return state, reason and exit code of a run that has stopped."""
        feeder, active, stopping = parts.choice.feeder, parts.choice.active, parts.coordinator.stopping
        if parts.signals.count:
            return RunState.HALTED, f"stopped by {parts.signals.name}", parts.signals.exit_code
        if stopping is not None and stopping.cancelled:
            return RunState.CANCELLED, stopping.reason, CANCELLED
        if parts.publisher.failure is not None:
            return RunState.HALTED, parts.publisher.failure.reason, HALTED
        if stopping is not None and (active.open_count or not active.intake_complete):
            code = finished_code(active, parts.choice.settings) if stopping.exit_code is None else stopping.exit_code
            return RunState.HALTED, stopping.reason, code
        if feeder is not None and feeder.problem is not None:
            return RunState.HALTED, f"{BAD_INPUT}{feeder.problem.what}", HALTED
        if parts.choice.left_alone is not None and active.open_count:
            return RunState.HALTED, parts.choice.left_alone, HALTED
        if not active.intake_complete:
            return RunState.HALTED, "intake is incomplete: start the same command again with its input", HALTED
        return RunState.FINISHED, None, finished_code(active, parts.choice.settings)

    def conclude(self, parts: Parts, state: RunState, reason: str | None, exit_code: int) -> None:
        """Record the end and move the log into the ledger."""
        parts.pool.close(parts.choice.settings.term_grace_s)
        parts.coordinator.room.until_done(lambda: self.write_end(parts, state, reason, exit_code))

    def write_end(self, parts: Parts, state: RunState, reason: str | None, exit_code: int) -> None:
        """Write the end into the ledger; a second time changes nothing."""
        ledger, active = parts.owned.connection, parts.choice.active
        if state == RunState.CANCELLED:
            cancel_open_items(ledger, active)
        parts.coordinator.phase.end()
        conclude(ledger, active, state, reason=reason, exit_code=exit_code, elapsed_us=parts.pace.elapsed_us, now_us=now_us())
        ledger.checkpoint(truncate=True)

    def summarise(self, owned: OwnedLedger, choice: Choice, pace: Pace | None, *, exit_code: int) -> Summary:
        """Return what this call did."""
        ledger, run_id = owned.connection, choice.active.run_id
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


def finished_code(active: ActiveRun, settings: RunSettings) -> int:
    """Return 1 when more items of a finished run failed or were cancelled than is tolerated, else 0; those that the input lost are neither."""
    counts = active.view()
    limit = Limit.parse(settings.tolerate, option="--tolerate") if settings.tolerate else None
    return int(
        not tolerated(limit, counts.total - active.gone_count, counts.failed + counts.quarantined + counts.cancelled - active.gone_count)
    )
