"""
Orders to the coordinator of a run, from another process or thread: pause, unpause, scale, set, drain, cancel.

    who has the run?  →  one row in the ledger, in a short transaction  →  wait until it is settled  →  the new state

The coordinator notices within a second. An order says who gave it and when, and stays as a record. Where nobody works on the run there is
nobody to order: that is an error, except for ``cancel``, which then takes the ledger and does it itself.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from durabatch import process
from durabatch.clock import monotonic_s, now_us
from durabatch.engine import steer
from durabatch.engine.status import status
from durabatch.errors import LedgerError, LedgerVersionError, UsageError
from durabatch.ledger.locks import holder_of
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.paths import ledger_files, shown
from durabatch.ledger.reader import Reader
from durabatch.ledger.schema import SCHEMA_VERSION
from durabatch.models import RunStatus
from durabatch.runner.orders import REFUSED, Verb, argument_of
from durabatch.runner.trusting import refuse_transaction
from durabatch.states import RunState

__all__ = ["Answer", "steered"]

#: How long an order waits for its effect, and how often it looks.
PATIENCE_S, STEP_S = 5.0, 0.05
#: Where a run stands while a coordinator has it.
LIVE = frozenset({RunState.RUNNING, RunState.PAUSED})
#: Where a run stands when it can be taken up again.
RESUMABLE = frozenset({"interrupted", RunState.HALTED})
#: What is said of an order that nobody carried out.
TOO_LATE = "not carried out: the run was"


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What came of an order.

    Attributes:
        status: The run, as of now. After ``drain`` and ``cancel`` it may still be at its last items.
        outcome: What was said of the order, for people.
    """

    status: RunStatus
    outcome: str


def steered(
    path: str | os.PathLike[str],
    wanted: str | int | None,
    verb: Verb,
    *words: str,
    allow_network_fs: bool = False,
    on_note: Callable[[str], None] | None = None,
) -> Answer:
    """
    Give an order and return what came of it, within 5 seconds.

    Args:
        path: The ledger.
        wanted: Name or id of the run; None is the one that is at work, else the latest.
        words: What stands behind the verb on the command line: a number for ``scale``, ``KEY=VALUE`` for ``set``.
        allow_network_fs: Accept a ledger on a network file system that only this host uses.
        on_note: Called with a sentence when another program keeps us waiting.

    Raises:
        LedgerError: Nobody works on the run, or the one who does has not answered. An order that was not answered stays, and is carried
            out as soon as that is possible.
        UsageError: *words* are wrong, there is no such run or it is a transaction, or the coordinator refuses the order.
    """
    argument = argument_of(verb, words)
    desk = Desk(os.fspath(path), allow_network_fs, on_note)
    found = desk.at_work(wanted)
    refuse_transaction(found, verb)
    if found.state in LIVE:
        return desk.ordered(found, verb, argument)
    if verb == "cancel":
        return desk.cancelled(found)
    raise desk.nobody(found)


@dataclass(slots=True)
class Desk:
    """
    Where orders to whoever works with the ledger at *path* are given.

    Attributes:
        deadline_s: When waiting ends.
    """

    path: str
    allow_network_fs: bool
    on_note: Callable[[str], None] | None
    deadline_s: float = field(default_factory=lambda: monotonic_s() + PATIENCE_S)

    @property
    def is_late(self) -> bool:
        """Whether there was enough waiting."""
        return monotonic_s() > self.deadline_s

    def holder(self) -> dict[str, object] | None:
        """Return what the present owner of the ledger says about itself, None when nobody owns it."""
        return holder_of(ledger_files(self.path))

    def at_work(self, wanted: str | int | None) -> RunStatus:
        """Return where the wanted run stands; somebody who has just taken the ledger is given time to say for which run."""
        with Reader(self.path) as reader:
            while True:
                holder, found = self.holder(), status(reader, wanted)
                if found.state in LIVE or holder is None or run_of(holder) or self.is_late:
                    return found
                time.sleep(STEP_S)

    def nobody(self, found: RunStatus) -> LedgerError:
        """Return the error for a run that has no coordinator."""
        holder = self.holder()
        other = "" if holder is None else f"; pid {holder.get('pid', '?')} has the ledger for {run_of(holder) or 'something else'}"
        hint = "`durabatch resume` goes on with it." if found.state in RESUMABLE else "It has ended; there is nothing to steer."
        return LedgerError(shown(self.path), f"nobody works on run {found.name} ({found.state}){other}", hint)

    def ordered(self, found: RunStatus, verb: Verb, argument: Mapping[str, Any]) -> Answer:
        """Give an order to the coordinator of a run and return what became of it."""
        control_id = self.write(found.run_id, verb, argument)
        with Reader(self.path) as reader:
            answer = self.answered(reader, found.run_id, control_id)
            if answer is not None:
                return self.judged(reader, verb, answer)
        now = self.withdrawn(found.run_id, control_id)
        if now.state in LIVE:
            raise self.unanswered(now)
        if verb == "cancel":
            return self.cancelled(now)
        if verb == "drain" and now.state != "interrupted":
            return Answer(now, f"it is {now.state} already")
        raise self.nobody(now)

    def write(self, run_id: int, verb: Verb, argument: Mapping[str, Any]) -> int:
        """Write an order into the ledger and return its id."""
        with Reader(self.path) as reader:
            version = reader.raw.pragma("user_version")
        if version < SCHEMA_VERSION:
            # Opening it to write would migrate it under a coordinator of an older version.
            raise LedgerVersionError(
                shown(self.path), f"is at work with schema {version}, which knows no orders", "Use a signal: kill -TERM drains."
            )
        with closing(open_ledger(self.path, allow_network_fs=self.allow_network_fs, on_wait=self.on_note)) as ledger:
            return steer.order(ledger, run_id, verb, argument, by=asked_by(), now_us=now_us())

    def answered(self, reader: Reader, run_id: int, control_id: int) -> Answer | None:
        """Wait until the order is settled and return what was said; None when nobody is there any more, or time is up."""
        while True:
            # In this order: what is settled stays so, and nobody settles it once the run has stopped.
            now = status(reader, run_id)
            outcome = steer.outcome_of(reader, control_id)
            if outcome is not None:
                return Answer(status(reader, run_id), outcome)
            if now.state not in LIVE or self.is_late:
                return None
            time.sleep(STEP_S)

    def judged(self, reader: Reader, verb: Verb, answer: Answer) -> Answer:
        """Return the answer to an order that was carried out, once its effect is there."""
        if answer.outcome.startswith(REFUSED):
            raise UsageError(f"{verb}: {answer.outcome.removeprefix(REFUSED)}")
        if answer.outcome == steer.EXPIRED:
            raise LedgerError(shown(self.path), answer.outcome, "Give the order again.")
        now = answer.status
        while verb in {"drain", "cancel"} and now.state in LIVE and not self.is_late:
            time.sleep(STEP_S)
            now = status(reader, now.run_id)
        return Answer(now, answer.outcome)

    def withdrawn(self, run_id: int, control_id: int) -> RunStatus:
        """Take an order back that nobody will see any more, and return where the run stands; one that somebody may yet see stays."""
        with closing(open_ledger(self.path, allow_network_fs=self.allow_network_fs, on_wait=self.on_note)) as ledger:
            now = status(ledger, run_id)
            if now.state not in LIVE:
                steer.settle(ledger, control_id, f"{TOO_LATE} {now.state}", now_us())
        return now

    def unanswered(self, now: RunStatus) -> LedgerError:
        """Return the error for a coordinator that lives and does not answer."""
        pid = (self.holder() or {}).get("pid", "?")
        return LedgerError(
            shown(self.path),
            f"the coordinator of run {now.name} (pid {pid}) has not answered within {PATIENCE_S:g} s",
            "The order stands and is carried out when that is possible; `durabatch status` shows it.",
        )

    def cancelled(self, found: RunStatus) -> Answer:
        """Cancel a run that nobody works on. Errors as for ``cancel_unheld``."""
        # Only this verb needs what ends the processes of a dead coordinator.
        from durabatch.runner.cancelling import cancel_unheld

        if found.state == RunState.CANCELLED:
            return Answer(found, "it is cancelled already")
        now = cancel_unheld(self.path, found, by=asked_by(), allow_network_fs=self.allow_network_fs, on_note=self.on_note)
        return Answer(now, "cancelled")


def run_of(holder: Mapping[str, object]) -> str | None:
    """Return the run that the owner of a ledger works on; None while it has not said so."""
    name = holder.get("run")
    return name if isinstance(name, str) else None


def asked_by() -> dict[str, object]:
    """Return who we are, for the record."""
    uid = os.geteuid()
    try:
        user: str | None = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = None
    return {"pid": os.getpid(), "uid": uid, "user": user, "host": process.host_name()}
