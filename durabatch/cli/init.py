"""
``durabatch init``: a configuration file to begin with.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from durabatch.cli import printing
from durabatch.cli.options import verb
from durabatch.config.compounds import Target
from durabatch.config.files import PROJECT_FILE
from durabatch.config.template import template
from durabatch.errors import UsageError

__all__ = ["command"]


@verb("init", "durabatch init", "durabatch init audit.py:audit servers.csv", reads_files=False)
@click.argument("handler", metavar="[HANDLER]", required=False)
@click.argument("inputs", metavar="[INPUT]...", nargs=-1)
@click.option("--force", is_flag=True, help=f"Replace a {PROJECT_FILE} that is there.")
def command(handler: str | None, inputs: tuple[str, ...], force: bool) -> int:
    """
    Write a commented durabatch.toml here.

    It holds every setting with its default, as a comment. HANDLER and INPUT are put in force in it: `durabatch run` then needs no arguments.
    """
    from durabatch.output.atomic import write_whole

    given: dict[str, Any] = {} if handler is None else {"handler": Target().parse(handler, option="handler")}
    given |= {"input": list(inputs)} if inputs else {}
    path = Path(PROJECT_FILE)
    if os.path.lexists(path) and not force:
        raise UsageError(f"{path} exists", "Use --force to replace it.")
    write_whole(path, [template(given)])
    printing.say(f"durabatch: wrote {path}. `durabatch check` shows what is in force.")
    return 0
