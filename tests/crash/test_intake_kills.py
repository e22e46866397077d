"""
Everything dies while input is taken in, or while the items of a run are brought in line with a changed input. The same command again, as often as it takes, ends as if nothing had happened.

Pages pass a gate, so the moment of death lies anywhere in the reading, however quick the machine is.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import durabatch
from durabatch.intake.source import FIRST_PAGE_ITEMS
from durabatch.ledger.reader import Reader
from durabatch.runner import settling
from tests.crash.processes import make_place
from tests.scenarios.stage import Gate

PROGRAM = Path(__file__).with_name("intake_program.py")
JOBS = """
def work(item):
    return [int(item["n"]), item["text"][:3]]
"""
#: What the run is given, by the kind of its source. The last three are runs whose input has changed since they finished.
INPUTS = {
    "files": ("items.jsonl", "more.csv.gz"), "stdin": ("-", "--format", "jsonl"), "generator": (),
    "merge": ("items.jsonl", "--on-change", "merge"), "source": ("items.jsonl", "--on-change", "source"),
    "plan": ("items.jsonl", "--on-change", "plan.csv"),
}  # fmt: skip
#: How often an input that has changed is read before anything is done about it: for its digest, to be compared, and whether a plan fits.
CHANGED = {"merge": 2, "source": 2, "plan": 3}
COMMON = ("--name", "kill", "--progress", "none", "--retries", "99")
#: Of a process that has read any number of rows.
MOST_MEMORY_KIB = 160 << 10


@dataclass
class Intake:
    """A run that is to take *count* rows in, or has done so before its rows changed."""

    place: object
    kind: str
    count: int
    rng: random.Random
    command: object
    has_keys: bool = True
    gate: Gate | None = None
    kills: int = 0
    expected: list = field(default_factory=list)

    @property
    def folder(self):
        """Where it is."""
        return self.place.folder

    @property
    def page_items(self):
        """Rows of a page; the first may be smaller."""
        return self.count // 12

    @property
    def pages(self):
        """Pages of the input, as it was at first."""
        first = min(FIRST_PAGE_ITEMS, self.page_items)
        return 1 + -(-(self.count - first) // self.page_items)

    def row(self, number, text="text"):
        """Return one row."""
        return {**({"id": f"r{number}"} if self.has_keys else {}), "n": number, "text": text}

    def write(self, rows):
        """Write rows as JSON lines."""
        (self.folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write_zipped(self, rows):
        """Write rows as a compressed table."""
        with gzip.open(self.folder / "more.csv.gz", "wt") as file:
            print("id,n,text", file=file)
            file.writelines(f"r{row['n']},{row['n']},{row['text']}\n" for row in rows)

    def prepare(self, edit):
        """Write the input; where it is to change, let the run finish first. Find out how an undisturbed run ends."""
        (self.folder / "jobs.py").write_text(JOBS)
        rows = [self.row(number) for number in range(self.count)]
        half = self.count // 2 if self.kind == "files" else self.count
        self.write(rows[:half])
        self.write_zipped(rows[half:])
        if self.kind in CHANGED:
            assert self.run_here("l.db", changes=False) == 0
            self.write(edit(self, rows))
            self.command("plan", "jobs.py:work", "items.jsonl", "--name", "kill", "--ledger", "l.db", "--output", "plan.csv")
            shutil.copy(self.place.ledger_path, self.folder / "calm.db")
        assert self.run_here("calm.db") == 0
        self.expected = outcome(self.folder / "calm.db")
        self.gate = Gate(self.folder / "gate")

    def run_here(self, ledger, *, changes=True):
        """Run in this process, with no gate; return the exit code. What would come on standard input is read from a file."""
        if self.kind == "generator":
            with (self.folder / "items.jsonl").open() as lines:
                return durabatch.Ledger(ledger).run("jobs:work", map(json.loads, lines), name="kill", workers=0, max_attempts=99).exit_code
        inputs = ["items.jsonl"] if self.kind == "stdin" else INPUTS[self.kind] if changes else INPUTS[self.kind][:1]
        return self.command("run", "jobs.py:work", *inputs, *COMMON, "--ledger", ledger, "-j", "0").code

    def start(self, sabotage="nothing"):
        """Start the command, or the program, in a process of its own."""
        workers = self.rng.choice(("0", "0", "2"))
        words = ("run", "jobs.py:work", *INPUTS[self.kind], *COMMON, "--ledger", "l.db", "-j", workers)
        words = ("generator", workers) if self.kind == "generator" else words
        with (self.folder / "items.jsonl").open() as rows:
            options = {"stdin": rows} if self.kind == "stdin" else {}
            return self.place.start([sys.executable, PROGRAM, self.page_items, sabotage, *words], **options)

    def kill(self, pages, sabotage="nothing"):
        """Start it, let so many pages through, and kill it a moment later if it still lives: with everything that it has started, or alone."""
        child = self.start(sabotage)
        self.gate.let(pages)
        while self.gate.waiting() and child.process.poll() is None:
            child.read_for(0.001)
        child.read_for(self.rng.uniform(0, 0.02))
        is_alive = child.process.poll() is None
        if is_alive and self.rng.random() < 0.5:
            child.signal(signal.SIGKILL)
            child.end()
        else:
            child.destroy(self.rng)
        self.gate.shut()
        self.kills += is_alive

    def finish(self):
        """Let it run to its end in a process of its own; return what is wrong then."""
        child = self.start()
        self.gate.let(20 * self.pages)
        code = child.end(300)
        self.gate.shut()
        peak_kib = int((self.folder / "peak").read_text())
        faults = [] if peak_kib <= MOST_MEMORY_KIB else [f"{peak_kib} KiB"]
        return faults + self.faults_at_end(code) + ([child.stderr()] if code else [])

    def finish_here(self):
        """Let it run to its end in this process; return what is wrong then."""
        return self.faults_at_end(self.run_here("l.db"))

    def faults_at_end(self, code):
        """Return what is wrong when everything is done."""
        found = [str(one) for one in self.place.ledger.verify()] + twice(self.place.ledger_path)
        have = outcome(self.place.ledger_path)
        return found + ([f"exit code {code}"] if code else []) + ([] if have == self.expected else [first_difference(have, self.expected)])

    def faults(self):
        """Return what is wrong after a death: with the ledger, and with the items that it holds of the input."""
        if not self.place.ledger_path.exists():
            return []
        found = [str(one) for one in self.place.ledger.verify()]
        if self.kind in CHANGED:
            return found
        have, head = ([one[:2] for one in rows] for rows in (outcome(self.place.ledger_path), self.expected))
        return found + twice(self.place.ledger_path) + ([] if have == head[: len(have)] else [first_difference(have, head)])


def edited(intake, rows):
    """Return *rows* with some gone, some different, and some new ones between them."""
    made = []
    for row in rows:
        how = intake.rng.random()
        made += [intake.row(intake.count + row["n"])] if how < 0.05 else []
        made += [row] if how < 0.90 else [intake.row(row["n"], "other")] if how < 0.95 else []
    return made


def edited_at_both_ends(intake, rows):
    """Return *rows* with a change of the first, and another one in the place of the last."""
    return [intake.row(0, "other"), *rows[1:-1], intake.row(intake.count)]


def outcome(path):
    """Return of each item of the run, in the order of the ledger: key, payload, state, value, place in the input, and results of before."""
    with Reader(path) as ledger:
        return ledger.raw.execute(
            "SELECT key, payload, state, value, item.source_position, (SELECT count(*) FROM result_history AS old WHERE old.item_id = item.item_id)"
            " FROM item LEFT JOIN result USING (item_id) ORDER BY item_id"
        ).fetchall()


def twice(path):
    """Return rows of the input that are two items, and items with two successes of the same payload, in words."""
    with Reader(path) as ledger:
        places = "SELECT 'row ' || source_position, count(*) FROM item WHERE source_position > 0 GROUP BY 1 HAVING count(*) > 1"
        successes = """
        SELECT key, count(*) FROM attempt JOIN item USING (item_id) WHERE outcome = 'succeeded' GROUP BY item_id
        HAVING count(*) > 1 + (SELECT count(*) FROM result_history AS old WHERE old.item_id = item.item_id)
        """
        rows = ledger.raw.execute(places).fetchall() + ledger.raw.execute(successes).fetchall()
    return [f"{what}: {count} times" for what, count in rows]


def first_difference(have, expected):
    """Return where two lists part, in words."""
    pairs = zip(have, expected, strict=False)
    return next((f"{one} is not {other}" for one, other in pairs if one != other), f"{len(have)} items, not {len(expected)}")


@pytest.fixture
def intake(tmp_path, monkeypatch, command, seed):
    """Give a function that prepares an intake in a place of its own; what was started there ends with the test."""
    made = []

    def make(kind, count=600, *, has_keys=True, edit=edited):
        place = make_place(tmp_path, f"place{len(made)}")
        monkeypatch.chdir(place.folder)
        monkeypatch.syspath_prepend(place.folder)
        made.append(Intake(place, kind, count, random.Random(seed + len(made)), command, has_keys))
        made[-1].prepare(edit)
        return made[-1]

    yield make
    for one in made:
        one.place.close()
        if one.gate is not None:
            one.gate.close()


@pytest.mark.parametrize("kind", INPUTS)
def test_kills_while_input_is_taken_in_change_nothing(intake, kind, seed, long):
    """At any moment of the reading: what stands in the ledger is sound, and the same command comes to the results of an undisturbed run."""
    rng, kills, wanted = random.Random(seed), 0, 30 if long else 1
    while kills < wanted:
        count = 6_000 if kills else 20_000 if kind in CHANGED else 60_000
        one = intake(kind, count if long else 600, has_keys=kind == "files" or rng.random() < 0.5)
        for _ in range(6 if long else 1):
            readings = max(0, CHANGED.get(kind, 0) - rng.choice((0, 0, 0, 1, 2)))
            one.kill(readings * one.pages + rng.randint(1, one.pages))
            assert one.faults() == []
        assert (one.finish() if long or kind == "stdin" else one.finish_here()) == []
        kills += one.kills


def test_what_was_taken_in_is_not_read_again(intake):
    """The same command goes on in the middle of the file: what stands before that place may be rubbish by now."""
    one = intake("source", edit=lambda intake, rows: rows)
    one.place.ledger_path.unlink()
    one.kill(5)
    taken = len(outcome(one.place.ledger_path))
    # It may die before the last page that it read is on disk.
    assert taken in (4 * one.page_items, 5 * one.page_items)
    path = one.folder / "items.jsonl"
    lines, times = path.read_bytes().splitlines(keepends=True), path.stat()
    path.write_bytes(b"?" * len(b"".join(lines[:taken])) + b"".join(lines[taken:]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert one.finish_here() == []


def test_a_change_that_was_carried_out_before_the_kill_needs_no_word(intake):
    """The items are in line with the input, though nobody could note it: the run goes on without being told again what to do about the change."""
    one = intake("source", edit=lambda intake, rows: [intake.row(0, "other"), *rows[1:]])
    one.kill(CHANGED["source"] * one.pages + 4)
    assert one.run_here("l.db", changes=False) == 0
    assert outcome(one.place.ledger_path) == one.expected


def mark_unseen(monkeypatch):
    """Have nobody see that items were being brought in line."""
    monkeypatch.setattr(settling, "is_half_done", lambda row: False)


@pytest.mark.parametrize(
    ("kind", "sabotage"), [("files", "position_late"), ("files", "position_early"), ("source", "nothing"), ("source", "fingerprint_early")]
)
def test_a_sabotaged_intake_is_noticed(intake, monkeypatch, kind, sabotage):
    """A position apart from its items, a fingerprint before its items, or nothing that tells of a half of the work: each comes to other results."""
    one = intake(kind, edit=edited_at_both_ends)
    if kind == "source":
        mark_unseen(monkeypatch)
    one.kill(CHANGED.get(kind, 0) * one.pages + 4, sabotage)
    assert one.kills == 1
    assert one.finish_here() != []
