"""
``durabatch explain``: one item in words.
"""

from __future__ import annotations

from dataclasses import asdict

import click

from durabatch.cli import printing
from durabatch.cli.looking import chosen_run
from durabatch.cli.options import json_option, verb
from durabatch.cli.printing import clean
from durabatch.models import Explanation

__all__ = ["command", "explained_lines"]


@verb("explain", "durabatch explain r0037", "durabatch explain r0037 --run nightly --json")
@click.argument("key")
@click.option("--run", "run", metavar="RUN", help="Name or id of the run. [default: the active or else the latest one]")
@json_option
def command(key: str, run: str | None, ledger: str, as_json: bool) -> int:
    """Say what happened to the item KEY, and what happens to it next."""
    found = chosen_run(ledger, run).explain(key)
    if as_json:
        printing.emit_json(asdict(found))
        return 0
    for line in explained_lines(found):
        printing.emit(line)
    return 0


def explained_lines(found: Explanation) -> list[str]:
    """Return an explanation as lines, harmless for a terminal."""
    parts = (("what happened", found.happened), ("what is recorded", found.recorded), ("what comes next", found.next))
    title = f"{found.key}: {found.state}, item {found.number:,} of run {found.run}"
    return [clean(title), *(line for name, sentences in parts for line in (f"{name}:", *(f"  {clean(one)}" for one in sentences)))]
