"""
``durabatch pause``: hand out nothing more for now; the coordinator stays.
"""

from __future__ import annotations

from typing import Any

from durabatch.cli.options import run_argument, verb
from durabatch.cli.steering import steer, steering_options

__all__ = ["command"]


@verb("pause", "durabatch pause", "durabatch pause nightly --json")
@run_argument
@steering_options
def command(run: str | None, **options: Any) -> int:
    """
    Pause the run that is at work.

    Items at work go on to their end, nothing else is handed out until `durabatch unpause`. RUN is a name or an id; without it the active
    run is meant.
    """
    return steer("pause", run, options)
