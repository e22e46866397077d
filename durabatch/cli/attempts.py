"""
``durabatch attempts``: every try at one item, with its traceback.
"""

from __future__ import annotations

import signal
from dataclasses import asdict

import click

from durabatch.cli import printing
from durabatch.cli.looking import chosen_run
from durabatch.cli.options import json_option, verb
from durabatch.cli.printing import clean, duration_text
from durabatch.cli.status import money_text
from durabatch.models import AttemptView

__all__ = ["attempt_lines", "command"]


@verb("attempts", "durabatch attempts r0037", "durabatch attempts r0037 --run nightly --json")
@click.argument("key")
@click.option("--run", "run", metavar="RUN", help="Name or id of the run. [default: the active or else the latest one]")
@json_option
def command(key: str, run: str | None, ledger: str, as_json: bool) -> int:
    """Show every try at the item KEY, oldest first."""
    shown = chosen_run(ledger, run)
    tries = shown.attempts(key)
    if as_json:
        printing.emit_json({"run": shown.status().name, "key": key, "attempts": [asdict(one) for one in tries]})
        return 0
    for one in tries:
        for line in attempt_lines(one):
            printing.emit(line)
    if not tries:
        printing.say("no try has ended yet")
    return 0


def attempt_lines(one: AttemptView) -> list[str]:
    """Return one try as lines, harmless for a terminal."""
    time = duration_text(one.duration_s) if one.duration_s >= 0.95 else f"{one.duration_s * 1000:.1f} ms"
    how = f"from the cache ({one.started_at})" if one.cached else f"after {time} (worker {one.worker}, started {one.started_at})"
    title = f"attempt {one.number}: {one.outcome} {how}"
    detail = [
        *(one.traceback or one.error or "").splitlines(),
        *tail_lines("stdout", one.stdout_tail),
        *tail_lines("stderr", one.stderr_tail),
    ]
    facts = facts_text(one)
    detail += ([facts] if facts else []) + ([f"remedy: {one.remedy}"] if one.remedy else [])
    return [title, *(f"  {clean(line)}" for line in detail)]


def tail_lines(name: str, tail: str | None) -> list[str]:
    """Return the last of what a command or a dead worker printed, under its name; nothing when that was nothing."""
    return [f"{name}:", *(f"  {line}" for line in tail.splitlines())] if tail and tail.strip() else []


def facts_text(one: AttemptView) -> str:
    """Return ``exit code 3, peak memory 512 MiB, spent usd 0.5``, as far as it is known."""
    ended = [f"signal {signal_name(one.signal)}"] if one.signal else [f"exit code {one.exit_code}"] if one.exit_code is not None else []
    memory = [] if one.peak_rss_bytes is None or one.outcome == "succeeded" else [f"peak memory {one.peak_rss_bytes / (1 << 20):,.0f} MiB"]
    spent = [f"spent {', '.join(f'{unit} {money_text(amount)}' for unit, amount in one.spent.items())}"] if one.spent else []
    return ", ".join([*ended, *memory, *spent])


def signal_name(number: int) -> str:
    """Return the name of a signal, its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
