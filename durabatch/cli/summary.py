"""
The last lines of a run, most important last: what failed, where the results are, what to type next, and the verdict.
"""

from __future__ import annotations

import os
from pathlib import Path

from durabatch.cli.places import next_command
from durabatch.cli.printing import clean, duration_text, plural, rate_text
from durabatch.cli.status import cached_text, left_out_text, spent_text
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
    groups = [*error_lines(summary.errors), *skipped_lines(summary.skipped), *left_out_lines(summary.status)]
    return [*groups, *cached_lines(summary.status), *spent_lines(summary.status), *place_lines(summary, ledger), verdict(summary, took_s)]


def is_idle(summary: Summary) -> bool:
    """Return whether this call found nothing to do, and did nothing."""
    has_undone = summary.rolled_back is not None and summary.rolled_back.steps > 0
    return summary.executed == 0 and not has_undone and summary.resumed is not None and summary.exit_code in {0, 1}


def idle_text(summary: Summary, *, verb: str, ledger: str) -> str:
    """Return ``nothing to do: 1,980 succeeded, 20 failed; `durabatch retry` tries the failed again``."""
    counts = summary.status.counts
    broken = broken_count(counts)
    what = f"nothing to {'retry' if verb == 'retry' else 'do'}: {counts.succeeded:,} succeeded, {broken:,} failed{others_text(summary.status)}"
    if counts.left:
        return f"{what}; `{next_command('resume', ledger)}` does what is left"
    if broken and verb == "retry":
        return f"{what}, none of them with this error; `{next_command('errors', ledger)}` names their errors"
    if broken:
        return f"{what}; `{next_command('retry', ledger)}` tries the failed again"
    return f"{what}; `{next_command('retry --undone', ledger)}` runs what is undone again" if counts.undone else what


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


def left_out_lines(found: RunStatus) -> list[str]:
    """Return how many lines of the input became no items, and why."""
    text = left_out_text(found)
    return [f"left out: {text}"] if text else []


def cut(text: str, characters: int) -> str:
    """Return *text* on one line, harmless, and no longer than *characters*."""
    shown = clean(text)
    return shown if len(shown) <= characters else f"{shown[: characters - 3]}..."


def cached_lines(found: RunStatus) -> list[str]:
    """Return how much needed not be run."""
    text = cached_text(found)
    return [f"cached:  {text}"] if text else []


def spent_lines(found: RunStatus) -> list[str]:
    """Return what the run has spent so far, and will have when all is done."""
    spent = spent_text(found)
    return [f"spent:   {spent}"] if spent else []


def place_lines(summary: Summary, ledger: str) -> list[str]:
    """Return where the results are and what comes next."""
    lines = []
    if summary.status.counts.succeeded:
        lines.append(f"results: `{next_command('results', ledger)}`{output_text(summary.output)}")
    if summary.exit_code in SIGNALLED or summary.exit_code == 3:
        lines.append(f"next:    the same command, or `{next_command('resume', ledger)}`")
    elif broken_count(summary.status.counts):
        lines.append(f"next:    `{next_command('errors', ledger)}` for all of it, `{next_command('retry', ledger)}` tries the failed again")
    return lines


def output_text(output: str | None) -> str:
    """Return where else the results are, as far as they are there."""
    if output is None:
        return ""
    from durabatch.output.places import is_file_output, partial_of

    if not is_file_output(output):
        return f"; batches and summary.json in {clean(output)}"
    partial = partial_of(Path(output))
    if partial.exists():
        return f"; so far in {clean(str(partial))}"
    return f"; also in {clean(output)}" if os.path.exists(output) else ""


def verdict(summary: Summary, took_s: float) -> str:
    """Return the last line: how it ended, the counts, and what this call did in which time."""
    counts = summary.status.counts
    name, pace, broken = clean(summary.status.name), pace_text(summary, took_s), broken_count(counts)
    if summary.exit_code in SIGNALLED or summary.exit_code == 3:
        total = f"{counts.total:,}" if summary.status.intake_complete else f"{counts.total:,} so far"
        failed = f", {broken:,} of them failed" if broken else ""
        return f"{name}: {stop_text(summary)}; {counts.ended:,} of {total} done{failed}{pace}; the same command goes on"
    says_why = summary.status.state == "cancelled" or (summary.status.state == "halted" and summary.status.is_open)
    why = f"{clean(summary.status.reason or summary.status.state)}; " if says_why else ""
    return (
        f"{name}: {why}{plural(counts.total, 'item')}, {counts.succeeded:,} succeeded, {broken:,} failed{others_text(summary.status)}{pace}"
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


def others_text(found: RunStatus) -> str:
    """Return the rarer ends of items, each with a comma before it, and what is left."""
    counts = found.counts
    kinds = {"skipped": counts.skipped, "cancelled": counts.cancelled - found.gone, "gone from the input": found.gone, "undone": counts.undone}
    others = "".join(f", {number:,} {kind}" for kind, number in kinds.items() if number)
    return others + (f", {counts.left:,} left" if counts.left else "")
