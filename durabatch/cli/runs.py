"""
``durabatch runs``: every run of the ledger, one a line.
"""

from __future__ import annotations

from durabatch.cli import printing
from durabatch.cli.abandoned import warn_about_abandoned
from durabatch.cli.looking import terminal_width
from durabatch.cli.options import json_option, verb
from durabatch.cli.places import ledger_json
from durabatch.cli.printing import duration_text, rate_text
from durabatch.cli.status import may_grow
from durabatch.models import RunStatus

__all__ = ["command"]

HEADERS = ("id", "state", "done", "total", "failed", "rate", "worked", "started", "name")


@verb("runs", "durabatch runs", "durabatch runs --json | jq -r '.runs[].name'")
@json_option
def command(ledger: str, as_json: bool) -> int:
    """List the runs of the ledger, oldest first."""
    from durabatch.engine.status import list_runs
    from durabatch.ledger.reader import Reader

    with Reader(ledger) as reader:
        found = list_runs(reader)
    warn_about_abandoned(ledger)
    if as_json:
        printing.emit_json({"ledger": ledger_json(ledger), "runs": [one.as_json() for one in found]})
    elif not found:
        printing.say("the ledger holds no run")
    else:
        for line in printing.table(HEADERS, map(cells, found), width=terminal_width()):
            printing.emit(line)
    return 0


def cells(found: RunStatus) -> list[str]:
    """Return the line of one run."""
    counts = found.counts
    total = f">={counts.total:,}" if may_grow(found) else f"{counts.total:,}"
    rate = rate_text(found.items_per_s) if found.items_per_s else ""
    numbers = [f"{counts.ended:,}", total, f"{counts.failed + counts.quarantined:,}", rate, duration_text(found.elapsed_s)]
    return [str(found.run_id), found.state, *numbers, (found.started_at or "")[:19].replace("T", " "), found.name]
