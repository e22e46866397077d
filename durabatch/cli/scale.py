"""
``durabatch scale``: more or fewer workers while a run is at work.
"""

from __future__ import annotations

from typing import Any

import click

from durabatch.cli.options import run_argument, verb
from durabatch.cli.steering import steer, steering_options

__all__ = ["command"]


@verb("scale", "durabatch scale 2", "durabatch scale 16 nightly")
@click.argument("workers", metavar="N")
@run_argument
@steering_options
def command(workers: str, run: str | None, **options: Any) -> int:
    """
    Change the number of workers of the run that is at work to N.

    Workers that are too many end after the items they are at. RUN is a name or an id; without it the active run is meant.
    """
    return steer("scale", run, options, workers)
