"""
Looking at the machine: the only place that asks psutil.
"""

from __future__ import annotations

import os

import psutil

__all__ = ["holders"]


def holders(path: str) -> list[int]:
    """Return the processes that have the file at *path* open, as far as this user may see them."""
    found = []
    for one in psutil.process_iter():
        try:
            if one.pid != os.getpid() and any(opened.path == path for opened in one.open_files()):
                found.append(one.pid)
        except psutil.Error:
            continue
    return found
