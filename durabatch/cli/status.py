"""
``durabatch status``: where one run stands, in constant time whatever its size; any number of them may look while it works.
"""

from __future__ import annotations

import sys

from durabatch.cli import printing
from durabatch.cli.options import json_option, run_argument, verb
from durabatch.cli.places import ledger_json, next_command
from durabatch.cli.printing import clean, duration_text, painted, plural, rate_text
from durabatch.models import Counts, RunStatus

__all__ = ["amount_text", "command", "counts_text", "status_lines"]

STATES = ("succeeded", "failed", "quarantined", "skipped", "cancelled", "undone", "running", "scheduled", "pending")
STYLES = {
    "running": "good",
    "finished": "good",
    "interrupted": "warn",
    "halted": "warn",
    "paused": "warn",
    "cancelled": "bad",
    "rolled_back": "warn",
}


@verb("status", "durabatch status", "durabatch status nightly", "durabatch status --json | jq .runs[0].counts")
@run_argument
@json_option
def command(run: str | None, ledger: str, as_json: bool) -> int:
    """
    Show where a run stands.

    RUN is a name or an id; without it the active or else the latest run is shown.
    """
    from durabatch.engine.status import status
    from durabatch.ledger.reader import Reader

    with Reader(ledger) as reader:
        found = status(reader, run)
        if as_json:
            printing.emit_json({"ledger": ledger_json(ledger), "runs": [found.as_json()]})
            return 0
    for line in status_lines(found, ledger):
        printing.emit(line)
    return 0


def status_lines(found: RunStatus, ledger: str) -> list[str]:
    """Return the status as a block of lines, without what does not apply."""
    facts = (
        ("done", amount_text(found.counts, complete=found.intake_complete)),
        ("items", counts_text(found.counts)),
        ("rate", pace_text(found)),
        ("reason", clean(found.reason or "")),
        ("limit", clean(found.binding_limit or "")),
        ("batches", f"{found.batch_count:,}, {plural(found.attempt_count, 'attempt')}"),
        ("handler", clean(found.handler)),
        ("time", time_text(found)),
        ("next", next_step(found, ledger)),
    )
    title = f"{clean(found.name)} ({found.run_id})  {painted(found.state, STYLES.get(found.state, 'strong'), sys.stdout)}"
    return [title, *(f"  {name:<8} {text}" for name, text in facts if text)]


def amount_text(counts: Counts, *, complete: bool) -> str:
    """Return ``1,203 of 2,000 (60.2%)``; while intake goes on the total is a lower bound and there is no percentage."""
    if not complete:
        return f"{counts.ended:,} of >={counts.total:,}, still reading the input"
    # Cut, not rounded: 100.0% means all.
    percent = "" if not counts.total else f" ({counts.ended * 1000 // counts.total / 10:.1f}%)"
    return f"{counts.ended:,} of {counts.total:,}{percent}"


def counts_text(counts: Counts) -> str:
    """Return the states in which there are items, with their numbers."""
    return ", ".join(f"{number:,} {state}" for state in STATES if (number := getattr(counts, state)))


def pace_text(found: RunStatus) -> str:
    """Return rate and time left; empty while nothing is known."""
    if not found.items_per_s:
        return ""
    return rate_text(found.items_per_s) + ("" if found.eta_s is None else f", about {duration_text(found.eta_s)} left")


def time_text(found: RunStatus) -> str:
    """Return when it began, and ended, and how long it worked."""
    if found.started_at is None:
        return "not started"
    end = f", ended {found.finished_at}" if found.finished_at else ""
    return f"started {found.started_at}{end}, worked {duration_text(found.elapsed_s)}"


def next_step(found: RunStatus, ledger: str) -> str:
    """Return the command that goes on from here; empty when there is nothing to do or somebody does it."""
    if found.state in {"interrupted", "halted"}:
        return f"`{next_command('resume', ledger)}` goes on"
    broken = found.counts.failed + found.counts.quarantined
    if found.state == "finished" and broken:
        return f"`{next_command('errors', ledger)}` shows what failed, `{next_command('retry', ledger)}` tries it again"
    return ""
