"""
``durabatch resume``: go on with a run without its command line.
"""

from __future__ import annotations

from typing import Any

from durabatch.cli.options import recorded_options, run_argument, verb, working_options
from durabatch.cli.starting import resumed

__all__ = ["command"]


@verb("resume", "durabatch resume", "durabatch resume nightly -j 2")
@run_argument
@recorded_options
@working_options
def command(run: str | None, **options: Any) -> int:
    """
    Go on with a run that was interrupted or halted.

    Handler, input and options are those on record, apart from what is given here. RUN is a name or an id; without it the latest run
    goes on.
    """
    return resumed("resume", run, options)
