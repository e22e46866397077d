"""
What is said at the end of a rollback, and of a run some of whose effects were undone: what is undone, and, never hidden, what remains.
"""

from __future__ import annotations

import shlex

from durabatch.cli.places import next_command
from durabatch.cli.printing import clean, duration_text, plural, shortened
from durabatch.models import RolledBack, Summary, Unresolved

__all__ = ["rollback_lines", "undone_lines"]

#: Characters of the arguments of an action, and of an error.
SHOWN_CHARACTERS = 120


def rollback_lines(summary: Summary, *, ledger: str, took_s: float) -> list[str]:
    """Return what to print at the end of ``rollback``, the verdict last; a single line when there was nothing to undo."""
    done, found = summary.rolled_back or RolledBack(0, 0, 0), summary.status
    if not (done.items or done.steps or done.unresolved_count):
        return [f"{clean(found.name)}: nothing to undo: {plural(found.counts.undone, 'item')} undone, {found.counts.succeeded:,} succeeded"]
    return [*remaining_lines(done), *next_lines(summary, ledger), verdict(summary, done, took_s)]


def undone_lines(summary: Summary) -> list[str]:
    """Return what another verb says of what it undid, and of what remains."""
    done = summary.rolled_back
    if done is None:
        return []
    return [f"undone:  {amounts(done)}", *remaining_lines(done)] if done.steps or done.items else remaining_lines(done)


def amounts(done: RolledBack) -> str:
    """Return ``12 items, 30 effects (4 of them needed no action)``; the effects alone where they are those of attempts that failed."""
    idle = done.steps - done.ran
    needless = "it" if done.steps == 1 else f"{idle:,} of them"
    never = f" ({needless} needed no action)" if idle else ""
    items = f"{plural(done.items, 'item')}, " if done.items else ""
    return f"{items}{plural(done.steps, 'effect')}{never}"


def remaining_lines(done: RolledBack) -> list[str]:
    """Return one line for each effect that remains, up to those that are listed, under a heading."""
    if not done.unresolved_count:
        return []
    given_up = [f"  and {plural(done.given_up, 'effect')} behind, of which none was tried"] if done.given_up else []
    lines = [f"  {effect_text(one)}" for one in done.unresolved]
    rest = done.unresolved_count - len(lines)
    return ["effects remain:", *lines, *([f"  and {rest:,} more"] if rest > 0 else []), *given_up]


def effect_text(one: Unresolved) -> str:
    """Return ``failed: delete_site {"url": ...} of host-7, attempt 1: ConnectionError: ...``, on one line."""
    batch = "" if one.batch is None else f", batch {one.batch:,}"
    why = shortened(clean(one.error or ""), SHOWN_CHARACTERS)
    arguments = shortened(clean(one.arguments), SHOWN_CHARACTERS)
    said = {"recorded": "not undone", "undoing": "unresolved"}.get(one.state, one.state)
    return f"{said}: {clean(one.action)} {arguments} of {clean(one.key)}{batch}, attempt {one.attempt}" + (f": {why}" if why else "")


def next_lines(summary: Summary, ledger: str) -> list[str]:
    """Return what can be done now; nothing when all is undone that can be."""
    done, found = summary.rolled_back, summary.status
    if summary.exit_code > 1 or (done is not None and any(one.state != "irreversible" for one in done.unresolved)):
        is_stopped = summary.exit_code == 1 and done is not None and found.counts.succeeded > done.unresolved_count
        return ["next:    the same command again goes on with what remains" + "; --keep-going goes on with the other items" * is_stopped]
    if found.counts.undone and not found.is_transaction:
        return [f"next:    `{next_command(f'retry {shlex.quote(found.name)} --undone', ledger)}` runs what is undone again"]
    return []


def verdict(summary: Summary, done: RolledBack, took_s: float) -> str:
    """Return the last line: how the rollback ended and what it did in which time."""
    found = summary.status
    remain = f"; {plural(done.unresolved_count, 'effect')} remain{'s' * (done.unresolved_count == 1)}" if done.unresolved_count else ""
    ended = "rolled back" if found.state == "rolled_back" else "undone"
    if summary.exit_code > 1:
        ended = f"{clean(found.reason or 'stopped')}; undone"
    return f"{clean(found.name)}: {ended}: {amounts(done)} in {duration_text(took_s)}{remain}"
