"""
How the coordinator starts a worker.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["spawn_argv"]


def spawn_argv(inbound: int, outbound: int, lock: int) -> list[str]:
    """
    Return the command line of a worker that inherits these three descriptors (``pass_fds``), to be started with ``start_new_session``.

    The working directory is not on the module path until the Start frame puts it there: a ``queue.py`` beside the input must not be taken
    for the standard library's.
    """
    return [sys.executable, "-P", str(Path(__file__).with_name("__main__.py")), str(inbound), str(outbound), str(lock)]
