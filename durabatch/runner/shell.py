"""
Commands that a person wants to be run about a run: by ``sh``, with something to read on their stdin.

What they read is written to an unnamed file first: whatever becomes of us, a command never reads half of it. What they print goes to our
stderr. Each is the leader of a process group of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from typing import IO

__all__ = ["ShellCommand", "status_text"]

SHELL = "/bin/sh"
#: Status of a command that was not begun, as somebody had ended it before.
KILLED = -int(signal.SIGKILL)


class ShellCommand:
    """
    A command of ``sh``, to be run once or often, by one thread at a time.

    Args:
        folder: Where its input is kept while it runs; on a disk with room for a batch.
    """

    def __init__(self, text: str, folder: str) -> None:
        self.text = text
        self.folder = folder
        self.lock = threading.Lock()
        self.child: subprocess.Popen[bytes] | None = None
        self.is_ended = False

    def run(self, pieces: Iterable[str], variables: Mapping[str, str]) -> int:
        """
        Run it to its end and return its exit status, negative when a signal ended it.

        Args:
            pieces: The text on its stdin.
            variables: Added to its environment.

        Raises:
            OSError: It could not be started, or there is no room for its input.
        """
        with tempfile.TemporaryFile(dir=self.folder) as stdin:
            stdin.writelines(piece.encode() for piece in pieces)
            stdin.seek(0)
            child = self.start(stdin, variables)
            if child is None:
                return KILLED
            # Seen, and not yet taken away: its number belongs to nobody else while `end` may still signal its group.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            with self.lock:
                self.child = None
                return child.wait()

    def start(self, stdin: IO[bytes], variables: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        """Start it; None when it was ended before."""
        with self.lock:
            if not self.is_ended:
                self.child = subprocess.Popen(
                    [SHELL, "-c", self.text], stdin=stdin, stdout=sys.__stderr__, start_new_session=True, env={**os.environ, **variables}
                )
            return self.child

    def end(self, number: signal.Signals) -> None:
        """Send a signal to the command and all of its group, and start it no more."""
        with self.lock:
            self.is_ended = True
            if self.child is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.child.pid, number)


def status_text(status: int) -> str:
    """Return how a command ended, in words."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
