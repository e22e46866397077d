"""
``durabatch unpause``: go on after a pause.
"""

from __future__ import annotations

from typing import Any

from durabatch.cli.options import run_argument, verb
from durabatch.cli.steering import steer, steering_options

__all__ = ["command"]


@verb("unpause", "durabatch unpause", "durabatch unpause nightly")
@run_argument
@steering_options
def command(run: str | None, **options: Any) -> int:
    """
    Let a paused run go on.

    RUN is a name or an id; without it the active run is meant.
    """
    return steer("unpause", run, options)
