"""
``durabatch status``: where one run stands, in constant time whatever its size; any number of them may look while it works.
"""

from __future__ import annotations

import os
import shlex
import sys

import click

from durabatch.cli import printing
from durabatch.cli.abandoned import warn_about_abandoned
from durabatch.cli.looking import terminal_width
from durabatch.cli.options import json_option, run_argument, verb
from durabatch.cli.places import ledger_json, next_command
from durabatch.cli.printing import clean, duration_text, painted, plural, rate_text
from durabatch.cli.watching import Log, Screen, looked_again
from durabatch.models import Counts, RunStatus

__all__ = ["LIVE", "STYLES", "amount_text", "cached_text", "command", "counts_text", "done_text", "left_out_text", "may_grow", "money_text", "spent_text", "status_lines"]

STATES = ("succeeded", "failed", "quarantined", "skipped", "cancelled", "undone", "running", "scheduled", "pending")
#: States in which a coordinator has the run.
LIVE = frozenset({"running", "paused"})
STYLES = {
    "running": "good",
    "finished": "good",
    "interrupted": "warn",
    "halted": "warn",
    "paused": "warn",
    "cancelled": "bad",
    "rolled_back": "warn",
}


@verb("status", "durabatch status", "durabatch status nightly --watch", "durabatch status --json | jq .runs[0].counts")
@run_argument
@click.option("--watch", is_flag=True, help="Look again each second until the run has stopped.")
@json_option
def command(run: str | None, watch: bool, ledger: str, as_json: bool) -> int:
    """
    Show where a run stands.

    RUN is a name or an id; without it the active or else the latest run is shown.
    """
    found = looked(ledger, run)
    warn_about_abandoned(ledger, but=found.run_id)
    if watch:
        found = watched(found.run_id, ledger, as_json=as_json)
    if as_json:
        printing.emit_lines([document(found, ledger)])
        return 0
    for line in status_lines(found, ledger):
        printing.emit(line)
    return 0


def looked(ledger: str, run: str | int | None) -> RunStatus:
    """Return where the run stands now."""
    from durabatch.engine.status import status
    from durabatch.ledger.reader import Reader

    with Reader(ledger) as reader:
        return status(reader, run)


def document(found: RunStatus, ledger: str) -> str:
    """Return the status as JSON."""
    return printing.json_text({"schema_version": 1, "ledger": ledger_json(ledger), "runs": [found.as_json()]})


def watched(run_id: int, ledger: str, *, as_json: bool) -> RunStatus:
    """Show the run each second until it has stopped, and return where it stands then: as lines in one place, a line, or a document a line."""

    def look() -> RunStatus:
        return looked(ledger, run_id)

    def goes_on(found: RunStatus) -> bool:
        return is_live(found, ledger)

    if as_json:
        json_log = Log(lambda line: printing.emit_lines([line]))
        return looked_again(look, goes_on, lambda found: json_log.show(document(found, ledger)))
    if terminal_width() is None or os.environ.get("TERM") == "dumb":
        log = Log(printing.emit)
        return looked_again(look, goes_on, lambda found: log.show(status_line(found)))
    with Screen() as screen:
        return looked_again(look, goes_on, lambda found: screen.show(status_lines(found, ledger)))


def is_live(found: RunStatus, ledger: str) -> bool:
    """Tell whether somebody works on the run, or has taken the ledger and not said yet for which run."""
    from durabatch.ledger.locks import holder_of
    from durabatch.ledger.paths import ledger_files

    if found.state in LIVE:
        return True
    holder = holder_of(ledger_files(ledger)) if found.state == "interrupted" else None
    return holder is not None and not holder.get("run")


def status_line(found: RunStatus) -> str:
    """Return the status as one line of a log."""
    counts = found.counts
    broken = counts.failed + counts.quarantined
    parts = (
        found.state,
        done_text(found),
        f"{broken:,} failed" if broken else "",
        pace_text(found),
        undo_text(found),
        f"limit: {clean(found.binding_limit)}" if found.binding_limit else "",
        clean(found.reason or ""),
    )
    return f"{clean(found.name)}: {', '.join(part for part in parts if part)}"


def status_lines(found: RunStatus, ledger: str) -> list[str]:
    """Return the status as a block of lines, without what does not apply."""
    facts = (
        ("done", amount_text(found)),
        ("items", counts_text(found.counts)),
        ("gone", f"{plural(found.gone, 'item')} of the cancelled: the input has lost them" if found.gone else ""),
        ("left out", left_out_text(found)),
        ("rate", pace_text(found)),
        ("reason", clean(found.reason or "")),
        ("limit", clean(found.binding_limit or "")),
        ("waiting", waiting_text(found)),
        ("undo", undo_text(found)),
        ("cached", cached_text(found)),
        ("spent", spent_text(found)),
        ("batches", f"{found.batch_count:,}, {plural(found.attempt_count, 'attempt')}"),
        ("handler", clean(found.handler)),
        ("time", time_text(found)),
        ("order", order_text(found)),
        ("next", next_step(found, ledger)),
    )
    title = f"{clean(found.name)} ({found.run_id})  {painted(found.state, STYLES.get(found.state, 'strong'), sys.stdout)}"
    return [title, *(f"  {name:<8} {text}" for name, text in facts if text)]


def amount_text(found: RunStatus) -> str:
    """Return ``1,203 of 2,000 (60.2%)``; while more may come the total is a lower bound and there is no percentage."""
    counts = found.counts
    if may_grow(found):
        return f"{counts.ended:,} of >={counts.total:,}, {more_text(found)}"
    return f"{counts.ended:,} of {counts.total:,}{percent_text(counts)}"


def may_grow(found: RunStatus) -> bool:
    """Tell whether more items may come; a transaction that was rolled back gets no more, although it was never complete."""
    return not found.intake_complete and not (found.is_transaction and found.state == "rolled_back")


def more_text(found: RunStatus) -> str:
    """Return where more items may come from."""
    if found.is_transaction:
        return "neither committed nor rolled back"
    return "open for more" if found.is_open else "still reading the input"


def done_text(found: RunStatus) -> str:
    """Return the same for the middle of a line: ``1,203 of 2,000 done (60.2%)``."""
    counts = found.counts
    if may_grow(found):
        return f"{counts.ended:,} of >={counts.total:,} done, {more_text(found)}"
    return f"{counts.ended:,} of {counts.total:,} done{percent_text(counts)}"


def percent_text(counts: Counts) -> str:
    """Return the share of items that have ended; empty when there are none. Cut, not rounded: 100.0% means all."""
    return f" ({counts.ended * 1000 // counts.total / 10:.1f}%)" if counts.total else ""


def left_out_text(found: RunStatus) -> str:
    """Return how many lines of the input became no items, and why."""
    bad = [f"{plural(found.bad_input_count, 'line')} that cannot be items"] if found.bad_input_count else []
    repeated = [f"{plural(found.duplicate_count, 'row')} with a key that had come before"] if found.duplicate_count else []
    return ", ".join(bad + repeated)


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


def waiting_text(found: RunStatus) -> str:
    """Return how many items wait for a time of their own, and the first of these times."""
    if not found.counts.scheduled:
        return ""
    return f"{plural(found.counts.scheduled, 'item')}, the next until {found.next_due_at}"


def undo_text(found: RunStatus) -> str:
    """Return how many effects are to be undone, and how many could not be; empty when there is neither."""
    steps = plural(found.undo_left, "step")
    if found.is_rolling_back and found.undo_left:
        left = f"rolling back: {steps} to go" if found.state in LIVE else f"rollback unfinished: {steps}"
    else:
        left = f"{steps} to go" if found.undo_left else ""
    # What was cut off in the middle is among the steps that are left, too.
    why = "not undone or in doubt" if found.undo_left and found.state not in LIVE else "could not be undone"
    remain = f"{plural(found.unresolved, 'effect')} {why}" if found.unresolved else ""
    return ", ".join(part for part in (left, remain) if part)


def cached_text(found: RunStatus) -> str:
    """Return ``1,200 of 20,000 from the cache``; empty when it gave nothing."""
    return f"{found.cached:,} of {found.counts.total:,} from the cache" if found.cached else ""


def spent_text(found: RunStatus) -> str:
    """Return ``usd 1.25 (2.5 when done), tokens 12,000``."""
    return ", ".join(f"{clean(unit)} {money_text(amount)}{forecast_text(found, unit)}" for unit, amount in found.spent.items())


def forecast_text(found: RunStatus, unit: str) -> str:
    """Return what the whole run will have spent of a unit; empty when that is not known or no news."""
    whole = found.forecast.get(unit)
    return "" if whole is None or not found.counts.left else f" (about {money_text(whole)} when all is done)"


def money_text(amount: float) -> str:
    """Return an amount with the digits that it has, six behind the point at most: ``1,234,567``, ``0.0312``."""
    text = f"{amount:,.6f}".rstrip("0").rstrip(".")
    return text if text != "0" or not amount else "less than 0.000001"


def order_text(found: RunStatus) -> str:
    """Return ``pause by ana@host (pid 12) at 2026-01-02T03:04:05.678Z: done``; empty when nothing was ordered."""
    order = found.last_order
    if order is None:
        return ""
    by = order["asked_by"]
    words = " ".join(
        [order["verb"], *(f"{name.replace('_', '-')}={'off' if value is None else value}" for name, value in order["argument"].items())]
    )
    who = f"{by.get('user') or by.get('uid', '?')}@{by.get('host', '?')} (pid {by.get('pid', '?')})"
    return clean(f"{words} by {who} at {order['asked_at']}: {order['outcome'] or 'not answered yet'}")


def next_step(found: RunStatus, ledger: str) -> str:
    """Return the command that goes on from here; empty when there is nothing to do or somebody does it."""
    if found.state == "paused":
        return f"`{next_command('unpause', ledger)}` goes on"
    if found.is_transaction:
        is_left = found.state in {"interrupted", "halted"}
        return f"`{next_command(f'rollback --transaction {shlex.quote(found.name)}', ledger)}` undoes it" if is_left else ""
    if found.is_rolling_back and found.state not in LIVE:
        return "the same `durabatch rollback` as before goes on with it"
    if found.state in {"interrupted", "halted"}:
        return f"`{next_command('resume', ledger)}` goes on"
    if found.state == "cancelled" and found.undo_left:
        return f"`{next_command('resume', ledger)}` undoes what was left behind"
    broken = found.counts.failed + found.counts.quarantined
    if found.state == "finished" and broken:
        return f"`{next_command('errors', ledger)}` shows what failed, `{next_command('retry', ledger)}` tries it again"
    return ""
