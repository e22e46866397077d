"""
What workers sent, and their deaths, are written down: inside the tick's transaction, message by message.
"""

from __future__ import annotations

from dataclasses import replace

from durabatch.clock import now_us
from durabatch.engine.finish import FailedAttempt, Finished, Returned
from durabatch.engine.promise import Entry
from durabatch.errors import HandlerImportError
from durabatch.runner.crew import Crew, Held, Member
from durabatch.runner.deaths import Judgement, judge, unexplained
from durabatch.runner.phases import Phase
from durabatch.runner.pool import Arrived, Died, Event
from durabatch.runner.returns import durations_of, of_flush, seconds_of
from durabatch.runner.round import Round
from durabatch.workers.protocol import Busy, Flush, Promise, Ready, Recorded, Refused, Released

__all__ = ["Recorder", "answered", "entry_of"]


class Recorder:
    """
    Records events of one run.

    Args:
        cpu_limit_s: Processor seconds after which the system ends a worker.

    Attributes:
        phase: What the items are handed out for.
        refusal: A worker cannot use the handler.
        interrupting: Every worker was told to stop, so a death is nobody's fault.
        wants_durations: Somebody measures how long successes take.
    """

    def __init__(self, crew: Crew, phase: Phase, *, cpu_limit_s: float | None, wants_durations: bool) -> None:
        self.crew = crew
        self.phase = phase
        self.cpu_limit_s = cpu_limit_s
        self.wants_durations = wants_durations
        self.refusal: HandlerImportError | None = None
        self.interrupting = False

    def record(self, events: list[Event], now: Round) -> None:
        """Write down what the workers did."""
        for event in events:
            if isinstance(event, Died):
                self.record_death(event, now)
            else:
                self.record_message(event, now)

    def record_message(self, event: Arrived, now: Round) -> None:
        """Write down one message."""
        member = self.crew.members.get(event.worker)
        if member is None:
            return
        match event.message:
            case Ready():
                member.is_ready = True
                now.ready.append(member)
            case Refused(message=message):
                self.refusal = HandlerImportError(message.rstrip("."), "The run stays as it is; the same command goes on.")
            case Released(items=items):
                member.release_asked = False
                for dispatch_id, item_ids in items.items():
                    self.take_back(member, dispatch_id, item_ids, now)
            case Busy() as answer:
                member.answer = answer
            case Promise() as promise:
                now.recorded_promises.append((member.number, self.record_promise(promise)))
            case Flush() as flush:
                self.record_flush(member, flush, now)

    def record_promise(self, promise: Promise) -> Recorded:
        """Write down what takes back an effect that an item is about to have; return the answer, to be sent once it is on disk."""
        return answered(promise, self.phase.record(entry_of(promise)))

    def record_flush(self, member: Member, flush: Flush, now: Round) -> None:
        """Write down what a worker finished."""
        held = member.held.get(flush.dispatch_id)
        if held is None:
            return
        returned = of_flush(flush, held.batch_of)
        ids = returned.item_ids()
        self.note(self.phase.finish(returned), now)
        if flush.dispatch_id > 0:
            self.measure(flush, len(ids), now)
        self.drop(member, held, ids, now)
        if flush.finished:
            self.close(member, held, now)

    def note(self, finished: Finished, now: Round) -> None:
        """Keep what the engine said."""
        now.finished.append(finished)
        now.ended += finished.ended

    def measure(self, flush: Flush, count: int, now: Round) -> None:
        """Note how long items take."""
        now.timings.append((count, seconds_of(flush)))
        if self.wants_durations:
            now.durations += durations_of(flush)

    def drop(self, member: Member, held: Held, item_ids: list[int], now: Round) -> None:
        """Note that items of a dispatch have ended, or steps of undoing, which have numbers below zero."""
        held.drop(item_ids)
        member.ended_count += len(item_ids)
        now.ended += item_ids if held.dispatch_id > 0 else ()

    def take_back(self, member: Member, dispatch_id: int, item_ids: list[int], now: Round) -> None:
        """Write down what came back unstarted."""
        now.given_back += self.phase.release(dispatch_id, item_ids)
        held = member.held.get(dispatch_id)
        if held is not None:
            held.drop(item_ids)

    def close(self, member: Member, held: Held, now: Round) -> None:
        """Close a dispatch: items of it that were neither ended nor given back can only be handed out again."""
        if held.batch_of:
            now.given_back += self.phase.release(held.dispatch_id, list(held.batch_of))
        member.held.pop(held.dispatch_id, None)
        if not member.held:
            member.suspects = ()

    def record_death(self, event: Died, now: Round) -> None:
        """Write down what the worker was running, and take everything else of it back uncharged."""
        member = self.crew.leave(event.worker)
        if member is None:
            return
        judged = self.judge(event, member)
        for attempts, accused in ((judged.explained, False), (judged.crashed, True)):
            if attempts:
                self.record_attempts(member, attempts, now, accused=accused)
        for held in list(member.held.values()):
            self.close(member, held, now)
        now.departed.append((member, event))

    def judge(self, event: Died, member: Member) -> Judgement:
        """Return the attempts that a death ended; where the cells show none, those that it may be due to."""
        now, interrupting = now_us(), self.interrupting
        judged = judge(event, member, interrupting=interrupting, cpu_limit_s=self.cpu_limit_s, now_us=now)
        if judged.explained or judged.crashed:
            return judged
        cells = [
            replace(cell, number=self.phase.next_number(cell.item_id or 0))
            for cell in unexplained(event, member, interrupting=interrupting, now_us=now)
        ]
        return judge(replace(event, cells=tuple(cells)), member, interrupting=interrupting, cpu_limit_s=self.cpu_limit_s, now_us=now)

    def record_attempts(self, member: Member, attempts: list[FailedAttempt], now: Round, *, accused: bool) -> None:
        """Write down attempts that the death of their worker ended; those that may have caused it are set apart."""
        batch_of = {item_id: batch_id for held in member.held.values() for item_id, batch_id in held.batch_of.items()}
        # An async worker may have been at items and at steps of undoing at once.
        for some in ([one for one in attempts if is_step(one)], [one for one in attempts if not is_step(one)]):
            if some:
                returned = Returned(some[0].dispatch_id or 0, failed=some, batch_of=batch_of)
                self.note(self.phase.accuse(returned, member.suspects) if accused else self.phase.finish(returned), now)
        for one in attempts:
            self.drop(member, member.held[one.dispatch_id or 0], [one.row["item_id"]], now)


def is_step(one: FailedAttempt) -> bool:
    """Tell a step of undoing from an attempt at an item."""
    return bool(one.row["item_id"] < 0)


def entry_of(promise: Promise) -> Entry:
    """Return a promise in the terms of the engine."""
    return Entry(
        promise.dispatch_id, promise.item_id, promise.number, promise.sequence, promise.action, promise.arguments,
        promise.is_irreversible, promise.old, promise.old_bytes, promise.old_digest,
    )  # fmt: skip


def answered(promise: Promise, undo_id: int | None) -> Recorded:
    """Return the answer to a promise; without a number it was refused."""
    if undo_id is None:
        return Recorded(promise.token, refusal="this attempt does not count any more, so it must not have effects")
    return Recorded(promise.token, undo_id)
