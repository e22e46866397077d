"""
What results depend on besides the input: the handler's version and code, its parameters, and what it runs on.

It stands on the run row, with the files of the modules that it was made by. When a run is taken up again, what differs is said: a changed version makes finished items count as changed, since
its author says so; everything else is told, and the run goes on.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import to_json

from durabatch.decorator import HandlerSpec
from durabatch.importing import split_target
from durabatch.version import __version__

__all__ = ["cache_identity", "code_digest", "differences", "modules_of", "provenance", "surroundings", "version_changed"]

#: Bytes of a digest of code.
DIGEST_BYTES = 8


def provenance(
    reference: Mapping[str, Any],
    spec: HandlerSpec,
    params: Mapping[str, Any],
    function: Callable[..., object] | None = None,
    *,
    preflight: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Return what the results of a handler depend on, as JSON values.

    Args:
        reference: Of the handler, which was imported already where it is Python; see :mod:`durabatch.loading`.
        params: Its parameters as recorded: secrets as references.
        function: The handler itself, where it has no importable name.
        preflight: Reference of the preflight check, which was imported, too.
    """
    return {
        "version": spec.version,
        "code": code_digest(reference, function),
        "params": dict(params),
        **surroundings(),
        "modules": modules_of(*(one["target"] for one in (reference, preflight) if one is not None and "target" in one)),
    }


def surroundings() -> dict[str, Any]:
    """Return what a program runs on."""
    return {"python": platform.python_version(), "durabatch": __version__, "machine": platform.machine()}


def modules_of(*targets: str) -> dict[str, str]:
    """
    Return the modules that *targets* name and that were imported, each with its file, so that no other one is ever taken for it.

    What is named by its path is no module here, and what has no file has nothing to be known by.
    """
    names = (target.rpartition(":")[0] or target for target in targets)
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in names if not name.endswith(".py")}
    return {name: os.path.realpath(file) for name, file in files.items() if isinstance(file, str)}


def code_digest(reference: Mapping[str, Any], function: Callable[..., object] | None = None) -> str | None:
    """
    Return a digest of the handler's code: of the file of its module, of the words of a command, of a function's own source.

    None when there is nothing to read, as for modules written in C. Modules that the handler's imports are not looked at.
    """
    if reference.get("kind") == "command":
        return digest_of(to_json([reference["argv"], reference["shell"], reference["parse"]]))
    path = module_file(reference) if "target" in reference else None
    if path is None:
        return own_code(function) if function is not None else None
    try:
        with open(path, "rb") as file:
            return digest_of(file.read())
    except OSError:
        return None


def module_file(reference: Mapping[str, Any]) -> str | None:
    """Return the file of the handler's module, None when it has none."""
    module, _ = split_target(reference["target"])
    if module.endswith(".py"):
        return module
    found = getattr(sys.modules.get(module), "__file__", None)
    return found if isinstance(found, str) and os.path.exists(found) else None


def own_code(function: Callable[..., object]) -> str | None:
    """Return a digest of the source of a function, None when that is not to be had."""
    try:
        return digest_of(inspect.getsource(function).encode())
    except (OSError, TypeError):
        return None


def digest_of(data: bytes) -> str:
    """Return the digest of *data* in hexadecimal."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def version_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether the declared version is another one; a run of before there was a record has none to compare."""
    return bool(before) and before.get("version") != now.get("version")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in sentences what differs; nothing for a run of before there was a record."""
    if not before:
        return []
    said = []
    if version_changed(before, now):
        said.append(
            f"the handler's version was {shown(before.get('version'))} and is {shown(now['version'])}: finished items count as changed"
        )
    if before.get("code") != now["code"]:
        said.append("the handler's code has changed; finished items keep their results")
    if before.get("params") != now["params"]:
        said.append(
            f"its parameters have changed ({changed_names(before.get('params') or {}, now['params'])}); finished items keep their results"
        )
    moved = [
        f"{name} {before[name]} -> {now[name]}" for name in ("python", "durabatch", "machine") if before.get(name, now[name]) != now[name]
    ]
    return said + ([f"it runs elsewhere: {', '.join(moved)}"] if moved else [])


def changed_names(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the names of parameters that are not as before."""
    return ", ".join(sorted(name for name in {*before, *now} if before.get(name) != now.get(name)))


def shown(version: str | None) -> str:
    """Return a version for people."""
    return "not declared" if version is None else repr(version)


def cache_identity(reference: Mapping[str, Any], made_of: Mapping[str, Any]) -> str | None:
    """
    Return as text what two results of equal payloads must share to be the same; None when that cannot be told.

    A handler that declares no version is known by its code: after an edit its results are not used again.
    """
    if made_of["version"] is None and made_of["code"] is None:
        return None
    known_by = {"code": made_of["code"]} if made_of["version"] is None else {"version": made_of["version"]}
    handler = {name: value for name, value in reference.items() if name in {"kind", "target", "argv", "shell", "parse", "name"}}
    return to_json({"handler": handler, **known_by, "params": made_of["params"]}).decode()
