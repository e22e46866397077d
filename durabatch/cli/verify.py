"""
``durabatch verify``: whether the ledger agrees with itself.
"""

from __future__ import annotations

from dataclasses import asdict

from durabatch.cli import printing
from durabatch.cli.looking import opened_ledger, terminal_width
from durabatch.cli.options import json_option, verb
from durabatch.cli.places import ledger_json

__all__ = ["command"]

#: Exit code of a ledger that is not sound.
DAMAGED = 4


@verb("verify", "durabatch verify", "durabatch verify --ledger old.db --json")
@json_option
def command(ledger: str, as_json: bool) -> int:
    """
    Check that the ledger is sound.

    Every rule that does not hold is printed, with the place, and the exit code is 4. Nothing is changed.
    """
    from durabatch.engine.verify import RULES

    found = opened_ledger(ledger).verify()
    if as_json:
        printing.emit_json({"ledger": ledger_json(ledger), "rule_count": len(RULES), "findings": [asdict(one) for one in found]})
    elif found:
        for line in printing.table(
            ("rule", "where", "found"), ([one.rule, one.where, one.detail] for one in found), width=terminal_width()
        ):
            printing.emit(line)
    else:
        printing.emit(f"the ledger is sound: {len(RULES)} rules hold")
    return DAMAGED if found else 0
