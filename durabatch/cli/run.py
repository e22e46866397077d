"""
``durabatch run``: a handler over an input. The same command again goes on where it stopped.
"""

from __future__ import annotations

from typing import Any

import click

from durabatch.cli.options import intake_options, name_options, verb, working_options
from durabatch.cli.starting import IntakeWish, find_modules_here, start_run
from durabatch.options import parse_params

__all__ = ["command"]


@verb(
    "run",
    "durabatch run audit.py:audit servers.csv --key host -j 8",
    "durabatch run jobs.parse:measure src/ --include '*.py' --output out",
    "find . -name '*.png' -print0 | durabatch run thumbs.py:make - --null",
    "durabatch run audit.py:audit servers.csv    # after Ctrl-C or a crash: goes on",
)
@click.argument("handler")
@click.argument("inputs", nargs=-1, metavar="[INPUT]...")
@click.option(
    "--param",
    "params",
    metavar="NAME=VALUE",
    multiple=True,
    help="A keyword-only parameter of the handler; env:NAME and file:PATH are read by workers only.",
)
@name_options
@intake_options
@working_options
def command(handler: str, inputs: tuple[str, ...], params: tuple[str, ...], **options: Any) -> int:
    """
    Run a function once for each item of the input.

    HANDLER is module:function or file.py:function. INPUT is a list (.csv, .tsv, .jsonl, else one item a line), a directory or a
    pattern (one item per file), or - for standard input. Results and progress are kept in the ledger: the same command again goes on
    with what is left.
    """
    from durabatch.loading import parse_target

    find_modules_here()
    return start_run(parse_target(handler), options["name"], IntakeWish.from_options(inputs, options), options, parse_params(params))
