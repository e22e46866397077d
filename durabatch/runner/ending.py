"""
How a session ends: the state, reason and exit code of its run, and what is undone for it.
"""

from __future__ import annotations

from durabatch.clock import now_us
from durabatch.engine import rollback
from durabatch.engine.active import ActiveRun, reload
from durabatch.engine.conclude import conclude
from durabatch.flow.halting import tolerated
from durabatch.ledger.connection import Connection
from durabatch.limits import Limit
from durabatch.runner.cancelling import cancel_open_items
from durabatch.runner.choosing import BAD_INPUT, Choice
from durabatch.runner.parts import Parts
from durabatch.runner.rolling_back import Ending, ending, forget, undone_by
from durabatch.runner.undoing import Undone
from durabatch.settings import RunSettings
from durabatch.states import RunState

__all__ = ["HALTED", "own_code", "undoes_all", "verdict", "write_end"]

#: Exit code of a run that stopped before its end and can be resumed.
HALTED = 3
#: Exit code of a run that was cancelled.
CANCELLED = 1


def verdict(parts: Parts) -> Ending:
    """Return state, reason and exit code of a run that has stopped."""
    feeder, active, stopping = parts.choice.feeder, parts.choice.active, parts.coordinator.stopping
    if parts.choice.is_rollback and not active.undoing_count:
        return ending(parts.owned.connection, active, parts.coordinator.flow, undone_by(parts.coordinator.phase) or Undone())
    if parts.signals.count:
        return RunState.HALTED, f"stopped by {parts.signals.name}", parts.signals.exit_code
    if stopping is not None and stopping.cancelled:
        return RunState.CANCELLED, stopping.reason, CANCELLED
    if parts.publisher.failure is not None:
        return RunState.HALTED, parts.publisher.failure.reason, HALTED
    if stopping is not None and (active.open_count or not active.intake_complete or active.undoing_count):
        code = finished_code(active, parts.choice.settings) if stopping.exit_code is None else stopping.exit_code
        return RunState.HALTED, stopping.reason, code
    if feeder is not None and feeder.problem is not None:
        return RunState.HALTED, f"{BAD_INPUT}{feeder.problem.what}", HALTED
    if parts.choice.left_alone is not None and active.open_count:
        return RunState.HALTED, parts.choice.left_alone, HALTED
    if not active.intake_complete:
        return RunState.HALTED, "intake is incomplete: start the same command again with its input", HALTED
    return RunState.FINISHED, None, finished_code(active, parts.choice.settings)


def write_end(parts: Parts, end: Ending) -> bool:
    """Write the end into the ledger; tell whether something is to be undone now. A second time changes nothing."""
    ledger, active, now = parts.owned.connection, parts.choice.active, now_us()
    state, reason, exit_code = end
    if state == RunState.CANCELLED and not parts.choice.is_rollback:
        cancel_open_items(ledger, active)
    with ledger.transaction():
        parts.coordinator.phase.end()
        if undoes_all(parts, end):
            rollback.choose(ledger, active.run_id, rollback.Scope(), in_order=True, now_us=now)
            reload(ledger, active)
        forget(ledger, active, parts.coordinator.flow)
        conclude(ledger, active, state, reason=reason, exit_code=exit_code, elapsed_us=parts.pace.elapsed_us, now_us=now)
    ledger.checkpoint(truncate=True)
    return active.undoing_count > 0 and (state == RunState.CANCELLED or undoes_all(parts, end))


def undoes_all(parts: Parts, end: Ending) -> bool:
    """Tell whether this end has everything undone; a stop that somebody asked for, so as to go on later, has not."""
    if parts.choice.settings.atomic != "run" or parts.choice.is_rollback:
        return False
    state, _, exit_code = end
    stopping = parts.coordinator.stopping
    by_limit = state == RunState.HALTED and not parts.signals.count and stopping is not None and stopping.by_limit
    return by_limit or state == RunState.CANCELLED or (state == RunState.FINISHED and exit_code != 0)


def own_code(ledger: Connection, choice: Choice) -> int:
    """Return the exit code of a run of which nothing is left to do."""
    if choice.is_rollback:
        return ending(ledger, choice.active, {}, Undone())[2]
    return finished_code(choice.active, choice.settings)


def finished_code(active: ActiveRun, settings: RunSettings) -> int:
    """Return 1 when more items of a finished run have no success than is tolerated, else 0; skipped ones, and those that the input lost, need none."""
    counts = active.view()
    limit = Limit.parse(settings.tolerate, option="--tolerate") if settings.tolerate else None
    without = counts.failed + counts.quarantined + counts.cancelled + counts.undone - active.gone_count
    return int(not tolerated(limit, counts.total - active.gone_count, without))
