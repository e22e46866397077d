"""
The exceptions that ``retry_on`` and ``give_up_on`` name, checked before a run starts: a misspelt name would never match, silently.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from durabatch import errors
from durabatch.config.compounds import exception_name
from durabatch.config.keys import by_field
from durabatch.errors import HandlerImportError, UsageError
from durabatch.importing import import_target
from durabatch.options import did_you_mean
from durabatch.settings import RunSettings

__all__ = ["OWN_NAMES", "checked_names", "settled"]

#: Failures that durabatch itself finds, by the names that stand in the ledger.
OWN_NAMES = ("CommandError", "ItemTimeoutError", "ResultTooLarge")
HINT = "Give a built-in one, one that the handler's module has, or package.module.Error."


def flag_of(field: str) -> str:
    """Return the option of a field of RunSettings."""
    return by_field()[field].flag


def settled(
    settings: RunSettings,
    handler: Mapping[str, Any] | None,
    function: Callable[..., object] | None = None,
    *,
    label: Callable[[str], str] = flag_of,
) -> RunSettings:
    """
    Return *settings* with the names of exceptions as failures carry them.

    Args:
        handler: Reference of the handler, in whose module names are looked for; a command has none.
        function: The handler itself, where it is at hand.
        label: What a message calls a field.

    Raises:
        UsageError: A name that no exception has.
    """
    if not settings.retry_on and not settings.give_up_on:
        return settings
    known = known_names(handler, function)
    return replace(
        settings,
        retry_on=checked_names(settings.retry_on, known, option=label("retry_on")),
        give_up_on=checked_names(settings.give_up_on, known, option=label("give_up_on")),
    )


def known_names(handler: Mapping[str, Any] | None, function: Callable[..., object] | None) -> dict[str, str]:
    """Return the plain names there are, each with the name that failures carry."""
    names = {name: name for name in OWN_NAMES}
    names |= exceptions_in(builtins) | exceptions_in(errors)
    if function is None and handler is not None and handler["kind"] == "python":
        found = import_target(handler["target"])
        function = found if callable(found) else None
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    return names | exceptions_in(module or builtins)


def exceptions_in(module: ModuleType) -> dict[str, str]:
    """Return the exception classes of a module, each with the name that failures carry."""
    return {name: exception_name(value) for name, value in vars(module).items() if is_exception(value)}


def is_exception(value: object) -> bool:
    """Return whether *value* is a class that can be raised."""
    return isinstance(value, type) and issubclass(value, BaseException)


def checked_names(names: tuple[str, ...], known: Mapping[str, str], *, option: str) -> tuple[str, ...]:
    """Return *names* as failures carry them; UsageError at the first that no exception has."""
    return tuple(dict.fromkeys(known.get(name) or dotted_name(name, known, option) for name in names))


def dotted_name(name: str, known: Mapping[str, str], option: str) -> str:
    """Return the name that failures of the class *name* carry, which is imported by its dotted name."""
    if "." not in name:
        raise UsageError(f"{option}: there is no exception {name!r}", did_you_mean(name, known) or HINT)
    found = imported(name, option)
    if not isinstance(found, type) or not is_exception(found):
        raise UsageError(f"{option}: {name!r} is no exception class", HINT)
    return exception_name(found)


def imported(name: str, option: str) -> object:
    """Return what a dotted name stands for: a part of a module, or of a class in a module; UsageError when there is no such thing."""
    parts = name.split(".")
    faults = []
    for cut in range(len(parts) - 1, 0, -1):
        try:
            return import_target(f"{'.'.join(parts[:cut])}:{'.'.join(parts[cut:])}")
        except HandlerImportError as error:
            faults.append(error)
    raise UsageError(f"{option}: there is no exception {name!r}: {faults[0].what}", faults[0].hint or HINT) from faults[0]
