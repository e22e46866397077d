"""
Everything dies while input is taken in, or while the items of a run are brought in line with a changed input. The same command again, as often as it takes, ends as if nothing had happened.

Pages pass a gate, so the moment of death lies anywhere in the reading, however quick the machine is.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import random
import shutil
import signal
import struct
import sys
import termios
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import durabatch
from durabatch.ledger.reader import Reader
from tests.crash.processes import make_place
from tests.scenarios.stage import Gate

PROGRAM = Path(__file__).with_name("intake_program.py")
JOBS = """
def work(item):
    return [int(item["n"]), item["text"][:3]]
"""
#: What the run is given, by the kind of its source. ``merge`` and ``source`` are runs whose input has changed since they finished.
INPUTS = {
    "files": ("items.jsonl", "more.csv.gz"), "stdin": ("-", "--format", "jsonl"), "generator": (),
    "merge": ("items.jsonl", "--on-change", "merge"), "source": ("items.jsonl", "--on-change", "source"),
}  # fmt: skip
CHANGED = ("merge", "source")
COMMON = ("--ledger", "l.db", "--name", "kill", "--progress", "none", "--retries", "99")
#: Of a process that has read any number of rows.
MOST_MEMORY_KIB = 160 << 10


@dataclass
class Intake:
    """A run that is to take *count* rows in, or was there before its rows changed."""

    place: object
    kind: str
    count: int
    rng: random.Random
    has_keys: bool = True
    pages: int = 0
    page_items: int = 0
    gate: Gate | None = None
    kills: int = 0
    expected: list = field(default_factory=list)

    @property
    def folder(self):
        """Where it is."""
        return self.place.folder

    def row(self, number, text="text"):
        """Return one row."""
        return {**({"id": f"r{number}"} if self.has_keys else {}), "n": number, "text": text}

    def write(self, rows, name="items.jsonl"):
        """Write rows as JSON lines."""
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write_zipped(self, rows):
        """Write rows as a compressed table."""
        with gzip.open(self.folder / "more.csv.gz", "wt") as file:
            print("id,n,text", file=file)
            file.writelines(f"r{row['n']},{row['n']},{row['text']}\n" for row in rows)

    def prepare(self, command):
        """Write the input; where it is to change, let the run finish first. Find out how an undisturbed run ends."""
        (self.folder / "jobs.py").write_text(JOBS)
        rows = [self.row(number) for number in range(self.count)]
        half = self.count // 2 if self.kind == "files" else self.count
        self.write(rows[:half])
        self.write_zipped(rows[half:])
        if self.kind in CHANGED:
            assert self.run_here(command, "l.db", "items.jsonl").code == 0
            self.write(self.edited(rows))
        self.page_items = max(50, self.count // 12)
        self.pages = 2 + self.count // self.page_items
        self.expected = self.undisturbed(command)
        self.gate = Gate(self.folder / "gate")

    def edited(self, rows):
        """Return *rows* with some gone, some different, and some new ones between them."""
        made = []
        for row in rows:
            how = self.rng.random()
            made += [self.row(self.count + row["n"])] if how < 0.05 else []
            made += [row] if how < 0.90 else [self.row(row["n"], "other")] if how < 0.95 else []
        return made

    def run_here(self, command, ledger, *words):
        """Run in this process."""
        return command("run", "jobs.py:work", *words, *COMMON[2:], "--ledger", ledger, "-j", "0")

    def undisturbed(self, command):
        """Return what the run comes to when nobody disturbs it."""
        if self.kind in CHANGED:
            shutil.copy(self.place.ledger_path, self.folder / "calm.db")
        words = ["items.jsonl", *INPUTS[self.kind][1:]] if self.kind != "stdin" else ["items.jsonl"]
        if self.kind == "generator":
            with (self.folder / "items.jsonl").open() as lines:
                durabatch.Ledger("calm.db").run("jobs:work", map(json.loads, lines), name="kill", workers=0)
        else:
            assert self.run_here(command, "calm.db", *words).code == 0
        return outcome(self.folder / "calm.db")

    def start(self, sabotage="nothing"):
        """Start the command, or the program."""
        workers = self.rng.choice(("0", "0", "2"))
        words = ("generator", workers) if self.kind == "generator" else ("run", "jobs.py:work", *INPUTS[self.kind], *COMMON, "-j", workers)
        argv = [sys.executable, PROGRAM, self.page_items, sabotage, *words]
        with (self.folder / "items.jsonl").open() as rows:
            return self.place.start(argv, **({"stdin": rows} if self.kind == "stdin" else {}))

    def kill(self, pages, sabotage="nothing"):
        """Start it, let so many pages through, and kill it a moment later; return whether it still lived."""
        child = self.start(sabotage)
        self.gate.let(pages)
        while waiting(self.gate) and child.process.poll() is None:
            child.read_for(0.001)
        child.read_for(self.rng.uniform(0, 0.02))
        is_killed = child.process.poll() is None
        if is_killed and self.rng.random() < 0.5:
            child.signal(signal.SIGKILL)
            child.end()
        else:
            child.destroy(self.rng)
        self.drain()
        self.kills += is_killed
        return is_killed

    def drain(self):
        """Take back what the gate still holds."""
        if count := waiting(self.gate):
            os.read(self.gate.descriptor, count)

    def finish(self, sabotage="nothing"):
        """Let it run to its end; return what is wrong then."""
        child = self.start(sabotage)
        self.gate.let(20 * self.pages)
        code = child.end(300)
        self.drain()
        faults = [] if code == 0 else [f"exit {code}: {child.stderr()}"]
        return faults + self.faults(done=True) + [f"{peak} KiB" for peak in self.peak() if peak > MOST_MEMORY_KIB]

    def peak(self):
        """Return the greatest memory of the last process that came to its end."""
        return [int((self.folder / "peak").read_text())]

    def faults(self, *, done=False):
        """Return what is wrong with the ledger, at any time or when everything is done."""
        if not self.place.ledger_path.exists():
            return []
        found = [str(one) for one in self.place.ledger.verify()]
        have = outcome(self.place.ledger_path)
        if done or self.kind not in CHANGED:
            # While items are brought in line their places are those of before, or of now.
            found += [f"{what}: {count} times" for what, count in twice(self.place.ledger_path)]
        if done and have != self.expected:
            found.append(f"differs: {first_difference(have, self.expected)}")
        elif self.kind not in CHANGED and not done and [one[:2] for one in have] != [one[:2] for one in self.expected[: len(have)]]:
            found.append(f"no head of the input: {first_difference(have, self.expected)}")
        return found


def outcome(path):
    """Return of each item of the run, in the order of the ledger: key, payload, state, value, place in the input, and results of before."""
    with Reader(path) as ledger:
        return ledger.raw.execute(
            "SELECT key, payload, state, value, item.source_position, (SELECT count(*) FROM result_history AS old WHERE old.item_id = item.item_id)"
            " FROM item LEFT JOIN result USING (item_id) ORDER BY item_id"
        ).fetchall()


def twice(path):
    """Return rows of the input that are two items, and items with two successes of the same payload."""
    with Reader(path) as ledger:
        places = "SELECT source_position, count(*) FROM item WHERE source_position > 0 GROUP BY 1 HAVING count(*) > 1"
        successes = """
        SELECT key, count(*) FROM attempt JOIN item USING (item_id) WHERE outcome = 'succeeded' GROUP BY item_id
        HAVING count(*) > 1 + (SELECT count(*) FROM result_history AS old WHERE old.item_id = item.item_id)
        """
        return ledger.raw.execute(places).fetchall() + ledger.raw.execute(successes).fetchall()


def first_difference(have, expected):
    """Return where two lists part."""
    pairs = list(zip(have, expected, strict=False))
    return next((pair for pair in pairs if pair[0] != pair[1]), f"{len(have)} items, not {len(expected)}")


def waiting(gate):
    """Return how many bytes the gate holds: pages that nobody has asked for yet."""
    return struct.unpack("i", fcntl.ioctl(gate.descriptor, termios.FIONREAD, b"\0\0\0\0"))[0]


@pytest.fixture
def intake(tmp_path, monkeypatch, command, seed):
    """Give a function that prepares an intake in a place of its own; what was started there ends with the test."""
    made = []

    def make(kind, count, *, has_keys=True):
        place = make_place(tmp_path, f"place{len(made)}")
        monkeypatch.chdir(place.folder)
        monkeypatch.syspath_prepend(place.folder)
        made.append(Intake(place, kind, count, random.Random(seed + len(made)), has_keys))
        made[-1].prepare(command)
        return made[-1]

    yield make
    for one in made:
        one.place.close()
        if one.gate is not None:
            one.gate.close()


@pytest.mark.parametrize("kind", INPUTS)
def test_kills_while_input_is_taken_in_change_nothing(intake, long, kind):
    """At any moment of the reading: what stands in the ledger is sound, and the same command comes to the results of an undisturbed run."""
    kills, rng = 0, random.Random(kind)
    while kills < (30 if long else 1):
        one = intake(kind, int(os.environ.get("N", "1500")) if long else 1_500, has_keys=kind == "files" or rng.random() < 0.5)
        readings = 2 if kind in CHANGED else 1
        for _ in range(6 if long else 1):
            one.kill(one.rng.randint(1, readings * one.pages))
            assert one.faults() == []
        assert one.finish() == []
        kills += max(one.kills, 0)
