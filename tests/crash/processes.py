"""
Real runs in processes of their own, watched from outside: what they report, what their handlers did and when, and which processes they are.

    Place       a directory with a handler that writes down every beat of its work, a caller of durabatch.map, and a ledger
    Child       one started program in its own process group
    eventually  waits for a condition, and fails when it does not come true
"""

from __future__ import annotations

import collections
import fcntl
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from durabatch import process
from durabatch.api import Ledger
from durabatch.errors import LedgerMissingError, NotFoundError
from tests.nursery import started

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30

#: A handler that notes start, beats and end of every item in one file that all processes append to. An item says what to do:
#: "KEY", "KEY SECONDS" or "KEY SECONDS how", where how is what the handler does in the end; "gated" ones wait for ``open_gate``.
JOBS = """
import ctypes, os, signal, time

NOTES = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(kind, key):
    os.write(NOTES, f"{kind} {key} {os.getpid()} {time.monotonic_ns()}\\n".encode())


def work(item):
    key, seconds, how = (str(item).split() + ["0", "well"][len(str(item).split()) - 1 :])[:3]
    note("start", key)
    until = time.monotonic() + float(seconds)
    while how == "gated" and not os.path.exists("open"):
        time.sleep(0.01)
        note("beat", key)
    while time.monotonic() < until:
        if how == "deaf":
            sum(range(2_000_000_000))
        time.sleep(0.001)
        note("beat", key)
    note("end", key)
    if how == "exits":
        os._exit(0)
    if how == "segfaults":
        ctypes.string_at(0)
    if how == "hoards":
        return len(bytearray(1 << 46))
    if how == "raises":
        raise ValueError("as told")
    if how == "kills":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"key": key, "text": "x" * 40}
"""

#: Prints the key of every result that durabatch.map yields.
MAPS = """
import json, os, sys
import durabatch

if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    items, ledger = options.pop("items"), options.pop("ledger", "l.db")
    try:
        for result in durabatch.map("jobs:work", durabatch.lines(items), ledger=ledger, **options):
            os.write(1, f"{result.key}\\n".encode())
    except durabatch.DurabatchError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
"""


def eventually(condition, what, *, within_s=PATIENCE_S):
    """Return the first true value of *condition*, looking again and again."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {within_s} s")
        time.sleep(0.005)
    return value


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return []


def state_of(pid: int) -> str:
    """Return the letter for the state of a process; X when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def is_alive(pid: int, ticks: int | None) -> bool:
    """Tell whether the process that was started then still runs; a dead one that nobody waited for does not."""
    return process.start_ticks(pid) == ticks and state_of(pid) not in "ZX"


class Child:
    """A program in its own process group, and the workers below it."""

    def __init__(self, argv, *, folder, environ=None, preexec=None, stdin=subprocess.DEVNULL) -> None:
        # Not measured: most of these are killed, and the others are timed.
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("COV_CORE_", "COVERAGE_"))}
        env = {**plain, "PYTHONPATH": str(ROOT), "NOTES": str(folder / "notes"), **(environ or {})}
        self.errors = folder / f"stderr-{time.monotonic_ns()}"
        with self.errors.open("wb") as errors:
            self.process = started(argv, cwd=folder, env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=errors, preexec_fn=preexec)
        self.pid = self.process.pid
        self.printed = b""

    def workers(self) -> dict[int, int | None]:
        """Return its children by pid, with when they were started."""
        return {pid: process.start_ticks(pid) for pid in children(self.pid)}

    def read(self, timeout_s: float) -> bool:
        """Take what was printed, waiting up to *timeout_s* for it; False at the end."""
        stdout = self.process.stdout
        if stdout.closed or not select.select([stdout], [], [], timeout_s)[0]:
            return not stdout.closed
        data = os.read(stdout.fileno(), 1 << 16)
        self.printed += data
        if not data:
            stdout.close()
        return bool(data)

    def read_for(self, seconds: float) -> None:
        """Take what is printed in that time, or until the program ends."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self.read(left):
            continue

    def lines(self) -> list[str]:
        """Return the whole lines printed so far."""
        return self.printed.decode().split("\n")[:-1]

    def end(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end and return its status, everything that it printed being read."""
        deadline = time.monotonic() + timeout_s
        while self.read(max(0.0, deadline - time.monotonic())):
            if time.monotonic() > deadline:
                self.destroy()
                pytest.fail(f"did not end within {timeout_s} s: {self.stderr()}")
        return self.process.wait(timeout_s)

    def stderr(self) -> str:
        """Return what it printed on stderr so far."""
        return self.errors.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the program alone."""
        os.kill(self.pid, number)

    def stop(self, ledger: Path) -> None:
        """Stop the program, but not while it has its turn to write: everybody else would wait for that to end."""
        with open(f"{ledger}.turn", "r+b") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            self.signal(signal.SIGSTOP)
            eventually(lambda: state_of(self.pid) == "T", "the program stopped")

    def destroy(self, order=None) -> dict[int, int | None]:
        """Kill it and its workers, all of them, in the given or a fixed order; return the workers that there were."""
        workers = self.workers()
        victims = [self.pid, *workers]
        if order is not None:
            order.shuffle(victims)
        for pid in victims:
            try:
                # Workers lead sessions of their own.
                (os.kill if pid == self.pid else os.killpg)(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.end()
        for pid, ticks in workers.items():
            eventually(lambda pid=pid, ticks=ticks: not is_alive(pid, ticks), f"end of worker {pid}")
        return workers


@dataclass(frozen=True)
class Execution:
    """One call of the handler: when it began, when it was last seen at work, and when it ended (None: never), in seconds."""

    key: str
    pid: int
    started_s: float
    seen_s: float
    ended_s: float | None


class Place:
    """Where runs happen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger_path = folder / "l.db"
        self.children: list[Child] = []
        (folder / "jobs.py").write_text(JOBS)
        (folder / "maps.py").write_text(MAPS)

    def items(self, rows, name="items.txt") -> str:
        """Write an input file, one item a row, and return its name."""
        (self.folder / name).write_text("".join(f"{row}\n" for row in rows))
        return name

    def start(self, argv, **options) -> Child:
        """Start a program here."""
        child = Child(argv, folder=self.folder, **options)
        self.children.append(child)
        return child

    def map(self, items: str = "items.txt", **options) -> Child:
        """Start the caller of durabatch.map."""
        options = {"name": "kill", "workers": 2, **options}
        return self.start([sys.executable, "maps.py", json.dumps({"items": items, **options})])

    def durabatch(self, *arguments, **options) -> Child:
        """Start the command."""
        return self.start([sys.executable, "-m", "durabatch", *arguments], **options)

    def run(self, items: str = "items.txt", *arguments, **options) -> Child:
        """Start ``durabatch run`` with the noting handler."""
        return self.durabatch("run", "jobs.py:work", items, "--ledger", "l.db", "--name", "kill", "--workers", "2", "--progress", "none", *arguments, **options)

    @property
    def ledger(self) -> Ledger:
        """The ledger, to read."""
        return Ledger(self.ledger_path)

    def results(self, name: str = "kill") -> dict[str, str]:
        """Return key and state of every item that has ended in the run; nothing when there is no run yet. The ledger must be sound."""
        try:
            assert self.ledger.verify() == []
            rows = [(one.key.split()[0], one.state) for one in self.ledger[name].results() if one.state not in ("pending", "running", "scheduled")]
        except (LedgerMissingError, NotFoundError):
            return {}
        found = dict(rows)
        assert len(found) == len(rows)
        return found

    def open_gate(self) -> None:
        """Let gated items go on."""
        (self.folder / "open").touch()

    def noted(self) -> int:
        """Return how much the handlers have noted: it grows while there is work."""
        notes = self.folder / "notes"
        return notes.stat().st_size if notes.exists() else 0

    def has_begun(self, child: Child, before: int = 0) -> bool:
        """Tell whether handlers noted more than *before*, or the child has ended."""
        return self.noted() > before or child.process.poll() is not None

    def executions(self) -> list[Execution]:
        """Return every call of the handler so far, in the order of their beginnings."""
        done: list[Execution] = []
        open_now: dict[tuple[str, int], Execution] = {}
        notes = self.folder / "notes"
        for line in notes.read_text().splitlines() if notes.exists() else ():
            kind, key, pid, instant = line.split()
            at, who = int(instant) / 1e9, (key, int(pid))
            if kind == "start":
                if who in open_now:
                    done.append(open_now.pop(who))
                open_now[who] = Execution(key, int(pid), at, at, None)
            else:
                before = open_now[who]
                after = Execution(key, int(pid), before.started_s, at, at if kind == "end" else None)
                open_now[who] = after
                if kind == "end":
                    done.append(open_now.pop(who))
        return sorted([*done, *open_now.values()], key=lambda one: one.started_s)

    def overlaps(self) -> list[tuple[Execution, Execution]]:
        """Return pairs of calls for the same item of which the second began before the first was last seen at work."""
        by_key = collections.defaultdict(list)
        for one in self.executions():
            by_key[one.key].append(one)
        return [(first, second) for calls in by_key.values() for first, second in itertools.pairwise(calls) if second.started_s < first.seen_s]

    def close(self) -> None:
        """End what was started here and still runs."""
        for child in self.children:
            if child.process.poll() is None:
                child.destroy()
            child.read_for(0)
            if not child.process.stdout.closed:
                child.process.stdout.close()


def make_place(folder: Path, name: str = "place") -> Place:
    """Return a place below *folder*."""
    (folder / name).mkdir()
    return Place(folder / name)
