"""
``durabatch errors``: what failed, grouped by error, and where to go on from there.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict

from durabatch.cli import printing
from durabatch.cli.looking import chosen_run
from durabatch.cli.options import json_option, run_argument, verb
from durabatch.cli.places import next_command
from durabatch.cli.summary import group_text

__all__ = ["command"]

#: Characters of a message; the whole of it stands in `attempts` and in --json.
MESSAGE_CHARACTERS = 1000


@verb("errors", "durabatch errors", "durabatch errors nightly --json")
@run_argument
@json_option
def command(run: str | None, ledger: str, as_json: bool) -> int:
    """
    Show the failed items of a run grouped by error.

    The commonest error comes first. RUN is a name or an id; without it the active or else the latest run is meant.
    """
    shown = chosen_run(ledger, run)
    groups = shown.errors()
    if as_json:
        printing.emit_json({"run": shown.status().name, "errors": [asdict(group) for group in groups]})
        return 0
    for group in groups:
        printing.emit(group_text(group, MESSAGE_CHARACTERS))
    if not groups:
        printing.say("no failed items")
        return 0
    printing.flush()
    run_words = "" if run is None else f" {shlex.quote(run)}"
    show = next_command(f"attempts {shlex.quote(groups[0].first_key)}{f' --run{run_words}' if run else ''}", ledger)
    printing.say(printing.clean(f"next: `{show}` for the traceback, `{next_command(f'retry{run_words}', ledger)}` tries them again"))
    return 0
