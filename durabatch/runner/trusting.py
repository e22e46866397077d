"""
Whether what a ledger names may be imported and run here: a ledger is a file, and a file may come from anybody.

What the user gives with this call (``--handler``) is theirs. What the ledger alone names is taken up when this user made the ledger on this
machine, and each module is found in the file where it was when the run was recorded; else only with ``--trust-ledger``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

from durabatch import process
from durabatch.config.keys import SETTINGS
from durabatch.errors import UsageError
from durabatch.importing import split_target
from durabatch.ledger import event
from durabatch.ledger.executor import Executor
from durabatch.ledger.run import RunRow
from durabatch.models import RunStatus
from durabatch.runner.request import RunRequest
from durabatch.settings import RunSettings

__all__ = ["check_trust", "refuse_transaction"]

#: Settings that are told to nobody but the modules of packages that are installed: a ledger cannot name anything new by them.
HARMLESS = frozenset({"batch_strategy"})
HINT = "or say --trust-ledger (in Python trust_ledger=True)."


def check_trust(ledger: Executor, request: RunRequest, row: RunRow) -> None:
    """
    Return when everything may be imported and run that the run *row* names and this call does not.

    Raises:
        UsageError: Somebody else made the ledger, or a module is not where it was. Nothing was imported.
    """
    if request.trust_ledger:
        return
    stranger = maker_of(ledger)
    if stranger is None:
        refuse_moved(request, row)
    elif request.handler is None:
        raise UsageError(
            f"the ledger was made by {stranger}, and its handler would be run here",
            f"Give the handler yourself with --handler MODULE:FUNCTION, {HINT}",
        )
    else:
        refuse_recorded_code(request, row, stranger)


def maker_of(ledger: Executor) -> str | None:
    """Return who made the ledger, in words; None when that was this user on this machine."""
    maker = event.first_opened(ledger)
    here = {"uid": os.geteuid(), "machine": process.machine_id()}
    if here["machine"] and all(maker.get(name) == value for name, value in here.items()):
        return None
    is_namesake = maker.get("uid") == here["uid"]
    return f"user {maker.get('uid')} on {'another machine, ' * is_namesake}{maker.get('host')}"


def refuse_moved(request: RunRequest, row: RunRow) -> None:
    """Raise UsageError for a module that is to be imported and would come from another file than it did when the run was recorded."""
    recorded = row.provenance.get("modules") or {}
    for module in modules_named(request, row):
        was, found = recorded.get(module), file_of(module)
        if was is not None and found is not None and os.path.realpath(was) != os.path.realpath(found):
            raise UsageError(
                f"module {module!r} was {was} when the run was recorded, and would be imported from {found} now",
                f"Start from where it is, give the handler yourself with --handler MODULE:FUNCTION, {HINT}",
            )


def modules_named(request: RunRequest, row: RunRow) -> Iterator[str]:
    """Yield the modules that would be imported because the ledger names them, by their names; files that it names by their paths are what they are."""
    handler = row.handler if request.handler is None else {}
    check = row.settings.get("preflight") or {} if "preflight" not in request.overrides else {}
    named = (one for one in (handler, check, *handler.get("modules", ())) if "target" in one)
    yield from (place for one in named if not (place := split_target(one["target"])[0]).endswith(".py"))


def file_of(module: str) -> str | None:
    """Return the file that *module* would be imported from, without importing anything; None when it is not found, or has none."""
    if module in sys.modules:
        found = getattr(sys.modules[module], "__file__", None)
        return found if isinstance(found, str) else None
    spec = spec_of(module)
    return None if spec is None or not spec.has_location else spec.origin


def spec_of(module: str) -> ModuleSpec | None:
    """Return how *module* would be found; those around it are looked for, and not imported."""
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
        for count in range(1, len(rest) + 1):
            if spec is None:
                return None
            spec = PathFinder.find_spec(".".join((first, *rest[:count])), spec.submodule_search_locations)
    except (ImportError, ValueError):
        return None
    return spec


def refuse_recorded_code(request: RunRequest, row: RunRow, stranger: str) -> None:
    """Raise UsageError when more than the handler would be run that a ledger of somebody else names."""
    plain = RunSettings().as_json()
    for one in SETTINGS.values():
        field = one.field
        if not one.is_guarded or field is None or field in HARMLESS or field in request.overrides:
            continue
        if is_code(field, row.settings.get(field, plain[field]), plain[field]):
            raise UsageError(
                f"the ledger was made by {stranger}, and what it names for {one.flag} would be run here", f"Give {one.flag} yourself, {HINT}"
            )


def is_code(field: str, value: Any, default: Any) -> bool:
    """Return whether a recorded setting leads to code: a command, a function, an exception that must be imported to be known."""
    if field in {"retry_on", "give_up_on"}:
        return any("." in str(name) for name in value or ())
    return value != default and value is not None


def refuse_transaction(row: RunRow | RunStatus, verb: str) -> None:
    """Raise UsageError for a transaction: its steps are run by its program alone."""
    if row.is_transaction:
        raise UsageError(
            f"{row.name} is a transaction, and {verb} is for runs: its program does its steps",
            f"`durabatch rollback --transaction {row.name}` undoes it, `durabatch transactions` lists all of them.",
        )
