"""
``durabatch run``: a handler over an input. The same command again goes on where it stopped.
"""

from __future__ import annotations

from durabatch.cli.options import verb
from durabatch.cli.starting import find_modules_here, named_handler, start_run
from durabatch.config.resolving import Effective

__all__ = ["command"]


@verb(
    "run",
    "durabatch run audit.py:audit servers.csv --key host -j 8",
    "durabatch run jobs.parse:measure src/ --include '*.py' --output out",
    "find . -name '*.png' -print0 | durabatch run thumbs.py:make - --null",
    "durabatch run audit.py:audit servers.csv    # after Ctrl-C or a crash: goes on",
    settings="run",
)
def command(wishes: Effective) -> int:
    """
    Run a function once for each item of the input.

    HANDLER is module:function or file.py:function. INPUT is a list (.csv, .tsv, .jsonl, .json, .xlsx, also compressed, else one item a
    line), a directory or a pattern (one item per file), run:NAME for the results of an earlier run, or - for standard input. Results and progress are kept in the ledger: the same command again goes on
    with what is left. Where durabatch.toml names handler and input, `durabatch run` is enough.
    """
    find_modules_here()
    return start_run(named_handler(wishes), wishes.of_verb("run"))
