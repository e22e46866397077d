"""
``durabatch backup``: a consistent copy of the ledger, also while a run is on.
"""

from __future__ import annotations

import os

import click

from durabatch.cli import printing
from durabatch.cli.looking import opened_ledger
from durabatch.cli.options import json_option, verb
from durabatch.cli.places import ledger_json
from durabatch.sizes import size_text

__all__ = ["command"]


@verb("backup", "durabatch backup nightly.db", "durabatch backup /mnt/safe/today.db --force")
@click.argument("file", metavar="FILE")
@click.option("--force", is_flag=True, help="Replace FILE.")
@json_option
def command(file: str, force: bool, ledger: str, as_json: bool) -> int:
    """
    Copy the ledger to FILE, also while a run is on.

    FILE appears whole or not at all, and is as of one moment: `durabatch resume --ledger FILE` goes on from there, with what was at work handed out anew.
    """
    copied_bytes = opened_ledger(ledger).backup(file, force=force)
    if as_json:
        printing.emit_json({"ledger": ledger_json(ledger), "backup": os.path.abspath(file), "bytes": copied_bytes})
    else:
        printing.say(f"{size_text(copied_bytes)} in {printing.clean(file)}")
    return 0
