"""
The words for where a run, an item and an attempt stand. The same strings stand in the CHECK constraints of ``schema/ledger.sql``.

    item:   pending ──claim──▶ running ──finish──▶ succeeded | failed | skipped | cancelled | quarantined
               ▲  ▲               │                     │
               │  └──release──────┤                     └──retry (the verb)──▶ pending
               │     recover      └──finish (tries left)──▶ scheduled ──due, claim──▶ running
               └──retry── undone ◀──rollback── succeeded

    undo:   recorded ──claim──▶ undoing ──finish──▶ undone | failed ──rollback, retry──▶ recorded

    run:    running ──finish──▶ finished        running ──halt──▶ halted ──resume──▶ running
            running ──cancel──▶ cancelled       running ◀──pause/unpause──▶ paused
            finished | halted ──rollback──▶ rolled_back ──retry──▶ running
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ENDED_ITEM_STATES", "AttemptOutcome", "ItemState", "RunState", "UndoState"]


class ItemState(StrEnum):
    """Where an item stands. Every item is in exactly one state, and the counters of its run agree with the rows."""

    #: Waits for its turn. ``claim`` moves it on; after a crash it is simply claimed again.
    PENDING = "pending"
    #: Waits for a due time (retry with delay, snooze). ``claim`` moves it on once the time has come.
    SCHEDULED = "scheduled"
    #: Handed to a worker. ``finish`` moves it on; after a crash ``recover`` makes it pending again.
    RUNNING = "running"
    #: Has its one recorded result. Moved on only by redoing or undoing it on request.
    SUCCEEDED = "succeeded"
    #: Out of attempts. ``retry`` makes it pending again.
    FAILED = "failed"
    #: Left out with a reason, by the handler or a check before the run.
    SKIPPED = "skipped"
    #: Left out because a person cancelled it or its run.
    CANCELLED = "cancelled"
    #: Its workers died too often; ``retry`` makes it pending again.
    QUARANTINED = "quarantined"
    #: Its effects were rolled back; ``retry`` can run it again.
    UNDONE = "undone"


#: States that only a verb of the user's moves on: nothing is left to do for the engine.
ENDED_ITEM_STATES = frozenset(
    {ItemState.SUCCEEDED, ItemState.FAILED, ItemState.SKIPPED, ItemState.CANCELLED, ItemState.QUARANTINED, ItemState.UNDONE}
)


class AttemptOutcome(StrEnum):
    """How one try at an item ended. An attempt row is written once, when the try has ended, and never changed."""

    #: The handler returned a value that could be stored.
    SUCCEEDED = "succeeded"
    #: The handler raised, or its value could not be stored.
    FAILED = "failed"
    #: The time for one attempt ran out.
    TIMED_OUT = "timed_out"
    #: The worker died with the item in one of its cells.
    CRASHED = "crashed"
    #: The run was stopped, or its coordinator died, while the item ran. Charges no attempt.
    INTERRUPTED = "interrupted"
    #: The handler asked to be called again later. Charges no attempt.
    SNOOZED = "snoozed"
    #: The handler decided that there is nothing to do.
    SKIPPED = "skipped"
    #: A person cancelled it while it ran.
    CANCELLED = "cancelled"


class UndoState(StrEnum):
    """Where an undo entry stands, and who moves it on, also after a crash."""

    #: On disk before its effect. Moved on by a rollback, or when its attempt did not succeed.
    RECORDED = "recorded"
    #: A worker undoes it, or waits for a further try; after a crash it is simply undone again, since actions bear that.
    UNDOING = "undoing"
    #: The effect is taken back. Nothing moves it on.
    UNDONE = "undone"
    #: Every try to undo it failed: the effect remains. A further rollback tries again.
    FAILED = "failed"
    #: The effect cannot be taken back, and whoever recorded it knew. Nothing moves it on.
    IRREVERSIBLE = "irreversible"


class RunState(StrEnum):
    """Where a run stands. A ``running`` or ``paused`` run whose ledger nobody owns is shown as ``interrupted``."""

    #: A coordinator works on it; after a crash the row stays so until the run is resumed.
    RUNNING = "running"
    #: A coordinator holds it and hands out nothing. ``unpause`` moves it on.
    PAUSED = "paused"
    #: Stopped before its end, with a reason; the same command goes on.
    HALTED = "halted"
    #: Ended by a person; unfinished items are cancelled.
    CANCELLED = "cancelled"
    #: Every item has ended. ``retry`` opens it again.
    FINISHED = "finished"
    #: Its effects were undone.
    ROLLED_BACK = "rolled_back"
