"""
What both faces of a transaction do with the functions that are its steps: name them, call them, keep what they return, and roll them back.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from durabatch import actions
from durabatch.codec import encode_value
from durabatch.errors import DurabatchError, ResultError, UndoError, UsageError
from durabatch.settings import RunSettings
from durabatch.workers.context import Context

if TYPE_CHECKING:
    from durabatch.ledger.executor import Executor
    from durabatch.models import Summary
    from durabatch.runner.request import RunRequest
    from durabatch.runner.transacting import Step, Transacting
    from durabatch.workers.promises import Promises

__all__ = ["Broken", "called_with", "context_of", "kept", "name_of", "opened", "payload_of", "put_back", "request_for", "undone"]

#: The parameter that gets the context of a step.
CONTEXT = "ctx"
#: A handler for rolling back with what this process has registered.
NO_MODULES: dict[str, Any] = {"kind": "transaction", "modules": []}
MAX_NAME_CHARACTERS = 100
#: Bytes of what a step was called with, as it is kept.
MAX_PAYLOAD_BYTES = 1 << 20
SHOWN_CHARACTERS = 200
#: Effects that remain which a note names.
SHOWN_EFFECTS = 5


class Broken:
    """
    Whether a transaction can still be committed.

    Attributes:
        why: Why not; empty as long as it can.
    """

    def __init__(self) -> None:
        self.why = ""

    def check(self, core: Transacting) -> None:
        """Return when the next step may begin; UsageError when one is running, UndoError when one has failed and left effects."""
        if core.step is not None:
            raise UsageError(
                f"step {core.step.key} is running: a step of a transaction begins behind the one before it", "Call the function itself there."
            )
        if self.why:
            raise UndoError(f"{self.why}, so the transaction can only be rolled back", "Leave its `with` block.")

    def note(self, core: Transacting, step: Step) -> None:
        """Note that a step has failed; effects that it may have left can only go with all others."""
        if step.entry_count or core.is_owing:
            self.why = f"step {step.key} has failed with effects that are to be undone"

    def final(self, core: Transacting) -> UndoError | None:
        """Return the error for a transaction that must not be committed, though its block was left without one; None when it may."""
        why = self.why or (f"step {core.step.key} has not ended" if core.step is not None else "")
        return UndoError(f"{why}, so transaction {core.active.name!r} was rolled back") if why else None


def request_for(path: str, name: str, settings: dict[str, Any], *, durability: str, allow_network_fs: bool) -> RunRequest:
    """Return the request for a transaction; UsageError for a setting that is none, or when a worker imports the module that begins it."""
    from durabatch.runner.asking import refuse_in_worker, usable
    from durabatch.runner.request import RunRequest

    refuse_in_worker()
    return RunRequest(
        verb="run", ledger=path, series=name, settings=RunSettings(**{"workers": 1, **usable(settings)}), durability=durability,
        allow_network_fs=allow_network_fs,
    )  # fmt: skip


def opened(request: RunRequest, *, trust_ledger: bool) -> Transacting:
    """
    Return the transaction, begun; one of that id that a crash has left open is rolled back before.

    Raises:
        UsageError: The id is committed, or none.
        UndoError: The one that was left open is not rolled back: something that could be undone is not.
        LedgerError: The ledger cannot be used, or somebody has it.
    """
    from durabatch.ledger.reader import Reader
    from durabatch.runner.transacting import Transacting, left_open

    if os.path.exists(request.ledger):
        with Reader(request.ledger) as reader:
            run_id = left_open(reader, request.series or "")
            handler = NO_MODULES if run_id is not None and knows_actions(reader, run_id) else None
        if run_id is not None:
            summary = rolled_back(request, run_id, trust_ledger=trust_ledger, handler=handler)
            if summary.status.state != "rolled_back":
                raise UndoError(f"transaction {request.series!r} was left open, and {left(summary, request)}")
    return Transacting(request)


def knows_actions(ledger: Executor, run_id: int) -> bool:
    """Tell whether this program has registered everything that would undo a run, so that no module need be imported, perhaps a second time."""
    from durabatch.engine.rollback import Scope, planned

    known = actions.registered()
    return all(one.action in known or one.action.startswith(actions.BUILT_IN) for one in planned(ledger, run_id, Scope()))


def rolled_back(request: RunRequest, run_id: int, *, trust_ledger: bool, handler: dict[str, Any] | None) -> Summary:
    """Roll a transaction back in this process, and return how that went."""
    from durabatch.engine.rollback import Scope
    from durabatch.runner.session import execute

    undoing = replace(
        request, verb="rollback", run=run_id, series=None, scope=Scope(), overrides={"workers": 0}, handler=handler, trust_ledger=trust_ledger
    )
    return execute(undoing)


def left(summary: Summary, request: RunRequest) -> str:
    """Return in words what a rollback has left; empty when that is nothing."""
    done = summary.rolled_back
    if summary.status.state == "rolled_back" and (done is None or not done.unresolved_count):
        return ""
    effects = [] if done is None else [effect_text(one) for one in done.unresolved[:SHOWN_EFFECTS]]
    more = "" if done is None or done.unresolved_count <= len(effects) else f", and {done.unresolved_count - len(effects):,} more"
    named = f": {'; '.join(effects)}{more}" if effects else f" ({summary.status.reason or summary.status.state})"
    return f"effects remain{named}" + ("" if is_over(summary) else f". {again(summary.status.name, request)}")


def is_over(summary: Summary) -> bool:
    """Tell whether a rollback has undone all that can be: what remains is irreversible."""
    return summary.status.state == "rolled_back"


def effect_text(one: Any) -> str:
    """Return one effect that remains in words."""
    return f"{one.action!r} of step {one.key} ({one.state}{f', {one.error}'.rstrip('.') if one.error else ''})"


def again(name: str, request: RunRequest) -> str:
    """Return what to do about a transaction that is not rolled back."""
    return f"`durabatch rollback --transaction {name} --ledger {request.ledger}` tries again"


def undone(core: Transacting) -> str:
    """
    Roll an open transaction back, and let go of its ledger; return in words what remains, empty when that is nothing.

    Its actions are those of this process, and no module is imported for it.
    """
    name, run_id, request = core.active.name, core.active.run_id, core.request
    try:
        if not core.active.total_count and core.step is None:
            core.drop()
            core.let_go()
            return ""
        core.let_go()
        remains = left(rolled_back(request, run_id, trust_ledger=True, handler=NO_MODULES), request)
        return f"transaction {name!r} is not rolled back in full: {remains}" if remains else ""
    except DurabatchError as error:
        return f"transaction {name!r} was not rolled back: {error} {again(name, request)}"
    finally:
        core.let_go()


def name_of(function: object) -> str:
    """Return what a step is called that calls *function*."""
    name = str(getattr(function, "__name__", None) or getattr(getattr(function, "func", None), "__name__", None) or type(function).__name__)
    return "".join(character if character.isprintable() else "?" for character in name)[:MAX_NAME_CHARACTERS]


def payload_of(arguments: Sequence[object], named: Mapping[str, object]) -> str:
    """Return as JSON what a step is called with: an object of the named arguments, behind a list of the others if there are any."""
    shown = {name: shown_value(value) for name, value in named.items()}
    whole = [*map(shown_value, arguments), shown] if arguments else shown
    try:
        return encode_value(whole, limit_bytes=MAX_PAYLOAD_BYTES)
    except ResultError:
        return encode_value({"arguments": shown_text(whole)}, limit_bytes=MAX_PAYLOAD_BYTES)


def shown_value(value: object) -> object:
    """Return *value* where JSON can hold it, else what it looks like."""
    try:
        encode_value(value, limit_bytes=MAX_PAYLOAD_BYTES)
    except ResultError:
        return shown_text(value)
    return value


def shown_text(value: object) -> str:
    """Return what *value* looks like, cut, as text that can be stored."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a __repr__ of the user's that raises must not end a step
        text = f"({type(value).__name__})"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def kept(value: object, limit_bytes: int) -> tuple[str, str | None]:
    """Return the value of a step as JSON text, and None; or null and why, for one that JSON cannot hold: it stays with the program."""
    try:
        return encode_value(value, limit_bytes=limit_bytes), None
    except ResultError as error:
        return "null", f"{error.what}: {shown_text(value)}"


def put_back(error: BaseException, note: str) -> None:
    """Add what remains of a transaction to the exception that ended it."""
    if note:
        error.add_note(note)


def context_of(core: Transacting, step: Step, promises: Promises) -> Context:
    """Return the context of a step, whose entries are recorded by *promises*."""
    return Context(step.item_id, step.key, step.number, core.active.name, promises=promises, dispatch_id=step.dispatch_id)


def called_with(
    function: Callable[..., object], context: Context, arguments: Sequence[Any], named: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments for *function*, with the context for its parameter ``ctx``, or the one that is annotated with Context."""
    place = place_of_context(function)
    if place is None or place[0] in named:
        return [*arguments], {**named}
    name, index = place
    if index is not None and index <= len(arguments):
        return [*arguments[:index], context, *arguments[index:]], {**named}
    return [*arguments], {**named, name: context}


def place_of_context(function: Callable[..., object]) -> tuple[str, int | None] | None:
    """Return name and position of the parameter that takes the context, None as its position when it is keyword-only; None: there is none."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    for index, one in enumerate(parameters):
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        annotated = one.annotation if isinstance(one.annotation, str) else getattr(one.annotation, "__name__", "")
        if one.name == CONTEXT or annotated.rpartition(".")[2] == Context.__name__:
            return one.name, None if one.kind is one.KEYWORD_ONLY else index
    return None
