"""
The ledger in commands that we suggest and in documents that we print.
"""

from __future__ import annotations

import os
import shlex

from durabatch.cli.options import ledger_here

__all__ = ["ledger_json", "next_command"]


def next_command(words: str, ledger: str) -> str:
    """Return ``durabatch WORDS`` as it can be typed here, with ``--ledger`` where that is needed."""
    return f"durabatch {words}" if ledger == ledger_here() else f"durabatch {words} --ledger {shlex.quote(ledger)}"


def ledger_json(ledger: str) -> str:
    """Return the absolute path of the ledger, for a reader that may stand elsewhere."""
    return os.path.abspath(ledger)
