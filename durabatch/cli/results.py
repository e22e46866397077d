"""
``durabatch results``: what the handler returned, as JSON lines in input order, as it stands now.
"""

from __future__ import annotations

import click

from durabatch.cli import printing
from durabatch.cli.failures import complain
from durabatch.cli.items import document_lines
from durabatch.cli.looking import chosen_run, where_option
from durabatch.cli.options import json_option, run_argument, verb
from durabatch.errors import LedgerDamagedError

__all__ = ["command"]


@verb(
    "results",
    "durabatch results > results.jsonl",
    "durabatch results nightly --all | jq 'select(.error)'",
    "durabatch results --where 'batch = 3' | head",
)
@run_argument
@click.option("--all", "everything", is_flag=True, help="Every item, with state, attempts and error.")
@where_option
@json_option
def command(run: str | None, everything: bool, where: str | None, ledger: str, as_json: bool) -> int:
    """
    Print the results of a run as JSON lines in input order.

    One {"key", "value"} for each item that succeeded. RUN is a name or an id; without it the active or else the latest run is meant.
    """
    from durabatch.output.lines import result_line

    shown = chosen_run(ledger, run)
    damaged: list[LedgerDamagedError] = []
    found = shown.items(state=None if everything else "succeeded", where=where, on_damage=damaged.append)
    lines = (result_line(one, all=everything) for one in found if everything or one.value_json is not None)
    printing.emit_lines(document_lines(shown.status().name, "results", lines) if as_json else lines)
    for error in damaged:
        complain(str(error))
    return LedgerDamagedError.exit_code if damaged else 0
