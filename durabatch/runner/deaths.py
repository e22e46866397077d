"""
What the death of a worker means for what it was running: nobody's fault, too slow, or suspicious. Pure: from the event to attempts.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any

from durabatch.engine.finish import FailedAttempt
from durabatch.runner.crew import Member
from durabatch.runner.pool import Died
from durabatch.states import AttemptOutcome
from durabatch.workers.cells import Cell
from durabatch.workers.failure import TIMEOUT_GROUP, TIMEOUT_KINDS, TIMEOUT_TYPE

__all__ = ["Judgement", "death_text", "judge", "unexplained"]

#: Signals that others send.
OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
#: Items that are suspected when nothing is known but that they were with a worker that died.
MOST_UNEXPLAINED = 64
#: Columns of an attempt that only some ends have.
OPTIONAL = (
    "error_type", "error_message", "traceback", "error_group", "remedy", "exit_code", "signal", "stdout_tail", "stderr_tail", "peak_rss_bytes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judgement:
    """
    The attempts that a death ended.

    Attributes:
        explained: Interrupted or timed out: it is known why the worker died.
        crashed: Those that may have killed it.
    """

    explained: list[FailedAttempt] = field(default_factory=list)
    crashed: list[FailedAttempt] = field(default_factory=list)


def judge(event: Died, member: Member, *, interrupting: bool, cpu_limit_s: float | None, now_us: int) -> Judgement:
    """
    Return what becomes of the items that *member* was running when it died.

    Args:
        interrupting: All workers were told to stop.
        cpu_limit_s: Processor seconds after which the system ends a worker.
    """
    judgement = Judgement()
    for cell in event.cells:
        held = member.held.get(cell.dispatch_id)
        if held is None or cell.item_id not in held.batch_of:
            continue
        attempt = attempt_of(event, cell, member, interrupting=interrupting, cpu_limit_s=cpu_limit_s, now_us=now_us)
        side = judgement.crashed if attempt.outcome == AttemptOutcome.CRASHED else judgement.explained
        side.append(attempt)
    return judgement


def unexplained(event: Died, member: Member, *, interrupting: bool, now_us: int) -> list[Cell]:
    """
    Return what a worker may have died of that died by itself with nothing in its cells: the first of the items that it held.

    What it had finished and could not send is among them: an item that damages the worker's pipe has ended before anybody notices. Nobody
    is suspected when the worker was killed from outside, as it seems. The attempt numbers are left open.
    """
    is_from_outside = event.why is None and -event.status in OUTSIDE
    held = next(iter(member.held.values()), None)
    if held is None or is_from_outside or interrupting or member.doom is not None or member.left_s is not None:
        return []
    return [Cell(0, 0, 0, item_id, held.dispatch_id, 0, now_us) for item_id in list(held.batch_of)[:MOST_UNEXPLAINED]]


def attempt_of(event: Died, cell: Cell, member: Member, *, interrupting: bool, cpu_limit_s: float | None, now_us: int) -> FailedAttempt:
    """Return the attempt in one cell of a worker that is gone."""
    doom = member.doom
    if doom is not None and cell.item_id in doom.timed_out:
        return timed_out(event, cell, doom.timed_out[cell.item_id or 0], now_us)
    if cpu_limit_s is not None and event.status == -signal.SIGXCPU:
        return timed_out(event, cell, f"cpu limit of {cpu_limit_s:g} s", now_us)
    if doom is not None and doom.out_of_memory is not None:
        return crashed(event, cell, f"crashed: {doom.out_of_memory}", now_us)
    if interrupting or doom is not None or member.left_s is not None:
        return ended_by_death(event, cell, AttemptOutcome.INTERRUPTED, now_us)
    return crashed(event, cell, event.why or death_text(event.status), now_us)


def timed_out(event: Died, cell: Cell, message: str, now_us: int) -> FailedAttempt:
    """Return the attempt of an item that took too long."""
    texts = {"error_type": TIMEOUT_TYPE, "error_message": message, "error_group": TIMEOUT_GROUP}
    return ended_by_death(event, cell, AttemptOutcome.TIMED_OUT, now_us, kinds=TIMEOUT_KINDS, **texts)


def crashed(event: Died, cell: Cell, message: str, now_us: int) -> FailedAttempt:
    """Return the attempt of an item whose worker died."""
    return ended_by_death(
        event, cell, AttemptOutcome.CRASHED, now_us, kinds=("WorkerCrashed",), error_type="WorkerCrashed", error_message=message,
        error_group=f"WorkerCrashed: {event.why or death_text(event.status)}", stderr_tail=event.tail or None, exit_code=event.status,
        signal=-event.status if event.status < 0 else None,
    )  # fmt: skip


def ended_by_death(
    event: Died, cell: Cell, outcome: AttemptOutcome, now_us: int, *, kinds: tuple[str, ...] = (), **texts: Any
) -> FailedAttempt:
    """Return the attempt in a cell with its columns."""
    row = {
        "item_id": cell.item_id,
        "number": cell.number,
        "worker": event.worker,
        "outcome": str(outcome),
        "started_at_us": cell.started_at_us,
        "duration_us": max(0, now_us - cell.started_at_us),
        **dict.fromkeys(OPTIONAL),
        "peak_rss_bytes": event.peak_rss_bytes,
        **texts,
    }
    return FailedAttempt(outcome, retryable=True, row=row, kinds=kinds, dispatch_id=cell.dispatch_id)


def death_text(status: int) -> str:
    """Return how a process ended, in words."""
    if status >= 0:
        return f"the worker ended with status {status} and no result"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    return f"the worker was killed by signal {-status} ({name})"
