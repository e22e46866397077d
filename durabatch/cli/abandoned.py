"""
The line by which other verbs warn about transactions that a program has left open.
"""

from __future__ import annotations

import contextlib
import shlex

from durabatch.cli import printing
from durabatch.cli.places import next_command
from durabatch.cli.printing import clean
from durabatch.errors import LedgerError

__all__ = ["warn_about_abandoned"]

#: Ids in the line.
SHOWN = 5


def warn_about_abandoned(ledger: str, *, but: str | int | None = None) -> None:
    """
    Say on stderr which transactions of the ledger are open though nobody works on them; nothing when there are none, or no ledger.

    Args:
        but: Name or number of the one that this call is about.
    """
    from durabatch.engine.transactions import abandoned
    from durabatch.ledger.reader import Reader

    # What is wrong with the ledger is said by what the verb does with it.
    with contextlib.suppress(LedgerError), Reader(ledger) as reader:
        names = [name for number, name in abandoned(reader) if but not in (name, number)]
        if names:
            printing.say(f"durabatch: {text_of(names, ledger)}")


def text_of(names: list[str], ledger: str) -> str:
    """Return the line."""
    if len(names) == 1:
        command = next_command(f"rollback --transaction {shlex.quote(names[0])}", ledger)
        return f"transaction {clean(names[0])} is open and its program is gone: `{clean(command)}` undoes it"
    more = ", ..." if len(names) > SHOWN else ""
    listed = clean(", ".join(names[:SHOWN])) + more
    return f"{len(names):,} transactions are open and their programs are gone ({listed}): `{next_command('transactions', ledger)}` lists them"
