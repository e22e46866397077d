"""
What is measured beside what, at which size, and what should come out.
"""

from __future__ import annotations

from typing import Any

from case import Case, Side
from in_out import chunk_cases, export_cases, intake_cases, plan_cases
from inputs import Inputs

__all__ = ["all_cases", "plain_cases"]


def plain_cases(inputs: Inputs, *, scale: float, workers: int) -> list[Case]:
    """Return the whole runs in which nothing fails and nothing is limited, with sizes times *scale*."""
    large = int(1_000_000 * scale)
    return [
        noop(inputs, int(100_000 * scale), "ordered", workers, ""),
        noop(inputs, large, "ordered", workers, ">= 75,000; coordinator < 60 MiB, < 250 B an item, log < 64 MiB"),
        noop(inputs, large, "random", workers, ">= 40,000; coordinator < 60 MiB"),
        real(inputs, int(6000 * scale), workers),
        spin(int(10_000 * scale), workers),
    ]


def all_cases(inputs: Inputs, *, scale: float, workers: int, big: bool) -> list[Case]:
    """Return all cases, with sizes times *scale*."""
    version = (Side("durabatch --version", "ours.version", dict), Side("python -c pass", "bare.interpreter", dict))
    cases = [
        *plain_cases(inputs, scale=scale, workers=workers),
        noop(inputs, int(100_000 * scale), "random", workers, ""),
        *cache_cases(inputs, int(200_000 * scale), int(20_000 * scale), workers),
        naps(inputs),
        commands(inputs, int(2000 * scale)),
        *engine_cases(inputs, int(500_000 * scale)),
        *intake_cases(inputs, int(500_000 * scale), int(200 * scale), int(100_000 * scale), big=big),
        *chunk_cases(inputs),
        *plan_cases(inputs, int(1_000_000 * scale), int(100_000 * scale), workers),
        *export_cases(inputs, int(1_000_000 * scale), workers),
        *ledger_cases(inputs, int(1_000_000 * scale), workers),
        *queue_cases(int(5000 * scale)),
        *undo_cases(inputs, int(10_000 * scale), workers),
        Case("version", "s", version, "< 0.15 s"),
    ]
    if big:
        side = Side("first of 10,000,000 lines", "ours.first_result", lambda: {"source": inputs.lines(10_000_000), "workers": workers})
        cases.append(Case("first-result", "s", (side,), "< 2 s"))
    return cases


def noop(inputs: Inputs, count: int, keys: str, workers: int, goal: str) -> Case:
    """Return a whole run of no-ops."""
    sides = (
        Side("durabatch", "ours.noop", lambda: {"source": inputs.records(count, keys), "workers": workers}),
        Side("ceiling (hot path alone)", "ceiling.run", lambda: {"count": count, "keys": keys, "workers": workers}),
        Side("multiprocessing.Pool, not durable", "bare.pool_noop", lambda: {"count": count, "workers": workers}),
    )
    return Case(f"noop-{keys}-{count}", "items/s", sides, goal)


def real(inputs: Inputs, count: int, workers: int) -> Case:
    """Return the job that parses files."""
    sides = (
        Side("durabatch", "ours.real", lambda: {"sources": inputs.sources(count), "workers": workers}),
        Side("ProcessPoolExecutor.map, not durable", "bare.executor_real", lambda: {"sources": inputs.sources(count), "workers": workers}),
    )
    return Case(f"real-{count}", "files/min", sides, "ratio >= 0.95; whole tree < 150 MiB")


def spin(count: int, workers: int) -> Case:
    """Return the job of one millisecond of arithmetic an item."""
    sides = (
        Side("durabatch", "ours.spin", lambda: {"count": count, "workers": workers}),
        Side("ProcessPoolExecutor.map, not durable", "bare.executor_spin", lambda: {"count": count, "workers": workers}),
    )
    return Case(f"spin-1ms-{count}", "%", sides, ">= 95")


def cache_cases(inputs: Inputs, count: int, slow: int, workers: int) -> list[Case]:
    """Return runs over an input that another run has worked off: no-ops, and items of one millisecond."""

    def noops() -> dict[str, Any]:
        return {"source": inputs.records(count, "ordered"), "workers": workers}

    def spins() -> dict[str, Any]:
        return {"source": inputs.records(slow, "ordered"), "workers": workers}

    known = (
        Side("second run, from the cache", "ours.reusing", noops),
        Side("without cache", "ours.noop", noops),
        Side("first run, remembering", "ours.remembering", noops),
    )
    worked = (Side("second run, from the cache", "ours.spin_reusing", spins), Side("without cache", "ours.spin_first", spins))
    return [
        Case(f"cache-noop-{count}", "items/s", known, ">= 60,000; ratio to without >= 1"),
        Case(f"cache-1ms-{slow}", "s", worked, "ratio >= 9"),
    ]


def naps(inputs: Inputs) -> Case:
    """Return the job whose items wait, on one worker: twenty rounds of all of them at once, a second in all, so it has one size only."""
    count, concurrency = 20_000, 1000
    sides = (
        Side("durabatch", "ours.naps", lambda: {"source": inputs.records(count, "ordered"), "concurrency": concurrency}),
        Side("asyncio with a semaphore, not durable", "bare.naps", lambda: {"count": count, "concurrency": concurrency}),
    )
    return Case(f"async-{count}", "items/s", sides, "ratio >= 0.8")


def commands(inputs: Inputs, count: int) -> Case:
    """Return the job of one process for each item, eight at once."""
    sides = (
        Side("durabatch exec", "ours.commands", lambda: {"source": inputs.lines(count), "workers": 2, "concurrency": 4}),
        Side("xargs -P 8 -n1, not durable", "bare.xargs", lambda: {"source": inputs.lines(count), "processes": 8}),
    )
    return Case(f"commands-{count}", "items/s", sides)


def engine_cases(inputs: Inputs, count: int) -> list[Case]:
    """Return the verbs of the engine, one by one."""
    verbs = (
        ("claim", "claims", "UPDATE of ranges"),
        ("finish", "finishes", "executemany and UPDATE"),
    )

    def arguments() -> dict[str, Any]:
        return {"source": inputs.records(count, "ordered")}

    return [
        Case(f"{name}-{count}", "rows/s", (Side("durabatch", f"verbs.{verb}", arguments), Side(beside, f"bare.{verb}", arguments)))
        for name, verb, beside in verbs
    ]


def ledger_cases(inputs: Inputs, count: int, workers: int) -> list[Case]:
    """Return what is done with a large ledger: going on after a kill, and looking."""

    def half() -> dict[str, Any]:
        return {"half": inputs.half_done(count, workers), "source": inputs.records(count, "ordered"), "workers": workers}

    def ledger() -> dict[str, Any]:
        return {"ledger": inputs.finished(count, workers)}

    looks = (Side("durabatch", "ours.status", ledger), Side("SELECT count(*) GROUP BY state", "bare.status", ledger))
    return [
        Case(f"resume-{count}", "s", (Side("durabatch", "ours.resume", half),), "first dispatch < 2 s"),
        Case(f"status-{count}", "s", looks, "< 0.05 s"),
    ]


def queue_cases(count: int) -> list[Case]:
    """Return the run as a queue: producers of *count* calls of one item each beside a coordinator, and 10,000 items at once."""

    def producers() -> dict[str, Any]:
        return {"producers": 4, "count": count}

    def bulk() -> dict[str, Any]:
        return {"count": 10_000}

    return [
        Case(f"queue-4x{count}", "items/min", (Side("submit, one item a call", "queueing.submits", producers),), ">= 10,000"),
        Case("queue-wait", "s", (Side("coordinator's longest wait", "queueing.longest_wait", producers),), "< 0.1 s"),
        Case("queue-bulk-submit", "s", (Side("10,000 items, one call", "queueing.submits_in_bulk", bulk),), "< 0.1 s"),
        Case("queue-bulk-claim", "s", (Side("10,000 items, one claim", "queueing.claims_in_bulk", bulk),), "< 0.1 s"),
    ]


def undo_cases(inputs: Inputs, count: int, workers: int) -> list[Case]:
    """Return runs whose items record an undo entry each, by two and by eight workers, and rollbacks of 1,000 of them."""

    def items(processes: int) -> dict[str, Any]:
        return {"source": inputs.records(count, "ordered"), "workers": processes}

    def effects() -> dict[str, Any]:
        return {"source": inputs.records(1000, "ordered")}

    recorded = (
        Side("one undo entry an item", "undoing.promising", lambda: items(workers)),
        Side("without", "undoing.plain", lambda: items(workers)),
        Side("one undo entry an item, 8 workers", "undoing.promising", lambda: items(8)),
        Side("without, 8 workers", "undoing.plain", lambda: items(8)),
    )
    undone = (
        Side("one step at a time", "undoing.rolled_back", effects),
        Side(f"{workers} workers", "undoing.rolled_back_beside", lambda: {**effects(), "workers": workers}),
    )
    return [
        Case(f"undo-{count}", "items/s", recorded, "the ratio is the cost; entries of all workers share commits"),
        Case("rollback-1000", "s", undone, "< 5 s"),
    ]
