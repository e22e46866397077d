"""
A transaction: a program does its steps itself, one after the other, and all of them or none.

    begin  →  step: its item is on disk and running  →  its undo entries, each on disk before its effect  →  its end  →  …  →  commit
                                                                                                              └───────────▶ roll back

It is a run like others to everybody who looks: its items are the steps, each a batch of its own. The program holds the ledger from the
beginning to the end. When it dies in between, the rows say what is to be undone, and nothing undoes it before somebody asks for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from durabatch import actions, loading
from durabatch.clock import monotonic_s, now_us
from durabatch.engine.active import ActiveRun, load, reload
from durabatch.engine.claim import claim
from durabatch.engine.conclude import conclude
from durabatch.engine.finish import FailedAttempt, Returned, finish
from durabatch.engine.promise import record
from durabatch.engine.start import create_run
from durabatch.engine.submit import submit
from durabatch.errors import UndoError, UsageError
from durabatch.flow.batching import FixedBatches
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger import event, run
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.run import RunRow
from durabatch.provenance import modules_of, surroundings
from durabatch.runner.opening import OwnedLedger, owned_ledger
from durabatch.runner.recording import answered, entry_of
from durabatch.runner.request import RunRequest
from durabatch.settings import RunSettings
from durabatch.states import AttemptOutcome, RunState
from durabatch.workers.failure import capped, message_of, traceback_of, type_of
from durabatch.workers.grouping import group_of
from durabatch.workers.protocol import Promise, Recorded

__all__ = ["TRANSACTION", "Step", "Transacting", "left_open"]

#: The kind of handler that a transaction has on record; it names the modules of its undo actions.
TRANSACTION = "transaction"
#: What stands for a function where a module is named for all that it registers.
ANY_NAME = "undo_actions"
#: Characters of an id.
MAX_ID_CHARACTERS = 200
#: Characters of a value that cannot be kept as JSON, as they are noted.
SHOWN_CHARACTERS = 1000
#: An end that frees the name: the next transaction of that id is another run.
OVER = frozenset({RunState.FINISHED, RunState.ROLLED_BACK})


@dataclass(slots=True)
class Step:
    """
    One step that is running.

    Attributes:
        entry_count: Undo entries that are on disk.
        spent: What it has spent, by unit.
    """

    dispatch_id: int
    batch_id: int
    item_id: int
    number: int
    key: str
    started_at_us: int
    begun_s: float
    entry_count: int = 0
    spent: dict[str, float] = field(default_factory=dict)

    @property
    def duration_us(self) -> int:
        """How long it has been running."""
        return round((monotonic_s() - self.begun_s) * 1e6)


class Transacting:
    """
    A transaction that this process has open. It belongs to the thread that made it.

    Args:
        request: Names the ledger, with the settings and the id as its series. The ledger is made when it is not there.

    Raises:
        UsageError: The id cannot be used: it is committed, or a run's. Nothing was changed.
        UndoError: An earlier transaction of that id is open still; see :func:`left_open`.
        LedgerError: The ledger cannot be used, or somebody has it.
    """

    def __init__(self, request: RunRequest) -> None:
        self.request = request
        self.step: Step | None = None
        #: A transaction of the ledger failed, so that what is in memory has to be read anew.
        self.is_ahead = False
        #: The modules that the run names.
        self.places: list[str] = []
        self.begun_s = monotonic_s()
        self.stack = ExitStack()
        with ExitStack() as opening:
            owned = opening.enter_context(owned_ledger(request))
            self.ledger: Connection = owned.connection
            refuse_taken(self.ledger, request.series or "")
            self.active = self.created(owned)
            self.stack = opening.pop_all()

    def created(self, owned: OwnedLedger) -> ActiveRun:
        """Add the run, and tell others who has the ledger."""
        settings: RunSettings = self.request.settings
        run_id = create_run(
            self.ledger, series=self.request.series or "", handler={"kind": TRANSACTION, "modules": []}, source={"transaction": True},
            fingerprint=None, settings=settings.as_json(), provenance=surroundings(), is_transaction=True, now_us=now_us(),
        )  # fmt: skip
        made = load(self.ledger, run_id)
        owned.describe(made.name)
        return made

    @contextmanager
    def tick(self) -> Iterator[None]:
        """Make the body one transaction of the ledger, counters included; one that fails leaves nothing of it, neither here nor there."""
        if self.is_ahead:
            reload(self.ledger, self.active)
        self.is_ahead = True
        with self.ledger.transaction():
            yield
            self.active.write_tally(self.ledger)
        self.is_ahead = False

    def begin(self, name: str, payload: str) -> Step:
        """
        Begin the next step; when this returns, it is on disk as running.

        Args:
            name: What it does; its key is that behind its number.
            payload: What it does it with, as JSON text.
        """
        number = self.active.total_count + 1
        with self.tick():
            submit(self.ledger, self.active, [(f"{number}:{name}", payload, number)], position=None, complete=False)
            made = claim(self.ledger, self.active, FixedBatches(1), limit=1, max_bytes=len(payload), now_us=now_us())
        if made is None:
            raise RuntimeError("a step of a transaction could not be begun")
        batch_id, ((item_id, attempt, key, _),) = made.groups[0]
        self.step = Step(made.dispatch_id, batch_id, item_id, attempt, key, now_us(), monotonic_s())
        return self.step

    def record(self, promise: Promise) -> Recorded:
        """Record an undo entry of the step that is running; it is on disk on return. A step that has ended records nothing any more."""
        step = self.step
        if step is None or promise.item_id != step.item_id:
            return answered(promise, None)
        with self.tick():
            undo_id = record(self.ledger, self.active, [entry_of(promise)], now_us())[0]
            self.learn_module(promise.action)
        step.entry_count += undo_id is not None
        return answered(promise, undo_id)

    def learn_module(self, action: str) -> None:
        """Have the run name the module of an action, by which another process finds it."""
        place = None if action.startswith(actions.BUILT_IN) else loading.place_of(actions.find(action).function)
        if place is None or place in self.places:
            return
        row, places = run.get(self.ledger, self.active.run_id), [*self.places, place]
        handler = {"kind": TRANSACTION, "modules": [{"kind": "python", "target": f"{one}:{ANY_NAME}"} for one in places]}
        provenance = {**row.provenance, "modules": modules_of(*places)}
        run.reopen(self.ledger, row.run_id, handler=handler, settings=row.settings, provenance=provenance)
        self.places = places

    def succeed(self, step: Step, value: str, *, left_out: str | None = None) -> None:
        """
        End the step with its value as JSON text.

        Args:
            left_out: Why the value is not the one that it returned; it is noted as an event.
        """
        row = (step.item_id, step.number, 0, step.started_at_us, step.duration_us, value)
        with self.tick():
            self.finish(step, Returned(step.dispatch_id, inline=[row]))
            if left_out is not None:
                why = capped(left_out, SHOWN_CHARACTERS)
                event.record(self.ledger, "value_left_out", run_id=self.active.run_id, now_us=now_us(), key=step.key, why=why)

    def fail(self, step: Step, error: BaseException) -> None:
        """End the step with what it raised; what it has recorded is undone by the rollback."""
        row = {
            "item_id": step.item_id, "number": step.number, "worker": 0, "outcome": str(AttemptOutcome.FAILED), "error_type": type_of(error),
            "error_message": message_of(error), "error_group": group_of(type_of(error), message_of(error)), "traceback": traceback_of(error),
            "started_at_us": step.started_at_us, "duration_us": step.duration_us,
        }  # fmt: skip
        with self.tick():
            self.finish(step, Returned(step.dispatch_id, failed=[FailedAttempt(AttemptOutcome.FAILED, False, row)]))

    def finish(self, step: Step, returned: Returned) -> None:
        """Record the end of a step; the next one may begin."""
        returned.batch_of = {step.item_id: step.batch_id}
        returned.spends = {step.item_id: step.spent} if step.spent else {}
        finish(self.ledger, self.active, returned, policy=RetryPolicy(), now_us=now_us())
        self.step = None

    @property
    def is_owing(self) -> bool:
        """Whether a step that has failed has left something that is to be undone."""
        return bool(self.active.undoing_count or self.active.open_count)

    def commit(self) -> None:
        """Have everything stay. When this returns it is on disk, and the log of what would undo it with it."""
        with self.tick():
            submit(self.ledger, self.active, [], position=None, complete=True)
            self.conclude(RunState.FINISHED)
        self.ledger.checkpoint(truncate=True)

    def drop(self) -> None:
        """End a transaction that has done nothing as rolled back."""
        with self.tick():
            self.conclude(RunState.ROLLED_BACK)
        self.ledger.checkpoint(truncate=True)

    def conclude(self, state: RunState) -> None:
        """Give the run its end."""
        elapsed_us = round((monotonic_s() - self.begun_s) * 1e6)
        conclude(self.ledger, self.active, state, reason=None, exit_code=0, elapsed_us=elapsed_us, now_us=now_us())

    def let_go(self) -> None:
        """Leave the ledger to others; a second time does nothing."""
        self.stack.close()


def refuse_taken(ledger: Executor, name: str) -> None:
    """Return when a transaction of that id may begin; see :class:`Transacting` for what is raised when not."""
    row = found(ledger, name)
    if row is None or row.state == RunState.ROLLED_BACK:
        return
    if row.state == RunState.FINISHED:
        raise UsageError(
            f"transaction {row.name!r} is committed", f"Give another id, or undo it with `durabatch rollback --transaction {row.name}`."
        )
    raise UndoError(f"transaction {row.name!r} is open still", f"`durabatch rollback --transaction {row.name}` undoes it.")


def left_open(ledger: Executor, name: str) -> int | None:
    """Return the run of a transaction of that id that is neither committed nor rolled back, None when there is none; UsageError: no id."""
    row = found(ledger, name)
    return None if row is None or row.state in OVER else row.run_id


def found(ledger: Executor, name: str) -> RunRow | None:
    """Return the newest transaction of that id, None for none; UsageError when the id is none, or that of something else."""
    if not name.strip() or not name.isprintable() or len(name) > MAX_ID_CHARACTERS:
        raise UsageError(f"transaction {name!r}: this is no id", "Give a short text, as TRANS-001.")
    row = run.newest_of_series(ledger, name)
    if row is None and (run_id := run.id_by_name(ledger, name)) is not None:
        row = run.get(ledger, run_id)
    if row is not None and (not row.is_transaction or row.series != name):
        other = "is a run" if not row.is_transaction else f"is another one of {row.series!r}"
        raise UsageError(f"transaction {name!r}: {other}", "Give another id.")
    return row
