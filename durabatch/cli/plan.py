"""
``durabatch plan``: what a run would do now.
"""

from __future__ import annotations

import click

from durabatch.cli.options import json_option, verb
from durabatch.cli.planning import show_plan
from durabatch.cli.starting import find_modules_here, named_handler, requested
from durabatch.config.resolving import Effective

__all__ = ["command"]


@verb(
    "plan",
    "durabatch plan audit.py:audit servers.csv --key host",
    "durabatch plan audit.py:audit servers.csv --key host --output plan.csv    # edit it, then --on-change plan.csv",
    "durabatch plan jobs.py:work items.jsonl --full --json",
    settings="plan",
)
@click.option("--full", is_flag=True, help="Read all of the input of a new run, too: finds every bad line.")
@click.option("--output", "output", metavar="FILE.csv", help="Write what may be decided about, an item a line: add, redo, keep or cancel.")
@json_option
def command(full: bool, output: str | None, as_json: bool, wishes: Effective) -> int:
    """
    Show what `durabatch run` with the same words would do, and do nothing.

    Compares the input with what the ledger holds: items that are new, changed, gone, failed, unfinished and done; and says what else
    differs: version and code of the handler, parameters, environment.
    """
    find_modules_here()
    request = requested(named_handler(wishes), wishes.of_verb("run"))
    return show_plan(request, full=full, output=output, as_json=as_json)
