"""
``durabatch drain``: stop a run after the items at work, as Ctrl-C in its own terminal does.
"""

from __future__ import annotations

from typing import Any

from durabatch.cli.options import run_argument, verb
from durabatch.cli.steering import steer, steering_options

__all__ = ["command"]


@verb("drain", "durabatch drain", "durabatch drain nightly")
@run_argument
@steering_options
def command(run: str | None, **options: Any) -> int:
    """
    Stop the run that is at work after its items in flight.

    Nothing is lost: the same command, or `durabatch resume`, goes on. RUN is a name or an id; without it the active run is meant.
    """
    return steer("drain", run, options)
