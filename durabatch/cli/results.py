"""
``durabatch results``: what the handler returned, as JSON lines in input order, as it stands now; or the values of single items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from durabatch.cli import printing
from durabatch.cli.failures import complain
from durabatch.cli.items import document_lines
from durabatch.cli.looking import chosen_run, where_option
from durabatch.cli.options import json_option, verb
from durabatch.errors import LedgerDamagedError, NotFoundError, UsageError

if TYPE_CHECKING:
    from durabatch.api import Run
    from durabatch.models import Result

__all__ = ["command"]

#: Exit code when an item that was asked for has no value.
NO_VALUE = 1


@verb(
    "results",
    "durabatch results > results.jsonl",
    "durabatch results nightly --all | jq 'select(.error)'",
    "durabatch results nightly r0037",
    "durabatch results --where 'batch = 3' | head",
)
@click.argument("words", metavar="[RUN] [KEY]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every item, with state, attempts and error.")
@where_option
@json_option
def command(words: tuple[str, ...], everything: bool, where: str | None, ledger: str, as_json: bool) -> int:
    """
    Print the results of a run as JSON lines in input order.

    One {"key", "value"} for each item that succeeded. RUN is a name or an id; without it the active or else the latest run is meant. With
    KEYs only these items, in this order; a first word that is no run is a key of that run.
    """
    from durabatch.output.lines import result_line

    shown, keys = run_and_keys(ledger, words)
    if keys and where is not None:
        raise UsageError("--where goes without KEY: one of them says which items", "Leave one out.")
    damaged: list[LedgerDamagedError] = []
    without: list[Result] = []
    if keys:
        found = of_keys(shown, keys, damaged, without)
    else:
        found = shown.items(state=None if everything else "succeeded", where=where, on_damage=damaged.append)
    lines = (result_line(one, all=everything) for one in found if everything or one.value_json is not None)
    printing.emit_lines(document_lines(shown.status().name, "results", lines) if as_json else lines)
    for error in damaged:
        complain(str(error))
    for one in without:
        complain(f"item {one.key!r} is {one.state}{f': {one.error}' if one.error else ''}")
    return LedgerDamagedError.exit_code if damaged else NO_VALUE if without else 0


def run_and_keys(ledger: str, words: Sequence[str]) -> tuple[Run, Sequence[str]]:
    """
    Return the run and the keys that are meant; a word that is both a run and a key is the run.

    Raises:
        NotFoundError: There is no such run, and no such item in the run that is meant otherwise; or no item for another word.
    """
    try:
        shown, keys = chosen_run(ledger, words[0] if words else None), words[1:]
    except NotFoundError:
        shown, keys = chosen_run(ledger, None), words
        if not shown.has(words[0]):
            raise
    unknown = next((key for key in keys if not shown.has(key)), None)
    if unknown is not None:
        raise NotFoundError(f"no item {unknown!r} in run {shown.status().name}", "`durabatch items` lists them.")
    return shown, keys


def of_keys(shown: Run, keys: Sequence[str], damaged: list[LedgerDamagedError], without: list[Result]) -> Iterator[Result]:
    """Yield the items with these keys, and note in *without* those that have no value and did not lose it by damage."""
    for key in keys:
        before = len(damaged)
        one = shown.result(key, on_damage=damaged.append)
        if one.value_json is None and len(damaged) == before:
            without.append(one)
        yield one
