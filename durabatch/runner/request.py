"""
What a caller wants to have run: everything that :func:`durabatch.runner.session.execute` needs, in one value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from durabatch.engine.results import results_of_batch
from durabatch.engine.rollback import Scope
from durabatch.intake.remarks import Remarks
from durabatch.intake.source import Source
from durabatch.ledger.reader import Reader
from durabatch.models import Progress, Result
from durabatch.settings import RunSettings

__all__ = ["BatchOutput", "BatchResults", "RunRequest"]


class BatchResults:
    """
    The results of a finished batch in input order, read from the ledger each time that somebody iterates, in whichever thread that is.

    Never all of them are in memory at once.

    Args:
        count: How many they are: ``len`` of this.
    """

    def __init__(self, ledger: str, batch_id: int, count: int) -> None:
        self.ledger = ledger
        self.batch_id = batch_id
        self.count = count

    def __len__(self) -> int:
        """Return the number of items."""
        return self.count

    def __iter__(self) -> Iterator[Result]:
        """
        Yield one result after the other.

        Raises:
            LedgerDamagedError: A stored value is damaged.
        """
        with Reader(self.ledger) as reader:
            yield from results_of_batch(reader, self.batch_id)


@dataclass(frozen=True, slots=True)
class BatchOutput:
    """
    A finished batch, on disk in the ledger.

    Attributes:
        results: What became of its items; can be iterated as often as one likes, and has a length.
        path: Its file, or the one file of all batches as far as it has grown; None when there is none yet.
    """

    run: str
    number: int
    results: BatchResults
    path: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """
    One call of ``run``, ``resume``, ``retry`` or ``rollback``.

    Attributes:
        verb: What is wanted.
        ledger: Path of the ledger; only ``run`` may create one.
        settings: For ``run``: how to work.
        overrides: For all others: fields of RunSettings given with this call; the others come from the run's record.
        handler: Reference (see :mod:`durabatch.loading`); None takes what the run recorded.
        function: A function without importable name, which only an inline run can call.
        source: The opened input; None for ``retry``, and for ``resume`` (which opens what the run recorded).
        source_spec: What is recorded of the input, so that ``resume`` can open it again.
        series: Name of the run, without ``#2``; for ``run``.
        run: Which run, for all but ``run``; None is the active or latest one.
        fresh: Start the next run of the series even when there is one.
        error_type: ``retry`` only items whose last error has this type.
        group: ``retry`` only items whose last error is of this group.
        where: ``retry`` only items for which this SQL expression over v_item holds.
        states: ``retry`` items in these states; empty: failed and quarantined ones.
        keys: ``retry`` only these items.
        retry_failed: ``run`` tries the failed items again, too.
        on_change: What to do when input or version have changed: ``ledger``, ``merge``, ``source`` or the path of a plan; None refuses.
        from_item: Key or number of the item from which on everything is run again; None for none.
        from_batch: Number of the batch from which on everything is run again.
        undo: What items did is undone before they run again.
        scope: For ``rollback``: which items; None for what is to be undone already.
        in_order: For ``rollback``: one step at a time, newest first over all items; else items beside each other.
        keep_going: For ``rollback``: a step that fails for good ends the undoing of its item alone.
        force: For ``rollback``: what was changed since is overwritten. For ``resume``: go on although the last checkpoint is not as it was recorded.
        open: Wait for items of other processes until the run is closed.
        remarks: Hears what the source has to say.
        preflight_only: Check all items, and run none.
        allow_network_fs: Accept a ledger on a network file system.
        trust_ledger: Import the recorded handler even when another user or machine made the ledger.
        on_progress: Called a few times a second, after a commit.
        on_note: Called with sentences that a person should see.
        on_batch: Called for each batch, in a thread of its own, after it has finished and was written out.
    """

    verb: Literal["run", "resume", "retry", "rollback"]
    ledger: str
    settings: RunSettings = field(default_factory=RunSettings)
    overrides: dict[str, Any] = field(default_factory=dict)
    handler: dict[str, Any] | None = None
    function: Callable[..., object] | None = None
    source: Source | None = None
    source_spec: dict[str, Any] | None = None
    series: str | None = None
    run: str | int | None = None
    fresh: bool = False
    error_type: str | None = None
    group: str | None = None
    where: str | None = None
    states: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    retry_failed: bool = False
    on_change: str | None = None
    from_item: str | None = None
    from_batch: int | None = None
    undo: bool = False
    scope: Scope | None = None
    in_order: bool = True
    keep_going: bool = False
    force: bool = False
    open: bool = False
    remarks: Remarks = field(default_factory=Remarks)
    preflight_only: bool = False
    durability: str = "power"
    allow_network_fs: bool = False
    trust_ledger: bool = False
    on_progress: Callable[[Progress], None] | None = None
    on_note: Callable[[str], None] | None = None
    on_batch: Callable[[BatchOutput], None] | None = None
    vfs: str | None = None

    def note(self, sentence: str) -> None:
        """Tell the user *sentence*."""
        if self.on_note is not None:
            self.on_note(sentence)
