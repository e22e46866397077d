"""
What a handler declares about how it is run, in the form of settings.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from durabatch.config.keys import by_field
from durabatch.decorator import HandlerSpec
from durabatch.errors import DurabatchError, UsageError

__all__ = ["FIELDS", "declared_fields"]

#: What a handler may declare, and the field of RunSettings it is.
FIELDS = {
    "max_attempts": "max_attempts",
    "timeout": "timeout",
    "backoff": "backoff_s",
    "retry_on": "retry_on",
    "give_up_on": "give_up_on",
    "concurrency": "concurrency",
    "preflight": "preflight",
}


def declared_fields(spec: HandlerSpec) -> dict[str, Any]:
    """
    Return the fields of RunSettings that a handler declares.

    Raises:
        UsageError: A declaration is none for its setting; it begins with ``@handler``.
    """
    said = {FIELDS[part.name]: getattr(spec, part.name) for part in fields(spec) if part.name in FIELDS}
    return {name: accepted(name, value) for name, value in said.items() if value not in (None, (), [])}


def accepted(name: str, value: object) -> Any:
    """Return the value of a declaration as it is stored."""
    try:
        return by_field()[name].kind.accept(value, name=f"@handler: {name}")
    except DurabatchError as error:
        raise UsageError(error.what, error.hint) from error
