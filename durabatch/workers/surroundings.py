"""
What a worker does about its own process: descriptors out of the handler's way, signals, the death of its parent, its children.

A worker is the leader of a session of its own, so "its children" are the other members of that session, grandchildren included.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

__all__ = ["ITEM_MARKER", "RUN_MARKER", "end_marked", "end_relatives", "prepare", "restorer", "set_aside"]

#: Environment variables that mark what the processes of a run, and of one attempt of a command, have started.
RUN_MARKER, ITEM_MARKER = "DURABATCH_RUN_MARKER", "DURABATCH_ITEM_MARKER"

#: Descriptors of ours stand above this number: far from what handlers open, and above what careless ones close.
FIRST_DESCRIPTOR = 512
#: The usual limit of open files may be lower; then any number above the standard ones will do.
FALLBACK_DESCRIPTOR = 10
PR_SET_PDEATHSIG = 1
#: Rounds in which processes are looked for that a dying one forked in its last moment.
ROUNDS = 20


def prepare() -> None:
    """Make this process a worker: signals as they should be, no standard input, a traceback on a crash, death with the parent."""
    reset_signals()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0, inheritable=True)
    os.close(null)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # A line is out when it is printed: the process may be killed any moment.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    if sys.stderr is not None:
        faulthandler.enable()
    if sys.platform == "linux":
        die_with_parent()


def reset_signals() -> None:
    """Give every signal its default meaning; SIGINT is noticed and not obeyed, since the coordinator decides what it means."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) in (signal.SIG_IGN, signal.default_int_handler):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # A handler of ours, and not SIG_IGN: programs that a handler starts would inherit that.
    signal.signal(signal.SIGINT, not_obeyed)


def not_obeyed(_number: int, _frame: FrameType | None) -> None:
    """Do nothing about a signal."""


def die_with_parent() -> None:
    """
    Have the process end within a second of its parent's death, even in C code that never gives the interpreter back.

    Normally the end of the inbound pipe is noticed first and the children are killed too. So the kernel is not asked for SIGKILL but for
    SIGHUP (1), and that signal calls the C library's ``alarm`` with its own number as argument: SIGALRM follows a second later.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGHUP, ctypes.cast(libc.alarm, ctypes.c_void_p))
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGHUP), 0, 0, 0)


def set_aside(descriptor: int) -> int:
    """Move a descriptor to a high number, closed in programs that handlers start, and return the number."""
    try:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_DESCRIPTOR)
    except OSError:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FALLBACK_DESCRIPTOR)
    os.close(descriptor)
    return moved


def restorer() -> Callable[[], None]:
    """
    Return a function that takes back what handlers change in a process most often: working directory, umask, recursion limit.

    It sets them without looking, which takes half a microsecond; looking would take longer. Environment, signal mask, locale, random seed
    and ``sys.path`` stay as a handler leaves them.
    """
    home = set_aside(os.open(".", os.O_RDONLY | os.O_DIRECTORY))
    mask = os.umask(0o077)
    os.umask(mask)
    depth = sys.getrecursionlimit()

    def restore(fchdir: Callable[[int], None] = os.fchdir, umask: Callable[[int], int] = os.umask) -> None:
        fchdir(home)
        umask(mask)
        if sys.getrecursionlimit() != depth:
            sys.setrecursionlimit(depth)

    return restore


def end_relatives() -> None:
    """Kill the other members of this process's session. Does nothing in a process that leads none: the others would be strangers."""
    own = os.getpid()
    if os.getsid(0) != own:
        return
    for _ in range(ROUNDS):
        others = [pid for pid in session_members(own) if pid != own]
        for pid in others:
            kill(pid)
        if not others:
            return


def end_marked(marker: str) -> None:
    """Kill the processes that have this item's marker in their environment; finds none on systems without ``/proc``."""
    mark = f"{ITEM_MARKER}={marker}\0".encode()
    for _ in range(ROUNDS):
        others = [pid for pid in marked_with(mark) if pid != os.getpid()]
        for pid in others:
            kill(pid)
        if not others:
            return


def marked_with(mark: bytes) -> Iterator[int]:
    """Yield the pids of processes that have not ended and have *mark* in the environment they were started with."""
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            # Of one that has ended and was not waited for nothing is left to read.
            if mark in entry.read_bytes():
                yield int(entry.parent.name)
        except OSError:
            # Gone meanwhile, or of another user.
            continue


def session_members(session: int) -> Iterator[int]:
    """Yield the pids of a session's processes that have not ended. Nothing on systems without ``/proc``."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = entry.read_bytes()
        except OSError:
            continue
        state, _parent, _group, sid = stat[stat.rindex(b")") + 2 :].split(maxsplit=4)[:4]
        if int(sid) == session and state not in (b"Z", b"X"):
            yield int(entry.parent.name)


def kill(pid: int) -> None:
    """Send SIGKILL; a process that is gone already is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
