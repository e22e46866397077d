"""
What goes into a ledger and comes out of it: intake, documents cut to pieces, the plan, the export.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from case import Case, Side
from inputs import Inputs

__all__ = ["chunk_cases", "export_cases", "intake_cases", "plan_cases"]

#: Lines of an input that is looked at with ``--big``.
MANY_LINES = 10_000_000


def intake_cases(inputs: Inputs, count: int, megabytes: int, files: int, *, big: bool) -> list[Case]:
    """Return intake of small records, of large ones and tables, of files found in directories, and with *big* of very many lines; memory stands beside it."""

    def small() -> dict[str, Any]:
        return {"source": inputs.records(count, "ordered")}

    def text(made: Callable[[int], str]) -> Callable[[], dict[str, Any]]:
        return lambda: {"source": made(megabytes)}

    def tree() -> dict[str, Any]:
        return {"source": inputs.tree(files)}

    def lines() -> dict[str, Any]:
        return {"source": inputs.lines(MANY_LINES)}

    read = (Side("durabatch", "verbs.pages", small), Side("generator with json.loads", "bare.pages", small))
    kept = (
        Side("durabatch", "verbs.submits", small),
        Side("executemany of rows made before", "bare_io.submits", small),
        Side("the same into a ledger's tables", "bare_io.submits_alike", small),
    )
    found = (
        Side("durabatch, found to handed out", "passing.files", tree),
        Side("os.scandir and executemany", "bare_io.files", tree),
    )
    cases = [
        Case(f"intake-read-{count}", "rows/s", read),
        Case(f"intake-ledger-{count}", "rows/s", kept, "ratio >= 0.5, reading and parsing included"),
        taken(f"intake-jsonl-{megabytes}MB", "json.loads and executemany", "bare_io.jsonl", text(inputs.large_records)),
        taken(f"intake-csv-{megabytes}MB", "csv.DictReader, json.dumps and executemany", "bare_io.csv", text(inputs.table)),
        Case(f"intake-files-{files}", "s", found, "< 5 s"),
    ]
    many = taken(f"intake-lines-{MANY_LINES}", "lines and executemany", "bare_io.lines", lines, "coordinator < 60 MiB")
    return [*cases, many] if big else cases


def taken(name: str, beside: str, function: str, arguments: Callable[[], dict[str, Any]], goal: str = "ratio >= 0.5") -> Case:
    """Return the intake of one file, in megabytes of it a second."""
    return Case(name, "MB/s", (Side("durabatch", "passing.taken", arguments), Side(beside, function, arguments)), goal)


def chunk_cases(inputs: Inputs) -> list[Case]:
    """Return ten megabytes of text cut to chunks: the places of the cuts alone, and chunks as items."""

    def whole() -> dict[str, Any]:
        return {"source": inputs.prose(10)}

    sides = (
        Side("where to cut", "passing.cuts", whole),
        Side("chunks as items", "passing.chunks", whole),
        Side("bare read and decode", "bare_io.text", whole),
    )
    return [Case("chunking-10MB", "s", sides, "where to cut < 0.1 s")]


def plan_cases(inputs: Inputs, count: int, files: int, workers: int) -> list[Case]:
    """Return the plan for an input whose rows are all the same, looked at for what can be seen from outside: a file that was touched, a tree."""

    def touched() -> dict[str, Any]:
        return {"ledger": inputs.finished(count, workers), "source": inputs.records(count, "ordered")}

    def tree() -> dict[str, Any]:
        return {"ledger": inputs.finished_tree(files, workers), "source": inputs.tree(files)}

    sides = (
        Side("durabatch plan, file touched", "passing.touched", touched),
        Side("row by row beside the ledger", "passing.stepped", touched),
        Side("reading alone", "verbs.reading", touched),
        Side("generator with json.loads", "bare_io.reading", touched),
    )
    found = (
        Side("durabatch plan", "passing.planned_tree", tree),
        Side("finding the files alone", "verbs.finding", tree),
        Side("os.scandir", "bare_io.finding", tree),
    )
    return [Case(f"plan-{count}", "s", sides, "seconds"), Case(f"plan-files-{files}", "s", found, "seconds")]


def export_cases(inputs: Inputs, count: int, workers: int) -> list[Case]:
    """Return the export of a finished run; the memory of the process that writes stands beside it."""

    def ledger() -> dict[str, Any]:
        return {"ledger": inputs.finished(count, workers)}

    return [
        Case(
            f"export-{name}-{count}",
            "rows/s",
            (Side("durabatch", f"passing.export_{name}", ledger), Side(f"SELECT and {beside}", f"bare_io.export_{name}", ledger)),
            "coordinator < 150 MiB",
        )
        for name, beside in (("jsonl", "a line each"), ("csv", "csv.writer"))
    ]
