"""
What a handler says about itself, and whether this process is a worker.

The decorator changes nothing about the function: it stays callable and importable as it was, with a :class:`HandlerSpec` beside it.
The module is not called ``handler``: importing a submodule of that name would put it in the place of ``durabatch.handler``, the decorator.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

from durabatch.errors import UsageError

__all__ = ["HandlerSpec", "handler", "in_worker", "spec_of"]

#: True in a worker process, set before the user's module is imported: a run cannot be started from there.
in_worker: bool = False

SPEC_ATTRIBUTE = "__durabatch_spec__"

#: Exception classes, or their names.
Exceptions = type[BaseException] | str | Iterable[type[BaseException] | str]
#: Items at once in a worker.
MAX_CONCURRENCY = 10_000

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, slots=True)
class HandlerSpec:
    """
    What a handler declares; options of the command line, settings in files and arguments of ``run`` win over it.

    Args:
        max_attempts: Tries per item, the first included; None, here and below, leaves it to the run.
        timeout: Longest time of an attempt, as ``--timeout`` takes it.
        backoff: Longest wait before the second try, as ``--backoff`` takes it.
        retry_on: Names of exception classes of which alone another try is made; empty leaves it to the run.
        give_up_on: Names of exception classes of which no other try is made.
        concurrency: Items at once in each worker.
        setup: Makes what ``ctx.resource()`` returns, once per worker.
        teardown: Takes that at the worker's end.
        resources: What makes the resources that ``ctx.resource(name)`` returns.
        preflight: The check that all items pass first: a function, or ``module:function``.
        format: Format of the input, such as ``csv`` or ``files``; None goes by the suffix.
        include: Patterns of the file names to take when the input is a directory; empty takes all.
        version: Changed by the author when old results no longer count; None declares nothing.
    """

    max_attempts: int | None = None
    timeout: str | None = None
    backoff: str | None = None
    retry_on: tuple[str, ...] = ()
    give_up_on: tuple[str, ...] = ()
    concurrency: int | None = None
    setup: Callable[[], Any] | None = None
    teardown: Callable[[Any], Any] | None = None
    resources: Mapping[str, Callable[[], Any]] = dataclasses.field(default_factory=dict)
    preflight: Callable[..., Any] | str | None = None
    format: str | None = None
    include: tuple[str, ...] = ()
    version: str | None = None


@overload
def handler(function: _F) -> _F: ...
@overload
def handler(
    *,
    max_attempts: int | None = None,
    timeout: str | float | datetime.timedelta | None = None,
    backoff: str | float | datetime.timedelta | None = None,
    retry_on: Exceptions | None = None,
    give_up_on: Exceptions | None = None,
    concurrency: int | None = None,
    setup: Callable[..., Any] | None = None,
    teardown: Callable[[Any], Any] | None = None,
    resources: Mapping[str, Callable[..., Any]] | None = None,
    preflight: Callable[..., Any] | str | None = None,
    format: str | None = None,
    include: str | Iterable[str] | None = None,
    version: str | int | None = None,
) -> Callable[[_F], _F]: ...


def handler(
    function: _F | None = None,
    *,
    max_attempts: int | None = None,
    timeout: str | float | datetime.timedelta | None = None,
    backoff: str | float | datetime.timedelta | None = None,
    retry_on: Exceptions | None = None,
    give_up_on: Exceptions | None = None,
    concurrency: int | None = None,
    setup: Callable[..., Any] | None = None,
    teardown: Callable[[Any], Any] | None = None,
    resources: Mapping[str, Callable[..., Any]] | None = None,
    preflight: Callable[..., Any] | str | None = None,
    format: str | None = None,
    include: str | Iterable[str] | None = None,
    version: str | int | None = None,
) -> _F | Callable[[_F], _F]:
    """
    Mark a function as a handler and keep what it declares; usable as ``@handler`` and as ``@handler(...)``.

    Args:
        function: The function, when used without parentheses.
        max_attempts: Tries per item, the first included, 1 or more.
        timeout: Longest time of an attempt: ``"30s"``, seconds, a timedelta, or ``"200%"`` of the median.
        backoff: Longest wait before the second try: ``"2s"``, seconds or a timedelta.
        retry_on: Exception classes, or their names: another try is made of these alone.
        give_up_on: Exception classes, or their names: no other try is made of these.
        concurrency: Items at once in each worker, 1 to 10,000.
        setup: Called once in each worker before its first item; what it returns is ``ctx.resource()``. It may name params as the handler does.
        teardown: Called with that at the worker's end.
        resources: Names and what makes them: opened at first use, once in each worker, and closed at its end.
        preflight: A check that all items pass before the first is handled: a function of an item, or ``module:function``.
        format: Format of the input.
        include: One file name pattern or several.
        version: Text or number; another value than at the last run means that its results no longer count.

    Raises:
        UsageError: A declaration has a wrong type or value. The function is unmarked.
    """
    spec = HandlerSpec(
        max_attempts=_count("max_attempts", max_attempts, None),
        timeout=_duration("timeout", timeout),
        backoff=_duration("backoff", backoff),
        retry_on=_kinds("retry_on", retry_on),
        give_up_on=_kinds("give_up_on", give_up_on),
        concurrency=_count("concurrency", concurrency, MAX_CONCURRENCY),
        setup=_callable("setup", setup),
        teardown=_callable("teardown", teardown),
        resources=_factories(resources, has_setup=setup is not None),
        preflight=preflight if isinstance(preflight, str) and preflight else _callable("preflight", preflight),
        format=_text("format", format),
        include=_patterns(include),
        version=_version(version),
    )
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


def _count(name: str, value: object, most: int | None) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= (most or value)):
        return value
    hint = "It counts the first try." if most is None else f"Use 1 to {most:,}."
    raise UsageError(f"@handler: {name}={value!r} is not a whole number >= 1", hint)


def _duration(name: str, value: object) -> str | None:
    """Return a duration, or for a timeout a share of the median, as text."""
    if value is None:
        return None
    # Here: a worker whose handler declares no times need not know how they are written.
    from durabatch.limits import Timeout, shown_duration
    from durabatch.options import parse_duration

    seconds = value.total_seconds() if isinstance(value, datetime.timedelta) else value
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds) and seconds >= 0:
        seconds = shown_duration(seconds) if seconds else "0"
    if not isinstance(seconds, str):
        raise UsageError(f"@handler: {name}={value!r} is not a duration", 'Use "30s", seconds, or a timedelta.')
    if name == "timeout":
        return str(Timeout.parse(seconds, option="@handler: timeout"))
    parse_duration(seconds, option=f"@handler: {name}")
    return seconds


def _kinds(name: str, value: object) -> tuple[str, ...]:
    """Return the names of exception classes as failures carry them; a class of the program itself by its bare name."""
    if value is None:
        return ()
    listed = (value,) if isinstance(value, str | type) else value
    kinds = tuple(listed) if isinstance(listed, Iterable) else ()
    if not kinds or not all(
        (isinstance(kind, str) and kind) or (isinstance(kind, type) and issubclass(kind, BaseException)) for kind in kinds
    ):
        raise UsageError(f"@handler: {name}={value!r} is not an exception class or a list of them", f"Use {name}=[ConnectionError].")
    return tuple(kind if isinstance(kind, str) else _kind_name(kind) for kind in kinds)


def _kind_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ in {"builtins", "__main__"} else f"{kind.__module__}.{kind.__qualname__}"


def _callable(name: str, value: Any) -> Callable[..., Any] | None:
    if value is None or callable(value):
        return value  # type: ignore[no-any-return]
    raise UsageError(f"@handler: {name}={value!r} is not a function")


def _factories(value: object, *, has_setup: bool) -> dict[str, Callable[..., Any]]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name and callable(make) for name, make in value.items()):
        raise UsageError(f"@handler: resources={value!r} is not a dict of names and functions", 'Use resources={"session": make_session}.')
    if has_setup and "default" in value:
        raise UsageError("@handler: resources={'default': ...} and setup=... make the same resource", "Give it another name.")
    return dict(value)


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
