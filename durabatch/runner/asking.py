"""
From what a Python caller says (a function, some items, a few settings) to a request that the runner understands.

Everything wrong is refused here, before a ledger is touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from durabatch import decorator, loading, options
from durabatch.errors import UsageError
from durabatch.intake.open import open_items, open_source
from durabatch.intake.source import Source
from durabatch.intake.spec import InputSpec
from durabatch.ledger.paths import ledger_files
from durabatch.models import RunSettings
from durabatch.runner.request import RunRequest

__all__ = ["Handler", "Items", "ask", "known_settings", "refuse_in_worker"]

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


def known_settings(settings: dict[str, Any]) -> None:
    """Refuse names that are no settings."""
    known = asdict(RunSettings())
    for name in settings:
        if name not in known:
            raise UsageError(f"unknown setting {name!r}", f"There are: {', '.join(known)}.")


def checked_settings(settings: dict[str, Any], spec: decorator.HandlerSpec, *, inline: bool) -> RunSettings:
    """Return the settings of a run, with the handler's own wishes where the caller has none."""
    known_settings(settings)
    wished = {"max_attempts": spec.max_attempts} if spec.max_attempts is not None else {}
    defaults: dict[str, Any] = {"workers": 0 if inline else options.usable_cores(), **wished}
    chosen = {**defaults, **{name: value for name, value in settings.items() if value is not None}}
    chosen["params"] = loading.quote_params(chosen.get("params") or {})
    if chosen.get("output") is not None:
        chosen["output"] = str(Path(chosen["output"]).absolute())
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
