"""
One call of ``run``, ``resume`` or ``retry``, from the request to the summary.

    choose or create the run  →  feeder, pool, coordinator  →  ticks until over or stopped  →  conclude, publish, summarise
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from durabatch.clock import monotonic_s, now_us
from durabatch.engine.active import ActiveRun
from durabatch.engine.conclude import conclude
from durabatch.engine.status import error_groups, eta_s, skipped_groups, status
from durabatch.engine.steer import expire
from durabatch.errors import LedgerError
from durabatch.flow.batching import BatchSettings, strategy
from durabatch.flow.halting import tolerated
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger import run
from durabatch.ledger.connection import Connection
from durabatch.limits import Limit, shown_duration
from durabatch.models import Progress, RunSettings, Summary
from durabatch.runner.cancelling import cancel_open_items
from durabatch.runner.choosing import BAD_INPUT, Choice, choose, peek
from durabatch.runner.coordinator import Coordinator
from durabatch.runner.governing import Governor
from durabatch.runner.kinds import kind_of
from durabatch.runner.obeying import Obedience
from durabatch.runner.opening import OwnedLedger, owned_ledger
from durabatch.runner.pace import Pace
from durabatch.runner.phases import CHECKED, Checking, Handling, Phase
from durabatch.runner.pool import Pool
from durabatch.runner.pools import make_pool
from durabatch.runner.publishing import Publisher
from durabatch.runner.request import RunRequest
from durabatch.runner.room import Room
from durabatch.runner.signals import Signals
from durabatch.states import RunState

__all__ = ["Session", "execute"]

#: Exit code of a run that stopped before its end and can be resumed.
HALTED = 3
#: Groups of errors in a summary.
SUMMARY_GROUPS = 20


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

    def ticks(self) -> Generator[tuple[Connection, list[int]], None, None]:
        """
        Work until the run is over or stopped; yield the ledger and the ids of items that ended, after each tick.

        ``summary`` is set when the generator has ended by itself.

        Raises:
            DurabatchError: See :mod:`durabatch.errors`. What was recorded stays, and the run can be resumed.
        """
        peeked = peek(self.request)
        with owned_ledger(self.request) as owned, ExitStack() as stack:
            choice = choose(owned.connection, self.request, peeked)
            self.run_id = choice.active.run_id
            if choice.nothing_to_do:
                self.publisher(owned, choice).finish()
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
        return Parts(owned, choice, coordinator, self.publisher(owned, choice), pool, pace, signals)

    def publisher(self, owned: OwnedLedger, choice: Choice) -> Publisher:
        """Return what writes finished batches out."""
        active, settings = choice.active, choice.settings
        return Publisher(owned.connection, active.run_id, active.name, settings.output, self.request.on_batch, keep_order=settings.keep_order)

    def work(self, parts: Parts) -> Iterator[tuple[Connection, list[int]]]:
        """Tick until the run is over, or everything has come back after a stop."""
        coordinator, obedience = parts.coordinator, Obedience(parts.coordinator)
        coordinator.start_workers()
        try:
            while not self.is_over(parts):
                self.heed_signals(parts)
                coordinator.tick()
                coordinator.room.until_done(obedience.heed)
                coordinator.room.until_done(parts.publisher.publish)
                self.tell(parts)
                yield parts.owned.connection, coordinator.ended
        except LedgerError:
            # Nothing can be written any more; the next start recovers.
            raise
        except (GeneratorExit, Exception) as error:
            # A forked child that ends must not talk to the workers of its parent.
            if os.getpid() == self.pid:
                self.leave(parts, "the caller left" if isinstance(error, GeneratorExit) else f"{type(error).__name__}: {error}")
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
            self.request.note(stopping_text(parts))
        stopping = coordinator.stopping
        if coordinator.interrupted_s is not None:
            self.kill_late_workers(parts, coordinator.interrupted_s)
        elif stopping is not None and (signals.count > 1 or monotonic_s() - stopping.since_s > parts.choice.settings.drain_s):
            coordinator.interrupt()

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
        self.conclude(parts, RunState.HALTED, reason, HALTED)

    def tell(self, parts: Parts) -> None:
        """Emit progress, a few times a second."""
        if self.request.on_progress is not None and parts.pace.wants_to_tell():
            self.request.on_progress(progress_of(parts))

    def finish(self, parts: Parts) -> Summary:
        """Give the run its end, write out what is left, and sum up."""
        state, reason, exit_code = self.verdict(parts)
        self.conclude(parts, state, reason, exit_code)
        parts.coordinator.room.until_done(parts.publisher.finish)
        if self.request.on_progress is not None:
            self.request.on_progress(progress_of(parts))
        return self.summarise(parts.owned, parts.choice, parts.pace, exit_code=exit_code)

    def verdict(self, parts: Parts) -> tuple[RunState, str | None, int]:
        """Return state, reason and exit code of a run that has stopped."""
        feeder, active, stopping = parts.choice.feeder, parts.choice.active, parts.coordinator.stopping
        if parts.signals.count:
            return RunState.HALTED, f"stopped by {parts.signals.name}", parts.signals.exit_code
        if stopping is not None and stopping.cancelled:
            return RunState.CANCELLED, stopping.reason, stopping.exit_code
        if stopping is not None and (active.open_count or not active.intake_complete):
            return RunState.HALTED, stopping.reason, stopping.exit_code
        if feeder is not None and feeder.problem is not None:
            return RunState.HALTED, f"{BAD_INPUT}{feeder.problem.what}", HALTED
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
    """Return 1 when more items of a finished run failed or were cancelled than is tolerated, else 0."""
    counts = active.view()
    limit = Limit.parse(settings.tolerate, option="--tolerate") if settings.tolerate else None
    return int(not tolerated(limit, counts.total, counts.failed + counts.quarantined + counts.cancelled))


def first_phase(ledger: Connection, choice: Choice, flow: dict[str, Any]) -> Phase:
    """Return what the items are handed out for first: the preflight check where there is one that was not made, else to be handled."""
    checked = flow.get("preflight", 0)
    if choice.settings.preflight is None or checked == CHECKED:
        return handling(ledger, choice)
    return Checking(ledger, choice.active, int(checked))


def handling(ledger: Connection, choice: Choice) -> Handling:
    """Return the phase in which items run through the handler."""
    settings = choice.settings
    chosen = BatchSettings(settings.batch_size, settings.batch_seconds, settings.memory_threshold)
    return Handling(ledger, choice.active, RetryPolicy.of(settings), strategy(settings.batch_strategy, chosen))


def resuming_text(active: ActiveRun) -> str:
    """Return what a person is told when a run goes on."""
    counts = active.view()
    failed = counts.failed + counts.quarantined
    more = "" if active.intake_complete else " so far, intake goes on"
    return f"resuming: {counts.ended - failed:,} done, {failed:,} failed, {counts.left:,} left{more}"


def stopping_text(parts: Parts) -> str:
    """Return what a person is told at the first signal."""
    counts = parts.choice.active.view()
    total = f"{counts.total:,}" if parts.choice.active.intake_complete else f"{counts.total:,} so far"
    within = shown_duration(parts.choice.settings.drain_s)
    return f"stopping after the items in flight, within {within} (again: at once); {counts.ended:,} of {total} done, the same command goes on"


def progress_of(parts: Parts) -> Progress:
    """Return what a progress line shows now."""
    active, pace = parts.choice.active, parts.pace
    counts = active.view()
    return Progress(
        run_name=active.name,
        counts=counts,
        intake_complete=active.intake_complete,
        items_per_s=pace.rate,
        eta_s=eta_s(counts.left, pace.rate, complete=active.intake_complete),
        elapsed_s=pace.elapsed_us / 1e6,
        batch_count=active.batch_count,
    )
