"""
The sentences about bad input that several sources share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from durabatch.errors import InputError
from durabatch.options import nearest

__all__ = ["available", "cannot_read", "did_you_mean", "not_text", "printable", "size_text"]

#: Names shown when a name is unknown.
SHOWN_NAMES = 12


def cannot_read(path: str, error: OSError) -> InputError:
    """Return the error for a file or directory that cannot be opened or read, with the nearest name when it is not there."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"cannot read {printable(path)}", "no such file", did_you_mean(os.path.basename(path), neighbours(path)))
    if isinstance(error, PermissionError):
        return InputError(f"cannot read {printable(path)}", "permission denied")
    return InputError(f"cannot read {printable(path)}", (error.strerror or str(error)).lower())


def neighbours(path: str) -> list[str]:
    """Return the names in the folder of *path*; empty when it cannot be listed."""
    try:
        return os.listdir(os.path.dirname(path) or ".")
    except OSError:
        return []


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``Did you mean 'x'?`` for the choice nearest to *word*, which comes from the input and is shown escaped; or empty text."""
    near = nearest(word, choices)
    return "" if near is None else f"Did you mean '{printable(near)}'?"


def available(names: Iterable[object]) -> str:
    """Return *names* for a message, the first few of many."""
    shown = [printable(str(name)) for name in names]
    rest = len(shown) - SHOWN_NAMES
    return ", ".join(shown[:SHOWN_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def not_text(place: str, data: bytes, start: int, encoding: str) -> InputError:
    """Return the error for the line *data* whose byte at *start* does not decode; columns count characters from 1."""
    column = len(data[:start].decode("utf-8", "replace")) + 1
    hint = "Use --encoding utf-16." if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "Use --encoding."
    return InputError(place, f"not {encoding.upper()} (byte 0x{data[start]:02x} at column {column})", hint)


def printable(path: str) -> str:
    r"""Return *path* fit for a terminal: bytes that are not UTF-8 and control characters as ``\xNN``."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace") if not path.isascii() else path
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size_text(size: int) -> str:
    """Return *size* bytes in the largest binary unit that divides it, ``16 MiB``."""
    for unit in ("bytes", "KiB", "MiB"):
        if size % 1024 or size == 0:
            return f"{size:,} {unit}"
        size //= 1024
    return f"{size:,} GiB"
