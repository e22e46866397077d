"""
From the name of a handler to something that can be called, in the coordinator (an early check) and in workers (the real thing).

A handler reference is a small JSON object, stored on the run row and sent to workers; it never holds code:

    {"kind": "python", "target": "audit.jobs:work"}              importable name
    {"kind": "python", "target": "/home/me/audit.py:work"}       file, absolute
    {"kind": "command", "argv": ["gzip", "{}"], "shell": false, "parse": "none"}
    {"kind": "transaction", "modules": [{"kind": "python", "target": "hub:create"}]}    modules with undo actions, imported and not called
    {"kind": "none"}                                             nothing at all: a run that is only looked through for undo entries

Every fault is one HandlerImportError of one line; the user's own exception is its ``__cause__``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from durabatch.codec import decode_value, encode_value
from durabatch.decorator import HandlerSpec, spec_of
from durabatch.errors import HandlerImportError, ResultError, UsageError
from durabatch.importing import import_place, import_target, split_target
from durabatch.signatures import LITERAL, HandlerSignature, bind_params, check_params, item_validator, looks_like_json, read_signature

__all__ = [
    "WITHOUT_ITEMS",
    "CheckedHandler",
    "LoadedHandler",
    "check",
    "check_function",
    "check_preflight",
    "command_ref",
    "describe_function",
    "from_function",
    "is_async_function",
    "load",
    "load_actions",
    "load_check",
    "parse_target",
    "place_of",
    "quote_params",
]

PARSES = ("none", "json", "lines")
#: Kinds of references that name no handler.
WITHOUT_ITEMS = ("transaction", "none")
#: Modules whose functions start programs: a handler by such a name is never meant.
PROGRAM_MODULES = frozenset({"os", "posix", "pty", "subprocess"})
MAX_PARAM_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class CheckedHandler:
    """
    A handler that was found to be usable.

    ``name`` is the function's or the program's name, for run names and messages; ``is_async`` says that it is an ``async def``.
    """

    spec: HandlerSpec
    name: str
    is_async: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedHandler:
    """
    A handler ready for items.

    ``call(payload, context)`` decodes the JSON text *payload*, validates it when the item's parameter is annotated, and returns what the
    function returns; what the function raises comes through. ``context`` is handed on only when ``takes_context``. What it returns is to be
    awaited when ``is_async``. ``spec`` is what the function declares, with its set-up and resources ready to be called without arguments.
    """

    takes_context: bool
    call: Callable[[str, object | None], object]
    function: Callable[..., object]
    is_async: bool = False
    is_command: bool = False
    spec: HandlerSpec = dataclasses.field(default_factory=HandlerSpec)


def parse_target(text: str) -> dict[str, Any]:
    """
    Return the reference for ``module:function`` or ``path/file.py:function`` as typed; the path is made absolute, nothing is imported.

    Raises:
        HandlerImportError: The text has another form.
    """
    place, name = split_target(text)
    return {"kind": "python", "target": f"{os.path.abspath(place) if place.endswith('.py') else place}:{name}"}


def command_ref(argv: Sequence[str], *, shell: bool, parse: str) -> dict[str, Any]:
    """
    Return the reference for a command; nothing is started.

    Args:
        argv: Program and arguments with their placeholders; with *shell* one text for ``sh -c``.
        shell: Run by a shell.
        parse: What becomes of its output: ``none``, ``json`` or ``lines``.

    Raises:
        UsageError: No program, several texts for the shell, a NUL character, or another *parse*.
    """
    if not argv or not argv[0]:
        raise UsageError("no command is given", "Put it behind --, as in: durabatch exec hosts.txt -- ping -c1 {}.")
    if shell and len(argv) != 1:
        raise UsageError(f"--shell takes one text, not {len(argv)}", "Quote the whole command.")
    if any("\0" in argument for argument in argv):
        raise UsageError("the command holds a NUL character", "No program can be given one.")
    if parse not in PARSES:
        raise UsageError(f"--parse: {parse!r} is not one of {', '.join(PARSES)}")
    return {"kind": "command", "argv": list(argv), "shell": shell, "parse": parse}


def describe_function(function: object) -> dict[str, Any] | None:
    """
    Return the reference by which a worker finds *function*; None when there is none: lambda, nested, notebook cell, ``python -c``.

    A function of the program that was started is referred to by that file, or by its module after ``python -m``.
    """
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    name = getattr(function, "__qualname__", None)
    if module is None or not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        return None
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    # Methods are made anew at each access: equal is enough for them.
    if found is not function and found != function:
        return None
    place = _place(module)
    return None if place is None else {"kind": "python", "target": f"{place}:{name}"}


def place_of(function: object) -> str | None:
    """Return the module name or file by which another process imports what *function* is defined in, whatever its own name; None: it cannot."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    return None if module is None else _place(module)


def quote_params(params: Mapping[str, object]) -> dict[str, Any]:
    """
    Return Python values as params can be stored: what would be read differently on a command line is marked as literal text.

    ``env:NAME`` and ``file:PATH`` stay references, so that a secret is never stored.

    Raises:
        UsageError: A value cannot be stored.
    """
    quoted: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, str) and looks_like_json(value):
            quoted[name] = {LITERAL: value}
            continue
        try:
            quoted[name] = decode_value(encode_value(value, limit_bytes=MAX_PARAM_BYTES))
        except ResultError as error:
            raise UsageError(f"param {name!r}: {error.what}", error.hint) from error
    return quoted


def check(ref: Mapping[str, Any], params: Mapping[str, Any]) -> CheckedHandler:
    """
    Return what the handler of *ref* declares, once it is known to be usable; nothing of it is called.

    Imports the user's module. Secrets among *params* are not read, only looked for. For a command: its program is there.

    Raises:
        HandlerImportError: It cannot be used, and why.
    """
    if ref["kind"] == "command":
        return _check_command(ref, params)
    if ref["kind"] in WITHOUT_ITEMS:
        load_actions(ref)
        return CheckedHandler(HandlerSpec(), ref["kind"])
    function = _function(ref)
    name = _name(function, ref["target"])
    item_validator(_checked_signature(function, params, name), name)
    return CheckedHandler(spec_of(function), ref["target"].rpartition(":")[2], is_async_function(function))


def check_function(function: Callable[..., object], params: Mapping[str, Any]) -> CheckedHandler:
    """As :func:`check`, for a function at hand; its name is the qualified one."""
    name = _name(function)
    item_validator(_checked_signature(function, params, name), name)
    return CheckedHandler(spec_of(function), getattr(function, "__qualname__", name), is_async_function(function))


def load(ref: Mapping[str, Any], params: Mapping[str, Any]) -> LoadedHandler:
    """
    Import the Python handler of *ref*, read its secrets, and return it ready for items.

    Raises:
        HandlerImportError: It cannot be used, and why.
    """
    if ref["kind"] != "python":
        raise HandlerImportError(f"{ref['kind']!r} handlers are not imported", "Commands are started by the workers.")
    function = _function(ref)
    return _loaded(function, params, _name(function, ref["target"]))


def load_actions(ref: Mapping[str, Any]) -> LoadedHandler:
    """
    Import the modules that *ref* names, so that their undo actions are there, and return a handler that refuses every item.

    Raises:
        HandlerImportError: A module cannot be imported, and why.
    """
    for one in ref.get("modules", ()):
        import_place(one["target"])
    return LoadedHandler(False, _no_items, _no_items)


def _no_items(*_: object) -> object:
    raise UsageError("this run has no handler: its steps are run by a program, not by workers", "Roll it back, or open it again there.")


def from_function(function: Callable[..., object], params: Mapping[str, Any]) -> LoadedHandler:
    """As :func:`load`, for a function at hand."""
    return _loaded(function, params, _name(function))


def check_preflight(ref: Mapping[str, Any], params: Mapping[str, Any]) -> CheckedHandler:
    """As :func:`check`, for a preflight check: it takes an item, may take the context, and gets those params that it names."""
    return check(ref, {} if ref["kind"] == "command" else _named_params(_function(ref), params))


def load_check(ref: Mapping[str, Any], params: Mapping[str, Any]) -> LoadedHandler:
    """As :func:`load`, for a preflight check."""
    return load(ref, _named_params(_function(ref), params))


def _function(ref: Mapping[str, Any]) -> Callable[..., object]:
    found = import_target(ref["target"])
    if not callable(found):
        raise HandlerImportError(f"{ref['target']} is of type {type(found).__name__}, not a function")
    if getattr(found, "__module__", None) in PROGRAM_MODULES or found in (eval, exec):
        raise HandlerImportError(f"{ref['target']} is not a durabatch handler", "Use `durabatch exec` for commands.")
    return found


def _name(function: object, target: str | None = None) -> str:
    """Return how *function* is called in messages: ``jobs:work``, ``jobs.py:work`` or its own name."""
    if target is not None:
        return target.removeprefix(os.path.join(os.getcwd(), ""))
    return str(getattr(function, "__qualname__", None) or type(function).__name__)


def _checked_signature(function: Callable[..., object], params: Mapping[str, Any], name: str) -> HandlerSignature:
    _refuse_kind(function, name)
    signature = read_signature(function, name)
    check_params(signature, params, name)
    return signature


def _refuse_kind(function: Callable[..., object], name: str) -> None:
    """Refuse what returns something else than a value when it is called."""
    hint = "Give an ordinary function (def) that takes an item and returns a value."
    if inspect.isclass(function):
        raise HandlerImportError(f"{name} is a class", hint)
    faces = _faces(function)
    if any(inspect.isasyncgenfunction(face) for face in faces):
        raise HandlerImportError(f"{name} is an async generator (it has a yield)", hint)
    if any(inspect.isgeneratorfunction(face) for face in faces):
        raise HandlerImportError(f"{name} is a generator (it has a yield)", hint)


def is_async_function(function: object) -> bool:
    """Return whether calling *function* gives a coroutine."""
    return any(map(inspect.iscoroutinefunction, _faces(function)))


def _faces(function: object) -> tuple[object, object]:
    """Return what is called when *function* is: itself, or what it wraps, and the method behind an object that can be called."""
    inner = function.func if isinstance(function, functools.partial) else function
    return inner, getattr(inner, "__call__", None)  # noqa: B004 - an object is asked for the function behind its call


def _check_command(ref: Mapping[str, Any], params: Mapping[str, Any]) -> CheckedHandler:
    if params:
        raise HandlerImportError("a command takes no --param", "Write its arguments behind --.")
    program = "sh" if ref["shell"] else ref["argv"][0]
    if shutil.which(program) is None:
        there = os.path.exists(program) and os.path.sep in program
        why = "is not executable" if there else "no such program"
        raise HandlerImportError(
            f"cannot run {program!r}: {why}", "Mark it as executable." if there else "Give its path, or put it on PATH."
        )
    words = ref["argv"][0].split() if ref["shell"] else [program]
    return CheckedHandler(HandlerSpec(), os.path.basename(words[0] if words else program))


def _loaded(function: Callable[..., object], params: Mapping[str, Any], name: str) -> LoadedHandler:
    signature = _checked_signature(function, params, name)
    values = bind_params(signature, params, name)
    bound = _bound(function, values)
    decode = item_validator(signature, name) or from_json
    call = _caller(bound, decode, takes_context=signature.takes_context)
    return LoadedHandler(signature.takes_context, call, function, is_async_function(function), spec=_ready(spec_of(function), values))


def _ready(spec: HandlerSpec, values: Mapping[str, Any]) -> HandlerSpec:
    """Return *spec* with the params bound that its set-up and the makers of its resources name."""
    if spec.setup is None and not spec.resources:
        return spec
    setup = None if spec.setup is None else _bound(spec.setup, _named_params(spec.setup, values))
    resources = {name: _bound(make, _named_params(make, values)) for name, make in spec.resources.items()}
    return dataclasses.replace(spec, setup=setup, resources=resources)


def _bound(function: Callable[..., Any], values: Mapping[str, Any]) -> Callable[..., Any]:
    return functools.partial(function, **values) if values else function


def _named_params(function: Callable[..., object], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return those *params* that *function* names as keyword-only parameters."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    return {name: value for name, value in params.items() if name in parameters and parameters[name].kind is inspect.Parameter.KEYWORD_ONLY}


def _caller(
    function: Callable[..., object], decode: Callable[[str], Any], *, takes_context: bool
) -> Callable[[str, object | None], object]:
    if takes_context:
        return lambda payload, context: function(decode(payload), context)
    return lambda payload, _context: function(decode(payload))


def _place(module: Any) -> str | None:
    """Return the module name or file by which another process imports *module*."""
    spec = getattr(module, "__spec__", None)
    path = getattr(module, "__file__", None)
    if module.__name__ != "__main__" and spec is not None and spec.name == module.__name__ and _is_plain(module.__name__, spec):
        return str(module.__name__)
    if spec is not None and module.__name__ == "__main__":
        return str(spec.name)
    return os.path.abspath(path) if isinstance(path, str) and path.endswith(".py") and os.path.isfile(path) else None


def _is_plain(name: str, spec: Any) -> bool:
    """Return whether *name* leads to the same module in a fresh process: files loaded under a name of ours do not."""
    from importlib.machinery import PathFinder

    parent, _, _ = name.rpartition(".")
    search = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    if spec.origin in (None, "built-in", "frozen"):
        return True
    found = PathFinder.find_spec(name, search)
    return found is not None and found.origin == spec.origin
