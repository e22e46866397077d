"""
Undo actions: functions of the user's that take an effect back, known by name. The ledger holds names and JSON, never code.

    @durabatch.undo_action("delete_site", verify=site_is_gone)
    def delete_site(url): ...

    def work(item, ctx):
        ctx.undo("delete_site", url=item["url"])      # on disk before the effect
        create_site(item["url"])

Whether the effect happened is never known, so an action must bear that there is nothing to undo; ``verify`` says whether there is.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from durabatch.errors import UndoError, UsageError

__all__ = ["BUILT_IN", "Action", "arguments_for", "find", "misfit", "place_of", "registered", "undo_action"]

#: What the names of the actions begin with that ``ctx.files`` records.
BUILT_IN = "files."
#: The parameter that gets the context of an undo, where an action has it.
CONTEXT = "ctx"
MAX_NAME_CHARACTERS = 200

_F = TypeVar("_F", bound=Callable[..., Any])
_actions: dict[str, Action] = {}


class Action(NamedTuple):
    """
    What is registered under a name.

    Attributes:
        function: Takes an effect back.
        verify: Says whether the effect is taken back; None when nobody can.
        irreversible: The effect cannot be taken back. The function is never called; it is there to be listed.
    """

    name: str
    function: Callable[..., Any]
    verify: Callable[..., Any] | None
    irreversible: bool


def undo_action(name: str, *, verify: Callable[..., Any] | None = None, irreversible: bool = False) -> Callable[[_F], _F]:
    """
    Register a function as the undo action *name*; the function itself stays as it is.

    It is called with the arguments that were given to ``ctx.undo(name, ...)``, as JSON gives them back, and with a
    :class:`~durabatch.UndoContext` if it has a parameter ``ctx``. It may be called again after it has succeeded, and where the effect
    never happened. In a worker for async handlers an ``async def`` runs in their loop.

    Args:
        verify: Says whether the effect is taken back. It gets those of the arguments that it names, before and after the action: when it
            says yes before, the action is not called; when it says no after, the try has failed.
        irreversible: The effect cannot be taken back, as with a mail. It is recorded and listed, and the function is never called.

    Raises:
        UsageError: The name is none, is taken by another function, or *verify* is no function.
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MAX_NAME_CHARACTERS:
        raise UsageError(f"@undo_action: {name!r} is not a name", 'Use a short text, as in @undo_action("delete_site").')
    if name.startswith(BUILT_IN):
        raise UsageError(f"@undo_action: {name!r}: names that begin with {BUILT_IN} are those of ctx.files", "Choose another name.")
    if verify is not None and not callable(verify):
        raise UsageError(f"@undo_action({name!r}): verify={verify!r} is not a function")

    def register(function: _F) -> _F:
        if not callable(function) or inspect.isclass(function):
            raise UsageError(f"@undo_action({name!r}): {function!r} is not a function")
        known = _actions.get(name)
        if known is not None and not is_same(known.function, function):
            raise UsageError(f"@undo_action({name!r}): the name is taken by {place_of(known.function)}", "Choose another name.")
        _actions[name] = Action(name, function, verify, bool(irreversible))
        return function

    return register


def find(name: str) -> Action:
    """
    Return the action that is registered as *name*.

    Raises:
        UndoError: There is none: its module was not imported, or it has another name there. A further try finds none either.
    """
    known = _actions.get(name)
    if known is not None:
        return known
    close = difflib.get_close_matches(name, _actions, n=1)
    listed = f"There is: {', '.join(sorted(_actions)[:8])}." if _actions else f'Register it: @durabatch.undo_action("{name}").'
    raise UndoError(f"no undo action {name!r} is registered", f"Did you mean {close[0]!r}?" if close else listed)


def registered() -> dict[str, Action]:
    """Return the actions by name, in the order in which they were registered; those of ``ctx.files`` are not among them."""
    return dict(_actions)


def misfit(action: Action, arguments: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the kind of misfit, ``takes no`` or ``needs``, and the argument that *action* cannot be called with or without; None: it fits."""
    parameters = parameters_of(action.function)
    if parameters is None:
        return None
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    named = {name for name, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    # The context is no argument, however it was given.
    unknown = [name for name in arguments if (name not in named and not takes_any) or (name == CONTEXT and CONTEXT in named)]
    if unknown:
        return "takes no", unknown[0]
    open_kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    wanted = [name for name, one in parameters.items() if one.default is one.empty and one.kind not in open_kinds and name != CONTEXT]
    missing = [name for name in wanted if name not in arguments or name not in named]
    return ("needs", missing[0]) if missing else None


def arguments_for(function: Callable[..., Any], arguments: Mapping[str, Any], context: object, *, all_of_them: bool) -> dict[str, Any]:
    """Return what *function* is called with: the *arguments*, all of them or those that it names, and the *context* if it takes one."""
    parameters = parameters_of(function) or {}
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    chosen = {name: value for name, value in arguments.items() if all_of_them or takes_any or name in parameters}
    return {**chosen, CONTEXT: context} if CONTEXT in parameters else chosen


def is_same(known: Callable[..., Any], function: Callable[..., Any]) -> bool:
    """Return whether both come from one place in a program, which may have been imported again or under another name."""
    if known is function:
        return True
    ours, theirs = (getattr(one, "__code__", None) for one in (known, function))
    if "<lambda>" in place_of(known) and getattr(ours, "co_firstlineno", 0) != getattr(theirs, "co_firstlineno", 1):
        return False
    is_one_file = ours is not None and theirs is not None and ours.co_filename == theirs.co_filename
    is_one_name = getattr(known, "__qualname__", 0) == getattr(function, "__qualname__", 1)
    return place_of(known) == place_of(function) or (is_one_file and is_one_name)


def place_of(function: Callable[..., Any]) -> str:
    """Return module and name of a function."""
    return f"{getattr(function, '__module__', None) or '?'}:{getattr(function, '__qualname__', None) or type(function).__name__}"


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """Return what *function* takes, by name; None when that cannot be found out."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
