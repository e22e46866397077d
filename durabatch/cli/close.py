"""
``durabatch close``: an open run takes no more items, and finishes.
"""

from __future__ import annotations

import click

from durabatch.cli import printing
from durabatch.cli.options import json_option, verb
from durabatch.cli.places import ledger_json, next_command
from durabatch.cli.printing import clean
from durabatch.cli.status import LIVE, done_text
from durabatch.cli.steering import network_option

__all__ = ["command"]


@verb("close", "durabatch close nightly", "durabatch close nightly --json")
@click.argument("run", metavar="NAME")
@network_option
@json_option
def command(run: str, allow_network_fs: bool, as_json: bool, ledger: str) -> int:
    """
    Let an open run take no more items, and finish.

    Whoever works on it goes on until everything has ended; the items that are there stay. NAME is a name or an id. A run that is closed already stays so.
    """
    from durabatch.runner.closing import closed

    answer = closed(ledger, run, allow_network_fs=allow_network_fs)
    found = answer.status
    if as_json:
        printing.emit_json({"ledger": ledger_json(ledger), "verb": "close", "outcome": answer.outcome, "runs": [found.as_json()]})
        return 0
    left = f"; `{next_command(f'resume {found.name}', ledger)}` finishes it" if found.state in {"halted", "interrupted"} else ""
    where = "at work" if found.state in LIVE else found.state
    printing.emit(f"{clean(found.name)} ({found.run_id})  {where}; {answer.outcome}; {done_text(found)}{left}")
    return 0
