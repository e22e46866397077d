"""
What the verbs that only look have in common: the ledger and the run that they look at.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from durabatch.api import Ledger, Run

__all__ = ["chosen_run", "opened_ledger", "terminal_width", "where_option"]

where_option = click.option("--where", metavar="SQL", help="Only items for which this SQL expression over v_item holds.")


def opened_ledger(path: str) -> Ledger:
    """Return the ledger at *path*; it is looked at when something is asked of it."""
    from durabatch.api import Ledger

    return Ledger(path)


def chosen_run(path: str, run: str | None) -> Run:
    """
    Return the run of that name or id in the ledger at *path*; for None the active or else the latest one.

    Raises:
        LedgerError, NotFoundError: There is no such ledger or run.
    """
    ledger = opened_ledger(path)
    return ledger.latest() if run is None else ledger[run]


def terminal_width() -> int | None:
    """Return the width of the terminal that stdout is; None when it is none, and lines may be as long as they like."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
