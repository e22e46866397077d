"""
How places on disk are named in undo entries: absolute, as JSON, with the names of what is made beside them for a while.

Directories on the way are resolved, so that an entry means the same place when a link was changed since. Names that are not UTF-8 stand as
``{"b64": ...}``.
"""

from __future__ import annotations

import base64
import os
from typing import Any

__all__ = ["PathLike", "name_from_json", "name_to_json", "new_token", "place_of", "scratch"]

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def place_of(path: PathLike) -> str:
    """
    Return *path* as an absolute path whose directories are no links; the last name may be one. Missing directories are no error.

    A relative path starts at the current directory; ``~`` is a name like any other.

    Raises:
        ValueError: It is empty or has a NUL.
    """
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is not a path")
    folder, name = os.path.split(text.rstrip("/") or "/")
    return os.path.realpath(text) if name in {"", ".", ".."} else os.path.join(os.path.realpath(folder), name)


def name_to_json(path: str) -> Any:
    """Return *path* as a JSON value, exact for every name that a file can have."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return {"b64": base64.b64encode(os.fsencode(path)).decode()}
    return path


def name_from_json(value: Any) -> str:
    """Return the path that :func:`name_to_json` made *value* of."""
    return os.fsdecode(base64.b64decode(value["b64"])) if isinstance(value, dict) else value


def new_token() -> str:
    """Return what tells the scratch names of one entry from those of all others."""
    return os.urandom(8).hex()


def scratch(path: str, token: str, kind: str) -> str:
    """Return the hidden place beside *path* for something that is there only while an effect, or its undoing, is on the way."""
    return os.path.join(os.path.dirname(path), f".durabatch-{token}.{kind}")
