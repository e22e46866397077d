"""
``durabatch resume``: go on with a run without its command line.
"""

from __future__ import annotations

import click

from durabatch.cli.options import recorded_options, run_argument, verb
from durabatch.cli.starting import resumed
from durabatch.config.resolving import Effective

__all__ = ["command"]


@verb("resume", "durabatch resume", "durabatch resume nightly -j 2", settings="resume")
@run_argument
@click.option("--force", is_flag=True, help="Go on although the last checkpoint is not as it was recorded.")
@recorded_options
def command(run: str | None, handler: str | None, trust_ledger: bool, force: bool, wishes: Effective) -> int:
    """
    Go on with a run that was interrupted or halted.

    Handler, input and settings are those on record, apart from what is given here with options or a profile. RUN is a name or an id; without it the latest run
    goes on.
    """
    return resumed("resume", run, wishes, handler, trust_ledger=trust_ledger, force=force)
