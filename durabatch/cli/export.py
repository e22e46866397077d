"""
``durabatch export``: results as one file in the formats that people use, or back in the workbook that they came from.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from durabatch.cli import printing
from durabatch.cli.failures import complain
from durabatch.cli.looking import chosen_run, where_option
from durabatch.cli.options import json_option, run_argument, verb
from durabatch.errors import LedgerDamagedError, UsageError
from durabatch.states import ItemState

if TYPE_CHECKING:
    from durabatch.api import Run
    from durabatch.output.export import Exported
    from durabatch.output.write_back import WrittenBack

__all__ = ["command"]

#: Every state.
ALL = "all"
#: Options that say how a file of results is made, and those that say how a workbook gets them.
OF_A_FILE = {
    "format": "--format", "output": "--output", "states": "--state", "where": "--where", "incremental": "--incremental",
    "failures": "--failures",
}  # fmt: skip
OF_A_WORKBOOK = {"column": "--column", "force": "--force"}


def read_states(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the states, each once."""
    return tuple(ItemState) if ALL in values else tuple(dict.fromkeys(values))


@verb(
    "export",
    "durabatch export --output results.csv",
    "durabatch export nightly --format parquet --output nightly.parquet",
    "durabatch export --state all --where 'batch < 10' | jq 'select(.error)'",
    "durabatch export --incremental --output new.jsonl.zst",
    "durabatch export --write-back packages.xlsx --column finding",
)
@run_argument
@click.option(
    "--format", metavar="NAME", help="json, jsonl, csv, xlsx, parquet, sqlite, or one of a package.  [default: by the suffix; jsonl]"
)
@click.option(
    "--output", metavar="PATH", help="The file; .gz and .zst behind the suffix of a text compress it.  [default: -, standard output]"
)
@click.option(
    "--state",
    "states",
    metavar="STATE",
    multiple=True,
    callback=read_states,
    help="Items in this state, or all; may be repeated.  [default: succeeded]",
)
@where_option
@click.option("--incremental", is_flag=True, help="Only what earlier incremental exports have not written to this output.")
@click.option("--failures", metavar="PATH", help="Where the failed items go, as input for another run.  [default: PATH.failures.jsonl]")
@click.option("--raw-formulas", is_flag=True, help="Leave text in csv and xlsx as it is that a spreadsheet takes for a formula.")
@click.option("--write-back", metavar="FILE.xlsx", help="Put the results into the workbook that the items came from; a copy of it is kept.")
@click.option("--column", metavar="NAME", help="The column for --write-back, by its heading; made when it is not there.")
@click.option("--force", is_flag=True, help="Write back although the workbook has changed, is open, or holds what cannot be kept.")
@json_option
def command(run: str | None, ledger: str, as_json: bool, write_back: str | None, raw_formulas: bool, **chosen: Any) -> int:
    """
    Write the results of a run to a file.

    As of one moment, in input order, also while the run is on. RUN is a name or an id; without it the active or else the latest run is meant.
    """
    refuse_mixture(write_back, chosen)
    shown, damaged = chosen_run(ledger, run), list[LedgerDamagedError]()

    def on_damage(error: LedgerDamagedError) -> None:
        damaged[:] = [error]
        complain(str(error))

    if write_back is not None:
        back = shown.write_back(write_back, chosen["column"], force=chosen["force"], raw_formulas=raw_formulas, on_damage=on_damage)
        tell(back_words(back), back_document(back), as_json=as_json)
    else:
        done = exported(shown, raw_formulas=raw_formulas, as_json=as_json, on_damage=on_damage, chosen=chosen)
        if chosen["output"] not in (None, "-"):
            tell(file_words(done, Path(chosen["output"])), file_document(done), as_json=as_json)
    return LedgerDamagedError.exit_code if damaged else 0


def refuse_mixture(write_back: str | None, chosen: dict[str, Any]) -> None:
    """Refuse options that would have no effect, and --write-back without a column."""
    idle = {name: flag for name, flag in (OF_A_WORKBOOK if write_back is None else OF_A_FILE).items() if chosen[name]}
    for flag in idle.values():
        raise UsageError(
            f"{flag} {'needs' if write_back is None else 'does not go together with'} --write-back", "See `durabatch export --help`."
        )
    if write_back is not None and not chosen["column"]:
        raise UsageError("--write-back needs --column", "Name the heading of the column for the results.")


def exported(run: Run, *, raw_formulas: bool, as_json: bool, on_damage: Any, chosen: dict[str, Any]) -> Exported:
    """Write the results to the file, or print them."""
    options = {name: chosen[name] for name in ("format", "where", "incremental", "failures")}
    options |= {"state": chosen["states"] or ItemState.SUCCEEDED, "raw_formulas": raw_formulas, "on_damage": on_damage}
    if chosen["output"] not in (None, "-"):
        return run.export(chosen["output"], **options)
    if as_json:
        raise UsageError("--json describes the file that was written; there is none", "Give --output, or --format json for the results.")
    return run.export(cast("BinaryIO", Printed()), **options)


class Printed:
    """Standard output as a file of bytes; what the system says against it is an OutputError."""

    def write(self, data: bytes) -> int:
        """Print bytes and return how many they were."""
        printing.write_bytes(data)
        return len(data)

    def flush(self) -> None:
        """See all of it off."""
        printing.flush()


def tell(words: str, document: dict[str, Any], *, as_json: bool) -> None:
    """Say what was done, or print it as a document."""
    if as_json:
        printing.emit_json(document)
    else:
        printing.say(words)


def file_words(done: Exported, output: Path) -> str:
    """Return ``1,980 items in results.csv; 20 failed items in results.csv.failures.jsonl``."""
    main = f"nothing new for {output}" if done.output is None else f"{printing.plural(done.count, 'item')} in {output}"
    damaged = f"; {printing.plural(done.damaged_count, 'value')} damaged" if done.damaged_count else ""
    failed = f"; {printing.plural(done.failed_count, 'failed item')} in {done.failures}" if done.failures else ""
    return printing.clean(main + damaged + failed)


def file_document(done: Exported) -> dict[str, Any]:
    """Return what was done as a document."""
    return {
        "format": done.format, "output": done.output and str(done.output), "count": done.count,
        "failures": done.failures and str(done.failures), "failed_count": done.failed_count, "damaged_count": done.damaged_count,
    }  # fmt: skip


def back_words(back: WrittenBack) -> str:
    """Return ``1,980 cells of column finding in packages.xlsx (sheet Packages); before: packages.20261122-073105.bak.xlsx``."""
    cells = f"{printing.plural(back.count, 'cell')} of column {back.column} in {back.workbook} (sheet {back.sheet})"
    lost = f"; not kept: {', '.join(back.lost)}" if back.lost else ""
    return printing.clean(f"{cells}; the workbook of before: {back.backup}{lost}")


def back_document(back: WrittenBack) -> dict[str, Any]:
    """Return the same as a document."""
    return {
        "workbook": str(back.workbook), "sheet": back.sheet, "column": back.column, "count": back.count, "backup": str(back.backup),
        "lost": list(back.lost),
    }  # fmt: skip
