"""
Importing what a user wrote, and saying in one line why it cannot be imported.

A file is loaded under a name that depends on its path alone, unless the same file is importable by its plain name: then it is that module,
so that no module exists twice. Only :class:`SystemExit` and ordinary exceptions of the user's module are turned into errors; Ctrl-C comes
through.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from types import ModuleType

from durabatch.errors import DurabatchError, HandlerImportError

__all__ = ["import_place", "import_target", "split_target"]

#: Longest text of an exception in a message, in characters.
MESSAGE_CHARACTERS = 500


def split_target(target: str) -> tuple[str, str]:
    """
    Return module name or path, and the dotted name inside it.

    Raises:
        HandlerImportError: The text is not of the form ``module:function`` or ``file.py:function``.
    """
    place, colon, name = target.rpartition(":")
    shape = "module:function' or 'file.py:function"
    if not colon or not place or not all(part.isidentifier() for part in name.split(".")):
        head, dot, last = target.rpartition(".")
        guess = f"Did you mean '{head}:{last}'?" if dot and not colon and last != "py" and last.isidentifier() else ""
        raise HandlerImportError(f"handler: {target!r} is not '{shape}'", guess or "Example: jobs:work.")
    if not place.endswith(".py") and not all(part.isidentifier() for part in place.split(".")):
        raise HandlerImportError(f"handler: {place!r} in {target!r} is neither a module name nor a .py file", f"Use '{shape}'.")
    return place, name


def import_target(target: str) -> object:
    """
    Import the module or file of *target* and return the object it names.

    Raises:
        HandlerImportError: It cannot be imported, or the name is not there. The user's exception is the cause.
    """
    place, name = split_target(target)
    module = import_place(target)
    found: object = module
    for index, part in enumerate(name.split(".")):
        if not hasattr(found, part):
            raise _missing(place, ".".join(name.split(".")[: index + 1]), part, found)
        found = getattr(found, part)
    return found


def import_place(target: str) -> ModuleType:
    """Import the module or file of *target*, whatever name stands behind it; HandlerImportError when it cannot be imported."""
    place = split_target(target)[0]
    return _import_file(place) if place.endswith(".py") else _import_module(place)


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _import_error(name, error) from error


def _import_file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        why = "is a directory" if os.path.isdir(path) else "no such file"
        raise HandlerImportError(f"cannot import {_printable(_shown(path))}: {why}", "Give the path of a Python file.")
    stem = os.path.basename(path).removesuffix(".py")
    if _is_importable_as(stem, path):
        return _import_module(stem)
    name = f"{stem}_{hashlib.blake2b(os.path.realpath(path).encode(errors='surrogateescape'), digest_size=4).hexdigest()}"
    return sys.modules[name] if name in sys.modules else _load_file(name, path)


def _is_importable_as(stem: str, path: str) -> bool:
    try:
        spec = importlib.util.find_spec(stem) if stem.isidentifier() and stem != "__main__" else None
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and os.path.exists(spec.origin) and os.path.samefile(spec.origin, path)


def _load_file(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise HandlerImportError(f"cannot import {_printable(_shown(path))}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses, pydantic and pickle look their module up while it is still being executed.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _import_error(path, error) from error
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_error(place: str, error: BaseException) -> HandlerImportError:
    head = f"cannot import {_printable(_shown(place))}"
    if isinstance(error, DurabatchError):
        return HandlerImportError(f"{head}: {error.what}", error.hint)
    if isinstance(error, ModuleNotFoundError) and error.name and (place == error.name or place.startswith(f"{error.name}.")):
        return HandlerImportError(f"{head}: no module {error.name!r} in {os.getcwd()} or on the module path", _file_hint(place))
    kind, text = type(error).__name__, _text(error)
    where = _where(error)
    hint = 'Guard what must not run at import: if __name__ == "__main__".' if isinstance(error, SystemExit) else ""
    if isinstance(error, ImportError) and "relative import" in text:
        hint = "Give the handler as package.module:function."
    return HandlerImportError(f"{head}: {kind}{where}" + (f": {text}" if text else ""), hint)


def _file_hint(place: str) -> str:
    path = place.replace(".", "/") + ".py"
    return "" if os.path.isfile(path) else f"There is no {path} here."


def _where(error: BaseException) -> str:
    """Return `` at FILE:LINE``: of a syntax error its own, else the innermost line below the working directory, else the innermost."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {_printable(_shown(error.filename))}:{error.lineno}"
    machinery = {__file__, importlib.__file__}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in machinery and frame.filename[0] != "<"]
    if not frames:
        return ""
    frame = next((frame for frame in reversed(frames) if _shown(frame.filename) != frame.filename), frames[-1])
    return f" at {_printable(_shown(frame.filename))}:{frame.lineno}"


def _shown(path: str) -> str:
    """Return *path* as seen from the working directory when it lies inside."""
    return path.removeprefix(os.path.join(os.getcwd(), ""))


def _text(error: BaseException) -> str:
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:  # noqa: BLE001 - a __str__ of the user's that raises must not hide which exception it was.
        return "message not available"
    return _printable(" ".join(text.split()))[:MESSAGE_CHARACTERS]


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _missing(place: str, name: str, part: str, owner: object) -> HandlerImportError:
    there = {known: value for known, value in getattr(owner, "__dict__", {}).items() if callable(value) and known[0] != "_"}
    own = [known for known, value in there.items() if getattr(value, "__module__", None) == getattr(owner, "__name__", None)] or list(there)
    close = difflib.get_close_matches(part, there, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else f"There is: {', '.join(sorted(own)[:8])}." if own else "It defines no functions."
    return HandlerImportError(f"{_printable(_shown(place))} has no {name!r}", hint)
