"""
From what a Python caller says (a function, some items, a few settings) to a request that the runner understands.

Everything wrong is refused here, before a ledger is touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from durabatch import decorator, loading, options
from durabatch.errors import UsageError
from durabatch.intake.open import open_items, open_source
from durabatch.intake.problems import did_you_mean
from durabatch.intake.source import Source
from durabatch.intake.spec import InputSpec
from durabatch.ledger.paths import ledger_files
from durabatch.models import RunSettings
from durabatch.runner.request import RunRequest

__all__ = ["Handler", "Items", "ask", "ask_again"]

#: Least and most of the settings that are whole numbers.
WHOLE = {
    "workers": (0, options.MAX_WORKERS),
    "batch_size": (1, 1_000_000),
    "pipeline_depth": (1, 5),
    "max_attempts": (1, 1_000_001),
    "max_item_bytes": (1, options.MAX_SIZE_BYTES),
    "max_result_bytes": (1, options.MAX_SIZE_BYTES),
}

#: Handlers as users name them: a function, or ``module:function`` / ``file.py:function``.
Handler = Callable[..., object] | str
#: Inputs as users name them: an input spec, a path, or any iterable of values.
Items = InputSpec | str | os.PathLike[str] | Iterable[object]


def ask(handler: Handler, items: Items, *, key: str | None, settings: dict[str, Any], ledger: str) -> RunRequest:
    """
    Return the request to run *handler* over *items*; its series is the handler's own name.

    Raises:
        UsageError: The handler, the items or a setting cannot be used.
    """
    refuse_in_worker()
    usable(settings)
    reference, function, own_name, spec = described(handler, settings.get("params") or {})
    chosen = checked_settings(settings, spec, inline=reference is None)
    source, source_spec = opened(items, key, spec, chosen, ledger_files(ledger).all())
    return RunRequest(
        verb="run", ledger=ledger, settings=chosen, handler=reference, function=function, source=source, source_spec=source_spec, series=own_name
    )


def refuse_in_worker() -> None:
    """Refuse to start a run while a worker imports the module that holds the handler."""
    if decorator.in_worker:
        raise UsageError(
            "a run was started while a worker imported the handler's module", 'Put the call under `if __name__ == "__main__":`, as for multiprocessing.'
        )


def described(handler: Handler, params: dict[str, Any]) -> tuple[dict[str, Any] | None, Callable[..., object] | None, str, decorator.HandlerSpec]:
    """Return reference, function (for inline runs alone), name and spec of a handler."""
    quoted = loading.quote_params(params)
    if isinstance(handler, str):
        reference = loading.parse_target(handler)
        checked = loading.check(reference, quoted)
        return reference, None, checked.name, checked.spec
    checked = loading.check_function(handler, quoted)
    found = loading.describe_function(handler)
    return found, handler, getattr(handler, "__qualname__", checked.name), checked.spec


def ask_again(
    verb: Literal["resume", "retry"], handler: Handler | None, overrides: dict[str, Any], *, ledger: str, run_id: int
) -> RunRequest:
    """
    Return the request to take up a run on record, with *handler* in the place of the recorded one unless it is None.

    Raises:
        UsageError: The handler or a setting cannot be used.
    """
    refuse_in_worker()
    request = RunRequest(verb=verb, ledger=ledger, run=run_id, overrides=usable(overrides))
    if handler is None:
        return request
    reference, function, own_name, _ = described(handler, overrides.get("params") or {})
    return replace(request, handler=reference or {"kind": "inline", "name": own_name}, function=function)


def usable(settings: dict[str, Any]) -> dict[str, Any]:
    """
    Return *settings* in the form of RunSettings, without those that are None.

    Raises:
        UsageError: A name that is no setting, or a value that is none for it.
    """
    known = asdict(RunSettings())
    for name in settings:
        if name not in known:
            close = did_you_mean(name, list(known))
            raise UsageError(f"unknown setting {name!r}", close or f"There are: {', '.join(known)}.")
    given = {name: value for name, value in settings.items() if value is not None}
    return {name: usable_value(name, value) for name, value in given.items()}


def usable_value(name: str, value: Any) -> Any:
    """Return the value of one setting as it is stored; UsageError when it is none for it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in WHOLE:
        least, most = WHOLE[name]
        if not isinstance(value, int) or not is_number or not least <= value <= most:
            raise UsageError(f"{name}={value!r} is not a whole number from {least:,} to {most:,}")
    elif name == "params":
        if not isinstance(value, Mapping):
            raise UsageError(f"params={value!r} is not a mapping of names to values")
        return loading.quote_params(value)
    elif name == "output":
        return str(Path(value).absolute())
    elif not is_number or not 0 <= value <= options.MAX_DURATION_S:
        raise UsageError(f"{name}={value!r} is not a number of seconds, 0 or more")
    return value


def checked_settings(settings: dict[str, Any], spec: decorator.HandlerSpec, *, inline: bool) -> RunSettings:
    """Return the settings of a run, with the handler's own wishes where the caller has none."""
    wished = {"max_attempts": spec.max_attempts} if spec.max_attempts is not None else {}
    defaults: dict[str, Any] = {"workers": 0 if inline else options.usable_cores(), **wished}
    chosen = {**defaults, **usable(settings)}
    if inline and chosen["workers"]:
        raise UsageError("this handler has no importable name, so worker processes cannot find it", "Put it into a module, or use workers=0.")
    return RunSettings(**chosen)


def opened(
    items: Items, key: str | None, spec: decorator.HandlerSpec, settings: RunSettings, ledger_paths: tuple[str, ...]
) -> tuple[Source, dict[str, Any]]:
    """Return the source for *items* and what is recorded of it."""
    if isinstance(items, (str, os.PathLike)):
        items = InputSpec(inputs=(os.fspath(items),), format=spec.format, key=key, include=spec.include if spec.format == "files" else ())
    if isinstance(items, InputSpec):
        exclude = (*ledger_paths, *([settings.output] if settings.output else []))
        return open_source(items, max_item_bytes=settings.max_item_bytes, exclude=exclude), asdict(items)
    source = open_items(items, key=key, max_item_bytes=settings.max_item_bytes)
    return source, {"iterable": source.description}
