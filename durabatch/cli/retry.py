"""
``durabatch retry``: failed items once more, without the input.
"""

from __future__ import annotations

from typing import Any

import click

from durabatch.cli.options import recorded_options, run_argument, verb, working_options
from durabatch.cli.starting import resumed

__all__ = ["command"]


@verb("retry", "durabatch retry", "durabatch retry nightly --error TimeoutError --retries 3")
@run_argument
@click.option("--error", "error_type", metavar="TYPE", help="Only items that failed with this error, as `durabatch errors` names it.")
@recorded_options
@working_options
def command(run: str | None, **options: Any) -> int:
    """
    Run the failed items again.

    Failed and quarantined items get a fresh allowance of tries; results go to the same place. RUN is a name or an id; without it the
    latest run is meant. What was left of it is done, too.
    """
    return resumed("retry", run, options, error_type=options["error_type"])
