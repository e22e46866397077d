"""
``durabatch transactions``: every transaction of the ledger, one a line.
"""

from __future__ import annotations

from durabatch.cli import printing
from durabatch.cli.looking import terminal_width
from durabatch.cli.options import json_option, verb
from durabatch.cli.places import ledger_json, next_command
from durabatch.cli.printing import clean
from durabatch.models import TransactionStatus

__all__ = ["command"]

HEADERS = ("id", "state", "steps", "entries", "begun", "ended", "owner")
#: States of transactions, as people read them.
STATES = {
    "open": "open", "abandoned": "open (abandoned)", "rolling_back": "rolling back", "committed": "committed", "rolled_back": "rolled back",
    "halted": "rollback incomplete",
}  # fmt: skip


@verb("transactions", "durabatch transactions", "durabatch transactions --json | jq '.transactions[] | select(.state == \"abandoned\")'")
@json_option
def command(ledger: str, as_json: bool) -> int:
    """
    List the transactions of the ledger, oldest first.

    Steps are those of the program, entries what would undo them, by state. One that is open (abandoned) was left by a program that is gone.
    """
    from durabatch.engine.transactions import transactions
    from durabatch.ledger.reader import Reader

    with Reader(ledger) as reader:
        found = transactions(reader)
    if as_json:
        printing.emit_json({"ledger": ledger_json(ledger), "transactions": [one.as_json() for one in found]})
        return 0
    if not found:
        printing.say("the ledger holds no transaction")
        return 0
    for line in printing.table(HEADERS, map(cells, found), width=terminal_width()):
        printing.emit(line)
    printing.flush()
    for one in found:
        if one.state in ("abandoned", "halted"):
            printing.say(f"next: `{next_command(f'rollback --transaction {clean(one.name)}', ledger)}`")
    return 0


def cells(found: TransactionStatus) -> list[str]:
    """Return the line of one transaction."""
    entries = ", ".join(f"{count:,} {state}" for state, count in sorted(found.entries.items()))
    owner = "" if found.owner is None else f"pid {found.owner.get('pid', '?')} on {found.owner.get('host', '?')}"
    begun, ended = ((instant or "")[:19].replace("T", " ") for instant in (found.begun_at, found.ended_at))
    state = STATES.get(found.state, found.state)
    return [clean(found.name), state, f"{found.steps.total:,}", entries, begun, ended, clean(owner)]
