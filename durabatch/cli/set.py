"""
``durabatch set``: other limits while a run is at work.
"""

from __future__ import annotations

from typing import Any

import click

from durabatch.cli.options import verb
from durabatch.cli.steering import steer, steering_options

__all__ = ["command"]


@verb("set", "durabatch set rate=50/1m", "durabatch set timeout=off batch-size=500 --run nightly")
@click.argument("settings", metavar="KEY=VALUE...", nargs=-1)
@click.option("--run", "run", metavar="RUN", help="Name or id of the run. [default: the active one]")
@steering_options
def command(settings: tuple[str, ...], run: str | None, **options: Any) -> int:
    """
    Change settings of the run that is at work.

    rate=50/1m|off, batch-size=N, concurrency=N, timeout=30s|200%|off. They hold from the next dispatch on.
    """
    return steer("set", run, options, *settings)
