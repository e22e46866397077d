"""
``durabatch cancel``: end a run for good, whether somebody works on it or not.
"""

from __future__ import annotations

from typing import Any

from durabatch.cli.options import run_argument, verb
from durabatch.cli.steering import steer, steering_options

__all__ = ["command"]


@verb("cancel", "durabatch cancel", "durabatch cancel nightly")
@run_argument
@steering_options
def command(run: str | None, **options: Any) -> int:
    """
    End a run for good; its open items are cancelled.

    Items at work are interrupted, results stay. A run that nobody works on is cancelled by this command itself. RUN is a name or an id; without it the active or else
    the latest run is meant.
    """
    return steer("cancel", run, options)
