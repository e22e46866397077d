"""
What users and rooms hand to each other: plain frozen values, without behaviour that touches a ledger.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pydantic_core import from_json

from durabatch.errors import ItemFailedError

__all__ = ["AttemptView", "Counts", "ErrorGroup", "Finding", "Progress", "Result", "RunSettings", "RunStatus", "Summary"]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """
    How a run works. Those that a resume needs stand in the ledger.

    Attributes:
        workers: Processes; 0 runs the handler in the calling process.
        batch_size: Items in a batch, 1 to 1,000,000.
        pipeline_depth: Dispatches that a worker holds at once, 1 to 5.
        max_attempts: Tries for an item, the first one counted.
        params: Keyword-only parameters of the handler, secrets as references.
        output: Directory for batch files and summary.json, absolute; None for none.
        max_item_bytes: Bytes of one item's payload.
        max_result_bytes: Bytes of one result as JSON.
        term_grace_s: Seconds between asking a worker to end and killing it.
        drain_s: Seconds that a first signal leaves to running items.
    """

    workers: int = 1
    batch_size: int = 100
    pipeline_depth: int = 2
    max_attempts: int = 1
    params: dict[str, Any] = field(default_factory=dict)
    output: str | None = None
    max_item_bytes: int = 16 << 20
    max_result_bytes: int = 64 << 20
    term_grace_s: float = 5.0
    drain_s: float = 30.0

    def as_json(self) -> dict[str, Any]:
        """Return the settings as stored on the run."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> RunSettings:
        """Return the settings of a stored run; names that this version does not know are left out."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in stored.items() if name in known})


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

    ``items_per_s`` is the rate of late while the run works and the mean once it has stopped; ``eta_s`` is None when unknown or over.
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
        error: "Type: message" of the last attempt, None when the item succeeded or has not ended.
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
    """Failed items with the same error."""

    error_type: str
    message: str
    item_count: int
    first_key: str
    last_key: str


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One try at an item, for people."""

    number: int
    outcome: str
    worker: int
    started_at: str | None
    duration_s: float
    error: str | None
    traceback: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule of the ledger that does not hold: which, where, and what was found."""

    rule: str
    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress line shows: emitted after a commit, so all of it is on disk."""

    run_name: str
    counts: Counts
    intake_complete: bool
    items_per_s: float
    eta_s: float | None
    elapsed_s: float
    batch_count: int


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

    @property
    def counts(self) -> Counts:
        """Items of the run by state, as of its end."""
        return self.status.counts
