"""
From what a Python caller says (a function, some items, a few settings) to a request that the runner understands.

Everything wrong is refused here, before a ledger is touched. Configuration files and variables are of the command line alone: what a
Python program does is written in the program.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any, Literal

from durabatch import decorator, loading, options
from durabatch.config.declaring import declared_fields
from durabatch.config.exception_names import settled
from durabatch.config.keys import by_field, named
from durabatch.errors import UsageError
from durabatch.flow.batching import BatchSettings, strategy
from durabatch.intake.open import open_items, open_source
from durabatch.intake.registry import FILE_FORMATS
from durabatch.intake.remarks import Remarks
from durabatch.intake.source import Source
from durabatch.intake.spec import InputSpec
from durabatch.ledger.paths import ledger_files
from durabatch.output.places import own_places
from durabatch.runner.request import RunRequest
from durabatch.settings import RunSettings

__all__ = ["Handler", "Items", "ask", "ask_again", "refuse_in_worker", "refuse_ledger", "usable", "with_known_names"]

#: Handlers as users name them: a function, or ``module:function`` / ``file.py:function``.
Handler = Callable[..., object] | str
#: Inputs as users name them: an input spec, a path, or any iterable of values.
Items = InputSpec | str | os.PathLike[str] | Iterable[object]


def ask(
    handler: Handler, items: Items | None, *, key: str | None, settings: dict[str, Any], ledger: str, name: str | None = None
) -> RunRequest:
    """
    Return the request to run *handler* over *items*, None for an open run that begins without any; its series is *name*, else the handler's own.

    Raises:
        UsageError: The handler, the items or a setting cannot be used.
    """
    refuse_in_worker()
    usable(settings)
    reference, function, own_name, spec = described(handler, settings.get("params") or {})
    chosen = checked_settings(settings, spec, reference, function)
    remarks = Remarks(skips=chosen.on_bad_input == "skip")
    source, source_spec = (None, None) if items is None else opened(items, key, spec, chosen, ledger, remarks, name or own_name)
    return RunRequest(
        remarks=remarks,
        verb="run",
        ledger=ledger,
        settings=chosen,
        handler=reference,
        function=function,
        source=source,
        source_spec=source_spec,
        series=name or own_name,
    )


def refuse_in_worker() -> None:
    """Refuse to start a run while a worker imports the module that holds the handler."""
    if decorator.in_worker:
        raise UsageError(
            "a run was started while a worker imported the handler's module",
            'Put the call under `if __name__ == "__main__":`, as for multiprocessing.',
        )


def described(
    handler: Handler, params: dict[str, Any]
) -> tuple[dict[str, Any] | None, Callable[..., object] | None, str, decorator.HandlerSpec]:
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
    verb: Literal["resume", "retry", "rollback"], handler: Handler | None, overrides: dict[str, Any], *, ledger: str, run_id: int
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
    known = by_field()
    for name in settings:
        if name not in known:
            raise UsageError(f"unknown setting {name!r}", near_setting(name) or f"There are: {', '.join(known)}.")
    return {name: known[name].kind.accept(value, name=name) for name, value in settings.items() if value is not None}


def near_setting(name: str) -> str:
    """Return the hint for a name that is no setting: the one that is called so on the command line, or the nearest."""
    option = named(name)
    if option is not None and option.field is not None:
        return f"In Python {option.flag} is {option.field}."
    return options.did_you_mean(name, by_field())


def checked_settings(
    settings: dict[str, Any], spec: decorator.HandlerSpec, reference: dict[str, Any] | None, function: Callable[..., object] | None
) -> RunSettings:
    """
    Return the settings of a run: the caller's, else what the handler declares, else the defaults; all that they name is known to exist.

    Args:
        reference: Of the handler; None when it has no importable name.
    """
    inline = reference is None
    chosen = {"workers": 0 if inline else options.usable_cores(), **declared_fields(spec), **usable(settings)}
    if inline and chosen["workers"]:
        raise UsageError(
            "this handler has no importable name, so worker processes cannot find it", "Put it into a module, or use workers=0."
        )
    return with_known_names(RunSettings(**chosen), reference, function, label=str)


def with_known_names(
    settings: RunSettings, handler: dict[str, Any] | None, function: Callable[..., object] | None = None, *, label: Callable[[str], str]
) -> RunSettings:
    """
    Return *settings* once what they name is known to exist: exceptions, which get the names that failures carry, and the batching strategy.

    Args:
        handler: Reference of the handler, in whose module exceptions are looked for.
        label: What a message calls a field.

    Raises:
        UsageError: It does not.
    """
    try:
        strategy(settings.batch_strategy, BatchSettings(settings.batch_size, settings.batch_seconds, settings.memory_threshold))
    except UsageError as error:
        raise UsageError(error.what.replace("--batch-strategy", label("batch_strategy"), 1), error.hint) from error
    return settled(settings, handler, function, label=label)


def opened(
    items: Items, key: str | None, spec: decorator.HandlerSpec, settings: RunSettings, ledger: str, remarks: Remarks, series: str
) -> tuple[Source, dict[str, Any]]:
    """Return the source for *items* and what is recorded of it; the ledger, its side files and the output are never items."""
    if isinstance(items, (str, os.PathLike)):
        takes_files = spec.format in {None, *FILE_FORMATS}
        items = InputSpec(inputs=(os.fspath(items),), format=spec.format, key=key, include=spec.include if takes_files else ())
    if isinstance(items, InputSpec):
        refuse_ledger(items.inputs, ledger)
        never = (*ledger_files(ledger).all(), *own_places(settings.output))
        source = open_source(
            items, max_item_bytes=settings.max_item_bytes, never=never, ledger=ledger, series=series, skip_bad=remarks.skip_bad,
            notes=remarks.note,
        )  # fmt: skip
        return source, asdict(items)
    source = open_items(items, key=key, max_item_bytes=settings.max_item_bytes, skip_bad=remarks.skip_bad)
    return source, {"iterable": source.description}


def refuse_ledger(inputs: Iterable[str], ledger: str) -> None:
    """Raise UsageError when one of *inputs* is the ledger itself, or one of its side files."""
    own = {os.path.realpath(path) for path in ledger_files(ledger).all()}
    for one in inputs:
        if os.path.realpath(one) in own and os.path.isfile(one):
            raise UsageError(f"{one} is the ledger", "Give another input, or another --ledger.")
