"""
``durabatch checkpoints``: the finished batches of a run, what each of them holds, and whether that is still what was recorded.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from durabatch.cli import printing
from durabatch.cli.items import document_lines
from durabatch.cli.looking import chosen_run, terminal_width
from durabatch.cli.options import json_option, verb
from durabatch.cli.places import ledger_json
from durabatch.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from durabatch.api import Run
    from durabatch.api.checkpoint import Checkpoint
    from durabatch.engine.checkpoints import CheckpointFacts
    from durabatch.models import Finding

__all__ = ["command"]

#: Exit code of a run that is not as it was recorded.
DIFFERS = 4
HEADERS = ("checkpoint", "made", "items", "failed", "done", "left", "bytes", "digest", "name")


@verb(
    "checkpoints",
    "durabatch checkpoints nightly",
    "durabatch checkpoints --mark before-upgrade",
    "durabatch checkpoints 7 --remaining",
    "durabatch checkpoints nightly 7 --validate",
)
@click.argument("words", metavar="[RUN] [N]", nargs=-1)
@click.option("--remaining", is_flag=True, help="Print the keys that were not done when checkpoint N was made, or ran again since.")
@click.option(
    "--validate",
    is_flag=True,
    help="Recompute results, counters, input files and undo entries up to N, or all; exit code 4 if they differ.",
)
@click.option("--mark", "label", metavar="LABEL", help="Give checkpoint N, or the last one, this name.")
@json_option
def command(words: tuple[str, ...], remaining: bool, validate: bool, label: str | None, ledger: str, as_json: bool) -> int:
    """
    List the checkpoints of a run.

    Every finished batch is one, and N is its number, or a name that it was given. It holds the items that had ended when it was made (done); left
    are all others. Failed are those of its batch that ended otherwise than succeeded or skipped; what was undone since is among them. Bytes and
    digest are those of the results of its batch. RUN is a name or an id; without it the active or else the latest run is meant.
    """
    refuse_mixture(words, remaining=remaining, validate=validate, label=label)
    run, wanted = meant(ledger, words, has_action=remaining or validate or label is not None)
    if remaining:
        return print_remaining(run, wanted, as_json=as_json)
    if validate:
        return print_validation(run, wanted, ledger, as_json=as_json)
    found = [run.mark(label, wanted)] if label is not None else run.checkpoints() if wanted is None else [run.checkpoint(wanted)]
    print_checkpoints(run, found, ledger, as_json=as_json)
    return 0


def refuse_mixture(words: tuple[str, ...], *, remaining: bool, validate: bool, label: str | None) -> None:
    """Refuse words and options that do not go together."""
    given = [flag for flag, is_given in (("--remaining", remaining), ("--validate", validate), ("--mark", label is not None)) if is_given]
    if len(given) > 1:
        raise UsageError(f"{given[0]} does not go together with {given[1]}", "Use one at a time.")
    if len(words) > 2:
        raise UsageError(f"{words[2]!r} is one word too many", "Give a run and the number or name of a checkpoint.")


def meant(ledger: str, words: tuple[str, ...], *, has_action: bool) -> tuple[Run, str | None]:
    """
    Return the run and the checkpoint that the words mean, None for no checkpoint.

    A word that stands alone is the run; where something is to be done with a checkpoint, a number is that, and so is a name that no run has.

    Raises:
        NotFoundError: There is no such run.
    """
    if len(words) == 2:
        return chosen_run(ledger, words[0]), words[1]
    if not words:
        return chosen_run(ledger, None), None
    if has_action and words[0].isdecimal():
        return chosen_run(ledger, None), words[0]
    try:
        return chosen_run(ledger, words[0]), None
    except NotFoundError:
        if not has_action:
            raise
        return chosen_run(ledger, None), words[0]


def print_remaining(run: Run, wanted: str | None, *, as_json: bool) -> int:
    """Print the keys that a checkpoint does not hold, one a line."""
    keys = run.checkpoint(wanted).remaining()
    if as_json:
        printing.emit_lines(document_lines(run.status().name, "remaining", map(printing.json_text, keys)))
        return 0
    for key in keys:
        printing.emit(printing.clean(key))
    return 0


def print_validation(run: Run, wanted: str | None, ledger: str, *, as_json: bool) -> int:
    """Print what differs from what was recorded."""
    found = run.validate(wanted)
    if as_json:
        findings = [asdict(one) for one in found]
        printing.emit_json({"ledger": ledger_json(ledger), "run": run.status().name, "checkpoint": wanted, "findings": findings})
    elif found:
        print_findings(found)
    else:
        upto = "all checkpoints are" if wanted is None else f"everything up to checkpoint {printing.clean(wanted)} is"
        printing.emit(f"{upto} as recorded: results, counters, input files and undo entries")
    return DIFFERS if found else 0


def print_findings(found: list[Finding]) -> None:
    """Print differences as a table."""
    for line in printing.table(("what", "where", "found"), ([one.rule, one.where, one.detail] for one in found), width=terminal_width()):
        printing.emit(line)


def print_checkpoints(run: Run, found: list[Checkpoint], ledger: str, *, as_json: bool) -> None:
    """Print checkpoints as a table or a document."""
    if as_json:
        shown = [document(one) for one in found]
        printing.emit_json({"ledger": ledger_json(ledger), "run": run.status().name, "checkpoints": shown})
    elif not found:
        printing.say("the run has no checkpoint yet: no batch has finished")
    else:
        for line in printing.table(HEADERS, map(cells, found), width=terminal_width()):
            printing.emit(line)


def document(one: CheckpointFacts) -> dict[str, Any]:
    """Return one checkpoint for a document."""
    return {
        "number": one.number, "finished_at": one.finished_at, "items": one.items, "failed": one.failed, "done": one.done, "remaining": one.left,
        "result_bytes": one.result_bytes, "digest": one.digest, "labels": list(one.labels),
    }  # fmt: skip


def cells(one: CheckpointFacts) -> list[str]:
    """Return the line of one checkpoint."""
    numbers = [f"{count:,}" for count in (one.items, one.failed, one.done, one.left, one.result_bytes)]
    return [str(one.number), one.finished_at[:19].replace("T", " "), *numbers, one.digest, ", ".join(one.labels)]
