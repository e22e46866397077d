"""
``durabatch resume``: go on with a run without its command line.
"""

from __future__ import annotations

from durabatch.cli.options import recorded_options, run_argument, verb
from durabatch.cli.starting import resumed
from durabatch.config.resolving import Effective

__all__ = ["command"]


@verb("resume", "durabatch resume", "durabatch resume nightly -j 2", settings="resume")
@run_argument
@recorded_options
def command(run: str | None, handler: str | None, trust_ledger: bool, wishes: Effective) -> int:
    """
    Go on with a run that was interrupted or halted.

    Handler, input and settings are those on record, apart from what is given here with options or a profile. RUN is a name or an id; without it the latest run
    goes on.
    """
    return resumed("resume", run, wishes, handler, trust_ledger=trust_ledger)
