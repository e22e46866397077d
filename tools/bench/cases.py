"""
What is measured beside what, at which size, and what should come out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inputs import Inputs

__all__ = ["Case", "Side", "all_cases", "plain_cases"]


@dataclass(frozen=True, slots=True)
class Side:
    """
    One way to do it; the first side of a case is durabatch.

    Attributes:
        function: ``MODULE.NAME`` of this directory.
        root: The checkout whose durabatch is measured; None for the one that is found here.
    """

    label: str
    function: str
    make_arguments: Callable[[], dict[str, Any]]
    root: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments; input files are made when they are first asked for."""
        return self.make_arguments()


@dataclass(frozen=True, slots=True)
class Case:
    """
    Sides to compare.

    Attributes:
        unit: Of the values: ``items/s``, ``rows/s``, ``files/min`` and ``%`` are better when higher, ``s`` when lower.
        goal: What should come out, in words.
    """

    name: str
    unit: str
    sides: tuple[Side, ...]
    goal: str = ""


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
        naps(inputs),
        commands(inputs, int(2000 * scale)),
        *engine_cases(inputs, int(500_000 * scale)),
        *ledger_cases(inputs, int(1_000_000 * scale), workers),
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
        ("intake-read", "pages", "generator with json.loads"),
        ("intake-ledger", "submits", "executemany of rows in memory"),
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
