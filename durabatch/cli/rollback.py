"""
``durabatch rollback``: what a run or a transaction did is undone, newest first, after a look at what that means.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from durabatch.actions import BUILT_IN
from durabatch.cli import printing
from durabatch.cli.looking import terminal_width, where_option
from durabatch.cli.options import once, parsed, recorded_options, run_argument, verb
from durabatch.cli.places import ledger_json
from durabatch.cli.printing import clean, plural
from durabatch.cli.starting import carry_out, find_modules_here
from durabatch.config.resolving import Effective
from durabatch.errors import LedgerInUseError, NotFoundError, UsageError
from durabatch.options import parse_count

if TYPE_CHECKING:
    from durabatch.engine.rollback import PlannedStep, Scope
    from durabatch.ledger.executor import Executor
    from durabatch.ledger.run import RunRow

__all__ = ["command"]

HEADERS = ("step", "item", "batch", "attempt", "action", "state", "arguments")
#: Answer to a question that was answered with no: what was asked for was not done.
NOT_DONE = 1


@dataclass(slots=True)
class Amount:
    """How much a rollback would do: *actions* to run, called *names*; *irreversible* effects stay."""

    actions: int = 0
    irreversible: int = 0
    names: set[str] = field(default_factory=set)


@verb(
    "rollback",
    "durabatch rollback nightly --dry-run",
    "durabatch rollback nightly --to-batch 7 --yes",
    "durabatch rollback --item host-12 --item host-13",
    "durabatch rollback --transaction TRANS-001",
    "durabatch rollback nightly -j 8 --keep-going --yes",
    settings="rollback",
)
@run_argument
@click.option("--transaction", metavar="ID", help="The transaction with this id, in the place of a run.")
@click.option("--batch", metavar="N", multiple=True, callback=once(parsed(parse_count, minimum=1)), help="Only the items of batch N.")
@click.option(
    "--to-batch",
    metavar="N",
    multiple=True,
    callback=once(parsed(parse_count, minimum=0)),
    help="Only what ran after checkpoint N was made, so that N is what remains.",
)
@click.option("--item", "keys", metavar="KEY", multiple=True, help="Only the item with this key; may be repeated.")
@where_option
@click.option("--dry-run", is_flag=True, help="List the steps in order, and undo nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Undo changes of files also where something was changed since; that is lost.")
@click.option("--keep-going", is_flag=True, help="A step that fails for good ends the rollback of its item alone.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: one JSON document with schema_version.")
@recorded_options
def command(
    run: str | None, transaction: str | None, dry_run: bool, yes: bool, as_json: bool, handler: str | None, trust_ledger: bool,
    force: bool, keep_going: bool, wishes: Effective, **chosen: Any,
) -> int:  # fmt: skip
    """
    Undo what the items of a run did.

    Effects that were recorded before they happened are taken back in a worker process, newest first over all chosen items, one at a time. With
    --workers (without it there is one) items are taken to not depend on each other: then several are undone at once, newest first inside each. Of
    items chosen by several options those are meant that all of them choose. Killed and started again it goes on, and undoes nothing twice. RUN is a name or
    an id; without it the latest run is meant. The exit code is 1 when effects remain; they are listed.
    """
    from durabatch.ledger.reader import Reader

    if as_json and not dry_run:
        raise UsageError("--json: goes with --dry-run", "--progress json tells how a rollback goes.")
    scope = scope_of(**chosen)
    with Reader(wishes["ledger"]) as reader:
        row = meant(reader, run, transaction)
        tell_of_rest(reader, row, scope)
        if dry_run:
            return show_steps(reader, row, scope, wishes["ledger"], as_json=as_json)
        refuse_active(reader)
        amount = amount_of(reader, row, scope)
    if handler is None:
        refuse_nameless(row, amount)
    if not yes and not is_agreed(row.name, amount):
        printing.say("nothing was undone")
        return NOT_DONE
    return carry_out_rollback(row, scope, wishes, handler, trust_ledger=trust_ledger, force=force, keep_going=keep_going)


def scope_of(*, batch: int | None, to_batch: int | None, keys: tuple[str, ...], where: str | None) -> Scope:
    """Return which items are meant."""
    from durabatch.engine.rollback import Scope

    if batch is not None and to_batch is not None:
        raise UsageError("--batch and --to-batch exclude each other", "Give one of them.")
    return Scope(batch=batch, to_batch=to_batch, keys=keys, where=where)


def meant(ledger: Executor, name: str | None, transaction: str | None) -> RunRow:
    """Return the run or the transaction that is meant; NotFoundError when there is none, UsageError for both."""
    from durabatch.ledger import run

    if transaction is None:
        return run.find(ledger, name)
    if name is not None:
        raise UsageError("RUN and --transaction exclude each other", "Give one of them.")
    known = [row for row in run.list_transactions(ledger) if transaction in (row.name, row.series)]
    # Of equal ids the newest one, unless one is called exactly so with its number.
    found = next((row for row in known if row.name == transaction != row.series), None) or (known[-1] if known else None)
    if found is None:
        raise NotFoundError(f"no transaction {transaction!r} in this ledger", "`durabatch transactions` lists them.")
    return found


def tell_of_rest(ledger: Executor, row: RunRow, scope: Scope) -> None:
    """Say how much an earlier rollback has left, where less than all of the run is chosen: that is done, too."""
    from durabatch.engine.rollback import Scope
    from durabatch.ledger import undo

    left = 0 if scope == Scope() else undo.count_wanted(ledger, row.run_id)[0]
    if left:
        are = "is" if left == 1 else "are"
        printing.say(
            f"durabatch: {plural(left, 'step')} of an earlier rollback {are} left: a rollback goes on with that, whatever is chosen"
        )


def refuse_active(ledger: Executor) -> None:
    """Return when nobody works with the ledger; LedgerInUseError when somebody does."""
    from durabatch.ledger.locks import holder_of
    from durabatch.ledger.paths import shown

    holder = holder_of(ledger.files)
    if holder is not None:
        who = f"run {holder['run']} is active" if holder.get("run") else "somebody works with it"
        raise LedgerInUseError(shown(ledger.files.ledger), f"{who} (pid {holder.get('pid', '?')})", "Stop it first.")


def refuse_nameless(row: RunRow, amount: Amount) -> None:
    """Return when the actions can be found here; UsageError when only the program of the run knew where they are."""
    if row.handler["kind"] == "inline" and any(not name.startswith(BUILT_IN) for name in amount.names):
        raise UsageError(
            f"the handler of run {row.name} has no importable name, so the module of its undo actions is not known",
            "Name it with --handler MODULE:FUNCTION, or call Run.rollback() in the program of the run.",
        )


def amount_of(ledger: Executor, row: RunRow, scope: Scope) -> Amount:
    """Return how much there is to be undone."""
    from durabatch.engine.rollback import planned

    amount = Amount()
    for one in planned(ledger, row.run_id, scope):
        amount.irreversible += one.state == "irreversible"
        if one.state != "irreversible":
            amount.actions += 1
            amount.names.add(one.action)
    return amount


def is_agreed(name: str, amount: Amount) -> bool:
    """Ask whether so much is to be undone; UsageError where there is nobody to ask."""
    if any(stream is None or not stream.isatty() for stream in (sys.stdin, sys.stderr)):
        raise UsageError(f"rollback would run {plural(amount.actions, 'action')}", "Add --yes, or --dry-run to list them.")
    stays = f"; {plural(amount.irreversible, 'effect')} cannot be undone" if amount.irreversible else ""
    question = f"{clean(name)}: run {plural(amount.actions, 'action')} to undo what was done{stays}?"
    return click.confirm(question, err=True)


def carry_out_rollback(row: RunRow, scope: Scope, wishes: Effective, handler: str | None, **how: Any) -> int:
    """Undo what is chosen, with progress and a summary, and return the exit code."""
    from durabatch.loading import parse_target
    from durabatch.runner.request import RunRequest

    find_modules_here()
    is_typed = wishes.is_typed("workers")
    overrides = wishes.of_verb("rollback").asked_fields()
    if not is_typed:
        # A file or a profile means the workers of runs, and says nothing about what depends on what.
        overrides.pop("workers", None)
    request = RunRequest(
        verb="rollback", ledger=wishes["ledger"], run=row.run_id, scope=scope, overrides={"workers": 1, **overrides},
        in_order=not is_typed or wishes["workers"] <= 1, handler=None if handler is None else parse_target(handler), **how,
    )  # fmt: skip
    return carry_out(request, wishes)


def show_steps(ledger: Executor, row: RunRow, scope: Scope, path: str, *, as_json: bool) -> int:
    """List what would be undone, in order."""
    from durabatch.engine.rollback import planned

    steps = planned(ledger, row.run_id, scope)
    if as_json:
        printing.emit_json({"ledger": ledger_json(path), "run": row.name, "steps": [facts_of(one) for one in steps]})
        return 0
    amount = Amount()
    for line in printing.table(HEADERS, numbered(steps, amount), width=terminal_width()):
        printing.emit(line)
    printing.flush()
    stays = f", {plural(amount.irreversible, 'effect')} cannot be undone" if amount.irreversible else ""
    printing.say(f"rollback would run {plural(amount.actions, 'action')}{stays}")
    return 0


def numbered(steps: Iterator[PlannedStep], amount: Amount) -> Iterator[list[str]]:
    """Yield the line of each step, numbered by when it comes, and count them; what cannot be undone has no number."""
    for one in steps:
        is_done = one.state != "irreversible"
        amount.actions += is_done
        amount.irreversible += not is_done
        batch = "" if one.batch is None else f"{one.batch:,}"
        number = f"{amount.actions:,}" if is_done else ""
        yield [number, clean(one.key), batch, str(one.attempt), clean(one.action), one.state, clean(one.arguments)]


def facts_of(one: PlannedStep) -> dict[str, Any]:
    """Return a step as JSON."""
    from pydantic_core import from_json

    from durabatch.clock import iso

    facts = one._asdict()
    return {"recorded_at": iso(facts.pop("recorded_at_us")), **facts, "arguments": from_json(one.arguments)}
