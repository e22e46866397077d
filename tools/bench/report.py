"""
Medians, ratios, the table and the JSON document.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from typing import Any

import apsw
from case import Case
from measuring import Sample

from durabatch.version import __version__

__all__ = ["document", "problem", "shown", "table"]

#: Units of which less is better.
LOWER_IS_BETTER = frozenset({"s"})
#: Columns beside the value: name in the sample, head, decimals.
BESIDE = (
    ("startup_s", "start s", 2),
    ("first_result_s", "first s", 2),
    ("cpu_s", "cpu s", 2),
    ("coordinator_mib", "coord MiB", 0),
    ("tree_mib", "tree MiB", 0),
    ("wal_mib", "log MiB", 0),
    ("bytes_per_item", "B/item", 0),
)


def problem(sample: Sample) -> str:
    """Return what went wrong in a measurement, or nothing."""
    return str(sample.get("problem", ""))


def shown(unit: str, value: float | None) -> str:
    """Return a value with its unit."""
    if value is None:
        return "failed"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3f} {unit}"


def median(samples: Sequence[Sample], name: str) -> float | None:
    """Return the median of one number over the samples that have it."""
    found = [sample[name] for sample in samples if name in sample]
    return statistics.median(found) if found else None


def ratio(unit: str, ours: float | None, theirs: float | None) -> float | None:
    """Return how many times better the first value is than the second."""
    if not ours or not theirs:
        return None
    return theirs / ours if unit in LOWER_IS_BETTER else ours / theirs


def table(cases: Sequence[Case], found: dict[str, dict[str, list[Sample]]]) -> str:
    """Return the table: one line a side, medians; the ratio says how many times better durabatch is than that side."""
    lines = [["case", "side", "median", "range", "ratio", *(head for _, head, _ in BESIDE)]]
    for case in cases:
        lines += [row(case, label, samples, found[case.name]) for label, samples in found[case.name].items()]
        lines += [["", f"  goal: {case.goal}"]] if case.goal else []
    return aligned(lines)


def row(case: Case, label: str, samples: Sequence[Sample], sides: dict[str, list[Sample]]) -> list[str]:
    """Return the cells of one side."""
    value = median(samples, "value")
    is_first = label == case.sides[0].label
    times = None if is_first else ratio(case.unit, median(sides[case.sides[0].label], "value"), value)
    values = sorted(sample["value"] for sample in samples if "value" in sample)
    spread = f"{shown('', values[0]).strip()} - {shown('', values[-1]).strip()}" if len(values) > 1 else ""
    beside = [f"{number:,.{digits}f}" if (number := median(samples, name)) else "" for name, _, digits in BESIDE]
    return [case.name if is_first else "", label, shown(case.unit, value), spread, f"{times:.2f}" if times else "", *beside]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return *lines* as columns; a line of fewer cells than the others takes no part in the widths."""
    full = [line for line in lines if len(line) == len(lines[0])]
    widths = [max(len(line[column]) for line in full) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in lines)


def document(cases: Sequence[Case], found: dict[str, dict[str, list[Sample]]], options: dict[str, Any], *, cores: int) -> dict[str, Any]:
    """Return everything that was measured, and where."""
    return {
        "schema_version": 1,
        "durabatch": __version__,
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "platform": platform.platform(),
        "cores": cores,
        "options": options,
        "cases": [summary(case, found[case.name]) for case in cases],
    }


def summary(case: Case, sides: dict[str, list[Sample]]) -> dict[str, Any]:
    """Return one case with its samples, medians and ratios."""
    ours = median(sides[case.sides[0].label], "value")
    measured = [
        {"side": label, "median": median(samples, "value"), "ratio": ratio(case.unit, ours, median(samples, "value")), "samples": samples}
        for label, samples in sides.items()
    ]
    return {"name": case.name, "unit": case.unit, "goal": case.goal, "sides": measured}
