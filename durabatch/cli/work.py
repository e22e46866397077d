"""
``durabatch work``: work on an open run until somebody closes it.
"""

from __future__ import annotations

import click

from durabatch.cli.options import recorded_options, verb
from durabatch.cli.starting import resumed
from durabatch.config.resolving import Effective

__all__ = ["command"]


@verb("work", "durabatch work nightly", "durabatch work nightly --handler jobs.py:audit -j 8 --idle-exit 60s", settings="work")
@click.argument("run", metavar="NAME")
@recorded_options
def command(run: str, handler: str | None, trust_ledger: bool, wishes: Effective) -> int:
    """
    Work on an open run, and wait for more items.

    Handler and settings are those on record, apart from what is given here. Items that `durabatch submit` adds begin within a tenth of a second; `durabatch close` lets
    the run finish, and --idle-exit leaves it open when nothing has come for so long.
    """
    return resumed("resume", run, wishes, handler, trust_ledger=trust_ledger, open=True)
