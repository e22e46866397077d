"""
``durabatch submit``: add items to an open run, whether somebody works on it or not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from durabatch.cli import printing
from durabatch.cli.options import json_option, parsed, verb
from durabatch.cli.places import ledger_json
from durabatch.cli.printing import clean, plural
from durabatch.cli.starting import input_spec, opened_source
from durabatch.clock import now_us
from durabatch.config.resolving import Effective
from durabatch.errors import UsageError

if TYPE_CHECKING:
    from durabatch.engine.add import Added

__all__ = ["command"]

#: The priorities that an item may have.
MOST = 2**31 - 1


def read_priority(text: str, *, option: str) -> int:
    """Return the priority in *text*."""
    if not text.removeprefix("-").isdecimal() or not -MOST <= int(text) <= MOST:
        raise UsageError(f"{option}: {text!r} is not a whole number", "Higher ones come first; other items have 0.")
    return int(text)


def read_due(text: str, *, option: str) -> int:
    """Return the instant in *text*, in microseconds."""
    from durabatch.due import due_at_us

    return due_at_us(text, now_us(), option=option)


@verb(
    "submit",
    "durabatch submit nightly hosts.txt",
    "durabatch submit nightly urgent.csv --key host --priority 5",
    "echo db1 | durabatch submit nightly --due 10m",
    settings="submit",
)
@click.argument("run", metavar="NAME")
@click.option("--priority", metavar="N", default="0", callback=parsed(read_priority), help="Higher = sooner; other items have 0.")
@click.option(
    "--due", metavar="T|DATE", callback=parsed(read_due), help="Not before: a time from now on (10m), or a date (2027-03-01T08:00)."
)
@json_option
def command(run: str, priority: int, due: int | None, as_json: bool, wishes: Effective) -> int:
    """
    Add items to an open run, from any process at any time.

    INPUT is read as `durabatch run` reads it; without one, standard input is. Items are on disk when this ends; a key that the run has is left
    out and counted as a duplicate. Where there is no run of that name, an open one is made: it gets its handler from the first
    `durabatch run HANDLER --name NAME --open`. `durabatch close NAME` ends what was opened.
    """
    from durabatch.intake.remarks import Remarks
    from durabatch.runner.adding import Submitter
    from durabatch.settings import RunSettings

    remarks = Remarks(skips=wishes["on_bad_input"] == "skip")
    remarks.listen(lambda sentence: printing.say(f"durabatch: {clean(sentence)}"))
    ledger = wishes["ledger"]
    spec = input_spec(wishes, format=None, include=())
    if not wishes.is_typed("input"):
        # What a file names is the input of `run`.
        spec = replace(spec, inputs=())
    source = opened_source(spec, RunSettings(max_item_bytes=wishes["max_item_bytes"]), ledger, run, remarks)
    submitter = Submitter(ledger, durability=wishes["durability"], allow_network_fs=wishes["allow_network_fs"])
    last: list[Added] = []
    try:
        for so_far in submitter.add(run, source, priority=priority, due_at_us=due, remarks=remarks):
            last = [so_far]
        if source.key_note is not None:
            remarks.note(source.key_note)
    finally:
        submitter.close()
        for so_far in last:
            tell(so_far, run, ledger, as_json=as_json)
    return 0


def tell(added: Added, name: str, ledger: str, *, as_json: bool) -> None:
    """Print what became of the rows that were read."""
    if as_json:
        facts = {"run_id": added.run_id, "name": name, "added": added.added, "duplicates": added.duplicates, "left_out": added.left_out}
        printing.emit_json({"ledger": ledger_json(ledger), **facts})
        return
    others = ((added.duplicates, plural(added.duplicates, "duplicate")), (added.left_out, f"{plural(added.left_out, 'line')} left out"))
    said = "".join(f", {text}" for count, text in others if count)
    printing.emit(f"{clean(name)} ({added.run_id})  {plural(added.added, 'item')} added{said}")
