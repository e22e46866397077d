"""
Quicker starts of durabatch and its workers: forked off a process that has their modules loaded, instead of loading them once more.

The tests start some three hundred runs and a thousand workers, and most of what that costs is loading the same modules again, twice as much
where coverage follows. Whoever is born in a nursery has what ``python`` would have given it: a session, descriptors, directory, environment,
arguments, module path and ``__main__`` of its own. What it starts itself is started as ever: the workers of runs, above all. With ``--long``
there is no nursery.

    started     subprocess.Popen, or Born
    Born        a process that was started in a nursery, used like subprocess.Popen
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Born", "Nursery", "started"]

PROGRAM = Path(__file__).with_name("newborn.py")
WORKER = str(Path("durabatch", "workers", "__main__.py"))
#: What is loaded before the first fork: for a run, what going on with it and looking at it need, too; for a worker, what every worker needs.
RUNS = (
    "durabatch.api",
    *(f"durabatch.cli.{verb}" for verb in ("exec", "main", "progress", "resume", "retry", "run", "status", "summary")),
    "durabatch.runner.session",
    "runpy",
)
WORKERS = ("durabatch.workers.main",)
#: Variables that Python, what lies below it and coverage look at when they start, and not again.
EARLY = ("COV", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON", "TZ")
#: Whether there are nurseries.
is_open = True


class Born:
    """A process from a nursery; as in subprocess.Popen, its number is not used again before somebody has asked for its end."""

    def __init__(self, nursery: Nursery, pid: int, stdout: int | None) -> None:
        self.pid, self.returncode = pid, None
        self.stdout = None if stdout is None else os.fdopen(stdout, "rb", buffering=0)
        self._nursery, self._end = nursery, os.pidfd_open(pid)

    def poll(self, timeout_s: float | None = 0) -> int | None:
        """Return its exit status, negative for a signal; None when it has none after *timeout_s*."""
        if self.returncode is None and select.select([self._end], [], [], timeout_s)[0]:
            os.close(self._end)
            self.returncode = os.waitstatus_to_exitcode(self._nursery.ask({"wait": self.pid}))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status; TimeoutExpired when it has none after *timeout* seconds."""
        if self.poll(timeout) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.returncode


class Nursery:
    """The process that others are forked from, seen from outside."""

    def __init__(self, flags: Sequence[str], modules: Sequence[str], env: dict[str, str]) -> None:
        self.env = env
        self._turn = threading.Lock()
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # In a session of its own: what is typed at pytest, it hears of from pytest.
            self.process = subprocess.Popen(
                [sys.executable, *flags, PROGRAM, str(theirs.fileno()), *modules],
                env=env | {"PYTHONPATH": str(PROGRAM.parents[1])},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def ask(self, order: dict[str, object], *descriptors: int) -> int:
        """Return the number that the nursery answers with."""
        with self._turn:
            socket.send_fds(self._line, [json.dumps(order).encode()], descriptors)
            answer = self._line.recv(64)
        assert answer, f"the nursery ended with {self.process.wait()}"
        return int(answer)

    def start(self, argv: list[str], *, cwd, env: dict[str, str], stdin, stdout, stderr, pass_fds: Sequence[int]) -> Born:
        """Start ``python ARGV``; the parameters are those of subprocess.Popen, and the numbers of *pass_fds* the last arguments."""
        with open(os.devnull, "r+b") as nothing:
            reading, writing = os.pipe() if stdout == subprocess.PIPE else (None, None)
            files = (nothing if stdin == subprocess.DEVNULL else stdin, writing or stdout, stderr)
            standard = [one if isinstance(one, int) else one.fileno() for one in files]
            pid = self.ask({"argv": argv[: len(argv) - len(pass_fds)], "cwd": str(cwd), "env": env}, *standard, *pass_fds)
        if writing is not None:
            os.close(writing)
        return Born(self, pid, reading)

    def close(self) -> None:
        """End it; its children go on."""
        self._line.close()
        self.process.wait()


@functools.cache
def nursery(flags: tuple[str, ...], modules: tuple[str, ...], is_measured: bool) -> Nursery:
    """Return the nursery of this process for that kind of program."""
    made = Nursery(flags, modules, dict(os.environ))
    atexit.register(made.close)
    return made


def early(env: dict[str, str]) -> dict[str, str]:
    """Return what must be equal for a process to begin as it would by itself."""
    return {name: value for name, value in env.items() if name.startswith(EARLY) and name != "PYTHONPATH"}


def started(argv: Sequence[str], *, cwd, env=None, stdin=subprocess.DEVNULL, stdout, stderr, pass_fds=(), preexec_fn=None) -> subprocess.Popen | Born:
    """
    Start a program in a session of its own; the parameters are those of subprocess.Popen.

    It is born in a nursery when it is durabatch, a worker or a program of Python's, and nothing is asked for that comes before its first line.
    """
    argv, env = [str(part) for part in argv], dict(os.environ) if env is None else env
    is_worker = argv[1:2] == ["-P"] and argv[2].endswith(WORKER)
    is_program = argv[1:3] == ["-m", "durabatch"] or argv[1].endswith(".py")
    if is_open and argv[0] == sys.executable and (is_worker or is_program) and not preexec_fn and stdin != subprocess.PIPE:
        flags, modules = (("-P",), WORKERS) if is_worker else ((), RUNS)
        found = nursery(flags, modules, any(name.startswith("COV") for name in env))
        if early(env) == early(found.env):
            options = {"cwd": cwd, "env": env, "stdin": stdin, "stdout": stdout, "stderr": stderr, "pass_fds": pass_fds}
            return found.start(argv[1 + len(flags) :], **options)
    return subprocess.Popen(
        argv, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds, preexec_fn=preexec_fn, start_new_session=True
    )
