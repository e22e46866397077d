"""
A plan, for people and for programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from durabatch.cli import printing

if TYPE_CHECKING:
    from durabatch.intake.plan import Plan
    from durabatch.runner.request import RunRequest

__all__ = ["show_plan"]

HEADERS = ("", "items", "keys")
KINDS = ("new", "changed", "gone", "same", "done", "failed", "unfinished")


def show_plan(request: RunRequest, *, full: bool = False, output: str | None = None, as_json: bool = False) -> int:
    """Print the plan of a request and return the exit code: 0, whatever it says."""
    from durabatch.runner.planning import plan_of

    request.remarks.listen(printing.say)
    plan = plan_of(request, full=full, output=output)
    if as_json:
        printing.emit(printing.json_text({"schema_version": 1, **plan.as_json()}))
    else:
        for line in plan_lines(plan, request.on_change):
            printing.emit(line)
    if output is not None:
        printing.say(f"written: {output}; edit its first column and give it to --on-change")
    return 0


def plan_lines(plan: Plan, on_change: str | None) -> list[str]:
    """Return the plan as lines for people."""
    rows = [[kind, f"{plan.counts[kind]:,}", keys_text(plan, kind)] for kind in KINDS if plan.run is not None or kind == "new"]
    lines = [f"plan of {plan.run or 'a new run'} with {plan.input}", *printing.table(HEADERS, rows, width=None)]
    lines += [f"- {note}" for note in plan.notes]
    lines += [f"- {plan.left_out:,} lines cannot be items and are left out"] if plan.left_out else []
    lines += [f"- {plan.repeated:,} rows whose key had come before"] if plan.repeated else []
    return [*lines, verdict(plan, on_change)]


def keys_text(plan: Plan, kind: str) -> str:
    """Return the first keys of a kind."""
    keys = plan.keys.get(kind, [])
    return ", ".join(map(printing.clean, keys)) + (", …" if keys and plan.counts[kind] > len(keys) else "")


def verdict(plan: Plan, on_change: str | None) -> str:
    """Return what the same words to `durabatch run` would do."""
    if plan.needs_choice and on_change is None:
        return "run refuses until it is told what to do: --on-change ledger, merge, source or FILE.csv, or --fresh"
    if plan.needs_choice:
        return f"run goes on, with --on-change {on_change}"
    left = plan.counts["unfinished"] + (plan.counts["new"] if plan.run is None else 0)
    return f"run {'starts' if plan.run is None else 'goes on'} with {printing.plural(left, 'item')}" if left else "run finds nothing to do"
