"""
What users and rooms hand to each other: plain frozen values, without behaviour that touches a ledger.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pydantic_core import from_json

from durabatch.errors import ItemFailedError

__all__ = [
    "AttemptView", "Counts", "ErrorGroup", "Explanation", "Finding", "Progress", "Result", "RunSettings", "RunStatus", "SkippedGroup", "Summary",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunSettings:
    """
    How a run works. Those that a resume needs stand in the ledger. Limits that have a grammar (:mod:`durabatch.limits`) are kept as text.

    Attributes:
        workers: Processes; 0 runs the handler in the calling process.
        concurrency: Items at once in each worker, 1 to 10,000; None: 1, for an ``async def`` handler 100.
        batch_size: Items in a batch, 1 to 1,000,000; where the strategy adapts it, the first one.
        batch_strategy: ``fixed``, ``memory``, ``time``, ``bytes``, or one that a package brings.
        batch_seconds: Worker seconds that a batch should take, for ``time``.
        pipeline_depth: Dispatches that a worker holds at once, 1 to 5.
        max_attempts: Tries for an item, the first one counted.
        backoff_s: Longest wait before the second try; each further try waits ``backoff_factor`` times as long, up to ``backoff_cap_s``.
        retry_on: Names of exception classes of which alone another try is made; empty: of all.
        give_up_on: Names of exception classes of which no other try is made.
        retry_exit: Exit codes of a command of which alone another try is made; empty: of all.
        max_deaths: Deaths of a worker after which an item that runs alone is quarantined.
        timeout: Longest time of an attempt, ``30s`` or ``200%`` of the median; None for none.
        item_deadline_s: Longest time from the first start of an item to its last end.
        deadline_s: Longest time of one session of the run.
        memory_limit_bytes: Resident memory of a worker and its children above which it is killed.
        cpu_limit_s: Processor seconds of an attempt.
        max_items_per_worker: Items after which a worker is replaced by a fresh one.
        halt: ``now,fail=N|N%`` or ``soon,fail=N|N%``.
        tolerate: Failures, ``N`` or ``N%`` of all, with which the exit code is still 0.
        canary: Items that are run first, and must all succeed.
        budget: Unit to amount that the run may spend.
        breaker: ``N%``, ``same=N``, ``wait=T``.
        rate: ``50/1m``.
        memory_threshold: Share of the machine's memory in use above which fewer workers get items.
        min_free_disk_bytes: Free bytes at the ledger below which one worker alone gets items.
        max_load: Load per core above which fewer workers get items; None for no such gate.
        priority: Field of the item that holds its priority, a whole number, higher first.
        order: ``input``, ``smallest``, ``largest``, ``newest``, ``oldest`` or ``kind``.
        keep_order: Batches leave, and ``map`` yields, in input order.
        preflight: Reference of a check that all items pass before the first is run; None for none.
        params: Keyword-only parameters of the handler, secrets as references.
        output: Directory for batch files and summary.json, or the one file that grows, absolute; None for none.
        output_format: Format of batch files: ``json``, ``jsonl``, ``csv`` or ``jsonl.zst``.
        batch_command: Shell command run after each finished batch.
        end_command: Shell command run at the end.
        shuf: Seed of a random order; None for none.
        on_bad_input: ``stop`` before a line that cannot be an item, or ``skip`` it.
        dedupe: What becomes of a key that comes again: ``error``, ``first``, ``last`` or ``keep``.
        idle_exit_s: Seconds without anything to do after which an open run is left.
        cache: Use results of equal items again.
        cache_ttl_s: Age above which they are not.
        cache_bytes: Bytes of results beyond which the least recently used are forgotten.
        atomic: What an end that is no success undoes: ``item`` the attempt alone, ``batch`` all of its batch, ``run`` all of the run.
        undo_command: Command that undoes what a command of the run has logged, with {action} and {args.NAME} as placeholders.
        max_undo_bytes: Bytes of old content that one undo entry may keep.
        max_item_bytes: Bytes of one item's payload.
        max_result_bytes: Bytes of one result as JSON.
        term_grace_s: Seconds between asking a worker to end and killing it.
        drain_s: Seconds that a first signal leaves to running items.
    """

    workers: int = 1
    concurrency: int | None = None
    batch_size: int = 100
    batch_strategy: str = "fixed"
    batch_seconds: float = 10.0
    pipeline_depth: int = 2
    max_attempts: int = 1
    backoff_s: float = 1.0
    backoff_factor: float = 2.0
    backoff_cap_s: float = 300.0
    retry_on: tuple[str, ...] = ()
    give_up_on: tuple[str, ...] = ()
    retry_exit: tuple[int, ...] = ()
    max_deaths: int = 3
    timeout: str | None = None
    item_deadline_s: float | None = None
    deadline_s: float | None = None
    memory_limit_bytes: int | None = None
    cpu_limit_s: float | None = None
    max_items_per_worker: int | None = None
    halt: str | None = None
    tolerate: str | None = None
    canary: int = 0
    budget: dict[str, float] = field(default_factory=dict)
    breaker: str | None = None
    rate: str | None = None
    memory_threshold: float = 0.8
    min_free_disk_bytes: int = 200 << 20
    max_load: float | None = None
    priority: str | None = None
    order: str = "input"
    keep_order: bool = False
    preflight: dict[str, Any] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    output: str | None = None
    output_format: str = "json"
    batch_command: str | None = None
    end_command: str | None = None
    shuf: int | None = None
    on_bad_input: str = "stop"
    dedupe: str = "error"
    idle_exit_s: float | None = None
    cache: bool = False
    cache_ttl_s: float | None = None
    cache_bytes: int = 1 << 30
    atomic: str = "item"
    undo_command: str | None = None
    max_undo_bytes: int = 64 << 20
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
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
        return cls(**{name: value for name, value in values.items() if name in known})


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
        skipped: Items that were left out, by reason, the biggest groups first.
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

    @property
    def counts(self) -> Counts:
        """Items of the run by state, as of its end."""
        return self.status.counts
