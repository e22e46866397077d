"""
``durabatch items``: the items of a run and what became of them, in input order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from durabatch.cli import printing
from durabatch.cli.looking import chosen_run, terminal_width, where_option
from durabatch.cli.options import json_option, parsed, run_argument, verb, word_option
from durabatch.options import parse_count
from durabatch.states import ItemState

__all__ = ["command", "document_lines"]

HEADERS = ("key", "state", "attempts", "error")
MEMBERS = ("key", "state", "attempts", "error")


@verb(
    "items",
    "durabatch items --state failed",
    "durabatch items nightly --where \"attempts > 1 AND key LIKE 'r00%'\"",
    "durabatch items --limit 20 --json",
)
@run_argument
@word_option("--state", tuple(ItemState), default=None, help="Only items in this state.")
@where_option
@click.option("--limit", metavar="N", callback=parsed(parse_count, minimum=0), help="At most so many.")
@json_option
def command(run: str | None, state: str | None, where: str | None, limit: int | None, ledger: str, as_json: bool) -> int:
    """
    List the items of a run in input order.

    RUN is a name or an id; without it the active or else the latest run is meant.
    """
    from durabatch.output.rows import members

    shown = chosen_run(ledger, run)
    found = shown.items(state=state, where=where, limit=limit)
    if as_json:
        printing.emit_lines(document_lines(shown.status().name, "items", (members(one, MEMBERS) for one in found)))
        return 0
    rows = ([one.key, one.state, str(one.attempts), one.error or ""] for one in found)
    for line in printing.table(HEADERS, rows, width=terminal_width()):
        printing.emit(line)
    return 0


def document_lines(run: str, name: str, members: Iterable[str]) -> Iterator[str]:
    """Yield the lines of one JSON document, an item a line, so that it is never whole in memory."""
    yield f'{{"schema_version":1,"run":{printing.json_text(run)},"{name}":['
    before = None
    for member in members:
        if before is not None:
            yield f"{before},"
        before = member
    if before is not None:
        yield before
    yield "]}"
