"""
map() that survives kill -9, a power cut and a bad item: resumable batch processing in one SQLite file.

    import durabatch

    for result in durabatch.map(fetch, urls, ledger="crawl.db", workers=8):    # the same call again: resumes
        print(result.key, result.value)

Everything public is a name of this module. Names are loaded when they are first used: importing durabatch costs next to nothing.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from durabatch.version import __version__

if TYPE_CHECKING:
    from durabatch.actions import undo_action
    from durabatch.api import Ledger, Run, amap, map
    from durabatch.decorator import handler
    from durabatch.errors import (
        DurabatchError,
        ForkedConnectionError,
        HandlerImportError,
        InputChangedError,
        InputError,
        ItemFailedError,
        LedgerBusyError,
        LedgerDamagedError,
        LedgerError,
        LedgerFullError,
        LedgerInUseError,
        LedgerLostError,
        LedgerMissingError,
        LedgerPathError,
        LedgerStorageError,
        LedgerTakenOverError,
        LedgerVersionError,
        NoItemsError,
        NotALedgerError,
        NotFoundError,
        OutputError,
        OutputFullError,
        ResultError,
        ResultTooLargeError,
        RunHaltedError,
        SqlError,
        StrayWorkersError,
        UndoError,
        UsageError,
    )
    from durabatch.intake.spec import chunks, csv, files, json, jsonl, lines, results_of, xlsx
    from durabatch.models import Result, RunStatus, Summary
    from durabatch.undo_client import undo_log
    from durabatch.verdicts import Fail, Retry, Skip, Snooze
    from durabatch.workers.context import Context
    from durabatch.workers.undoing import UndoContext

__all__ = [
    "Context",
    "DurabatchError",
    "Fail",
    "ForkedConnectionError",
    "HandlerImportError",
    "InputChangedError",
    "InputError",
    "ItemFailedError",
    "Ledger",
    "LedgerBusyError",
    "LedgerDamagedError",
    "LedgerError",
    "LedgerFullError",
    "LedgerInUseError",
    "LedgerLostError",
    "LedgerMissingError",
    "LedgerPathError",
    "LedgerStorageError",
    "LedgerTakenOverError",
    "LedgerVersionError",
    "NoItemsError",
    "NotALedgerError",
    "NotFoundError",
    "OutputError",
    "OutputFullError",
    "Result",
    "ResultError",
    "ResultTooLargeError",
    "Retry",
    "Run",
    "RunHaltedError",
    "RunStatus",
    "Skip",
    "Snooze",
    "SqlError",
    "StrayWorkersError",
    "Summary",
    "UndoContext",
    "UndoError",
    "UsageError",
    "__version__",
    "amap",
    "chunks",
    "csv",
    "files",
    "handler",
    "json",
    "jsonl",
    "lines",
    "map",
    "results_of",
    "undo_action",
    "undo_log",
    "xlsx",
]

#: Where the names live that are not errors.
_HOMES = {
    "Context": "durabatch.workers.context",
    "Fail": "durabatch.verdicts",
    "Ledger": "durabatch.api",
    "Result": "durabatch.models",
    "Retry": "durabatch.verdicts",
    "Run": "durabatch.api",
    "RunStatus": "durabatch.models",
    "Skip": "durabatch.verdicts",
    "Snooze": "durabatch.verdicts",
    "Summary": "durabatch.models",
    "UndoContext": "durabatch.workers.undoing",
    "amap": "durabatch.api",
    "chunks": "durabatch.intake.spec",
    "csv": "durabatch.intake.spec",
    "files": "durabatch.intake.spec",
    "handler": "durabatch.decorator",
    "json": "durabatch.intake.spec",
    "jsonl": "durabatch.intake.spec",
    "lines": "durabatch.intake.spec",
    "map": "durabatch.api",
    "results_of": "durabatch.intake.spec",
    "undo_action": "durabatch.actions",
    "undo_log": "durabatch.undo_client",
    "xlsx": "durabatch.intake.spec",
}

if sys.platform == "win32":
    raise ImportError("durabatch needs the file locks and process groups of Linux or macOS; on Windows, run it inside WSL")


def __getattr__(name: str) -> object:
    """Load a public name from its home and keep it here; called once per name."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES.get(name, "durabatch.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names and what is loaded already."""
    return sorted({*__all__, *globals()})
