"""
How a run works: one plain value, which stands in the ledger with the run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["RunSettings"]


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
