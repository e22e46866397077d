"""
Random programs of effects, failures, crashes, rollbacks and retries against a world of named values, held against a model of what must stand there.

The world is what the effects that are not undone have made of it, in their order; and none is left of an item that has not succeeded, unless
the ledger lists what remains. The model knows besides which items a quiet run ends with, which a rollback must have undone, and in which order.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st

from durabatch.api import Ledger
from durabatch.errors import LedgerMissingError, NotFoundError
from durabatch.ledger.reader import Reader
from tests.crash.dying import lives

#: An item says what each of its calls does: effects ``[slot, value, action]`` one after the other, and how it ends.
JOBS = """
import os
from pathlib import Path

import durabatch
from tests.crash.dying import counted, reach

WORLD = Path("world")


def look(slot):
    return (WORLD / slot).read_text() if (WORLD / slot).exists() else None


def put(slot, value):
    (WORLD / slot).unlink(missing_ok=True) if value is None else (WORLD / slot).write_text(value)


def note(*words):
    descriptor = os.open("notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (" ".join(map(str, words)) + "\\n").encode())
    os.close(descriptor)


def is_back(slot, old):
    return look(slot) == old


def take_back(slot, old, mark):
    reach("before_undo_action")
    note("called", mark)
    put(slot, old)
    reach("after_undo_action")


@durabatch.undo_action("plain", verify=is_back)
def plain(slot, old, mark):
    take_back(slot, old, mark)


@durabatch.undo_action("flaky", verify=is_back)
def flaky(slot, old, mark, ctx):
    if ctx.attempt == 1:
        raise ConnectionError("not now")
    take_back(slot, old, mark)


@durabatch.undo_action("stuck", verify=is_back)
def stuck(slot, old, mark):
    if not os.path.exists("eased"):
        raise PermissionError("not yet")
    take_back(slot, old, mark)


@durabatch.undo_action("mail", irreversible=True)
def mail(slot, old, mark):
    note("called", mark)


def script_of(item):
    return item["calls"][min(counted(f"calls-{item['key']}"), len(item["calls"])) - 1]


def arguments(item, slot):
    return {"slot": f"{item['key']}.{slot}", "old": look(f"{item['key']}.{slot}"), "mark": counted("marks")}


def affect(entry, value):
    reach("after_undo_returned")
    put(entry["slot"], value)
    note("effect", entry["mark"], value)
    reach("after_effect")


def end(item, ends):
    if ends == "fails":
        raise ValueError("bad")
    if ends == "fails for good":
        raise durabatch.Fail("bad")
    if ends == "skips":
        raise durabatch.Skip("nothing to do")
    if ends == "snoozes" and counted(f"snoozes-{item['key']}") == 1:
        raise durabatch.Snooze("1ms")
    return {path.name: path.read_text() for path in WORLD.glob(f"{item['key']}.*")}


def work(item, ctx):
    script = script_of(item)
    for slot, value, action in script["does"]:
        entry = arguments(item, slot)
        ctx.undo(action, **entry)
        affect(entry, value)
    return end(item, script["ends"])


async def awork(item, ctx):
    script = script_of(item)
    for slot, value, action in script["does"]:
        entry = arguments(item, slot)
        await ctx.undo(action, **entry)
        affect(entry, value)
    return end(item, script["ends"])
"""
#: Exit codes of what was done: all well, failed items, halted; and of what was refused, or had nothing to do.
RUN_CODES, REFUSED = {0, 1, 3}, {2, 5}
#: Effects that stay for a while, or for ever.
HARD = {"stuck", "mail"}


# -- programs -----------------------------------------------------------------------------------------------------------------


class Command(NamedTuple):
    """One life: what it does, and at which point it dies, if it does."""

    words: tuple[str, ...]
    dies_at: int | None


@dataclass(frozen=True)
class Program:
    """Items, how they are run, and what happens to the run then."""

    items: list[dict]
    function: str
    retries: int
    batch_size: int
    atomic: str
    first: Command
    commands: list[Command]

    @property
    def common(self) -> tuple[str, ...]:
        """The words that start the run, or go on with it."""
        return ("run", f"jobs.py:{self.function}", "items.jsonl", "--key", "key", "--retries", str(self.retries), "--backoff", "1ms",
                "--batch-size", str(self.batch_size), "--atomic", self.atomic)  # fmt: skip


#: What a mail did stays under what is undone before it: it has a slot of its own.
EFFECTS = st.one_of(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from(["plain"] * 5 + ["flaky", "stuck"])),
    st.tuples(st.just("post"), st.sampled_from("xyz"), st.just("mail")),
)
SCRIPTS = st.fixed_dictionaries(
    {
        "does": st.lists(EFFECTS, max_size=3),
        "ends": st.sampled_from(["well"] * 4 + ["fails"] * 3 + ["fails for good", "skips", "snoozes"]),
    }
)
SCOPES = st.one_of(
    st.just(()),
    st.tuples(st.just("--batch"), st.sampled_from("123")),
    st.tuples(st.just("--to-batch"), st.sampled_from("0123")),
    st.tuples(st.just("--item"), st.sampled_from(["i0", "i1", "i2"])),
)
VERBS = st.one_of(
    st.just(("run",)),
    st.just(("resume",)),
    st.builds(lambda scope, how: ("rollback", "--yes", *scope, *how), SCOPES, st.sampled_from([(), ("--keep-going",)])),
    st.sampled_from([("retry",), ("retry", "--undone"), ("ease",)]),
)
PROGRAMS = st.builds(
    lambda calls, function, retries, batch_size, atomic, dies_at, later: Program(
        [{"key": f"i{number}", "calls": scripts} for number, scripts in enumerate(calls)],
        function, retries, batch_size, atomic, Command(("run",), dies_at), later,
    ),
    st.lists(st.lists(SCRIPTS, min_size=1, max_size=3), min_size=1, max_size=5),
    st.sampled_from(["work", "awork"]),
    st.integers(0, 2),
    st.integers(1, 3),
    st.sampled_from(["item"] * 3 + ["batch", "run"]),
    st.none() | st.integers(1, 60),
    st.lists(st.builds(Command, VERBS, st.none() | st.integers(1, 40)), max_size=3),
)  # fmt: skip


# -- what is seen -------------------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """An undo entry, as its row says; ``mark`` is what the handler called it."""

    undo_id: int
    key: str
    attempt: int
    state: str
    action: str
    slot: str
    mark: int


@dataclass
class Seen:
    """A ledger and its world at one moment."""

    states: dict[str, str]
    batches: dict[str, int | None]
    values: dict[str, dict[str, str]]
    entries: list[Entry]
    world: dict[str, str]
    effects: dict[int, str] = field(default_factory=dict)
    called: list[int] = field(default_factory=list)

    def open_entries(self, key: str) -> list[Entry]:
        """Return what is not undone of an item, oldest first."""
        return [entry for entry in self.entries if entry.key == key and entry.state != "undone"]

    def made_by(self, keys) -> dict[str, str]:
        """Return the world that the effects of these items have made which are not undone."""
        open_now = [entry for entry in self.entries if entry.key in keys and entry.state != "undone"]
        return {entry.slot: self.effects[entry.mark] for entry in open_now if entry.mark in self.effects}

    @property
    def undone(self) -> set[int]:
        """The marks of what is undone."""
        return {entry.mark for entry in self.entries if entry.state == "undone"}


class Play:
    """One program in a folder of its own."""

    def __init__(self, lived, folder: Path, program: Program, workers: int) -> None:
        self.lived, self.folder, self.program, self.workers = lived, folder, program, workers
        (folder / "world").mkdir()
        (folder / "jobs.py").write_text(JOBS)
        (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in program.items))

    def notes(self) -> Iterator[list[str]]:
        """Yield what handlers and actions have noted."""
        path = self.folder / "notes"
        yield from (line.split() for line in (path.read_text().splitlines() if path.exists() else ()))

    def look(self) -> Seen:
        """Return what there is now; the ledger must be sound."""
        with Reader(self.folder / "l.db") as reader:
            items = reader.raw.execute("SELECT key, state, batch, value FROM v_item").fetchall()
            rows = reader.raw.execute("SELECT undo_id, key, attempt, state, action, arguments FROM v_undo ORDER BY undo_id").fetchall()
        assert [str(finding) for finding in Ledger(self.folder / "l.db").verify()] == []
        entries = [Entry(*row[:5], arguments["slot"], arguments["mark"]) for row in rows for arguments in [json.loads(row[5])]]
        seen = Seen(
            {key: state for key, state, _, _ in items}, {key: batch for key, _, batch, _ in items},
            {key: json.loads(value) for key, state, _, value in items if state == "succeeded"}, entries,
            {path.name: path.read_text() for path in (self.folder / "world").iterdir()},
        )  # fmt: skip
        for word, mark, *value in self.notes():
            if word == "effect":
                seen.effects[int(mark)] = value[0]
            else:
                seen.called.append(int(mark))
        return seen

    def live(self, command: Command) -> dict:
        """Do what a command says, and return how that ended."""
        words = self.program.common if command.words == ("run",) else command.words
        die = None if command.dies_at is None else f"any:{command.dies_at}:self"
        return self.lived.live(self.folder, *words, "--ledger", "l.db", "--progress", "none", "-j", self.workers, die=die)

    def outside(self, batch: str) -> set[str] | None:
        """Return the keys that are not in a checkpoint; None when there is none."""
        if batch == "0":
            return {item["key"] for item in self.program.items}
        try:
            return set(Ledger(self.folder / "l.db").latest().checkpoint(int(batch)).remaining())
        except NotFoundError:
            return None

    def meant(self, before: Seen, scope: tuple[str, ...]) -> set[str] | None:
        """Return the keys of the items that a rollback is about; None when it is refused."""
        if not scope:
            return set(before.states)
        option, value = scope
        if option == "--to-batch":
            return self.outside(value)
        if option == "--item":
            return {value} & set(before.states) or None
        return {key for key, batch in before.batches.items() if batch == int(value)} or None

    def play(self) -> list[Entry]:
        """Do it all, check after each life what then must be, and return what is not undone when everything is rolled back."""
        before, is_cut_off = self.first()
        for command in self.program.commands:
            if command.words == ("ease",):
                (self.folder / "eased").touch()
                continue
            scope = tuple(word for word in command.words[2:] if word != "--keep-going")
            meant = self.meant(before, scope) if command.words[0] == "rollback" else None
            told = self.live(command)
            seen = self.look()
            again = set(seen.called[len(before.called) :]) & before.undone
            assert again == set(), (command, again)
            if not told["has_died"] and command.words[0] == "rollback" and not is_cut_off:
                self.check_rollback(before, seen, meant, told)
            assert told["has_died"] or told["code"] in {*RUN_CODES, *REFUSED}, told
            goes_on = command.words[0] in ("run", "resume", "rollback") and told["code"] not in REFUSED
            is_cut_off = told["has_died"] or (is_cut_off and not goes_on)
            if not is_cut_off:
                self.check_world(seen)
            before = seen
        return self.check_the_end()

    def first(self) -> tuple[Seen, bool]:
        """Run the items for the first time, dying where the program says so, and go on if there is no run yet; tell whether it is cut off."""
        told = self.live(self.program.first)
        if not told["has_died"]:
            seen = self.look()
            self.check_world(seen)
            if self.program.atomic == "item":
                assert seen.states == {item["key"]: expected_end(item, self.program.retries) for item in self.program.items}
            return seen, False
        try:
            return self.look(), True
        except LedgerMissingError:
            return self.settled(), False

    def settled(self) -> Seen:
        """Go on until nothing is cut off any more."""
        told = self.live(Command(("run",), None))
        assert told["code"] in RUN_CODES, told
        return self.look()

    def check_the_end(self) -> list[Entry]:
        """Everything is done, and rolled back, which once more calls nothing; return what is not undone."""
        self.check_world(self.settled())
        (self.folder / "eased").touch()
        rollback = Command(("rollback", "--yes", "--keep-going"), None)
        told, seen = self.live(rollback), self.look()
        self.check_world(seen)
        left = [entry for entry in seen.entries if entry.state != "undone"]
        assert told["code"] == int(bool(left)), told
        assert "succeeded" not in seen.states.values(), seen.states
        self.live(rollback)
        again = self.look()
        assert (again.called, again.world, again.states) == (seen.called, seen.world, seen.states)
        return left

    # -- what must be ---------------------------------------------------------------------------------------------------------

    def check_world(self, seen: Seen) -> None:
        """The world is made of what is not undone; who has not succeeded has left nothing that is not listed."""
        assert seen.world == seen.made_by(seen.states)
        for key, state in seen.states.items():
            left = seen.open_entries(key)
            if state == "succeeded":
                # One that could be undone in part stays what it was, and is listed.
                mine = {slot: value for slot, value in seen.world.items() if slot.startswith(f"{key}.")}
                assert seen.values[key] == mine or "failed" in {entry.state for entry in left}, (key, mine, left)
            elif left:
                assert {entry.state for entry in left} & {"failed", "irreversible"}, (key, state, left)
        if not self.is_hard(seen.states):
            for keys in self.groups(seen):
                states = {seen.states[key] for key in keys}
                assert not {"succeeded", "failed"} <= states, (self.program.atomic, keys, seen.states)

    def groups(self, seen: Seen) -> list[list[str]]:
        """Return the keys of items of which all have succeeded, or none."""
        if self.program.atomic == "item":
            return []
        groups: dict[object, list[str]] = {}
        for key, batch in seen.batches.items():
            groups.setdefault(batch if self.program.atomic == "batch" else "all", []).append(key)
        return list(groups.values())

    def is_hard(self, keys) -> bool:
        """Tell whether one of these items may have effects that stay."""
        scripts = [script for item in self.program.items if item["key"] in keys for script in item["calls"]]
        return any(action in HARD for script in scripts for _, _, action in script["does"])

    def check_rollback(self, before: Seen, seen: Seen, meant: set[str] | None, told: dict) -> None:
        """Those that were meant are undone, the others as they were, and it went newest first; the exit code says whether anything remains."""
        if meant is None:
            assert told["code"] in REFUSED, told
            meant = set()
        for key in seen.states.keys() - meant:
            assert (seen.states[key], seen.open_entries(key)) == (before.states[key], before.open_entries(key)), key
        if not self.is_hard(meant):
            assert [key for key in meant if seen.states[key] == "succeeded" or seen.open_entries(key)] == []
        marks = {entry.mark: entry.undo_id for entry in seen.entries}
        called = [marks[mark] for mark in seen.called[len(before.called) :]]
        if not self.workers:
            assert called == sorted(called, reverse=True), called


def expected_end(item: dict, retries: int) -> str:
    """Return how an item ends in a run that nothing disturbs."""
    tries, has_snoozed, calls = 0, False, iter([*item["calls"], *[item["calls"][-1]] * 10])
    for script in calls:
        ends, stays = script["ends"], any(action in HARD for _, _, action in script["does"])
        if ends == "well" or (ends == "snoozes" and has_snoozed):
            return "succeeded"
        has_snoozed |= ends == "snoozes"
        tries += ends == "fails"
        if stays or ends == "fails for good" or tries > retries:
            return "failed"
        if ends == "skips":
            return "skipped"
    raise AssertionError(item)


#: A worker dies of an item that has done what cannot be undone: it has failed for good, and is no suspect.
DIES_WITH_MAIL = Program(
    [
        {"key": "i0", "calls": [{"does": [("post", value, "mail") for value in "zxy"], "ends": "well"}]},
        {"key": "i1", "calls": [{"does": [("a", "y", "plain"), ("post", "y", "mail"), ("a", "y", "plain")], "ends": "well"}]},
    ],
    "awork", 1, 1, "item", Command(("run",), 13), [],
)  # fmt: skip
#: An item fails for good while the run is undone because another has: that is no reason to stop.
HALTS_WHILE_STUCK = Program(
    [
        {"key": "i0", "calls": [{"does": [("post", "y", "mail")], "ends": "fails"}]},
        {"key": "i1", "calls": [{"does": [], "ends": "snoozes"}]},
        {"key": "i2", "calls": [{"does": [], "ends": "well"}, {"does": [("b", "z", "plain")], "ends": "fails for good"}]},
        {"key": "i3", "calls": [{"does": [("a", "y", "plain"), ("post", "x", "mail")], "ends": "fails"},
                                {"does": [("b", "y", "flaky"), ("post", "y", "mail"), ("b", "y", "plain")], "ends": "skips"}]},
        {"key": "i4", "calls": [{"does": [("a", "y", "stuck"), ("a", "z", "flaky"), ("b", "z", "plain")], "ends": "well"}]},
    ],
    "awork", 0, 3, "run", Command(("run",), 24), [],
)  # fmt: skip


# -- the tests ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lived():
    """Give lives."""
    with lives() as made:
        yield made


def play(lived, program: Program, workers: int) -> set[str]:
    """Play a program in a folder that is in memory where that is possible; return the states of entries that are not undone in the end."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None, prefix="durabatch-model-") as folder:
        return {entry.state for entry in Play(lived, Path(folder), program, workers).play()}


@hypothesis.settings(max_examples=hypothesis.settings.default.max_examples // 6)
@hypothesis.given(program=PROGRAMS)
def test_the_world_is_what_the_items_that_have_succeeded_made_of_it(lived, program):
    """Whatever fails, dies, is rolled back and run again: no effect is there of an item that has not succeeded, but those that are listed; none is missing."""
    assert play(lived, program, 0) <= {"irreversible"}


@hypothesis.settings(max_examples=hypothesis.settings.default.max_examples // 25)
@hypothesis.given(program=PROGRAMS)
@hypothesis.example(program=DIES_WITH_MAIL)
@hypothesis.example(program=HALTS_WHILE_STUCK)
def test_so_it_is_with_worker_processes(lived, program):
    """Two at once, of which one may die, or the coordinator."""
    assert play(lived, program, 2) <= {"irreversible"}
