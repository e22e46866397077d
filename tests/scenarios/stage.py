"""
A stage: a directory with handlers, an input and a ledger, on which the real command runs.

What happened is read from the rows of the ledger and from what handlers wrote down; who is still there from the mark that every process of a
stage carries in its environment. Handlers wait at a gate, a FIFO that lets one through for each byte, and not for a time.

    Stage           the directory, its processes, its rows
    Gate            where handlers wait for the test
    Try             one row of ``attempt``
    innocent_faults what is wrong with items that nothing should have happened to
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import termios
import textwrap
from pathlib import Path
from typing import NamedTuple

from durabatch.errors import LedgerMissingError
from durabatch.ledger.reader import Reader
from tests.crash.processes import Child, eventually

#: Every file of handlers begins so. ``note`` writes one line that comes in one piece, ``wait_at`` waits at a gate.
PRELUDE = """
import asyncio, hashlib, os, pathlib, signal, subprocess, sys, threading, time

import durabatch
from durabatch import Fail, Retry, Skip, Snooze, handler

NOTES = os.environ["NOTES"]


def note(*words):
    descriptor = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (" ".join(map(str, words)) + "\\n").encode())
    os.close(descriptor)


def wait_at(gate):
    descriptor = os.open(gate, os.O_RDONLY)
    os.read(descriptor, 1)
    os.close(descriptor)
"""
#: A script for commands: what PRELUDE is for functions.
SHELL_PRELUDE = """#!/bin/sh
note() { echo "$*" >> "$NOTES"; }
wait_at() { dd if="$1" of=/dev/null bs=1 count=1 2> /dev/null; }
"""
#: No process of a run is there so long after its end.
GONE_S = 2.0


class Try(NamedTuple):
    """One attempt, as its row says."""

    number: int
    outcome: str
    worker: int
    error_type: str | None
    message: str | None
    group: str | None
    exit_code: int | None
    signal: int | None
    stderr_tail: str | None
    peak_rss_bytes: int | None
    spent: str | None
    remedy: str | None
    started_s: float
    seconds: float

    @property
    def ended_s(self) -> float:
        """When it ended, in seconds of the wall clock."""
        return self.started_s + self.seconds

    @property
    def error(self) -> str:
        """Type and message."""
        return f"{self.error_type}: {self.message}"


TRIES = """
SELECT item.key, attempt.number, outcome, worker, error_type, error_message, error_group, exit_code, signal, stderr_tail, peak_rss_bytes, spent,
       remedy, started_at_us / 1e6, duration_us / 1e6
FROM attempt JOIN item USING (item_id) ORDER BY started_at_us, item_id, attempt.number
"""


class Standing(NamedTuple):
    """Where an item stands: ``charged`` counts its attempts that count, ``due_s`` is on the wall clock."""

    state: str
    charged: int
    due_s: float | None


class Gate:
    """Where handlers wait."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self.descriptor = os.open(path, os.O_RDWR)

    def let(self, count: int) -> None:
        """Let so many through, now or when they come."""
        os.write(self.descriptor, b"." * count)

    def waiting(self) -> int:
        """Return how many more may pass of those that were let through."""
        return int.from_bytes(fcntl.ioctl(self.descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)

    def shut(self) -> None:
        """Let nobody through any more."""
        if count := self.waiting():
            os.read(self.descriptor, count)

    def open(self) -> None:
        """Let everybody through from now on."""
        aside = self.path.with_name(f"{self.path.name}.open")
        aside.touch()
        aside.rename(self.path)
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Stage:
    """Where runs happen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger_path = folder / "l.db"
        self.children: list[Child] = []
        self.gates: list[Gate] = []

    # What stands there.

    def jobs(self, code: str, name: str = "jobs.py") -> None:
        """Write the handlers."""
        (self.folder / name).write_text(PRELUDE + textwrap.dedent(code))

    def script(self, code: str, name: str = "job.sh") -> None:
        """Write what a command runs."""
        path = self.folder / name
        path.write_text(SHELL_PRELUDE + textwrap.dedent(code))
        path.chmod(0o755)

    def items(self, keys) -> None:
        """Write the input, one item a line; the line is the item and its key."""
        (self.folder / "items.txt").write_text("".join(f"{key}\n" for key in keys))

    def gate(self, name: str = "gate") -> Gate:
        """Make a closed gate."""
        made = Gate(self.folder / name)
        self.gates.append(made)
        return made

    def notes(self) -> list[list[str]]:
        """Return the whole lines that were noted, as words."""
        notes = self.folder / "notes"
        return [line.split() for line in notes.read_text().split("\n")[:-1]] if notes.exists() else []

    def noted(self, word: str) -> list[str]:
        """Return what stands behind *word* in the notes that begin with it."""
        return [" ".join(rest) for first, *rest in self.notes() if first == word]

    def wait_for(self, word: str, count: int, **options) -> list[str]:
        """Wait until so many notes begin with *word*, and return what stands behind it in each."""
        return eventually(lambda: len(found := self.noted(word)) >= count and found, f"{count} times {word!r} in the notes", **options)

    # What happens there.

    def start(self, *words, environ=None, **options) -> Child:
        """Start ``durabatch WORDS``."""
        return self.start_program([sys.executable, "-m", "durabatch", *words], environ=environ, **options)

    def start_program(self, argv, environ=None, **options) -> Child:
        """Start any program here."""
        child = Child(argv, folder=self.folder, environ={"STAGE": str(self.folder), **(environ or {})}, **options)
        self.children.append(child)
        return child

    def run(self, function: str, *words, **options) -> Child:
        """Start ``durabatch run`` of a function of ``jobs.py`` with two workers; *words* may say otherwise."""
        return self.start("run", f"jobs.py:{function}", "items.txt", *self.common, *words, **options)

    def exec(self, *words, command=("./job.sh", "{}"), **options) -> Child:
        """Start ``durabatch exec`` of the script with two workers; *words* may say otherwise."""
        return self.start("exec", "items.txt", *self.common, *words, "--", *command, **options)

    @property
    def common(self) -> tuple[str, ...]:
        """What every run is given."""
        return ("--ledger", "l.db", "--progress", "none", "-j", "2")

    # What can be seen of it.

    def query(self, sql: str, *values) -> list[tuple]:
        """Return rows of the ledger; none while there is no ledger."""
        try:
            with Reader(self.ledger_path) as reader:
                return reader.raw.execute(sql, values).fetchall()
        except LedgerMissingError:
            return []

    def tries(self) -> dict[str, list[Try]]:
        """Return the attempts of each item that has any, in the order in which they began."""
        found: dict[str, list[Try]] = {}
        for key, *row in self.query(TRIES):
            found.setdefault(key, []).append(Try(*row))
        return found

    def standing(self) -> dict[str, Standing]:
        """Return where each item stands."""
        sql = "SELECT key, state, attempt_count - uncharged_count, due_at_us / 1e6 FROM item"
        return {key: Standing(*row) for key, *row in self.query(sql)}

    def states(self) -> dict[str, str]:
        """Return the state of each item."""
        return {key: one.state for key, one in self.standing().items()}

    def row(self) -> dict:
        """Return the row of the run; empty while there is none."""
        names = "state", "reason", "exit_code", "spent", "binding_limit", "attempt_count"
        found = self.query(f"SELECT {', '.join(names)} FROM run ORDER BY run_id DESC LIMIT 1")
        return dict(zip(names, found[0], strict=True)) if found else {}

    def values(self) -> dict[str, str]:
        """Return the values of items as JSON text, those that stand in the rows themselves."""
        return dict(self.query("SELECT key, value FROM result JOIN item USING (item_id)"))

    def marked(self) -> dict[int, str]:
        """Return the processes that carry the mark of this stage, or that it has started, with their command lines."""
        mark, found = f"STAGE={self.folder}\0".encode(), {}
        started = {child.pid for child in self.children if child.process.poll() is None}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if int(folder.name) in started or mark in (folder / "environ").read_bytes() + b"\0":
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
        return found

    def check_nobody_left(self) -> None:
        """Make sure that within two seconds no process of this stage is there."""
        eventually(lambda: not self.marked(), f"the end of {self.marked()}", within_s=GONE_S)

    def close(self) -> None:
        """End what was started here, and whatever that has started."""
        for pid in self.marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for child in self.children:
            child.end()
        for gate in self.gates:
            gate.close()


def make_stage(folder: Path, name: str = "stage") -> Stage:
    """Return a stage below *folder*."""
    (folder / name).mkdir()
    return Stage(folder / name)


def innocent_faults(stage: Stage, keys, *, tries: int | None = 1) -> list[str]:
    """
    Return what is wrong with items that must have succeeded with exactly one charged attempt.

    Args:
        tries: Attempts of any kind that each may have had; None for any number of uncharged ones.
    """
    standing, had = stage.standing(), stage.tries()
    faults = [f"{key}: {standing.get(key)}" for key in keys if standing.get(key, ())[:2] != ("succeeded", 1)]
    return faults + [f"{key}: {had.get(key)}" for key in keys if tries is not None and len(had.get(key, ())) != tries]


def ended(child: Child, code: int, within_s: float = 30) -> str:
    """Wait for the end of a child, which must have this exit code and print no traceback; return what it said on stderr."""
    found = child.end(within_s)
    said = child.stderr()
    assert found == code, said
    assert "Traceback" not in said, said
    return said
