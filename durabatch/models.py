"""
What users and rooms hand to each other: plain frozen values, without behaviour that touches a ledger.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic_core import from_json

from durabatch.errors import ItemFailedError

__all__ = [
    "AttemptView", "Counts", "ErrorGroup", "Explanation", "Finding", "Progress", "Result", "RolledBack", "RunStatus", "SkippedGroup",
    "Summary", "TransactionStatus", "Unresolved",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counts:
    """Items of a run by state; ``total`` is their sum."""

    total: int = 0
    pending: int = 0
    scheduled: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0
    quarantined: int = 0
    undone: int = 0

    @property
    def ended(self) -> int:
        """Items that have ended, whichever way."""
        return self.total - self.left

    @property
    def left(self) -> int:
        """Items that have not ended."""
        return self.pending + self.scheduled + self.running


@dataclass(frozen=True, slots=True)
class RunStatus:
    """
    Where a run stands, as of one moment.

    Attributes:
        items_per_s: Of late while the run works, the mean once it has stopped.
        eta_s: None when unknown or over.
        binding_limit: What holds the run back now: ``memory``, ``disk``, ``load`` ...; None when nothing does.
        spent: What its attempts have spent, by unit.
        forecast: What they will have spent at its end, going by that; empty while the number of items is not known.
        next_due_at: When the first of the items that wait for a retry is due.
        cached: Attempts that the cache answered.
        gone: Cancelled items that the input no longer has.
        is_open: Whether it takes items from any process until it is closed.
        bad_input_count: Lines that were left out because they cannot be items.
        duplicate_count: Lines that were left out because their key had come before.
        last_order: What was last asked of the run from another terminal (``verb``, ``argument``, ``asked_by``, ``asked_at``,
            ``applied_at``, ``outcome``, which is None until it was carried out or refused); None when nothing was.
        unresolved: Effects that were to be undone and remain: failed ones and, while nobody works on the run, those at which somebody was.
        undo_left: Effects that are to be undone; *is_rolling_back* says that items are that had succeeded.
    """

    run_id: int
    name: str
    state: str
    reason: str | None
    handler: str
    counts: Counts
    batch_count: int
    attempt_count: int
    intake_complete: bool
    items_per_s: float
    eta_s: float | None
    started_at: str | None
    finished_at: str | None
    elapsed_s: float
    binding_limit: str | None
    exit_code: int | None
    spent: dict[str, float] = field(default_factory=dict)
    forecast: dict[str, float] = field(default_factory=dict)
    next_due_at: str | None = None
    cached: int = 0
    gone: int = 0
    is_open: bool = False
    bad_input_count: int = 0
    duplicate_count: int = 0
    last_order: dict[str, Any] | None = None
    unresolved: int = 0
    undo_left: int = 0
    is_rolling_back: bool = False
    is_transaction: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the status with the keys of `status --json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Result:
    """
    What became of one item.

    Attributes:
        key: The item's key.
        state: Its state; ``ok`` is True for ``succeeded``.
        error: "Type: message" of the last attempt, the reason of an item that was skipped; None when there is nothing to say.
        attempts: Charged attempts.
        value_json: The value as JSON text, None when there is none.
    """

    key: str
    state: str
    error: str | None
    attempts: int
    value_json: str | None

    @property
    def ok(self) -> bool:
        """True when the item has a recorded result."""
        return self.state == "succeeded"

    @property
    def value(self) -> Any:
        """
        What the handler returned, decoded.

        Raises:
            ItemFailedError: The item did not succeed.
        """
        if self.value_json is None:
            raise ItemFailedError(f"item {self.key!r} is {self.state}: {self.error or 'no result'}", "Catch ItemFailedError, or look at Result.ok first.")
        return from_json(self.value_json)


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """
    Failed items whose errors are the same but for numbers, names and paths.

    Attributes:
        message: That of the first item.
        group: What they have in common: what ``retry --group`` takes.
    """

    error_type: str
    message: str
    item_count: int
    first_key: str
    last_key: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class SkippedGroup:
    """Items that were left out for the same reason, with what can be done about it."""

    reason: str
    remedy: str | None
    item_count: int
    first_key: str


@dataclass(frozen=True, slots=True)
class AttemptView:
    """
    One try at an item, for people.

    Attributes:
        error: ``Type: message``; the reason alone where the item was skipped or asked to be called later.
        group: What the error has in common with others.
        exit_code: Of a command, or of the worker that died.
        signal: Number of the signal that ended it.
        peak_rss_bytes: Most memory that its process ever held, up to its end.
        spent: Amounts by unit.
        cached: Nothing was run: the result was known of an equal item.
    """

    number: int
    outcome: str
    worker: int
    started_at: str | None
    duration_s: float
    error: str | None
    traceback: str | None
    group: str | None = None
    remedy: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    stdout_tail: str | None = None
    stderr_tail: str | None = None
    peak_rss_bytes: int | None = None
    spent: dict[str, float] = field(default_factory=dict)
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    An item in words: what happened to it, what the ledger has of it, and why it would run next, or would not.

    Attributes:
        number: Where it stands among the items of its run, from 1.
    """

    run: str
    key: str
    number: int
    state: str
    happened: tuple[str, ...]
    recorded: tuple[str, ...]
    next: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule of the ledger that does not hold: which, where, and what was found."""

    rule: str
    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """
    Where a transaction stands.

    Attributes:
        state: ``open``; ``abandoned``: open, and its program is gone; ``rolling_back``; ``committed``; ``rolled_back``; ``halted``: rolled back
            in part.
        steps: Its steps by state.
        entries: What would undo them, by state: ``recorded``, ``undone`` ...
        owner: Who has the ledger for it (``pid``, ``host``, ``since``); None when nobody has.
    """

    run_id: int
    name: str
    state: str
    reason: str | None
    steps: Counts
    entries: dict[str, int]
    begun_at: str | None
    ended_at: str | None
    owner: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """Return it with the keys of `transactions --json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Unresolved:
    """
    An effect that was to be undone, and remains.

    Attributes:
        attempt: Number of the attempt that had it.
        arguments: Of the action, as JSON text.
        state: ``failed``, ``recorded`` (it stands before one that failed), ``undoing`` (nobody is at it), or ``irreversible``.
        error: Of the last try; None for one that never can be undone.
    """

    key: str
    batch: int | None
    attempt: int
    action: str
    arguments: str
    state: str
    error: str | None


@dataclass(frozen=True, slots=True)
class RolledBack:
    """
    What a rollback has done.

    Attributes:
        items: Items that are undone now and were not before.
        steps: Effects that were taken back.
        ran: Calls of actions for that; for the other steps there was nothing to take back.
        unresolved_count: Effects of the run that remain though they were to be undone.
        unresolved: The first of them.
        given_up: Steps that were not taken any more, since another one failed.
    """

    items: int
    steps: int
    ran: int
    unresolved_count: int = 0
    unresolved: tuple[Unresolved, ...] = ()
    given_up: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """
    What a progress line shows: emitted after a commit, so all of it is on disk.

    Attributes:
        undoing: While a run is rolled back: (steps that have ended, steps in all).
    """

    run_name: str
    counts: Counts
    intake_complete: bool
    items_per_s: float
    eta_s: float | None
    elapsed_s: float
    batch_count: int
    undoing: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """
    How a call that ran something ended.

    Attributes:
        resumed: Items that had ended before this call; None when the run is new.
        executed: Attempts that this call recorded.
        recovered: Items that an earlier coordinator had handed out when it died, and of them those that had started.
        startup_s: Seconds from the call to the first dispatch.
        first_result_s: Seconds from the call to the first recorded result, None when there was none.
        work_s: Seconds from the first dispatch to the last recorded result.
        skipped: Items that were left out, by reason, the biggest groups first.
        rolled_back: What was undone, if anything was to be.
    """

    status: RunStatus
    errors: tuple[ErrorGroup, ...]
    exit_code: int
    resumed: int | None
    executed: int
    recovered: tuple[int, int]
    output: str | None
    startup_s: float
    first_result_s: float | None
    work_s: float
    skipped: tuple[SkippedGroup, ...] = ()
    rolled_back: RolledBack | None = None

    @property
    def counts(self) -> Counts:
        """Items of the run by state, as of its end."""
        return self.status.counts
