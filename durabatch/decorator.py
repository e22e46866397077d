"""
What a handler says about itself, and whether this process is a worker.

The decorator changes nothing about the function: it stays callable and importable as it was, with a :class:`HandlerSpec` beside it.
The module is not called ``handler``: importing a submodule of that name would put it in the place of ``durabatch.handler``, the decorator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from durabatch.errors import UsageError

__all__ = ["HandlerSpec", "handler", "in_worker", "spec_of"]

#: True in a worker process, set before the user's module is imported: a run cannot be started from there.
in_worker: bool = False

SPEC_ATTRIBUTE = "__durabatch_spec__"

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, slots=True)
class HandlerSpec:
    """
    What a handler declares; options of the command line and of ``run`` win over it.

    Args:
        max_attempts: Tries per item, the first included; None leaves it to the run.
        format: Format of the input, such as ``csv`` or ``files``; None goes by the suffix.
        include: Patterns of the file names to take when the input is a directory; empty takes all.
        version: Changed by the author when old results no longer count; None declares nothing.
    """

    max_attempts: int | None = None
    format: str | None = None
    include: tuple[str, ...] = ()
    version: str | None = None


@overload
def handler(function: _F) -> _F: ...
@overload
def handler(
    *,
    max_attempts: int | None = None,
    format: str | None = None,
    include: str | Iterable[str] | None = None,
    version: str | int | None = None,
) -> Callable[[_F], _F]: ...


def handler(
    function: _F | None = None,
    *,
    max_attempts: int | None = None,
    format: str | None = None,
    include: str | Iterable[str] | None = None,
    version: str | int | None = None,
) -> _F | Callable[[_F], _F]:
    """
    Mark a function as a handler and keep what it declares; usable as ``@handler`` and as ``@handler(...)``.

    Args:
        function: The function, when used without parentheses.
        max_attempts: Tries per item, the first included, 1 or more.
        format: Format of the input.
        include: One file name pattern or several.
        version: Text or number; another value than at the last run means that its results no longer count.

    Raises:
        UsageError: A declaration has a wrong type or value. The function is unmarked.
    """
    spec = HandlerSpec(_attempts(max_attempts), _text("format", format), _patterns(include), _version(version))
    if function is not None:
        return _marked(function, spec)
    return lambda decorated: _marked(decorated, spec)


def spec_of(function: object) -> HandlerSpec:
    """Return what *function* declares; an empty spec when it carries no mark."""
    spec = getattr(function, SPEC_ATTRIBUTE, None)
    return spec if isinstance(spec, HandlerSpec) else HandlerSpec()


def _marked(function: _F, spec: HandlerSpec) -> _F:
    if not callable(function):
        raise UsageError(f"@handler marks functions, not {type(function).__name__}", "Name its arguments: @handler(max_attempts=3).")
    try:
        setattr(function, SPEC_ATTRIBUTE, spec)
    except AttributeError as error:
        raise UsageError(f"@handler cannot mark {function!r}", "Wrap it in a def of your own.") from error
    return function


def _attempts(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise UsageError(f"@handler: max_attempts={value!r} is not a whole number >= 1", "It counts the first try.")


def _text(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise UsageError(f"@handler: {name}={value!r} is not a text")


def _version(value: object) -> str | None:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text("version", value)


def _patterns(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    patterns = (value,) if isinstance(value, str) else value
    if isinstance(patterns, Iterable) and not isinstance(patterns, bytes | bytearray):
        listed = tuple(patterns)
        if all(isinstance(pattern, str) and pattern for pattern in listed):
            return listed
    raise UsageError(f"@handler: include={value!r} is not a pattern or a list of patterns", 'Use include="*.py".')
