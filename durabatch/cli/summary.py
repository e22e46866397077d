"""
The last lines of a run, most important last: what failed, where the results are, what to type next, and the verdict.
"""

from __future__ import annotations

from durabatch.cli.places import next_command
from durabatch.cli.printing import clean, duration_text, plural, rate_text
from durabatch.cli.status import spent_text
from durabatch.models import Counts, ErrorGroup, RunStatus, SkippedGroup, Summary

__all__ = ["group_text", "is_idle", "summary_lines", "summary_style", "verdict"]

#: Kinds of error that are shown; `errors` has the rest.
SHOWN_GROUPS = 5
#: Characters of an error's message on its line.
MESSAGE_CHARACTERS = 200
SIGNALLED = {129, 130, 143}


def summary_lines(summary: Summary, *, verb: str, ledger: str, took_s: float) -> list[str]:
    """Return what to print at the end of *verb*; a single line when there was nothing to do."""
    if is_idle(summary):
        return [idle_text(summary, verb=verb, ledger=ledger)]
    groups = [*error_lines(summary.errors), *skipped_lines(summary.skipped)]
    return [*groups, *spent_lines(summary.status), *place_lines(summary, ledger), verdict(summary, took_s)]


def is_idle(summary: Summary) -> bool:
    """Return whether this call found nothing to do, and did nothing."""
    return summary.executed == 0 and summary.resumed is not None and summary.exit_code in {0, 1}


def idle_text(summary: Summary, *, verb: str, ledger: str) -> str:
    """Return ``nothing to do: 1,980 succeeded, 20 failed; `durabatch retry` tries the failed again``."""
    counts = summary.status.counts
    broken = broken_count(counts)
    what = f"nothing to {'retry' if verb == 'retry' else 'do'}: {counts.succeeded:,} succeeded, {broken:,} failed{others_text(counts)}"
    if counts.left:
        return f"{what}; `{next_command('resume', ledger)}` does what is left"
    if broken and verb == "retry":
        return f"{what}, none of them with this error; `{next_command('errors', ledger)}` names their errors"
    return f"{what}; `{next_command('retry', ledger)}` tries the failed again" if broken else what


def error_lines(groups: tuple[ErrorGroup, ...]) -> list[str]:
    """Return one line for each kind of error, the commonest first."""
    lines = [f"  {group_text(group, MESSAGE_CHARACTERS)}" for group in groups[:SHOWN_GROUPS]]
    rest = groups[SHOWN_GROUPS:]
    if rest:
        lines.append(f"  {plural(len(rest), 'other kind')} of error - {plural(sum(group.item_count for group in rest), 'item')}")
    return ["failed:", *lines] if lines else []


def group_text(group: ErrorGroup, characters: int) -> str:
    """Return ``ValueError: could not ... - 20 items, first r0037, last r1937``, on one line, the message cut to *characters*."""
    message = cut(group.message, characters)
    error = clean(group.error_type) + (f": {message}" if message else "")
    if group.item_count == 1:
        return f"{error} - 1 item, {clean(group.first_key)}"
    return f"{error} - {group.item_count:,} items, first {clean(group.first_key)}, last {clean(group.last_key)}"


def skipped_lines(groups: tuple[SkippedGroup, ...]) -> list[str]:
    """Return one line for each reason for which items were left out, and one for what can be done about it."""
    lines = []
    for group in groups[:SHOWN_GROUPS]:
        where = clean(group.first_key) if group.item_count == 1 else f"first {clean(group.first_key)}"
        lines.append(f"  {cut(group.reason, MESSAGE_CHARACTERS)} - {plural(group.item_count, 'item')}, {where}")
        lines += [f"    remedy: {cut(group.remedy, MESSAGE_CHARACTERS)}"] if group.remedy else []
    rest = groups[SHOWN_GROUPS:]
    if rest:
        lines.append(f"  {plural(len(rest), 'other reason')} - {plural(sum(group.item_count for group in rest), 'item')}")
    return ["skipped:", *lines] if lines else []


def cut(text: str, characters: int) -> str:
    """Return *text* on one line, harmless, and no longer than *characters*."""
    shown = clean(text)
    return shown if len(shown) <= characters else f"{shown[: characters - 3]}..."


def spent_lines(found: RunStatus) -> list[str]:
    """Return what the run has spent so far, and will have when all is done."""
    spent = spent_text(found)
    return [f"spent:   {spent}"] if spent else []


def place_lines(summary: Summary, ledger: str) -> list[str]:
    """Return where the results are and what comes next."""
    lines = []
    if summary.status.counts.succeeded:
        files = f"; batches and summary.json in {clean(summary.output)}" if summary.output else ""
        lines.append(f"results: `{next_command('results', ledger)}`{files}")
    if summary.exit_code in SIGNALLED or summary.exit_code == 3:
        lines.append(f"next:    the same command, or `{next_command('resume', ledger)}`")
    elif broken_count(summary.status.counts):
        lines.append(f"next:    `{next_command('errors', ledger)}` for all of it, `{next_command('retry', ledger)}` tries the failed again")
    return lines


def verdict(summary: Summary, took_s: float) -> str:
    """Return the last line: how it ended, the counts, and what this call did in which time."""
    counts = summary.status.counts
    name, pace, broken = clean(summary.status.name), pace_text(summary, took_s), broken_count(counts)
    if summary.exit_code in SIGNALLED or summary.exit_code == 3:
        total = f"{counts.total:,}" if summary.status.intake_complete else f"{counts.total:,} so far"
        failed = f", {broken:,} of them failed" if broken else ""
        return f"{name}: {stop_text(summary)}; {counts.ended:,} of {total} done{failed}{pace}; the same command goes on"
    cancelled = f"{clean(summary.status.reason or 'cancelled')}; " if summary.status.state == "cancelled" else ""
    return (
        f"{name}: {cancelled}{plural(counts.total, 'item')}, {counts.succeeded:,} succeeded, {broken:,} failed{others_text(counts)}{pace}"
    )


def stop_text(summary: Summary) -> str:
    """Return ``stopped by SIGINT`` or ``halted: <reason>``."""
    reason = clean(summary.status.reason or "")
    if summary.exit_code in SIGNALLED and reason:
        return reason
    return f"{summary.status.state}: {reason}" if reason else summary.status.state


def pace_text(summary: Summary, took_s: float) -> str:
    """Return time and speed of this call, and how much had been done before it."""
    rate = f", {rate_text(summary.executed / summary.work_s)}" if summary.work_s > 0 and summary.executed else ""
    before = f", {summary.resumed:,} done before" if summary.resumed else ""
    return f" in {duration_text(took_s)}{rate}{before}"


def summary_style(summary: Summary) -> str:
    """Return the style of the verdict."""
    return {0: "good", 1: "bad"}.get(summary.exit_code, "warn")


def broken_count(counts: Counts) -> int:
    """Return how many items did not succeed and can be tried again."""
    return counts.failed + counts.quarantined


def others_text(counts: Counts) -> str:
    """Return the rarer ends of items, each with a comma before it, and what is left."""
    kinds = ("skipped", "cancelled", "undone")
    found = [f", {number:,} {kind}" for kind in kinds if (number := getattr(counts, kind))]
    return "".join(found) + (f", {counts.left:,} left" if counts.left else "")
